"""The reports of `ersatz buy`."""
