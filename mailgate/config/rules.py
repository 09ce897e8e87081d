"""The sections of operators' own rules on what a relay's refusal means.

Owns their shape, and the bound on what a pattern may cost: the relay writes the text
that it runs over. Never reads a reply: ``smtp.classify`` does.
"""

from __future__ import annotations

import re
import warnings
from re import _constants as _code  # type: ignore[attr-defined]  # no public reader of patterns
from re import _parser  # type: ignore[attr-defined]
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mailgate.config.terms import Duration, Name, Section, refuse

#: Words are looked for in so much of a reply (characters): the relay could make it long.
READ = 1000
#: A pattern may try so many ways from each place of a text before it gives up.
_WAYS = 2000
#: Longest pattern, in characters.
_PATTERN = 500
_CODES = re.compile(r"[45]\d{0,2}\Z")
_ENHANCED = re.compile(r"[45x]\.(\d{1,3}\.(?:\d{1,3}|\*))\Z")


def _texts(value: Any) -> Any:
    """A code may be written as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, list | tuple):
        return [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in value]
    return value


class Rule(Section):
    """One rule; every condition that is set must hold, and one at least must be set."""

    phases: tuple[Literal["mail", "rcpt", "data", "body", "dot"], ...] = Field(
        (), description="What the reply was to; anything said about a message by default."
    )
    codes: Annotated[tuple[str, ...], BeforeValidator(_texts)] = Field(
        (), description="Basic codes or their beginnings: '550', '45', '5'."
    )
    enhanced: tuple[str, ...] = Field(
        (),
        description="Enhanced codes: '5.7.1', '5.7.*'. Their class is not compared: the basic "
        "code decides it.",
    )
    text: str | None = Field(
        None,
        description="A regular expression that is looked for in the reply's text, without case.",
    )
    relays: tuple[str, ...] = Field((), description="Only what these relays say; all by default.")
    then: Literal["defer", "bounce", "fail"] = Field(
        description="defer: later; bounce: never, because of the address; fail: never, because "
        "of the message or of us."
    )
    error_class: Name | None = Field(
        None, description="As lists and events show it; the rule's name by default."
    )
    scope: Literal["recipient", "message", "connection", "domain", "relay", "sender"] = Field(
        "recipient",
        description="Whose failure it is: breakers count those of domains, relays and senders.",
    )
    suppress: Literal["never", "now", "again"] = Field(
        "never",
        description="Whether the address gets no more mail: never, now, or when it happens again.",
    )
    wait: Duration | None = Field(
        None, gt=0, description="How long to defer at least when the reply names no time."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        faults = []
        if not (self.codes or self.enhanced or self.text):
            faults.append(("codes", "is required, or enhanced or text: the rule would fit all"))
        faults += [
            ("codes", f"holds '{code}': write '550', '45' or '5', beginning with 4 or 5")
            for code in self.codes
            if not _CODES.match(code)
        ]
        faults += [
            ("enhanced", f"holds '{code}': write '5.7.1' or '5.7.*'")
            for code in self.enhanced
            if not _ENHANCED.match(code)
        ]
        if self.text is not None and (rule := pattern_fault(self.text)):
            faults.append(("text", rule))
        if self.wait is not None and self.then != "defer":
            faults.append(("wait", f"is for then = 'defer', and then is '{self.then}'"))
        if self.then == "bounce" and self.scope != "recipient":
            faults.append(("scope", "must be 'recipient' with then = 'bounce'"))
        if self.suppress == "now" and self.then != "bounce":
            faults.append(("suppress", "'now' is for then = 'bounce'"))
        if self.suppress == "again" and (self.then == "fail" or self.scope != "recipient"):
            faults.append(("suppress", "'again' is for what is the recipient's, and no fail"))
        refuse(faults)
        return self

    def details(self) -> str:
        """The enhanced codes without their class, separated by spaces."""
        found = [_ENHANCED.match(code) for code in self.enhanced]
        return " ".join(match[1] for match in found if match)


def pattern_fault(text: str) -> str | None:
    """Why a pattern is refused: it is none, or a reply could make it slow. None when it is good."""
    if len(text) > _PATTERN:
        return f"must be at most {_PATTERN} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ways = _ways(_parser.parse(text, re.IGNORECASE))
            re.compile(text, re.IGNORECASE)
    except _Refused as error:
        return str(error)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    if ways > _WAYS:
        return (
            "could take long over a reply made to be slow: bound its repetitions, as in "
            "'.{0,40}' for '.*', and put none inside another"
        )
    return None


class _Refused(Exception):
    pass


def _ways(items: Any) -> int:
    """In how many ways a pattern may match from one place, at most; more than allowed is enough.

    Backtracking tries them all when what follows does not match.
    """
    total = 1
    for op, argument in items:
        total *= _ways_of(op, argument)
        if total > _WAYS:
            return total
    return total


def _ways_of(op: Any, argument: Any) -> int:
    if op in (_code.MAX_REPEAT, _code.MIN_REPEAT, _code.POSSESSIVE_REPEAT):
        low, high, inner = argument
        high = min(int(high), READ)
        each = _ways(inner)
        if each == 1:
            return high - low + 1 if high >= low else 1
        # One after another, each in every way.
        return min(_WAYS + 1, sum(each ** min(n, 32) for n in range(low, high + 1)) or 1)
    if op is _code.BRANCH:
        return sum(_ways(branch) for branch in argument[1])
    if op is _code.SUBPATTERN:
        return _ways(argument[3])
    if op in (_code.ASSERT, _code.ASSERT_NOT):
        return _ways(argument[1])
    if op is _code.ATOMIC_GROUP:
        return _ways(argument)
    if op in (_code.GROUPREF, _code.GROUPREF_EXISTS):
        raise _Refused("must not refer back to a group")
    return 1
