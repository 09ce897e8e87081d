"""What a producer may say: the model, its JSON Schema, and bytes → Submission, Command or Refusal.

Knows no broker, no journal and no template: what needs those is checked by
``intake.accept``.
"""

from mailgate.contract.commands import Command
from mailgate.contract.faults import Fault, RefusedRecipient
from mailgate.contract.read import Refusal, body_hash, read, remainder
from mailgate.contract.submission import Submission

__all__ = [
    "Command",
    "Fault",
    "Refusal",
    "RefusedRecipient",
    "Submission",
    "body_hash",
    "read",
    "remainder",
]
