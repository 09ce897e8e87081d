"""Delivery of what was claimed: render, send, settle; and the judgement of what the dead left."""
