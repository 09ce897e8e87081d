"""``mailgate doctor``: is everything well that mail depends on, and what to do if not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import JsonOption
from mailgate.cli.setting import clean, fail, setting, show_json

if TYPE_CHECKING:
    from mailgate.config.relays import Secret
    from mailgate.config.shape import Config
    from mailgate.operations.doctor import Report
    from mailgate.operations.verdicts import Finding


def doctor(
    check: Annotated[
        list[str] | None,
        typer.Argument(help="broker, journal, relay, 'relay main'…; all when none is named."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at broker, journal, limiter, relays, templates, schedules, clocks, disk and versions.

    Nothing is sent or changed: relays are greeted, encrypted to and logged in at. Each
    finding is ok, warn or fault, and says what to do. Each look is given up after five
    seconds. Exit 1 when there is a fault.

    \b
    mailgate doctor
    mailgate doctor broker relay
    mailgate doctor --json | jq '.items[] | select(.level == "fault")'
    """
    from mailgate.gateway import limiter_url
    from mailgate.operations.doctor import NoSuchCheck, Patient, examine
    from mailgate.operations.verdicts import Level

    said, config = setting.said(), setting.config()
    patient = Patient(config, said, limiter_url(config), *_secrets(config), more=_recurring(config))
    try:
        report = examine(patient, check or ())
    except NoSuchCheck as error:
        fail(str(error), 2)
    faults, warnings = report.count(Level.FAULT), report.count(Level.WARN)
    if as_json:
        items = [_item(finding) for finding in report.findings]
        show_json({"items": items, "faults": faults, "warnings": warnings})
    else:
        print("\n".join(_lines(report)))
        print(f"{len(report.findings)} findings, {faults} faults, {warnings} warnings")
    code = 1 if faults else 0
    if report.hung:
        _leave(code)
    raise typer.Exit(code)


def _secrets(config: Config) -> tuple[dict[str, Secret], list[str]]:
    """The relays' passwords, and why some cannot be had."""
    from mailgate.config.load import ConfigError, resolve_password

    found: dict[str, Secret] = {}
    complaints = []
    for name, relay in config.relays.items():
        try:
            password = resolve_password(relay, os.environ, name=name)
        except ConfigError as error:
            complaints += [str(fault) for fault in error.faults]
            continue
        if password is not None:
            found[name] = password
    return found, complaints


def _recurring(config: Config) -> dict[str, Callable[[], Sequence[Finding]]]:
    """Whether recurring mail goes, where there is any."""
    from mailgate.journal.database import Database, JournalAway
    from mailgate.operations.verdicts import Finding, Level, warn
    from mailgate.schedules import health

    def looked(name: str, look: Callable[[Database], Sequence[health.Sign]]) -> list[Finding]:
        database = Database(config.journal.url or "", hot=False)
        try:
            return [Finding(name, Level(s.level), s.found, s.advice) for s in look(database)]
        except JournalAway:
            return [warn(name, "the journal does not tell", "mend the journal")]
        finally:
            database.close()

    def of(schedule: str) -> list[Finding]:
        return looked(f"schedule {schedule}", lambda d: health.schedule(d, config, schedule))

    if not config.schedules:
        return {}
    return {
        "beat": lambda: looked("beat", lambda d: [health.clock(d)]),
        **{f"schedule {name}": partial(of, name) for name in config.schedules},
    }


def _item(finding: Any) -> dict[str, Any]:
    return {
        "check": finding.check,
        "level": finding.level.value,
        "found": finding.found,
        "advice": finding.advice or None,
        "steps": [
            {"step": what, "found": found, "took_ms": int(took * 1000)}
            for what, found, took in finding.steps
        ],
    }


def _lines(report: Report) -> list[str]:
    wide = max(len(finding.check) for finding in report.findings)
    out = []
    for finding in report.findings:
        out.append(f"{finding.level.value:<5} {finding.check:<{wide}}  {clean(finding.found)}")
        indent = " " * (8 + wide)
        out += [
            f"{indent}{what:<8} {took * 1000:5.0f} ms  {clean(found)}"
            for what, found, took in finding.steps
        ]
        if finding.advice:
            out.append(f"{indent}-> {clean(finding.advice)}")
    return out


def _leave(code: int) -> None:
    """End at once: the interpreter would wait for threads that hang, in a resolver say."""
    sys.stdout.flush()
    os._exit(code)
