"""Hardware in the loop: real kernels timed, the device fitted, a real training run predicted."""
