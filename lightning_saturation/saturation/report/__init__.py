"""What a window of saturation says: plain data in, plain data out."""
