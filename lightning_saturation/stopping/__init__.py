"""When a profile has settled, and stopping then."""
