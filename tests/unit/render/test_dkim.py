"""Signatures as independent verifiers read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mailgate.config.dkim import Dkim
from mailgate.config.faults import ConfigError
from mailgate.model.address import Address
from mailgate.model.message import Attachment, Letter, Unsubscribe
from mailgate.render import Catalogue, Renderer, built_in_root
from mailgate.render.dkim import Identity, Key, Signer, relaxed_body, relaxed_field
from mailgate.render.dkim_keys import make_key, read_key, read_keys, record
from tests.servers.verifiers import dkimpy, mail_dkim

URL = "https://example.com/unsubscribe?token=" + "u" * 262


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One key of each kind, as ``mailgate dkim generate`` makes them."""
    out = {}
    for kind in ("rsa", "ed25519"):
        out[kind] = tmp_path_factory.mktemp("keys") / f"{kind}.pem"
        out[kind].write_bytes(make_key(kind))  # type: ignore[arg-type]
        out[kind].chmod(0o600)
    return out


BUILT_IN = Catalogue.load([built_in_root()])


def signing(domain: str = "example.com", **said: Any) -> Renderer:
    signer = read_keys({domain: Dkim.model_validate(said)}).signer()
    return Renderer(BUILT_IN, signer=signer)


def records(keys: dict[str, Path], domain: str = "example.com") -> dict[str, str]:
    """The DNS: each key under the selector of its kind."""
    made = [record(domain, kind, read_key(path)) for kind, path in keys.items()]
    return {one.name: one.text for one in made}


def letter(**changes: Any) -> Letter:
    said: dict[str, Any] = {
        "message_id": "1.a@example.com",
        "date": 1_790_000_000_000,
        "boundary_seed": "seed",
        "sender": Address("shop@example.com", "The Shop"),
        "to": (Address("ann@example.org", "Ann Bell"),),
        "subject": "Your order",
        "text": "Hello  Ann,\n\n  two  blanks \nand a tab\there.\n\n\n",
        "html": "<p>Hello <b>Ann</b></p>",
        **changes,
    }
    return Letter(**said)


AWKWARD: dict[str, dict[str, Any]] = {
    "plain": {},
    "empty": {"text": "", "html": None},
    "text alone": {"text": "one line", "html": None},
    "long encoded subject": {"subject": "Grüße an 王小明 🎉 " * 12},
    "long folded subject": {"subject": "word " * 60},
    "forty recipients": {
        "to": tuple(Address(f"n{n}@example.org", f"Bell, Ann {n}") for n in range(40))
    },
    "unsubscribe of 300 characters": {"unsubscribe": Unsubscribe(URL)},
    "smtputf8": {"sender": Address("grüße@example.com"), "to": (Address("王@example.org"),)},
    "own headers": {
        "headers": (("X-Order", "7"), ("Feedback-ID", "a:b:c:d"), ("References", "<a@b> " * 30))
    },
    "attachment": {
        "attachments": (Attachment("a.pdf", "application/pdf", bytes(range(256)) * 40),)
    },
    "cc and reply-to": {"cc": (Address("b@example.org"),), "reply_to": (Address("r@a.example"),)},
}


def test_both_signatures_are_verified_by_dkimpy(keys: dict[str, Path]) -> None:
    renderer = signing(keys=keys)
    mails = [renderer.render(letter(**changes)) for changes in AWKWARD.values()]
    both = [["example.com", "rsa", "pass"], ["example.com", "ed25519", "pass"]]
    verdicts = dict(zip(AWKWARD, dkimpy(mails, records(keys)), strict=True))
    assert verdicts == dict.fromkeys(AWKWARD, both)


def test_the_rsa_signature_is_verified_by_mail_dkim(keys: dict[str, Path]) -> None:
    renderer = signing(keys={"rsa": keys["rsa"]})
    mails = [renderer.render(letter(**changes)) for changes in AWKWARD.values()]
    verdicts = dict(zip(AWKWARD, mail_dkim(mails, records(keys)), strict=True))
    assert verdicts == {name: [["example.com", "rsa", "pass"]] for name in AWKWARD}


def covered(content: bytes) -> list[str]:
    """The names of h= of the first signature."""
    found = re.search(rb"\th=([^;]+);", content)
    assert found is not None
    return found[1].decode().replace("\r\n\t", "").split(":")


