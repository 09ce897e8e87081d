"""The page about schedules: its examples load, and what it promises is the default."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from mailgate.cli.main import app
from mailgate.cli.reference import commands
from mailgate.config.load import ConfigError, load
from mailgate.config.schedules import Schedule

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
EXAMPLES = [
    *re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL),
    (ROOT / "examples" / "weekly-posts" / "mailgate.toml").read_text(encoding="utf-8"),
]


@pytest.mark.parametrize(
    "text", [*EXAMPLES, (ROOT / "examples/weekly-posts/mailgate.toml").read_text()]
)
def test_an_example_loads(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mailgate.toml"
    file.write_text(text)
    config = load(file, {}, cwd=tmp_path)
    assert set(config.schedules) == set(tomllib.loads(text)["schedules"])
    for source in config.sources.values():
        assert source.http or source.url.startswith(("sqlite:////", "postgresql+psycopg://"))


def test_each_command_of_the_page_can_be_typed() -> None:
    there = {" ".join(path): one for path, one in commands(typer.main.get_command(app))}
    [block] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        program, *words = shlex.split(line)
        assert program == "mailgate"
        own = next(n for n in (2, 1) if " ".join(words[:n]) in there)
        name = " ".join(words[:own])
        there[name].make_context(name, words[own:])


def test_every_key_that_decides_is_named() -> None:
    told = {name for name in Schedule.model_fields if f"`{name}`" in PAGE}
    assert set(Schedule.model_fields) - told <= {"locale", "tags"}


#: A section beside ``[sources.blog]`` and ``[sources.api]``, and what is said about it.
FAULTS = {
    'cron = "0 10 * *"\nrecipients = ["a@example.com"]\ntemplate = "notice"': [
        "schedules.one.cron is '0 10 * *'; it must be a text such as '0 10 * * sat'",
    ],
    'cron = "0 10 * * *"\ntimezone = "Mars/Base"\nrecipients = ["a@example.com"]\n'
    'template = "notice"': [
        "schedules.one.timezone is 'Mars/Base'; it must be a time zone such as 'Europe/Paris'",
    ],
    'cron = "0 10 * * *"\nsubject = "S"': [
        "schedules.one.recipients is required, or recipients_from instead",
        "schedules.one.text is required without a template, or html instead",
    ],
    'cron = "0 10 * * *"\ntemplate = "notice"\ntext = "T"\nrecipients = ["a@example.com"]\n'
    'recipients_from = { file = "a.csv" }': [
        "schedules.one.recipients cannot go with recipients_from",
        "schedules.one.text cannot go with a template, which makes both parts",
    ],
    'cron = "0 10 * * *"\ntemplate = "notice"\nrecipients_from = { file = "a.xls", sql = "S" }': [
        "schedules.one.recipients_from.file must end in .csv, .jsonl, .ndjson or .json",
        "schedules.one.recipients_from.sql cannot go with file",
    ],
    'cron = "0 10 * * *"\ntemplate = "notice"\nstream = "nix"\nproducer = "blog"\n'
    'recipients_from = { source = "nix", sql = "SELECT 1" }\n'
    'data_from = { source = "api", sql = "SELECT 1" }': [
        "schedules.one.data_from.sql is for a database, and api is a service",
        "schedules.one.recipients_from.source names 'nix', which is no source; "
        "the sources are: 'blog', 'api'",
        "schedules.one.stream names 'nix', which is no stream; "
        "the streams are: 'transactional', 'codes', 'bulk'",
    ],
    'cron = "0 10 * * *"\ntemplate = "notice"\n'
    'recipients_from = { source = "blog", path = "/x" }': [
        "schedules.one.recipients_from.path is for a service, and blog is a database",
    ],
}


@pytest.mark.parametrize("section", FAULTS)
def test_each_fault_is_said_at_once(section: str, tmp_path: Path) -> None:
    file = tmp_path / "mailgate.toml"
    sources = '[sources.blog]\nurl = "sqlite:///b.db"\n[sources.api]\nurl = "https://a.example"\n'
    file.write_text(f"{sources}[schedules.one]\n{section}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {}, cwd=tmp_path)
    said = sorted(f"{f.key} {f.rule}" for f in caught.value.faults)
    assert said == sorted(FAULTS[section])


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://user:pass@a.example/", "must not hold a password"),
        ("https://a.example/?x=1", "must not have a query"),
        ("https:///x", "must name a host"),
        ("mysql://host/db", "must begin with"),
    ],
)
def test_a_url_that_is_no_source_is_refused(url: str, rule: str, tmp_path: Path) -> None:
    file = tmp_path / "mailgate.toml"
    file.write_text(f'[sources.one]\nurl = "{url}"\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {}, cwd=tmp_path)
    [fault] = caught.value.faults
    assert fault.key == "sources.one.url"
    assert rule in fault.rule
    assert "pass@" not in str(fault)
