"""``./dev bench render``: a mail's HTML and bytes beside the plain ways to make them.

Owns the sides and their clock. Processor time of one thread, the best of several rounds
taken in turns: other work on the machine hardly moves it. Nothing is sent.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import jinja2

from bench.keeping import RESULTS, commit
from bench.traffic import LOCALES, Mix
from mailgate.model.address import Address
from mailgate.model.message import Letter
from mailgate.render import Catalogue, Renderer, Template, built_in_root, encode, mime, proof
from mailgate.render.filters import FILTERS
from mailgate.render.inline import inline
from mailgate.render.links import Url
from mailgate.render.renderer import Stats

try:
    import css_inline  # not among the locked packages: pip install css-inline
except ImportError:
    css_inline = None

SENDER = Address("shop@example.com", "Example")
ROUNDS = 5
#: The longest a single measurement may take (seconds).
PATIENCE = 0.15


@dataclass(frozen=True)
class Row:
    """Milliseconds a mail of one template, each side's best round."""

    template: str
    kilobytes: float
    jinja: float
    premailer: float
    css_inline: float | None
    hit: float
    miss: float


def best(*sides: Callable[[], object]) -> list[float]:
    """Milliseconds a call, the sides in turns."""
    found = [float("inf")] * len(sides)
    for _ in range(ROUNDS):
        for number, side in enumerate(sides):
            calls, begun = 0, time.thread_time()
            while (spent := time.thread_time() - begun) < PATIENCE / ROUNDS or not calls:
                side()
                calls += 1
            found[number] = min(found[number], spent * 1000 / calls)
    return found


def plain_jinja(template: Template, locale: str) -> jinja2.Template:
    """The same sources under Jinja as it comes: no sandbox, no budget, no tokens."""
    ours: Any = template.variant(locale).html.environment
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(ours.sources),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        # Our |url gives a str of its own kind, which plain Jinja escapes like any other.
        finalize=lambda value: str(value) if type(value) is Url else value,
    )
    environment.filters.update(FILTERS)
    environment.globals["theme"] = template.theme.tokens
    return environment.get_template(f"{template.name}/{locale}.html")


def one_template(template: Template) -> Row:
    data = template.fixtures["typical"]
    variant = template.variant("en")
    context = template.context(data, variant, SENDER, None)
    jinja = plain_jinja(template, "en")
    renderer = Renderer(_only(template))
    page = jinja.render(context)
    assert inline(page), template.name

    def hit() -> str:
        values: list[str] = []
        plan = renderer._plan(template, variant, context, values)
        assert plan is not None
        return plan.html(values)

    def miss() -> str:
        renderer.cache._kept.clear()
        return hit()

    # A worker proves one shape in 32; the first eight are behind us.
    for _ in range(proof.FIRST):
        miss()
    assert proof.same_document(hit(), inline(page)), template.name
    sides: list[Callable[[], object]] = [
        lambda: jinja.render(context),
        lambda: inline(jinja.render(context)),
        hit,
        miss,
    ]
    if css_inline is not None:
        inliner = css_inline.CSSInliner(load_remote_stylesheets=False)
        sides.append(lambda: inliner.inline(jinja.render(context)))
    found = best(*sides)
    return Row(
        template.name,
        round(len(hit().encode()) / 1000, 1),
        found[0],
        found[1],
        found[4] if css_inline is not None else None,
        found[2],
        found[3],
    )


def _only(template: Template) -> Catalogue:
    return Catalogue({template.name: template})


# --- the mix --------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """What a run of the mix says; ``hits`` are shares."""

    messages: int
    hits: float
    hits_warm: float
    stats: Stats
    microseconds: float


def letter(number: int, template: str, data: Mapping[str, Any], locale: str) -> Letter:
    return Letter(
        message_id=f"<{number}@shop.example>",
        date=1_700_000_000_000 + number,
        boundary_seed=str(number),
        sender=SENDER,
        to=(Address(f"reader{number}@example.org", "A Reader"),),
        template=template,
        data=data,
        locale=locale,
    )


def traffic(catalogue: Catalogue, count: int, *, coins: bool = False) -> Traffic:
    """Render the mix from a cold start."""
    renderer = Renderer(catalogue)
    spent = 0.0
    half = renderer.stats()
    messages = 0
    for number, sent in enumerate(Mix(catalogue, coins=coins).messages(count)):
        made = letter(number, sent.template, sent.data, sent.locale)
        begun = time.thread_time()
        renderer.render(made)
        spent += time.thread_time() - begun
        messages += 1
        if messages == count // 2:
            half = renderer.stats()
    stats = renderer.stats()
    return Traffic(
        messages,
        stats.fast / messages,
        (stats.fast - half.fast) / max(1, messages - half.fast - half.made - half.full),
        stats,
        spent * 1e6 / messages,
    )


