"""``mailgate dkim``, and what ``config check`` and the worker say about keys."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cli.conftest import Shell


def configure(directory: Path, keys: str) -> None:
    (directory / "mailgate.toml").write_text(f'[dkim."example.com"]\nkeys = {keys}\n')


def test_a_key_is_made_named_published_and_good(shell: Shell, tmp_path: Path) -> None:
    assert shell("dkim", "generate", "one.pem").code == 0
    assert shell("dkim", "generate", "two.pem", "--algorithm", "ed25519").code == 0
    assert (tmp_path / "one.pem").stat().st_mode & 0o777 == 0o600
    configure(tmp_path, '{ mg1 = "one.pem", mg2 = "two.pem" }')
    assert shell("config", "check").err == ""
    rsa, ed25519 = shell("dkim", "dns", "--json").document["items"]
    assert rsa["name"] == "mg1._domainkey.example.com"
    assert rsa["text"].startswith("v=DKIM1; k=rsa; p=MIIBIjANBg")
    assert ed25519["text"].startswith("v=DKIM1; k=ed25519; p=")
    assert len(ed25519["text"].partition("p=")[2]) == 44
    lines = shell("dkim", "dns", "example.com").out.splitlines()
    assert lines[0].startswith('mg1._domainkey.example.com. IN TXT ( "v=DKIM1; k=rsa; p=')
    strings = lines[0].split('"')[1::2]
    assert len(strings) == 2
    assert "".join(strings) == rsa["text"]
    assert all(len(string) <= 255 for string in strings)


def test_a_file_that_is_there_is_never_overwritten(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_text("precious")
    said = shell("dkim", "generate", "one.pem")
    assert (said.code, said.err) == (2, "mailgate: one.pem cannot be written: file exists\n")
    assert (tmp_path / "one.pem").read_text() == "precious"


def test_check_and_worker_name_the_key_and_the_rule(shell: Shell, tmp_path: Path) -> None:
    configure(tmp_path, '{ mg1 = "gone.pem" }')
    fault = (
        'mailgate: dkim."example.com".keys.mg1 cannot be read: no such file or directory '
        f"[{tmp_path / 'gone.pem'}]\n"
    )
    for command in (("config", "check"), ("worker",), ("dkim", "dns")):
        said = shell(*command)
        assert (said.code, said.err) == (2, fault), command


def test_dns_without_any_key_says_so(shell: Shell) -> None:
    said = shell("dkim", "dns", "example.net")
    assert said.code == 2
    assert said.err == "mailgate: dkim has no key for example.net; its domains: none\n"
