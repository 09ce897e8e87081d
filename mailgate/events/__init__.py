"""Telling producers what became of their mail, on the broker that it came by.

Owns the way from the journal's outbox to a topic exchange or a Redis stream. Never
decides what happened: the journal's events say so.
"""
