"""Reports as text of 100 columns and as HTML."""
