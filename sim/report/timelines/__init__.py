"""Timelines that Perfetto and chrome://tracing open as they are."""
