"""Layers restricted to the directions that their outputs use: low-rank surgery with an undo, and projections."""
