"""Items of digests: from what a producer says to a mail that could go alone.

Owns the way in which an item becomes the data of its digest's template, and the
spelling of faults in the producer's own terms. Pure. Never gathers (``journal.gathering``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mailgate.config.digests import Digest
from mailgate.config.shape import Config
from mailgate.contract.faults import Fault
from mailgate.contract.submission import Recipient, Submission
from mailgate.journal.arrivals import NewRecipient
from mailgate.journal.gathering import Gather, slot
from mailgate.model.value import replace

#: What follows ``data`` or ``recipients[n].data`` when a fault is in an item.
_ITEM = re.compile(r"^(data|recipients\[\d+\]\.data)\.([^.]+)\.\d+(?=\.|$)")

_SHARED = re.compile(r"^recipients\[\d+\]\.data")


def unfolded(said: Submission, config: Config) -> tuple[Submission, list[Fault]]:
    """The item as the digest of one that it would be alone, and what is wrong with it."""
    if said.digest is None:
        return said, []
    digest = config.digests.get(said.digest.name)
    if digest is None:
        known = ", ".join(sorted(config.digests))
        return said, [Fault("digest.name", f"is not configured; there are: {known}")]
    faults = []
    if said.stream and digest.stream and said.stream != digest.stream:
        rule = f"must be {digest.stream} or left out: digest {said.digest.name} says so"
        faults.append(Fault("stream", rule))
    changes: dict[str, Any] = {
        "template": digest.template,
        "stream": digest.stream or said.stream,
    }
    if said.recipients:
        # Each has an item of its own, with what it says laid over what all say.
        changes["data"] = dict(digest.data)
        changes["recipients"] = tuple(
            r.model_copy(update={"data": {digest.items: [{**said.data, **r.data}]}})
            for r in said.recipients
        )
    else:
        changes["data"] = {**digest.data, digest.items: [said.data]}
        changes["to"] = ()
        changes["recipients"] = tuple(
            # Of what the contract has read already.
            Recipient.model_construct(email=a.email, name=a.name, data={}, metadata={})
            for a in said.to
        )
    return said.model_copy(update=changes), faults


def in_its_words(faults: Sequence[Fault], original: Submission) -> list[Fault]:
    """Faults of the template's data as those of the item that was published."""
    found = {}
    for fault in faults:
        field = _ITEM.sub(r"\1", fault.field)
        if not original.recipients:
            field = _SHARED.sub("data", field)
        found[field, fault.rule] = Fault(field, fault.rule)
    return list(found.values())


def too_many(
    said: Submission,
    config: Config,
    check_data: Callable[[str, Mapping[str, Any]], Sequence[Any]],
) -> list[Fault]:
    """That the template does not take as many items as the digest shows, or no ``more``.

    ``said`` is unfolded, and its data fits.
    """
    assert said.digest is not None
    digest = config.digests[said.digest.name]
    data = {**said.data, **(said.recipients[0].data if said.recipients else {})}
    full = {**data, digest.items: data[digest.items] * digest.cap, "more": 1}
    wrong = check_data(digest.template, full)
    if not wrong:
        return []
    rule = f"{wrong[0].field} {wrong[0].rule}"
    return [Fault("digest.name", f"shows {digest.cap} items by a template that cannot: {rule}")]


def gathered(
    recipients: Sequence[NewRecipient],
    said: Submission,
    producer: str,
    digests: Mapping[str, Digest],
) -> list[NewRecipient]:
    """The recipients, each with the digest that it waits for."""
    if said.digest is None:
        return list(recipients)
    name, key = said.digest.name, said.digest.key or ""
    return [
        replace(
            r,
            gather=Gather(
                slot(name, producer, key, r.email),
                name,
                producer,
                key,
                digests[name],
                said.digest.id,
            ),
        )
        for r in recipients
    ]
