"""``mailgate messages expire``: what waits too long is given up by hand."""

from __future__ import annotations

from dataclasses import replace

from mailgate.cli.changing import (
    Change,
    DryRunOption,
    MessageArgument,
    MostOption,
    YesOption,
    say_which,
)
from mailgate.cli.filters import JsonOption, ReasonOption, selects
from mailgate.cli.setting import setting
from mailgate.journal.filters import Filter
from mailgate.model.state import State, allowed

#: What can be given up: it waits, or is held. What is being sent comes to its end.
_EXPIRABLE = tuple(s for s in State if s is not State.SENDING and allowed(s, State.EXPIRED))


@selects
def expire(
    choice: Filter,
    message: MessageArgument = None,
    limit: MostOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give up what waits or is held: by id, or by any filter. It can be sent again later.

    It ends as expired, by_operator, as if its time were over: producers get that event.

    \b
    mailgate messages expire --template one_time_code --until 15m --dry-run
    mailgate messages expire --stream bulk --reason "the sale is over"
    """
    states = tuple(s for s in (choice.states or _EXPIRABLE) if s in _EXPIRABLE)
    choice = replace(choice, states=states)
    say_which(choice, False, "")
    change = Change(setting.config(), choice, State.EXPIRED, "expire", reason)
    change.run(dry_run, yes, limit, as_json)
