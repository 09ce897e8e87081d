"""The example and the reference say what the fields say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from mailgate.config.fields import NAME, ROW, allowed, place, walk
from mailgate.config.load import load, warnings
from mailgate.config.reference import reference
from mailgate.config.shape import Config

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config.example.toml"


def uncommented() -> str:
    """The example with every key set: what begins with '#' and no space."""
    return re.sub(r"(?m)^#(?=[a-z\[\"])", "", EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_loads_as_it_is_and_changes_nothing(tmp_path):
    assert load(EXAMPLE, {}, cwd=tmp_path) == load(None, {}, cwd=tmp_path)


def test_the_example_with_every_key_set_is_a_production_set_up(tmp_path):
    file = tmp_path / "mailgate.toml"
    file.write_text(uncommented(), encoding="utf-8")
    config = load(file, {}, cwd=tmp_path)
    assert (config.broker.url or "").startswith("amqp://")
    assert (config.journal.url or "").startswith("postgresql+psycopg://")
    assert set(config.relays) == {"main", "backup", "workspace"}
    # Whoever takes it as it is sends nothing to strangers by mistake.
    [warning] = warnings(config)
    assert warning.startswith("sandbox.mode is 'redirect'")


def test_the_example_holds_every_key():
    tree = tomllib.loads(uncommented())

    def said(value: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return {path} | said(value[0], (*path, ROW))
        if isinstance(value, dict):
            above = place(path)
            named = above is not None and above.section is None and above.named is not None
            return {
                key
                for name, inner in value.items()
                for key in said(inner, (*path, NAME if named else name))
            }
        return {path}

    assert said(tree) == {path for path, _ in walk()}


def test_every_key_has_a_meaning_and_allowed_values():
    for path, field in walk():
        where = place(path)
        assert where is not None, path
        assert field.description, path
        assert field.description.endswith((".", "…")), path
        assert allowed(where), path


def test_the_reference_is_current():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m mailgate.config.reference > docs/configuration.md"


def test_the_reference_names_every_key_and_every_section():
    page = reference()
    for path, _ in walk():
        assert f"| `{path[-1]}` |" in page
    for name in Config.model_fields:
        assert f"`{name}`" in page or f"## `[{name}" in page


def test_every_piece_of_configuration_in_the_guides_is_one():
    """As it stands, beside the relays that they speak of."""
    pieces = [
        piece
        for name in ("operators.md", "producers.md", "templates.md")
        for piece in re.findall(
            r"(?ms)^```toml\n(.*?)^```", (ROOT / "docs" / name).read_text(encoding="utf-8")
        )
    ]
    assert len(pieces) > 3
    for piece in pieces:
        said = tomllib.loads(piece)
        known = {"main": {"host": "smtp.example.com"}, "backup": {"host": "smtp.example.net"}}
        Config.model_validate({**said, "relays": {**known, **said.get("relays", {})}})
