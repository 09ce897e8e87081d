"""Which folders become templates, which are put aside, and what data they take."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailgate.render import Broken, Catalogue, Fault, Template, built_in_root


def error(catalogue: Catalogue, name: str = "t") -> str:
    found = catalogue.get(name)
    assert isinstance(found, Broken), found
    return found.error


def good(catalogue: Catalogue, name: str = "t") -> Template:
    found = catalogue.get(name)
    assert isinstance(found, Template), found
    return found


def test_a_template_needs_three_files_and_no_shared_folder(make_root: Any) -> None:
    root = make_root(
        "{% extends '_layouts/base.html' %}{% block content %}{{ name }}{% endblock %}"
    )
    template = good(Catalogue.load([root]))
    assert template.locales == ["en"]
    assert template.manifest.text == "derived"


def test_a_broken_template_is_put_aside_and_the_rest_serve(make_root: Any) -> None:
    make_root("{{ nobody }}", name="broken")
    catalogue = Catalogue.load([make_root()])
    assert catalogue.names() == ["broken", "t"]
    assert "nobody is not in the schema" in error(catalogue, "broken")
    assert good(catalogue).name == "t"


def test_the_first_root_with_a_name_wins(make_root: Any, tmp_path: Path) -> None:
    make_root(name="welcome")
    catalogue = Catalogue.load([tmp_path, built_in_root()])
    assert good(catalogue, "welcome").schema["required"] == ["name"]
    assert "items" in good(catalogue, "welcome").schema["properties"]
    assert good(catalogue, "notice").locales == ["ar", "en", "zh-CN"]


def test_a_root_may_replace_one_shared_file_and_keep_the_others(make_root: Any) -> None:
    html = "{% extends '_layouts/base.html' %}{% block content %}x{% endblock %}"
    theirs = make_root(html, files={"_css/inline.css": ".title { color: #010203; }"})
    assert good(Catalogue.load([theirs]))


@pytest.mark.parametrize("name", ["Big", "a b", "-x", "x" * 65, "a.b", "ä"])
def test_a_name_out_of_order_is_refused(make_root: Any, name: str) -> None:
    catalogue = Catalogue.load([make_root(name=name)])
    assert "is no template name" in error(catalogue, name)


def test_folders_that_begin_with_a_dot_or_underscore_are_no_templates(make_root: Any) -> None:
    make_root(name="_own")
    make_root(name=".git")
    assert Catalogue.load([make_root()]).names() == ["t"]


def test_a_symbolic_link_is_refused_wherever_it_points(make_root: Any, tmp_path: Path) -> None:
    root = make_root()
    (root / "t" / "en.html").unlink()
    (root / "t" / "en.html").symlink_to("/etc/passwd")
    assert "symbolic links are refused" in error(Catalogue.load([root]))


def test_a_linked_folder_is_refused(make_root: Any) -> None:
    root = make_root()
    (root / "u").symlink_to(root / "t", target_is_directory=True)
    assert "symbolic links are refused" in error(Catalogue.load([root]), "u")


def test_a_linked_shared_folder_breaks_only_that_root(make_root: Any, tmp_path: Path) -> None:
    root = make_root()
    (root / "_css").symlink_to("/etc", target_is_directory=True)
    catalogue = Catalogue.load([root, built_in_root()])
    assert "symbolic links" in error(catalogue)
    assert good(catalogue, "notice")


@pytest.mark.parametrize(
    "source",
    [
        "{% include '../secret.html' %}",
        "{% include '/etc/passwd' %}",
        "{% extends 't/../../x' %}",
        "{% import '_layouts/../../x' as x %}",
    ],
)
def test_no_include_leaves_the_root(make_root: Any, source: str) -> None:
    assert "there is no such file" in error(Catalogue.load([make_root(source)]))


def test_nul_in_a_source_is_refused(make_root: Any) -> None:
    assert "NUL" in error(Catalogue.load([make_root("<p>\0</p>")]))


def test_a_source_that_is_not_utf8_is_refused(make_root: Any) -> None:
    root = make_root()
    (root / "t" / "en.html").write_bytes(b"<p>\xff</p>")
    assert "not UTF-8" in error(Catalogue.load([root]))


def test_a_missing_root_is_an_error_and_not_an_empty_catalogue(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Catalogue.load([tmp_path / "nowhere"])


def closed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Root may read everything, so that a mode would not do."""
    listing = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def test_a_root_that_may_not_be_read_is_an_error(make_root: Any, monkeypatch: Any) -> None:
    root = make_root()
    closed(monkeypatch, root)
    with pytest.raises(FileNotFoundError, match="cannot be read: Permission denied"):
        Catalogue.load([root])


