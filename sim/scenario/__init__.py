"""Scenarios: the schema of a file, how it is read, resolved and checked, and what comes out."""
