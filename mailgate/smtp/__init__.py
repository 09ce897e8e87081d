"""Conversations with relays: kept connections, exact phases, replies understood.

The only room that knows aiosmtplib. Never renders, never writes the journal,
never reads a file with a password in it.
"""
