"""One training step: its program and the engines that run it."""
