"""What a relay's refusal means, read from one table of rules.

Owns the reading: first rule that fits. Two separate questions are answered: is it
tried again, and is the address to blame. A 4xx or 5xx basic code beats an
enhanced code of another class. Pure; never counts, never waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mailgate.config.rules import READ
from mailgate.config.rules import Rule as OwnRule
from mailgate.model.outcome import (
    Kind,
    Outcome,
    Reply,
    Scope,
    Suppress,
    bounced,
    deferred,
    failed,
    untouched,
)
from mailgate.model.state import Phase
from mailgate.smtp.rules import MESSAGE, RULES, Rule

_LATER = re.compile(r"again|retry|later|wait|gr[ae]y.?list|slow|defer|resend|back", re.IGNORECASE)
_UNIT = (
    r"(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z]|\.\d|/)"
)
_NUMBER = r"(\d{1,6}(?:\.\d{1,3})?|an?|one)"
# "in 5 minutes", "after 1 hour and 30 minutes", "for 90s", "in 00:05:00", "retry after: 300".
_WHEN = re.compile(
    r"\b(?:in|after|wait|for|within|retry\w{0,4}|again)\b[\s:=]{0,3}"
    r"(?:at least |another |about |approximately )?"
    r"(?:(?P<h>\d{1,3}):(?P<m>\d\d):(?P<s>\d\d)\b"
    rf"|{_NUMBER}[\s-]?{_UNIT}(?:(?:,? and |,? ?)(\d{{1,2}})\s?{_UNIT})?)"
    r"|\bretry.after[\s:=]{1,3}(?P<bare>\d{1,6})\b(?!\s?[a-z.:/-])",
    re.IGNORECASE,
)
LONGEST_WISH = 7 * 86400.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after(text: str) -> float | None:
    """The wait in seconds that a reply asks for: "try again in 5 minutes", "in 00:05:00".

    It is the relay's wish: who schedules by it caps it, and beyond a week it is a week.
    """
    wait = _asked(text)
    return None if wait is None else min(wait, LONGEST_WISH)


def _asked(text: str) -> float | None:
    text = text[:READ]
    if _LATER.search(text) is None:
        return None
    found = _WHEN.search(text)
    if found is None:
        return None
    if found["bare"]:
        return float(found["bare"])
    if found["h"]:
        return float(int(found["h"]) * 3600 + int(found["m"]) * 60 + int(found["s"]))
    _, _, _, many, unit, more, smaller, _ = found.groups()
    wait = _times(many, unit)
    return wait + _times(more, smaller) if more else wait


def _times(number: str, unit: str) -> float:
    unit = unit.lower()
    if unit.startswith("milli"):
        unit = "ms"
    each = _SECONDS["ms"] if unit == "ms" else _SECONDS[unit[0]]
    return (float(number) if number[0].isdigit() else 1.0) * each


class Table:
    """Rules ready to be read, first match first. Operators' rules go before ``RULES``.

    Raises ``re.error`` when a rule's text is no regular expression.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(
            (
                rule,
                tuple(rule.codes.split()),
                re.compile("|".join(map(_detail, rule.enhanced.split())))
                if rule.enhanced
                else None,
                re.compile(rule.text, re.IGNORECASE) if rule.text else None,
            )
            for rule in rules
        )

    def match(self, phase: Phase, reply: Reply) -> Rule | None:
        """The first rule that fits, or None."""
        code = str(reply.code)
        detail = reply.enhanced[2:]
        text = reply.text[:READ].replace("\n", " ")
        for rule, codes, enhanced, pattern in self._rules:
            if (
                phase in rule.phases
                and (not codes or code.startswith(codes))
                and (enhanced is None or enhanced.fullmatch(detail))
                and (pattern is None or pattern.search(text))
            ):
                return rule
        return None

    def classify(self, phase: Phase, reply: Reply) -> Outcome:
        """What a reply means that ended ``phase`` in a way that was not hoped for."""
        rule = self.match(phase, reply)
        if rule is None:
            return deferred(phase, reply, "desync", Scope.CONNECTION)
        match rule.kind:
            case Kind.BOUNCE:
                return bounced(phase, reply, rule.error_class, suppress=rule.suppress)
            case Kind.FAIL:
                return failed(phase, reply, rule.error_class, rule.scope)
            case Kind.UNTOUCHED:
                return untouched(phase, reply, rule.error_class, rule.scope)
            case _:
                wait = retry_after(reply.text)
                wait = rule.wait if wait is None else wait
                return deferred(phase, reply, rule.error_class, rule.scope, wait, rule.suppress)


def _detail(spec: str) -> str:
    return spec.replace(".", r"\.").replace("*", r"\d+")


TABLE = Table(RULES)
_THEN = {"defer": Kind.DEFER, "bounce": Kind.BOUNCE, "fail": Kind.FAIL}


def table_for(rules: Mapping[str, OwnRule], relay: str) -> Table:
    """The table for what ``relay`` says: the operator's rules in their order, then ``RULES``.

    They speak of refusals of messages alone: before MAIL there is nobody to bounce, and
    a reply out of step stays what it is.
    """
    own = [
        Rule(
            _THEN[rule.then],
            rule.error_class or name,
            Scope(rule.scope),
            frozenset(map(Phase, rule.phases)) or MESSAGE,
            " ".join(rule.codes) or "4 5",
            rule.details(),
            rule.text or "",
            Suppress(rule.suppress),
            rule.wait,
            name,
        )
        for name, rule in rules.items()
        if not rule.relays or relay in rule.relays
    ]
    return Table([*own, *RULES]) if own else TABLE


def classify(phase: Phase, reply: Reply) -> Outcome:
    """The built-in table's word on a reply."""
    return TABLE.classify(phase, reply)
