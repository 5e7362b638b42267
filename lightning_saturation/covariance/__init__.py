"""From rows to moments or a sketch, over batches and ranks, and to eigenvalues. Knows no model."""
