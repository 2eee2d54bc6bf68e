"""Verbs of what is measured: predictions against it, a stack or a device moved to it."""
