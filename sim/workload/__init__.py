"""The model's shape, and the kernels and collectives of its layers."""
