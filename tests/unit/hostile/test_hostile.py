"""Whatever a producer, a relay or an author sends in: a decision, in time, within memory.

The targets are those of ``./dev fuzz``. What a campaign found stands in ``found``, by
target, and is run each time.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fuzz import Escaped, intake, relay, templates
from mailgate.contract.fields import MAX_DATA, MAX_RECIPIENTS
from mailgate.intake.accept import decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrival, NewParked
from mailgate.limits.policy import Policy
from mailgate.smtp.reply import MAX_LINE, MAX_LINES

TARGETS = {"intake": intake, "relay": relay, "templates": templates}
ROOT = Path(__file__).parents[3]
FOUND = Path(__file__).parent / "found"
M = 2**20
LARGEST = 16 * M
#: What docs/security.md promises of one document: bytes for each of its own, and besides.
EACH, BESIDES = 10, 64 * M


@pytest.mark.parametrize(
    "case", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_what_a_campaign_found_does_no_harm_again(case: Path) -> None:
    TARGETS[case.parent.name].run(case.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_what_everybody_sends_is_where_a_campaign_begins(name: str) -> None:
    seen = Counter(TARGETS[name].run(seed) for seed in TARGETS[name].seeds())
    good = {"intake": {"accepted", "cancel", "ask"}, "relay": {"sent "}, "templates": {"made"}}
    assert good[name] <= seen.keys()
    assert len(seen) > 3


def mutated(seeds: list[bytes], words: list[str]) -> st.SearchStrategy[bytes]:
    """Inputs near those that make sense: pieces cut out, doubled, overwritten, put in."""
    pieces = [word.encode("utf-8", "surrogatepass") for word in words] or [b""]

    def change(seed: bytes, dice: int, many: int) -> bytes:
        rolled, out = random.Random(dice), bytearray(seed)
        for _ in range(many):
            at = rolled.randrange(len(out) + 1)
            upto = min(len(out), at + rolled.choice([0, 1, 1, 2, 8, 40]))
            put = rolled.choice([b"", rolled.randbytes(rolled.choice([1, 1, 2, 8]))])
            out[at:upto] = rolled.choice([put, rolled.choice(pieces), bytes(out[at:upto]) * 2])
        return bytes(out)

    return st.builds(change, st.sampled_from(seeds), st.integers(0, 2**32), st.integers(0, 6))


@settings(max_examples=250)
@given(mutated(intake.seeds(), intake.WORDS) | st.binary(max_size=300))
def test_any_bytes_are_accepted_or_parked_with_a_reason(data: bytes) -> None:
    intake.run(data)


@settings(max_examples=250)
@given(mutated(relay.seeds(), relay.WORDS) | st.binary(max_size=300))
def test_any_relay_comes_to_one_outcome_in_time(data: bytes) -> None:
    relay.run(data)


@settings(max_examples=120)
@given(mutated(templates.seeds(), []) | st.binary(max_size=60))
def test_any_template_reaches_nothing_and_ends(data: bytes) -> None:
    templates.run(data)


# --- intake: memory and time -----------------------------------------------------------------

_TO = b'{"to":"ann@example.org","subject":"s","text":"t","data":{"a":['
_PEOPLE = [f"a{n}@example.org" for n in range(MAX_RECIPIENTS)]
_OWN = [{"email": one, "data": {"x": n}} for n, one in enumerate(_PEOPLE)]


def filled(unit: bytes, size: int = LARGEST) -> bytes:
    """A document of ``size`` that is nearly all one thing."""
    return _TO + unit * ((size - len(_TO) - 4) // len(unit)) + b"1]}}"


def twice(names: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % n for n in range(names)) + b',"k0":2}'


BOMBS: dict[str, bytes | dict[str, Any]] = {
    "lists": filled(b"[],", M),
    "objects": filled(b'{"":1},', M),
    "numbers": filled(b"257,", M + M // 8),
    "letters": filled('"一",'.encode(), M),
    "commas-in-texts": filled(b'"' + b"," * 500 + b'",'),
    "texts": filled(b'"' + b"x" * 140 + b'",'),
    "one-emoji": _TO[:-12] + b',"html":"' + b"x" * (LARGEST - 90) + '😀"}'.encode(),
    "one-name": b'{"' + b"a" * (LARGEST - 8) + b'":1}',
    "nan": filled(b"NaN,", M),
    "names-twice": _TO + b",".join([twice(9998)] * 3) + b"]}}",
    "fields-of-recipients": {
        "recipients": [{"email": one} | {f"k{n}": 1 for n in range(60)} for one in _PEOPLE],
        "subject": "s",
        "text": "t",
    },
    "blanks-before-an-address": {"to": [" " * 570 + "<a@b.d"] * 50, "subject": "s", "text": "t"},
    "wrong-items": {
        "to": "ann@example.org",
        "template": "activity_digest",
        "data": {"events": [1] * (MAX_DATA // 4)},
    },
    "wrong-data-for-all": {
        "recipients": _PEOPLE,
        "template": "notice",
        "data": {f"k{n}": 1 for n in range(9990)},
    },
    "wrong-data-for-each": {
        "recipients": _OWN[:300],
        "template": "notice",
        "data": {f"k{n}": 1 for n in range(150)},
    },
    # A tenth of the slowest that is known: each more of the recipients takes as long.
    "much-wrong-data-for-each": {
        "recipients": _OWN[:100],
        "template": "notice",
        "data": {f"k{n}": 1 for n in range(9900)},
    },
}
CONFIG = intake.CONFIG.model_copy(
    update={"intake": intake.CONFIG.intake.model_copy(update={"max_bytes": LARGEST})}
)


def decided(bomb: bytes | dict[str, Any]) -> tuple[object, int]:
    """What becomes of it, and its size."""
    body = bomb if isinstance(bomb, bytes) else json.dumps(bomb).encode()
    came = Delivery(body, "amqp", None, False, None, 1)
    return decide(came, CONFIG, intake.catalogue().check_data, Policy(CONFIG)), len(body)


@pytest.mark.parametrize("name", BOMBS)
def test_no_document_takes_more_than_the_stated_memory_and_a_moment(name: str) -> None:
    intake.run(intake.seeds()[0])  # what is read once and kept is not the document's
    begun = time.thread_time()
    made, size = decided(BOMBS[name])
    took = time.thread_time() - begun
    assert isinstance(made, NewParked | Arrival)
    assert took < (3 if name == "much-wrong-data-for-each" else 5), f"{took:.1f} s"
    if isinstance(made, NewParked):
        assert made.faults != "[]"
        assert len(made.faults) < 64_000
    del made
    tracemalloc.start()
    try:
        decided(BOMBS[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < EACH * size + BESIDES, f"{peak / M:.0f} MiB for {size / M:.1f} MiB"


_CHILD = """
import json, os, resource, sys
from pathlib import Path
from bench.fuzz import intake
from tests.unit.hostile.test_hostile import BOMBS, decided

