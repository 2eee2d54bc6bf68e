"""Reading a fleet file."""
