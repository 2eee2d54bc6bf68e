"""What moves beside the kernels of a step: weights between ranks, copies with the host."""
