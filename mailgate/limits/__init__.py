"""Rate limits: what a permit is, and the store of them in Redis or Valkey.

The store in the journal is ``journal.permits``. Nothing here knows what a message is
or which limits it falls under.
"""
