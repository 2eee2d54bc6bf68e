"""What a search over mixes of devices says."""