def test_a_folder_that_may_not_be_read_is_put_aside_alone(make_root: Any, monkeypatch: Any) -> None:
    root = make_root(name="other")
    make_root()
    closed(monkeypatch, root / "t")
    catalogue = Catalogue.load([root])
    assert error(catalogue) == "t: Permission denied"
    good(catalogue, "other")


def test_a_shared_folder_that_may_not_be_read_breaks_its_root(
    make_root: Any, monkeypatch: Any
) -> None:
    root = make_root(files={"_css/a.css": "p{}"})
    closed(monkeypatch, root / "_css")
    assert error(Catalogue.load([root])) == "_css: Permission denied"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("nmae = 't'", "unknown key nmae"),
        ("version = '1'", "version is not int"),
        ("name = 'u'", "the folder is 't'"),
        ("text = 'both'", "'authored' or 'derived'"),
        ("text = 'authored'", "there is no en.txt"),
        ("default_locale = 'de'", "there is no de.html"),
        ("theme = 'dark'", "there is no _theme/dark.json"),
        ("name = ", "template.toml"),
    ],
)
def test_a_manifest_says_only_what_it_can_mean(make_root: Any, toml: str, said: str) -> None:
    assert said in error(Catalogue.load([make_root(toml=toml)]))


def test_a_text_file_that_would_not_be_used_is_a_fault(make_root: Any) -> None:
    assert "would not be used" in error(Catalogue.load([make_root(files={"en.txt": "x"})]))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array"}, "describes an object"),
        ({"type": "object", "properties": {}}, "additionalProperties: false"),
        ({"type": "object", "additionalProperties": False}, "lists properties"),
        (
            {"type": "object", "additionalProperties": False, "properties": {"locale": {}}},
            "the gateway's own name",
        ),
        (
            {"type": "object", "additionalProperties": False, "properties": {"product": {}}},
            "mailgate:product",
        ),
        (
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"name": {"$ref": "https://example.com/x.json"}},
            },
            "context.schema.json",
        ),
        (
            {"type": "object", "additionalProperties": False, "properties": {"name": {"type": 1}}},
            "context.schema.json",
        ),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(make_root: Any, schema: Any, said: str) -> None:
    assert said in error(Catalogue.load([make_root(schema=schema)]))


def test_a_fixture_that_breaks_the_schema_breaks_the_template(make_root: Any) -> None:
    root = make_root(files={"fixtures/typical.json": "{}"})
    assert error(Catalogue.load([root])) == "fixtures/typical.json: data.name missing variable"


def test_an_optional_variable_without_a_guard_is_found_by_a_fixture(make_root: Any) -> None:
    root = make_root("{{ url }}", files={"fixtures/minimal.json": '{"name": "Ann"}'})
    assert "'url' is undefined" in error(Catalogue.load([root]))


def test_a_subject_file_has_one_line(make_root: Any) -> None:
    assert "one line" in error(Catalogue.load([make_root(subject="one\ntwo")]))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("pt-BR", "pt"),
        ("pt", "pt"),
        ("pt_BR", "pt"),
        ("zh-CN", "zh-CN"),
        ("zh-cn", "zh-CN"),
        ("zh", "zh-CN"),
        ("zh-TW", "en"),
        ("fr", "en"),
        ("", "en"),
        (None, "en"),
        ("../../etc", "en"),
    ],
)
def test_a_locale_falls_back_for_the_whole_template(
    make_root: Any, wanted: str | None, found: str
) -> None:
    files = {f"{loc}.{part}": loc for loc in ("pt", "zh-CN") for part in ("html", "subject")}
    template = good(Catalogue.load([make_root(files=files)]))
    assert template.variant(wanted).locale == found


