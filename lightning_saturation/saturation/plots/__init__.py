"""Saturation as matplotlib figures; none of them touches pyplot's global state."""
