"""Convergent learning: whether two networks learned the same units."""
