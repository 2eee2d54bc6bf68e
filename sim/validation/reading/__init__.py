"""Tables of measured runs: cells read, rows turned into scenarios, blanks filled and stated."""