def pages(of):
    found = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(of)]
    return int(found[0].split()[1]) * 1024

for seed in intake.seeds():
    intake.run(seed)
bombs = {n: b if isinstance(b, bytes) else json.dumps(b).encode() for n, b in BOMBS.items()}
most = pages("VmSize") + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for name, bomb in bombs.items():
    # Each in a process of its own: the most that it ever held only rises.
    if not (pid := os.fork()):
        before = pages("VmHWM")
        made, size = decided(bomb)
        print(name, type(made).__name__, size, pages("VmHWM") - before, flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, name
"""


def test_a_process_that_may_grow_by_no_more_reads_them_all() -> None:
    """Also what libraries take outside of Python's own memory is within what is stated."""
    most = EACH * LARGEST + BESIDES
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(most)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    lines = [line.split() for line in child.stdout.splitlines()]
    assert [line[0] for line in lines] == list(BOMBS)
    for name, made, size, grown in lines:
        assert made == "NewParked", name
        assert int(grown) < EACH * int(size) + BESIDES, f"{name}: {int(grown) / M:.0f} MiB"


def test_texts_full_of_commas_are_no_values() -> None:
    made, _ = decided({"to": "a@b.de", "subject": "s", "text": "," * M, "html": "[{," * 200_000})
    assert isinstance(made, Arrival)


# --- relays: what a person would try ---------------------------------------------------------

_HELLO = b"\x00220 x\r\n"
_FINE = [_HELLO, b"\x00250 x\r\n", b"\x00250 ok\r\n", b"\x00250 ok\r\n", b"\x00354 go\r\n"]


def script(*turns: bytes) -> bytes:
    return b"\x00" + relay.TURN.join(turns)


@pytest.mark.parametrize(
    ("turns", "ends"),
    [
        ([b"\x00" + b"2" * (MAX_LINE + 2)], "opening desync"),
        ([b"\xa6220-more\r\n"], "opening desync"),
        ([b"\xa6\x00"], "opening desync"),
        ([b"\x00220 x"], "opening timeout"),
        ([b"\x00\xff\xfb\x18\r\n"], "opening desync"),
        ([b"\x00-22 x\r\n"], "opening desync"),
        ([b"\x00220\xa0x\r\n"], "opening desync"),
        ([_HELLO + b"250 x\r\n"], "opening desync"),
        ([_HELLO, b"\xa6250-" + b"x" * 400 + b"\r\n"], "opening desync"),
        ([_HELLO, b"\x00250-x\r\n" + b"250-y\r\n" * MAX_LINES], "opening desync"),
        ([b"\xfb220 x\r\n", b"\x00250 x\r\n"], "opening timeout"),
        ([*_FINE[:4], b"\x00354 go\r\n250 ok\r\n"], "defer desync"),
        ([*_FINE, b"\x00999 ok\r\n"], "uncertain no_reply_after_dot"),
        ([*_FINE, b"\x01250 ok"], "uncertain no_reply_after_dot"),
        ([*_FINE, b"\xa6250-"], "uncertain no_reply_after_dot"),
    ],
)
def test_a_malicious_relay_comes_to_a_classified_end(turns: list[bytes], ends: str) -> None:
    assert relay.run(script(*turns)) == ends


def test_where_a_relay_cuts_its_words_does_not_matter() -> None:
    whole = [*_FINE, b"\x00250 2.0.0 queued\r\n"]
    whole += [*_FINE[2:], b"\x00250 2.0.0 queued\r\n"]
    assert relay.run(script(*whole)).startswith("sent")
    assert relay.run(script(*(b"\x01" + turn[1:] for turn in whole))).startswith("sent")


# --- templates: ways out that people know ----------------------------------------------------

WAYS_OUT = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__cla' ~ 'ss__'] }}",
    "{{ name['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ name|attr('__class__') }}",
    "{{ items|map(attribute='__class__')|join }}",
    "{{ items|map('attr', '__class__')|join }}",
    "{{ items|selectattr('__class__')|join }}",
    "{{ items|sort(attribute='__class__')|join }}",
    "{{ items|groupby('__class__') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(name) }}",
    "{{ '{0.__class__}'.format_map(extra) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(name) }}",
    "{{ ('{0.__class__}'|upper).format(name) }}",
    "{{ '%s'|format(name) }}",
    "{{ extra|xmlattr }}",
    "{{ {'a onmouseover=x': 1}|xmlattr }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ loop.__init__ }}",
    "{% for a in items %}{{ loop._iterator.gi_frame }}{% endfor %}",
    "{% for a in items %}{{ loop.cycle.__func__ }}{% endfor %}",
    "{{ (items|map('upper')).gi_frame.f_back }}",
    "{{ (items|map('upper'))|first.__class__ }}",
    "{% macro m() %}{{ caller.__closure__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__ }}{{ kwargs.__class__ }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{% import 'kit.html' as kit %}{{ kit.__dict__ }}",
    "{% import 'kit.html' as kit %}{{ kit._body_stream }}",
    "{% include '/etc/passwd' %}",
    "{% include '../../../etc/passwd' %}",
    "{% include 'kit.html\\x00' %}",
    "{% include name %}",
    "{% extends name %}",
    "{% from '/proc/self/environ' import a %}",
    "{{ theme.__class__ }}",
    "{{ theme.color.update({'a': 1}) }}",
    "{{ extra.update(extra) }}",
    "{{ items.append(items) }}",
    "{{ extra.items.__self__ }}",
    "{{ extra.values().mapping }}",
    "{{ config }}{{ request }}{{ get_flashed_messages() }}",
    "{{ lipsum.__globals__['os'].popen('id') }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ dict.mro() }}",
    "{% debug %}",
    "{% autoescape false %}{{ name }}{% endautoescape %}",
    "{{ name|safe }}",
]
MUCH = [
    "{{ 'x' * 10000000000 }}",
    "{{ items * 10000000000 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ huge * huge * huge * huge }}",
    "{{ '%999999999d' % 1 }}",
    "{{ 'x'|center(9999999999) }}",
    "{{ name|replace('', 'x' ~ name) }}",
    "{{ long|truncate(9999999999)|length ~ long|urlencode|urlencode|urlencode }}",
    "{% for a in range(10000000000) %}x{% endfor %}",
    "{% for a in long|lines %}{% for b in long|lines %}x{% endfor %}{% endfor %}",
    "{% for a in items recursive %}{{ loop(items) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ m(a ~ a) }}{% endmacro %}{{ m(long) }}",
    "{% macro m() %}{{ n() }}{{ n() }}{% endmacro %}{% macro n() %}{{ m() }}{% endmacro %}"
    "{{ m() }}",
    "{% block x %}{{ self.x() }}{{ self.x() }}{% endblock %}",
    "{% set a = long %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set a = long|lines %}" * 60 + "{{ a|length }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "[" * 2000 + "]" * 2000 + " }}",
    "{{ " + "name~" * 1000 + "name }}",
    "{% if name %}" * 500 + "{% endif %}" * 500,
    "{% for a in items %}" * 30 + "{% endfor %}" * 30,
    "{{ " + "9" * 6000 + " }}",
    "{{ name" + "|upper" * 5000 + " }}",
    "{{ name" + ".a" * 5000 + " }}",
    "{{ name" + "[0]" * 5000 + " }}",
    "{{ 1" + " if 1 else 1" * 3000 + " }}",
    "{{ long|richtext|richtext|richtext|richtext }}",
    "{{ 1e308 * 1e308 }}{{ (1e308 * 1e308)|int }}",
    "{{ number|number(999999999) }}",
    "{{ (long ~ long ~ long ~ long)|sort(attribute='a') }}",
    "{{ (long ~ long ~ long ~ long)|map('upper')|sort|join }}",
    "{{ long|unique|join }}{{ long|selectattr('a')|join }}",
    "{{ number|money(long) }}",
]


@pytest.mark.parametrize("text", [*WAYS_OUT, *MUCH], ids=lambda text: text[:40])
@pytest.mark.parametrize("html", [True, False], ids=["html", "text"])
def test_no_known_way_out_of_a_template_leads_anywhere(text: str, html: bool) -> None:
    ended = templates.attempt(text, html=html)
    if text in WAYS_OUT:
        assert ended in ("refused", "template_broken"), ended


def test_a_rendering_stays_within_its_memory() -> None:
    for text in (*MUCH[6:19:2], *MUCH[-3:]):
        templates.attempt(text)
        tracemalloc.start()
        try:
            templates.attempt(text)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 64 * M, f"{peak / M:.0f} MiB: {text[:60]}"


def test_the_watch_over_templates_sees_what_is_opened() -> None:
    templates._watch.begin()
    try:
        with pytest.raises(Escaped, match="touches open"):
            Path(__file__).read_bytes()
    finally:
        templates._watch.on = False
