"""The report of a campaign, for a reader who was not there.

Owns its two forms, Markdown and JSON. Never decides what was a find.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.fuzz.campaign import Ran
from bench.keeping import RESULTS

_STAMP = "%Y-%m-%dT%H%M%SZ"

_HEAD = """\
# Fuzzing

{when}, {machine}; commit {commit}.

Each target is run by Atheris (libFuzzer) in a process of its own, led by the edges and
features of the code that an input reaches. The figures behind an arrow are those of the
end, those before it what the corpus reached by itself; what is read once and kept is in
neither. *Inputs at most* is how long an input may get. Some say how a value grows in the
target: *longest* is what came to it. Memory is the whole process's, and it dies at the bound;
besides, one document makes it grow by no more than ten times its size and 64 MiB. *Slowest*
is the input that came nearest to its bound of processor time, under instruments, which make
code about three times slower: what takes three times its bound is judged again without them,
and is a find where it takes more than its bound then. Again: `./dev fuzz --target TARGET
--seconds SECONDS --seed SEED`; the same dice, but how far they get is the machine's to say.

| Target | Seed | Seconds | Of a processor | Inputs | Inputs a second of it | Edges | Features \
| Corpus | Inputs at most (bytes) | Longest (bytes) | Memory, bound (MiB) \
| Slowest, its bound (s) | Judged again | Finds |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def _pace(ran: Ran) -> float:
    return ran.inputs / max(ran.processor, 1)


def markdown(lot: Sequence[Ran], of: str, when: datetime) -> str:
    text = _HEAD.format(
        when=f"{when:%Y-%m-%d %H:%M} UTC",
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        commit=of,
    )
    for ran in lot:
        cells = [
            *(f"`{ran.target}`", str(ran.seed), f"{ran.seconds:g}"),
            *(f"{ran.processor:g}", f"{ran.inputs:,}", f"{_pace(ran):,.0f}"),
            f"{ran.edges_began:,} → {ran.edges:,}",
            f"{ran.features_began:,} → {ran.features:,}",
            f"{ran.corpus_began:,} → {ran.corpus:,}",
            *(f"{ran.inputs_at_most:,}", f"{ran.longest:,}", f"{ran.memory}, {ran.memory_bound}"),
            f"{ran.slowest:.2f}, {ran.slowest_bound:.2f} ({ran.slowest_bytes:,} bytes)",
            *(str(ran.judged), str(len(ran.finds) or "none")),
        ]
        text += "| " + " | ".join(cells) + " |\n"
    text += "\n## What became of the inputs\n\n"
    for ran in lot:
        ended = ", ".join(f"{word.strip()} {many:,}" for word, many in ran.ended.items())
        text += f"- `{ran.target}`: {ended}\n"
        text += "".join(f"      found: {one}\n" for one in ran.finds)
    return text


def write(lot: Sequence[Ran], of: str, directory: Path = RESULTS) -> str:
    """Write both forms; gives the name of the Markdown."""
    when = datetime.now(UTC)
    directory.mkdir(exist_ok=True)
    path = directory / f"fuzz-{when:{_STAMP}}.md"
    path.write_text(markdown(lot, of, when))
    document = {
        "at": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "commit": of,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "targets": [
            asdict(ran) | {"inputs_a_processor_second": round(_pace(ran), 1)} for ran in lot
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    return f"bench/results/{path.name}"
