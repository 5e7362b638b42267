"""Layer saturation: how much of each layer's feature space the data fills."""
