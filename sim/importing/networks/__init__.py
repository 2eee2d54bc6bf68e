"""Measured and described networks, as files of nodes and networks."""
