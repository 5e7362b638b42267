"""See what the layers of a network do while it trains."""
