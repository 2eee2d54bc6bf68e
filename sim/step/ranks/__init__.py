"""What chosen ranks do over a step, piece by piece."""
