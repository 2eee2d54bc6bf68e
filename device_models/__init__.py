"""What hardware and software can do: pure functions and data, without time or randomness."""
