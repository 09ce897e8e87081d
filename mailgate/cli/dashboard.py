"""How ``mailgate status`` looks: what needs a person first, then the figures.

Owns the words and the colours, for a terminal as for a pipe. Never asks anybody: it is
given what was found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mailgate.cli.setting import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

Found = Mapping[str, Any]

_LANES = ("high", "normal", "bulk")
_GOOD, _BAD, _SO_SO = "green", "bold red", "yellow"
#: How a relay's state is seen from afar.
_STATES = {"closed": _GOOD, "slowed": _SO_SO, "half-open": _SO_SO, "open": _BAD, "paused": _SO_SO}
#: A queue or lane that is due for longer than this is coloured (seconds).
_LATE = 60
#: From this width on two things stand side by side.
_WIDE = 110
#: Beat leaves its trace several times within this (seconds).
_SILENT = 60


def show(found: Found) -> None:
    """Print it once; in a pipe without colours, and no line is cut."""
    console = _console()
    if console.is_terminal:
        console.print(picture(found, wide=console.width >= _WIDE))
        return
    with console.capture() as written:
        console.print(picture(found))
    print("\n".join(line.rstrip() for line in written.get().splitlines()))


@contextmanager
def watched() -> Iterator[Callable[[Found | str], None]]:
    """Show it over and over, on a screen of its own where there is one; Ctrl-C ends it.

    A text is shown in place of what could not be found.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = _console()
    try:
        if not console.is_terminal:
            yield lambda found: print(clean(found)) if isinstance(found, str) else show(found)
            return
        with Live(console=console, auto_refresh=False, screen=True) as live:

            def update(found: Found | str) -> None:
                now = _moment(int(time.time() * 1000))
                head = Text.assemble(("mailgate", "bold"), (f"  {now}, Ctrl-C ends", "dim"))
                if isinstance(found, str):
                    shown: RenderableType = _cell(found, _BAD)
                else:
                    shown = picture(found, wide=console.width >= _WIDE)
                live.update(Group(head, shown), refresh=True)

            yield update
    except KeyboardInterrupt:
        return


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, emoji=False, markup=False, width=200)


