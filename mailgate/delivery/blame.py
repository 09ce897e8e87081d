"""What a settled failure says about its address.

Owns how the outcome's word on suppression becomes an entry: when, and for how
long. Pure; never knows whether the address is suppressed already.
"""

from __future__ import annotations

from mailgate.config.suppressions import Suppressions
from mailgate.journal.suppressions import Blame
from mailgate.model.message import Claim
from mailgate.model.outcome import Outcome, Suppress

#: The class of a failure that passes when the addressee tidies up.
_FULL = "mailbox_full"


def blamed(claim: Claim, outcome: Outcome, policy: Suppressions, now: int) -> Blame | None:
    """What is held against the address after ``outcome`` has ended its recipient's way.

    None when the address is not to blame, or no bounce is to suppress. ``now`` is
    milliseconds.
    """
    if not policy.bounces or outcome.suppress is Suppress.NEVER:
        return None
    hits, lasts = 1, policy.lasts
    if outcome.suppress is Suppress.AGAIN:
        full = outcome.error_class == _FULL
        hits = policy.full_after if full else policy.refused_after
        lasts = policy.full_lasts if full else policy.refused_lasts
    if not hits:
        return None
    return Blame(
        address=claim.address.folded,
        reason=outcome.error_class,
        evidence=f"{claim.relay}: {outcome.reply}",
        expires_at=now + int(lasts * 1000),
        hits=hits,
        apart=int(policy.apart * 1000),
        within=int(policy.forget * 1000),
    )
