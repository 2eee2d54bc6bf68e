"""Kernels measured on one device: kept, interpolated, carried over to relatives."""