def picture(found: Found, *, wide: bool = False) -> RenderableType:
    """Everything, from the top of the screen down; ``wide`` sets two things side by side."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [_headline(found)]
    rows: list[list[tuple[str, RenderableType | None]]] = [
        [("last minute", _lately(found)), ("recipients", _recipients(found))],
        [("lanes", _lanes(found)), ("broker", _queues(found))],
        [("digests", _digests(found)), ("events", _events(found))],
        [("clean-up", _cleaned(found))],
        [("relays", _relays(found))],
        [("processes", _processes(found))],
    ]
    for row in rows:
        cells = [
            Group(Text(title, style="bold"), table) for title, table in row if table is not None
        ]
        if wide and len(cells) > 1:
            beside = Table.grid(padding=(0, 6, 0, 0))
            beside.add_row(*cells)
            cells = [Group(beside)]
        for cell in cells:
            parts += [Text(), cell]
    return Group(*parts)


def wrong(found: Found) -> list[str]:
    """What needs a person, as sentences; the worst first."""
    out = []
    due = {name: row for name, row in found["lanes"].items() if row["due"]}
    if due and not found["workers"]:
        out.append("mail is due and no worker lives")
    for one in found["breakers"]:
        out.append(f"no mail {one['where']}: {one['reason']}")
    if "beat_s" in found and (found["beat_s"] is None or found["beat_s"] > _SILENT):
        silent = "ever" if found["beat_s"] is None else f"for {age(found['beat_s'])}"
        out.append(f"no beat was seen {silent}: no schedule fires")
    for queue in found.get("queues", ()):
        if queue["waiting"] is None and queue["fault"].startswith("the broker is away"):
            out.append(queue["fault"])
            break
    for producer in found.get("events", {}).get("refused", ()):
        out.append(f"events of {producer} are refused by its broker")
    for one in found["processes"]:
        who = f"{one['kind']} {one['host']} {one['pid']}"
        out += [f"{who} refuses its new configuration: {fault}" for fault in one["faults"]]
    return out


def noted(found: Found) -> list[str]:
    """What somebody should know, and may be meant."""
    out = []
    for one in found["pauses"]:
        what = f"{one['kind']} {one['name']}".strip()
        out.append(f"paused {what}: {one['who']}, {one['reason']} ({age(one['since_s'])})")
    keys: dict[str, list[str]] = {}
    for one in found["processes"]:
        for key in one["restart"]:
            keys.setdefault(key, []).append(f"{one['kind']} {one['pid']}")
    out += [f"{key} needs a restart of {', '.join(who)}" for key, who in keys.items()]
    if len({one["config"] for one in found["processes"]}) > 1:
        out.append("processes run different configurations: see below")
    if held := found["states"].get("held"):
        out.append(f"{held:,} held: mailgate failures list --state held")
    if found["parked"]:
        out.append(f"{found['parked']:,} parked: mailgate parked list")
    return out


def _headline(found: Found) -> RenderableType:
    from rich.text import Text

    bad, known = wrong(found), noted(found)
    lines = []
    if "sandbox" in found:
        # Before all else: whoever looks for mail must not look for long.
        lines.append((f"sandbox {found['sandbox']}", _SO_SO))
    if not bad:
        well = ("all goes well", _GOOD) if found["workers"] else ("no worker lives", _SO_SO)
        lines.append(well)
    lines += [(line, _BAD) for line in bad] + [(line, _SO_SO) for line in known]
    text = Text()
    for n, (line, style) in enumerate(lines):
        text.append(("\n" if n else "") + clean(line), style)
    return text


def _lately(found: Found) -> RenderableType:
    colours = {"sent": _GOOD, "deferred": _SO_SO, "failed": _BAD, "uncertain": _BAD}
    table = _grid(*found["last_minute"])
    cells = []
    for name, number in found["last_minute"].items():
        cells.append(_cell(f"{number:,}", colours.get(name, "") if number else "dim"))
    table.add_row(*cells)
    return table


def _lanes(found: Found) -> RenderableType:
    table = _grid("lane", "waiting", "due", "oldest due", "under way", words=("lane",))
    blank = {"waiting": 0, "due": 0, "oldest_due_s": 0, "under_way": 0}
    paused = {p["name"] for p in found["pauses"] if p["kind"] == "lane"}
    everything = any(p["kind"] == "all" for p in found["pauses"])
    for lane in _LANES:
        row = found["lanes"].get(lane, blank)
        old = row["oldest_due_s"] if row["due"] else 0
        stops = " (paused)" if lane in paused or everything else ""
        table.add_row(
            _cell(lane + stops, _SO_SO if stops else ""),
            _cell(f"{row['waiting']:,}", "" if row["waiting"] else "dim"),
            _cell(f"{row['due']:,}", "" if row["due"] else "dim"),
            _cell(age(old) if row["due"] else "-", _SO_SO if old > _LATE else "dim"),
            _cell(f"{row['under_way']:,}", _GOOD if row["under_way"] else "dim"),
        )
    return table


def _recipients(found: Found) -> RenderableType:
    states = sorted(found["states"].items())
    if not states:
        return _cell("none yet", "dim")
    colours = {"sent": _GOOD, "failed": _BAD, "bounced": _BAD, "uncertain": _BAD, "held": _SO_SO}
    table = _grid(*(state for state, _ in states))
    table.add_row(*(_cell(f"{number:,}", colours.get(state, "")) for state, number in states))
    return table


def _digests(found: Found) -> RenderableType | None:
    if not (number := found["digests"]["gathering"]):
        return None
    return _cell(
        f"{number:,} gathering, the next goes at {_moment(found['digests']['next_due_at'])}"
    )


def _events(found: Found) -> RenderableType | None:
    events = found.get("events", {})
    if not events.get("waiting"):
        return None
    oldest = f"the oldest for {age(events['oldest_s'])}"
    style = _SO_SO if events["oldest_s"] > _LATE else ""
    return _cell(f"{events['waiting']:,} not published yet, {oldest}", style)


def _cleaned(found: Found) -> RenderableType | None:
    if not (cleaned := found["cleaned"]):
        return None
    counts = [f"{name} {count:,}" for name, count in cleaned["done"].items()]
    rest = "" if cleaned["finished"] else "; it did not come to the end"
    done = ", ".join(counts) or "nothing to do"
    return _cell(f"cleaned {_moment(cleaned['at'])}: {done}{rest}", "" if rest else "dim")


def _relays(found: Found) -> RenderableType | None:
    if not found["relays"]:
        return None
    table = _grid("relay", "host", "state", "rate", "why", words=("relay", "host", "state", "why"))
    for one in found["relays"]:
        table.add_row(
            _cell(one["name"]),
            _cell(one["host"] or "not configured", "" if one["host"] else "dim"),
            _cell(one["state"], _STATES.get(one["state"], "")),
            _cell(one["effective_rate"] or "-", "" if one["effective_rate"] else "dim"),
            _cell(one["reason"] or ""),
        )
    return table


def _queues(found: Found) -> RenderableType | None:
    rows = found.get("queues", ())
    if not rows:
        return None
    table = _grid("queue", "waiting", "", words=("queue", ""))
    for one in rows:
        number = "?" if one["waiting"] is None else f"{one['waiting']:,}"
        table.add_row(
            _cell(one["queue"]),
            _cell(number, "" if one["waiting"] else "dim"),
            _cell(one["fault"], "dim"),
        )
    return table


def _processes(found: Found) -> RenderableType | None:
    rows = found["processes"]
    if not rows:
        return None
    words = ("process", "host", "configuration")
    table = _grid("process", "host", "pid", "up", "seen", "configuration", words=words)
    common = [one["config"] for one in rows]
    usual = max(common, key=common.count)
    for one in rows:
        state = "refused a new one" if one["faults"] else ""
        state = state or ("needs a restart" if one["restart"] else "")
        table.add_row(
            _cell(one["kind"]),
            _cell(one["host"]),
            _cell(str(one["pid"])),
            _cell(age(one["up_s"])),
            _cell(f"{one['seen_s']:.0f} s", "dim"),
            _cell(
                f"{one['config']} since {_moment(one['config_at'])}"
                + (f", {state}" if state else ""),
                _SO_SO if state or one["config"] != usual else "",
            ),
        )
    return table


def age(seconds: float) -> str:
    """``42 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``: as exact as a person needs."""
    s = int(seconds)
    if s < 120:
        return f"{s} s"
    if s < 7200:
        return f"{s // 60} min"
    if s < 172_800:
        return f"{s // 3600} h {s % 3600 // 60} min"
    return f"{s // 86400} d {s % 86400 // 3600} h"


def _moment(ms: int) -> str:
    from mailgate.cli.tables import when

    return when(ms)


def _cell(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(clean(text), style=style)


def _grid(*columns: str, words: tuple[str, ...] = ()) -> Table:
    """Words to the left, figures to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.show_header = any(columns)
    for name in columns:
        left = name in words or not name
        table.add_column(
            clean(name), justify="left" if left else "right", min_width=7, overflow="fold"
        )
    return table
