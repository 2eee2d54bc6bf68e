"""Parameters fitted to measured runs, and fitted again without each source."""