def test_a_locale_with_half_of_its_files_is_refused(make_root: Any) -> None:
    assert "there is no de.subject" in error(Catalogue.load([make_root(files={"de.html": "x"})]))


def test_the_default_locale_of_the_configuration_is_for_manifests_without_one(
    make_root: Any,
) -> None:
    root = make_root(files={"de.html": "x", "de.subject": "x"})
    assert good(Catalogue.load([root], default_locale="de")).variant(None).locale == "de"


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("t/en.html", True),
        ("t/en.subject", True),
        ("t/context.schema.json", True),
        ("_layouts/own.html", True),
        ("_css/inline.css", True),
        ("_theme/default.json", True),
        ("_components/unused.html", False),
        ("t/notes.md", False),
    ],
)
def test_the_hash_covers_what_the_output_depends_on(
    make_root: Any, path: str, changes: bool
) -> None:
    layout = "<style>{% include '_css/inline.css' %}</style>{% block content %}{% endblock %}"
    root = make_root(
        "{% extends '_layouts/own.html' %}{% block content %}{{ name }}{% endblock %}",
        files={
            "_layouts/own.html": layout,
            "_css/inline.css": "p { color: #111111; }",
            "_components/unused.html": "x",
            "_theme/default.json": (built_in_root() / "_theme/default.json").read_text(),
            "notes.md": "x",
        },
    )
    before = good(Catalogue.load([root])).hash
    file = root / path
    file.write_text(file.read_text().rstrip() + " ")
    assert (good(Catalogue.load([root])).hash != before) is changes


def test_every_fault_of_the_data_is_named_at_once(built_in: Catalogue) -> None:
    faults = built_in.check_data(
        "weekly_digest",
        {"posts": [{"title": 1, "url": "ftp://x"}, {"titel": "x", "url": "https://x.example"}]},
    )
    assert sorted(faults, key=lambda f: f.field) == [
        Fault("data.posts.0.title", "wrong type: must be string"),
        Fault("data.posts.0.url", "does not match the pattern of the schema"),
        Fault("data.posts.1.titel", "unknown variable"),
        Fault("data.posts.1.title", "missing variable"),
    ]


def test_each_missing_variable_is_a_fault_of_its_own(built_in: Catalogue) -> None:
    assert built_in.check_data("contact_feedback", {}) == [
        Fault("data.name", "missing variable"),
        Fault("data.email", "missing variable"),
        Fault("data.message", "missing variable"),
    ]


def test_an_unknown_template_is_one_fault_and_a_broken_one_is_none(make_root: Any) -> None:
    catalogue = Catalogue.load([make_root("{{ nobody }}")])
    assert catalogue.check_data("nothing", {"x": 1}) == [Fault("template", "unknown template")]
    assert catalogue.check_data("t", {"x": 1}) == []


def test_a_template_of_nearly_that_name_is_suggested() -> None:
    [fault] = Catalogue.load([built_in_root()]).check_data("walcome", {"x": 1})
    assert fault == Fault("template", "unknown template; did you mean welcome?")


def test_a_fault_holds_no_value(built_in: Catalogue) -> None:
    secret = "hunter2" * 40
    faults = built_in.check_data("notice", {"title": secret, "body": 7, "button": secret})
    assert len(faults) == 3
    assert secret not in repr(faults)


def test_the_schema_is_read_without_the_network(
    make_root: Any, no_network: Callable[[], None]
) -> None:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"name": {"$ref": "http://127.0.0.1:1/x.json"}},
    }
    assert "context.schema.json" in error(Catalogue.load([make_root(schema=schema)]))


def test_a_theme_token_that_is_not_of_its_kind_is_refused(make_root: Any) -> None:
    theme = json.dumps({"color": {"brand": "red; } body { display: none"}})
    root = make_root(files={"_theme/default.json": theme})
    assert "color.brand is not a color" in error(Catalogue.load([root]))