# --- MIME -----------------------------------------------------------------------------


def mime_rows(catalogue: Catalogue) -> dict[str, float]:
    """Microseconds for a 12 kB alternative: wire-ready parts, own words, the standard library."""
    renderer = Renderer(catalogue)
    template = catalogue.get("password_reset")
    assert isinstance(template, Template)
    parts = renderer.preview("password_reset", template.fixtures["typical"], "en")
    html = (parts.html + " " * 12_000)[:12_000].rstrip().ljust(12_000, "x")
    wire = encode.quoted_printable(html)
    words = encode.quoted_printable(parts.text)
    one = letter(1, "password_reset", {}, "en")
    body = mime.Body(parts.subject, words, wire)

    def own() -> bytes:
        encoded = encode.quoted_printable(html)
        text = encode.quoted_printable(parts.text)
        return mime.build(one, mime.Body(parts.subject, text, encoded))

    def library() -> bytes:
        mail = EmailMessage(policy=email.policy.SMTP)
        mail["From"], mail["To"], mail["Subject"] = "shop@example.com", "a@b.example", "x"
        mail.set_content(parts.text)
        mail.add_alternative(html, subtype="html")
        return mail.as_bytes()

    assert mime.build(one, body) == own() == own()
    found = best(lambda: mime.build(one, body), own, library)
    names = ("from a filled skeleton", "from text and HTML, encoded anew", "email.message")
    return {name: ms * 1000 for name, ms in zip(names, found, strict=True)}


# --- the table ------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench render", description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="of the mix")
    parser.add_argument("template", nargs="*", help="only these")
    given = parser.parse_args(arguments)
    catalogue = Catalogue.load([built_in_root()])
    rows = []
    print(_line("template", "kB", "jinja", "premailer", "css-inline", "hit", "miss", "×", "÷", "m"))
    for name in given.template or catalogue.names():
        template = catalogue.get(name)
        assert isinstance(template, Template)
        row = one_template(template)
        rows.append(row)
        print(_shown(row), flush=True)
    ratios = {
        "hit_by_jinja": _middle([r.hit / r.jinja for r in rows]),
        "premailer_by_hit": _middle([r.premailer / r.hit for r in rows]),
        "miss_by_premailer": _middle([r.miss / r.premailer for r in rows]),
    }
    print("\nms a mail; × hit by jinja, ÷ premailer by hit, m miss by premailer. Medians: ", end="")
    print(", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    built = mime_rows(catalogue)
    print("\nMIME of a 12 kB alternative, µs:")
    for name, value in built.items():
        print(f"  {name:34} {value:7.0f}")
    mixes = {}
    for name, coins in (("eight services", False), ("coins for each block", True)):
        count = given.messages if not coins else min(given.messages, 3000)
        if not count:
            continue
        mixes[name] = found = traffic(catalogue, count, coins=coins)
        print(
            f"\nmix {name}: {found.messages} messages from a cold start, {found.hits:.1%} hits"
            f" ({found.hits_warm:.1%} in the second half), {found.stats.shapes} shapes,"
            f" {found.stats.bytes / 2**20:.0f} MiB, {found.microseconds:.0f} µs a whole mail"
        )
    _write(rows, ratios, built, mixes)
    return 0


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _line(*cells: object) -> str:
    return f"{cells[0]:26}" + "".join(f"{cell!s:>11}" for cell in cells[1:])


def _shown(row: Row) -> str:
    css = "-" if row.css_inline is None else f"{row.css_inline:.3f}"
    return _line(
        row.template,
        row.kilobytes,
        f"{row.jinja:.3f}",
        f"{row.premailer:.2f}",
        css,
        f"{row.hit:.3f}",
        f"{row.miss:.2f}",
        f"{row.hit / row.jinja:.2f}",
        f"{row.premailer / row.hit:.0f}",
        f"{row.miss / row.premailer:.2f}",
    )


def _write(
    rows: list[Row], ratios: dict[str, float], built: dict[str, float], mixes: dict[str, Traffic]
) -> None:
    RESULTS.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document = {
        "at": now,
        "commit": commit(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "ms_a_mail": [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(row).items()}
            for row in rows
        ],
        "ratios": ratios,
        "mime_us": {name: round(value, 1) for name, value in built.items()},
        "mixes": {
            name: {
                "messages": m.messages,
                "hits": round(m.hits, 4),
                "hits_second_half": round(m.hits_warm, 4),
                "shapes": m.stats.shapes,
                "bytes": m.stats.bytes,
                "sampled": m.stats.sampled,
                "differing": m.stats.differing,
                "us_a_mail": round(m.microseconds, 1),
            }
            for name, m in mixes.items()
        },
        "locales": LOCALES,
    }
    target = RESULTS / f"render-{now.replace(':', '')}.json"
    target.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten to {target}")
