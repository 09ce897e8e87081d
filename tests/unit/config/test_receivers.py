"""Who may get test mails, as it is written."""

from __future__ import annotations

import pytest

from mailgate.config.load import ConfigError, load
from mailgate.config.terms import parse_receivers


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("me@corp.example", "me@corp.example"),
        (" Me@Corp.Example ", "Me@corp.example"),
        ("*@Example.COM", "*@example.com"),
        ("*@bücher.de", "*@xn--bcher-kva.de"),
    ],
)
def test_an_address_or_everyone_in_a_domain(written, kept):
    assert parse_receivers(written) == kept


@pytest.mark.parametrize(
    "written", ["*", "*@", "*@*", "*@*.example.com", "a*@example.com", "ann", ""]
)
def test_nothing_wider_can_be_said(written):
    with pytest.raises(ValueError):
        parse_receivers(written)


def test_a_wrong_one_is_named_with_what_is_allowed(tmp_path):
    with pytest.raises(ConfigError) as refused:
        load(None, {"MAILGATE_STUDIO__SEND_TEST": '["ann@example.com", "*"]'}, cwd=tmp_path)
    (fault,) = refused.value.faults
    assert str(fault).startswith(
        "studio.send_test.1 is '*'; it must be an address such as 'ann@example.com', or "
    )
