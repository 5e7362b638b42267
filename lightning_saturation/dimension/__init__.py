"""How many dimensions the data fills in every layer: TwoNN and PCA."""
