"""Parts of a scenario file resolved: names to descriptions, defaults to stated assumptions."""
