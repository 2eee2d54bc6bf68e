"""Steps that others recorded, or that were simulated, as recordings: to be replayed elsewhere."""