def test_unsubscribing_is_covered(keys: dict[str, Path]) -> None:
    """RFC 8058 section 4: both fields must be, or one click does nothing."""
    names = covered(signing(keys=keys).render(letter(unsubscribe=Unsubscribe(URL))))
    assert names.count("list-unsubscribe") == names.count("list-unsubscribe-post") == 2


ADDED = (
    "From: Mallory <m@example.com>", "Subject: Pay now", "To: b@example.org",
    "Cc: c@example.org", "Reply-To: m@example.net", "Date: Mon, 01 Jan 2024 00:00:00 +0000",
    "Message-ID: <2@example.com>", "Content-Type: text/html", "MIME-Version: 1.0",
    "List-Unsubscribe: <https://example.net/>", "List-Unsubscribe-Post: List-Unsubscribe=no",
)  # fmt: skip


def test_a_field_that_is_added_breaks_the_signature(keys: dict[str, Path]) -> None:
    """Above the others or below them."""
    content = signing(keys=keys).render(letter(unsubscribe=Unsubscribe(URL)))
    head, gap, body = content.partition(b"\r\n\r\n")
    above = [f"{field}\r\n".encode() + content for field in ADDED]
    below = [head + f"\r\n{field}".encode() + gap + body for field in ADDED]
    for place in (above, below):
        verdicts = dict(zip(ADDED, dkimpy(place, records(keys)), strict=True))
        broken = [["example.com", "rsa", "fail"], ["example.com", "ed25519", "fail"]]
        assert verdicts == dict.fromkeys(ADDED, broken)


def test_what_relays_do_on_the_way_breaks_nothing(keys: dict[str, Path]) -> None:
    """Trace fields and a Feedback-ID above, X- fields taken out, blanks and folds changed."""
    own = (("X-Order", "7"), ("Feedback-ID", "a:b:c:d"))
    content = signing(keys=keys).render(letter(headers=own, subject="word " * 30))
    relayed = b"Received: from a by b;\r\n\tMon, 01 Jan 2024 00:00:00 +0000\r\nReturn-Path: <>\r\n"
    relayed += b"X-Original-To: ann@example.org\r\nFeedback-ID: 1.relay:theirs\r\n"
    relayed += content.replace(b"X-Order: 7\r\n", b"").replace(b"\r\n word", b"\r\n\t word", 1)
    assert relayed.count(b"\r\n\t word") == 1
    assert {result for _, _, result in dkimpy([relayed], records(keys))[0]} == {"pass"}


def test_what_a_relay_writes_anew_can_be_left_out(keys: dict[str, Path]) -> None:
    """Amazon SES puts its own Date and Message-ID in place of ours."""
    content = signing(keys=keys, unsigned=["Date", "message-id"]).render(letter())
    relayed = re.sub(rb"\r\nDate: [^\r]+", b"\r\nDate: Mon, 01 Jan 2024 00:00:00 +0000", content)
    relayed = re.sub(rb"\r\nMessage-ID: [^\r]+", b"\r\nMessage-ID: <0100@ses.example>", relayed)
    assert relayed != content
    assert {result for _, _, result in dkimpy([relayed], records(keys))[0]} == {"pass"}


def test_equal_letters_are_signed_equally(keys: dict[str, Path]) -> None:
    """The bytes of an attempt are those of every other, also in another process's hands."""
    assert signing(keys=keys).render(letter()) == signing(keys=keys).render(letter())


def test_the_signature_is_folded_and_stands_above_the_mail(keys: dict[str, Path]) -> None:
    changes = {"unsubscribe": Unsubscribe(URL), "cc": (Address("b@example.org"),)}
    plain = Renderer(BUILT_IN).render(letter(**changes))
    content = signing(keys=keys).render(letter(**changes))
    assert content.endswith(plain)
    fields = content.removesuffix(plain)
    assert fields.count(b"DKIM-Signature: v=1; ") == 2
    assert all(len(line) <= 78 for line in fields.split(b"\r\n"))
    assert b"t=1790000000;" in fields
    assert b"l=" not in fields


