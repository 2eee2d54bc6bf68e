"""Jobs: described, drawn, read from traces."""
