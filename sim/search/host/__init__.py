"""What leaves for the host: ways to keep tensors, and the search through layouts that need one."""
