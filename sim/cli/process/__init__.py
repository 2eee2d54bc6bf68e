"""The process around a verb: its streams and terminal, and what it has read."""