# --- who signs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "domain", "signs"),
    [
        ({"example.com": False}, "example.com", "example.com"),
        ({"example.com": False}, "mail.example.com", None),
        ({"example.com": True}, "mail.example.com", "example.com"),
        ({"example.com": True}, "a.b.example.com", "example.com"),
        ({"example.com": True, "b.example.com": True}, "a.b.example.com", "b.example.com"),
        ({"example.com": True, "b.example.com": False}, "a.b.example.com", "example.com"),
        ({"example.com": True, "b.example.com": False}, "b.example.com", "b.example.com"),
        ({"example.com": True}, "badexample.com", None),
        ({"example.com": True}, "com", None),
        ({"example.com": True}, "", None),
    ],
)
def test_the_from_domain_decides_who_signs(
    sections: dict[str, bool], domain: str, signs: str | None
) -> None:
    key = Key("s", "ed25519-sha256", lambda _: b"signature")
    signer = Signer([Identity(name, (key,), subdomains) for name, subdomains in sections.items()])
    found = signer.identity(domain)
    assert (found.domain if found else None) == signs
    content = b"From: a@" + domain.encode() + b"\r\n\r\nHello\r\n"
    assert (signer.sign(domain, 1, content) == content) == (signs is None)


def test_a_sender_at_a_subdomain_is_verified_under_its_parent(keys: dict[str, Path]) -> None:
    content = signing(keys=keys, subdomains=True).render(
        letter(sender=Address("shop@mail.example.com"))
    )
    [verdicts] = dkimpy([content], records(keys))
    assert verdicts[0] == ["example.com", "rsa", "pass"]


# --- canonical forms (RFC 6376 section 3.4.5 has this example) ----------------------------


def test_the_example_of_the_standard() -> None:
    assert relaxed_field(b"A: X") == b"a:X"
    assert relaxed_field(b"B : Y\t\r\n\tZ  ") == b"b:Y Z"
    assert relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n") == b" C\r\nD E\r\n"
    assert relaxed_body(b"a" + b" " * 77 + b"b \t \r\n  \r\n") == b"a b\r\n"
    assert relaxed_body(b"\r\n\r\n") == b""
    assert relaxed_body(b"") == b""


# --- keys ----------------------------------------------------------------------------


def pem(bits: int) -> bytes:
    import subprocess

    command = ["openssl", "genrsa", "-traditional", str(bits)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_faults_and_doubts_about_keys_name_the_key(tmp_path: Path, keys: dict[str, Path]) -> None:
    files = {
        "absent": None,
        "folder": None,
        "text": b"hello",
        "public": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "tiny": pem(768),
        "small": pem(1024),
        "open": keys["rsa"].read_bytes(),
    }
    for name, octets in files.items():
        if octets is not None:
            (tmp_path / name).write_bytes(octets)
            (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
    (tmp_path / "folder").mkdir()
    paths = {name: tmp_path / name for name in files}
    found = read_keys({"example.com": Dkim(keys=paths)})
    assert {fault.key.rpartition(".")[2]: fault.rule for fault in found.faults} == {
        "absent": "cannot be read: no such file or directory",
        "folder": "cannot be read: is a directory",
        "text": "is no private key in PEM",
        "public": "is no private key in PEM",
        "tiny": "has 768 bits: an RSA key has 1024 to 4096 (RFC 8301), and should have 2048",
    }
    assert all(f.key.startswith('dkim."example.com".keys.') for f in found.faults)
    small, open_ = found.warnings
    assert small.startswith('dkim."example.com".keys.small has 1024 bits')
    assert open_.startswith('dkim."example.com".keys.open can be read by everyone')
    with pytest.raises(ConfigError):
        found.signer()


def test_a_key_that_no_receiver_may_know_alone_is_doubted(keys: dict[str, Path]) -> None:
    found = read_keys({"example.com": Dkim(keys={"e": keys["ed25519"]})})
    assert found.faults == []
    assert "add an RSA key" in found.warnings[0]


def test_an_encrypted_key_is_refused(tmp_path: Path, keys: dict[str, Path]) -> None:
    import subprocess

    file = tmp_path / "key.pem"
    command = ["openssl", "pkey", "-aes128", "-passout", "pass:x", "-in", str(keys["rsa"])]
    file.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    [fault] = read_keys({"example.com": Dkim(keys={"s": file})}).faults
    assert fault.rule.startswith("is encrypted")


def test_without_keys_nothing_signs() -> None:
    assert read_keys({}).signer() is None
