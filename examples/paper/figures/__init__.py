"""The papers' figures from this project's own runs: a file per kind of figure, all drawn by ``draw.py``."""
