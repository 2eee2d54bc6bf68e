"""Inside an emulated rank: the device that PyTorch believes in, and what each operator costs on it."""
