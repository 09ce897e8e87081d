"""Operators' rules: what they may say, and that no pattern can be made slow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.config.load import ConfigError, load
from mailgate.config.rules import READ, Rule, pattern_fault
from mailgate.model.outcome import Kind, Scope, Suppress
from mailgate.model.state import Phase
from mailgate.smtp.classify import TABLE, table_for
from mailgate.smtp.reply import parse_reply


def rule(**said: Any) -> Rule:
    return Rule.model_validate({"then": "defer", "codes": ["550"], **said})


def test_rules_go_before_the_built_in_ones_in_their_order() -> None:
    rules = {
        "first": rule(enhanced=["5.7.*"], text="weekend", wait="2h", scope="relay"),
        "second": rule(then="fail", scope="domain", error_class="monday"),
    }
    table = table_for(rules, "main")
    outcome = table.classify(Phase.DOT, parse_reply("550 5.7.9 It is the WEEKEND"))
    assert (outcome.kind, outcome.error_class, outcome.scope) == (Kind.DEFER, "first", Scope.RELAY)
    assert outcome.retry_after == 7200
    outcome = table.classify(Phase.RCPT, parse_reply("550 5.1.1 User unknown"))
    assert (outcome.kind, outcome.error_class) == (Kind.FAIL, "monday")
    outcome = table.classify(Phase.RCPT, parse_reply("553 5.1.1 User unknown"))
    assert outcome.error_class == "unknown_address"


def test_a_rule_may_be_for_some_relays_and_phases() -> None:
    rules = {"ours": rule(relays=["main"], phases=["rcpt"])}
    said = parse_reply("550 5.1.1 No")
    assert table_for(rules, "main").classify(Phase.RCPT, said).error_class == "ours"
    assert table_for(rules, "main").classify(Phase.DOT, said).error_class != "ours"
    assert table_for(rules, "backup") is TABLE


def test_a_rule_may_suppress() -> None:
    rules = {"gone": rule(then="bounce", suppress="now", text="left the company")}
    outcome = table_for(rules, "main").classify(
        Phase.RCPT, parse_reply("550 She has left the company")
    )
    assert (outcome.kind, outcome.suppress) == (Kind.BOUNCE, Suppress.NOW)


def test_a_rule_says_nothing_about_what_comes_before_mail_or_out_of_step() -> None:
    rules = {"all": rule(then="bounce", codes=(), text=".")}
    table = table_for(rules, "main")
    for phase in (Phase.GREETING, Phase.EHLO, Phase.AUTH):
        assert table.classify(phase, parse_reply("550 No")).error_class != "all"
    assert table.classify(Phase.RCPT, parse_reply("354 Go on")).error_class == "desync"
    assert table.classify(Phase.RCPT, parse_reply("550 No")).error_class == "all"


@pytest.mark.parametrize(
    ("said", "key", "text"),
    [
        ("", "codes", "is required"),
        ("codes = ['250']", "codes", "holds '250'"),
        ("codes = ['5500']", "codes", "holds '5500'"),
        ("enhanced = ['5.7']", "enhanced", "holds '5.7'"),
        ("enhanced = ['spam']", "enhanced", "holds 'spam'"),
        ("text = '('", "text", "is no regular expression"),
        ("text = '[[a]'", "text", "is no regular expression"),
        ("text = '(a+)+b'", "text", "could take long"),
        ("text = 'a.*b.*c'", "text", "could take long"),
        (r"text = '(a)\1'", "text", "must not refer back"),
        (f"text = '{'a' * 501}'", "text", "at most 500"),
        ("codes = [550]\nthen = 'fail'\nwait = '1h'", "wait", "is for then = 'defer'"),
        ("codes = [550]\nthen = 'bounce'\nscope = 'relay'", "scope", "must be 'recipient'"),
        ("codes = [550]\nsuppress = 'now'", "suppress", "'now' is for then = 'bounce'"),
        ("codes = [550]\nscope = 'relay'\nsuppress = 'again'", "suppress", "'again' is for"),
        ("codes = [550]\nphases = ['auth']", "phases", "mail"),
        ("codes = [550]\nrelays = ['nowhere']", "relays", "which is no relay"),
    ],
)
def test_a_wrong_rule_is_one_clear_fault(tmp_path: Path, said: str, key: str, text: str) -> None:
    then = "" if "then" in said else "then = 'defer'\n"
    file = tmp_path / "mailgate.toml"
    file.write_text(f"[rules.mine]\n{then}{said}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, {}, cwd=tmp_path)
    [fault] = caught.value.faults
    assert f"rules.mine.{key}" in str(fault)
    assert text in str(fault)


@pytest.mark.parametrize(
    "text",
    [
        "spam",
        r"rate.{0,40}limit",
        r"\bweekend (limit|quota)\b",
        r"error \d{1,6}",
        r"quota.*exceeded",
        r"^\S+ blocked",
        r"(?i:no such) (user|mailbox)s?",
    ],
)
def test_what_people_write_is_taken(text: str) -> None:
    assert pattern_fault(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "(a*)*b",
        "(a|a)*b",
        "(a|aa)+$",
        "(.*)(.*)(.*)x",
        r"(\w+\s?)*$",
        "(a{1,30}){1,30}b",
        "a?" * 30 + "b" * 30,
        r"(?=(a+)+b)a",
        ".{0,1000}.{0,1000}!",
    ],
)
def test_what_a_reply_could_make_slow_is_refused(text: str) -> None:
    assert "could take long" in (pattern_fault(text) or "")


PARTS = st.sampled_from(["a", "b", ".", "(a|b)", "(a|ab)", r"\w"])
REPEATS = st.sampled_from(["", "*", "+", "?", "{0,5}", "{2,40}", "{3}"])
PATTERNS = st.lists(st.tuples(PARTS, REPEATS).map("".join), min_size=1, max_size=6).map("".join)


@given(PATTERNS, st.sampled_from(["a", "ab", "aab", "b"]))
def test_no_pattern_that_is_taken_can_be_made_slow(text: str, unit: str) -> None:
    if pattern_fault(text + "!") is not None:
        return
    table = table_for({"it": rule(text=text + "!")}, "main")
    said = parse_reply("550 " + (unit * READ)[:READ])
    begun = time.process_time()
    table.match(Phase.RCPT, said)
    assert time.process_time() - begun < 1.0
