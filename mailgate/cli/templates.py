"""``mailgate templates``: what there is, whether it is good, what it looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli import completing
from mailgate.cli.filters import JsonOption
from mailgate.cli.setting import complain, fail, setting, show_json

if TYPE_CHECKING:
    from mailgate.render.catalogue import Catalogue

app = typer.Typer(help="Mail templates: list, check, render.", no_args_is_help=True)


def _catalogue() -> Catalogue:
    from mailgate.render.catalogue import Catalogue, built_in_root

    config = setting.config()
    try:
        roots = (*config.templates.path, built_in_root())
        return Catalogue.load(roots, default_locale=config.default_locale)
    except FileNotFoundError as error:
        fail(str(error), 2)


@app.command("list")
def list_templates(as_json: JsonOption = False) -> None:
    """Every template with its languages; a broken one with its error."""
    from mailgate.cli.tables import show_items
    from mailgate.render.errors import Broken

    catalogue = _catalogue()
    items: list[dict[str, Any]] = []
    for name in catalogue.names():
        found = catalogue.get(name)
        if isinstance(found, Broken):
            items.append({"name": name, "state": "broken", "description": found.error})
        elif found is not None:
            items.append(
                {
                    "name": name,
                    "state": "good",
                    "locales": ", ".join(found.locales),
                    "fixtures": ", ".join(found.fixtures),
                    "description": found.manifest.description,
                }
            )
    show_items(items, ("name", "state", "locales", "fixtures", "description"), as_json)


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="All when none is named.", autocompletion=completing.templates),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are faults, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read and try templates as a careful reader would; exit 1 when a fault is found.

    Each fixture is rendered in each language, the fast way and in full, and the two are
    compared. Faults are what would be wrong or is refused; warnings are for you to judge.
    """
    from mailgate.render.findings import Finding, findings
    from mailgate.render.renderer import Renderer

    catalogue = _catalogue()
    renderer = Renderer(catalogue)
    found: list[tuple[str, Finding]] = []
    for name in names or catalogue.names():
        if catalogue.get(name) is None:
            fail(f"there is no template {name}", 2)
        found += [(name, finding) for finding in findings(renderer, name)]
    faults = [f for _, f in found if strict or f.level == "error"]
    if as_json:
        items = [
            {"template": name, "level": f.level, "file": f.file, "line": f.line, "rule": f.rule}
            for name, f in found
        ]
        show_json({"items": items})
    else:
        for _, f in found:
            complain(f"{f.level}: {f}")
        count = len(names or catalogue.names())
        print(f"{count} templates, {len(faults)} faults, {len(found) - len(faults)} warnings")
    if faults:
        raise typer.Exit(1)


@app.command()
def render(
    name: Annotated[
        str, typer.Argument(help="A template's name.", autocompletion=completing.templates)
    ],
    fixture: Annotated[str, typer.Option(help="Data from its fixtures.")] = "typical",
    data: Annotated[str | None, typer.Option(help="Data as a JSON object instead.")] = None,
    locale: Annotated[str | None, typer.Option(help="Such as en or zh-CN.")] = None,
    part: Annotated[str, typer.Option(help="subject, html, text, or all.")] = "all",
    out: Annotated[
        Path | None, typer.Option(help="A folder to write subject, HTML and text into.")
    ] = None,
) -> None:
    """Render a template as it would be sent, on standard output or into a folder."""
    from mailgate.render.errors import Broken, RenderError
    from mailgate.render.renderer import Renderer

    catalogue = _catalogue()
    found = catalogue.get(name)
    if found is None:
        fail(f"there is no template {name}", 2)
    if isinstance(found, Broken):
        fail(f"{name} is broken: {found.error}")
    if part not in ("all", "subject", "html", "text"):
        fail("--part must be subject, html, text or all", 2)
    if data is not None:
        try:
            values = json.loads(data)
        except ValueError as error:
            fail(f"--data is not JSON: {error}", 2)
    elif fixture in found.fixtures:
        values = dict(found.fixtures[fixture])
    else:
        fail(f"{name} has no fixture {fixture}; it has: {', '.join(found.fixtures)}", 2)
    faults = catalogue.check_data(name, values)
    for fault in faults:
        complain(f"{fault.field}: {fault.rule}")
    if faults:
        raise typer.Exit(1)
    try:
        parts = Renderer(catalogue).preview(name, values, locale)
    except RenderError as error:
        fail(error.message)
    said = {"subject": parts.subject, "html": parts.html, "text": parts.text}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for kind, content in said.items():
            suffix = {"subject": "subject.txt", "html": "html", "text": "txt"}[kind]
            (out / f"{name}.{suffix}").write_text(content, "utf-8")
        print(f"written to {out}")
        return
    for kind, content in said.items():
        if part in ("all", kind):
            print(content if part == kind else f"--- {kind}\n{content}")
