"""Configurations in YAML, TOML and JSON, as scenarios."""
