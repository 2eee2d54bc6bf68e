"""Text in and out: quantities with units, YAML with places, what is wrong said so that it can be mended."""
