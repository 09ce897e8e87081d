"""The way in: doors that take what producers publish, and the step that accepts it."""
