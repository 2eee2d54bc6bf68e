"""Real PyTorch scripts on devices that are not there: what a rank is told, its clock, its trace."""
