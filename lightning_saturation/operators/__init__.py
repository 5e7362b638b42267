"""Layers as linear operators, and how their eigenvalues lie."""
