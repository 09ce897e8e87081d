"""The report of a run of faults, for a reader who was not there.

Owns its two forms, Markdown and JSON. Never decides what was right.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.faults.fault import Seen
from bench.keeping import RESULTS

_STAMP = "%Y-%m-%dT%H%M%SZ"

_HEAD = """\
# Faults

{when}, {machine}. {count} faults, {held} withstood{rest}.

Each starts mailgate's own programs over real servers, publishes from outside, does harm,
waits until nothing waits, and compares three books: what was published and confirmed, the
journal, and what the relay wrote down. Withstood means: nothing lost; no recipient has
more copies than one and one for each attempt that is on record as uncertain; nothing
stands in one book that the others do not explain. The size is a share of the full one. One
again, on the code of that commit: `./dev faults --only NAME --seed SEED --size SIZE`.

| Fault | What is done | Must | Seen (UTC) | Commit | Servers | Size | Seed | Mails | Lost \
| Uncertain | Copies | First mail after (s) | Longest silence (s) | All done after (s) | Took (s) \
| |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""
_IN_COLUMNS = (
    "mails",
    "lost",
    "uncertain",
    "copies",
    "first_mail_after",
    "longest_silence",
    "all_done_after",
)


def markdown(lot: Sequence[Seen], when: datetime) -> str:
    held = sum(not (s.wrong or s.skipped) for s in lot)
    skipped = sum(bool(s.skipped) for s in lot)
    text = _HEAD.format(
        when=f"{when:%Y-%m-%d %H:%M} UTC",
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        count=len(lot),
        held=held,
        rest=f", {skipped} could not be made on this machine" if skipped else "",
    )
    for seen in lot:
        columns = [str(seen.figures.get(name, "")) for name in _IN_COLUMNS]
        state = "not here" if seen.skipped else "**WRONG**" if seen.wrong else "ok"
        run = [seen.when, seen.commit, seen.servers, f"{seen.size:g}", str(seen.seed)]
        cells = [f"`{seen.name}`", seen.what, seen.must, *run, *columns]
        cells += [f"{seen.seconds:g}", state]
        text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    text += "\n## More figures\n\n"
    for seen in lot:
        more = {k: v for k, v in seen.figures.items() if k not in _IN_COLUMNS}
        if more or seen.wrong or seen.skipped:
            told = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in more.items())
            text += f"- `{seen.name}`: {told}\n"
            for line in (seen.skipped or seen.wrong).splitlines()[:20]:
                text += f"      {line}\n"
    return text


def gathered(paths: Sequence[Path], order: Sequence[str]) -> list[Seen]:
    """What several reports (their JSON, oldest first) say of each fault, the newest of each.

    ``order`` are the names of the faults there are: of others nothing is kept.
    """
    newest: dict[str, Seen] = {}
    for path in paths:
        written = datetime.strptime(path.stem, f"faults-{_STAMP}").replace(tzinfo=UTC)
        for said in json.loads(path.read_text())["faults"]:
            newest[said["name"]] = Seen(**{"when": f"{written:%Y-%m-%d %H:%M}"} | said)
    return [newest[name] for name in order if name in newest]


def write(lot: Sequence[Seen], directory: Path = RESULTS) -> Path:
    """Write both forms; gives the path of the Markdown."""
    when = datetime.now(UTC)
    directory.mkdir(exist_ok=True)
    path = directory / f"faults-{when:{_STAMP}}.md"
    path.write_text(markdown(lot, when))
    # Where a file lay on this machine is nobody's business.
    command = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    document = {"command": command, "faults": [asdict(seen) for seen in lot]}
    path.with_suffix(".json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    return path
