"""Freeze training: layers that have stopped changing skip the backward pass."""
