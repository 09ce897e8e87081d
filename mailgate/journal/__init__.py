"""The journal: every message, recipient, attempt and event, and the queue itself.

The only room that knows SQL. Hands out and takes in domain values.
"""
