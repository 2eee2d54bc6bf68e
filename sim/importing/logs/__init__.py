"""Logs of trainers: what they say of the run, and how long its steps took."""
