"""The configuration: its shape as frozen sections, and the one place that loads it."""
