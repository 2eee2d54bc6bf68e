"""A report as one HTML file: offline, light and dark, for paper and for a phone."""
