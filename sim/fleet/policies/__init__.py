"""Schedulers that ersatz has: orders, placements, reservations, preemption; by name in `registry`."""
