"""Verbs that show results: a page of its own, and pages in a browser."""
