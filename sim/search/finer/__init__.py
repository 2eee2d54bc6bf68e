"""The best layouts of a search again: layers moved between stages, and ranks laid out otherwise."""
