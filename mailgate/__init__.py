"""mailgate: the asynchronous email gateway that services share.

Owns nothing itself; the folders below show the way of a message, and
``docs/architecture.md`` walks it.
"""

__version__ = "0.1.0"
