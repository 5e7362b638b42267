"""Many networks trained alike, and their saturation against what they are for."""
