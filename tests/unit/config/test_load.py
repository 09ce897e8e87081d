"""Where configuration comes from, and that every fault is told at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailgate.config.load import ConfigError, load, resolve_password, secret_faults
from mailgate.config.relays import Relay
from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.model.state import Lane


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def faults(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> dict[str, str]:
    """The rules by key that loading ``text`` breaks."""
    file = write(tmp_path / "conf" / "mailgate.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {}, cwd=tmp_path)
    assert len({fault.key for fault in caught.value.faults}) == len(caught.value.faults)
    return {fault.key: fault.rule for fault in caught.value.faults}


def test_nothing_said_gives_the_defaults_with_state_in_the_working_directory(tmp_path):
    config = load(None, {}, cwd=tmp_path)
    assert config == Config(state_dir=tmp_path / ".mailgate")


def test_the_named_file_wins_over_the_variable_and_that_over_the_default_file(tmp_path):
    write(tmp_path / "mailgate.toml", 'default_locale = "de"')
    write(tmp_path / "variable.toml", 'default_locale = "fr"')
    write(tmp_path / "option.toml", 'default_locale = "pt"')
    environ = {"MAILGATE_CONFIG": "variable.toml"}
    assert load(None, {}, cwd=tmp_path).default_locale == "de"
    assert load(None, environ, cwd=tmp_path).default_locale == "fr"
    assert load(Path("option.toml"), environ, cwd=tmp_path).default_locale == "pt"


@pytest.mark.parametrize(
    ("path", "environ"),
    [(Path("absent.toml"), {}), (None, {"MAILGATE_CONFIG": "absent.toml"}), (Path("."), {})],
)
def test_a_named_file_that_cannot_be_read_is_a_fault(tmp_path, path, environ):
    with pytest.raises(ConfigError, match="the configuration file cannot be read"):
        load(path, environ, cwd=tmp_path)


def test_a_syntax_error_is_told_with_line_and_column(tmp_path):
    file = write(tmp_path / "bad.toml", '[broker]\nurl = "redis://x"\nurl = oops\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {}, cwd=tmp_path)
    (fault,) = caught.value.faults
    assert fault.rule.startswith("line 3, column ")
    assert fault.source == str(file)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "mailgate.toml").write_bytes(b'\xef\xbb\xbfdefault_locale = "de"\n')
    assert load(None, {}, cwd=tmp_path).default_locale == "de"


def test_a_file_that_is_not_utf8_is_a_fault(tmp_path):
    (tmp_path / "mailgate.toml").write_bytes(b'default_locale = "\xff"\n')
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        load(None, {}, cwd=tmp_path)


def test_every_fault_is_told_at_once_with_its_key_and_the_allowed_values(tmp_path):
    found = faults(
        """
        colour = 1
        default_stream = "nope"
        [broker]
        url = "kafka://u:hunter2@x"
        [relays.main]
        hosst = "smtp.example.com"
        port = 99999
        security = "ssl"
        username = "ann"
        [relays.clear]
        host = "b.example"
        security = "none"
        username = "q"
        [relays."Bad Name"]
        host = "c"
        [streams.bulk]
        lane = "fast"
        relays = ["absent"]
        from = "nobody"
        retry = {first = "5 parsecs", jitter = 2}
        throttle = [{limit = 0, window = "24h"}, {limit = 1}]
        [limits]
        global = "fast"
        [worker]
        conversations = true
        """,
        tmp_path,
        {"MAILGATE_WORKER__LEASE": "soon"},
    )
    assert set(found) == {
        "colour",
        "default_stream",
        "broker.url",
        "relays.main.hosst",
        "relays.main.host",
        "relays.main.port",
        "relays.main.security",
        "relays.main.username",
        "relays.clear.security",
        "relays.clear.username",
        "relays.Bad Name",
        "streams.bulk.lane",
        "streams.bulk.relays",
        "streams.bulk.from",
        "streams.bulk.retry.first",
        "streams.bulk.retry.jitter",
        "streams.bulk.throttle.0.limit",
        "streams.bulk.throttle.1.window",
        "limits.global",
        "worker.conversations",
        "worker.lease",
    }
    assert found["relays.main.port"] == "is 99999; it must be a whole number from 1 to 65535"
    assert found["relays.main.security"] == "is 'ssl'; it must be one of 'starttls', 'tls', 'none'"
    assert "did you mean 'host'?" in found["relays.main.hosst"]
    assert found["streams.bulk.lane"] == "is 'fast'; it must be one of 'high', 'normal', 'bulk'"
    assert "'14/s'" in found["limits.global"]
    assert "which is no relay" in found["streams.bulk.relays"]
    assert "hunter2" not in str(found)


def test_verp_needs_an_envelope_sender_with_room(tmp_path):
    found = faults(
        f"""
        [streams.bulk]
        verp = true
        [streams.codes]
        verp = true
        envelope_from = ""
        [streams.transactional]
        verp = true
        envelope_from = "{"b" * 38}@example.com"
        """,
        tmp_path,
    )
    assert found == {
        "streams.bulk.envelope_from": "is required with verp, and not empty",
        "streams.codes.envelope_from": "is required with verp, and not empty",
        "streams.transactional.envelope_from": "is too long before the @-sign for verp: "
        "at most 37 octets",
    }


def test_a_schedule_may_be_named_and_changed(tmp_path):
    text = """
    [streams.alerts]
    retry = "codes"
    [streams.codes]
    retry = {give_up = "5m"}
    [streams.bulk.retry]
    preset = "transactional"
    cap = "1h"
    """
    file = write(tmp_path / "mailgate.toml", text)
    config = load(file, {"MAILGATE_STREAMS__TRANSACTIONAL__RETRY": "bulk"}, cwd=tmp_path)
    schedules = {
        name: (r.first, r.factor, r.cap, r.give_up)
        for name, r in ((name, stream.retry) for name, stream in config.streams.items())
    }
    assert schedules == {
        "transactional": (900, 2, 4 * 3600, 72 * 3600),
        "codes": (10, 2.5, 120, 300),
        "bulk": (60, 3, 3600, 72 * 3600),
        "alerts": (10, 2.5, 120, 600),
    }
    # What is shown means the same when it is read again.
    assert Config.model_validate(config.model_dump(by_alias=True)) == config
    found = faults('[streams.alerts]\nretry = "fast"\n', tmp_path)
    assert found == {
        "streams.alerts.retry.preset": "is 'fast'; it must be one of "
        "'transactional', 'codes', 'bulk'"
    }


def test_a_limit_may_be_written_with_its_window(tmp_path):
    text = """
    [throttles.flood]
    limit = "3/10m"
    spacing = "10s"
    [throttles.day]
    limit = 20
    window = "1d"
    """
    file = write(tmp_path / "mailgate.toml", text)
    config = load(file, {"MAILGATE_THROTTLES__FLOOD__LIMIT": "5/h"}, cwd=tmp_path)
    assert config.throttles["flood"].windows() == ((5, 3600.0), (1, 10.0))
    config = load(file, {"MAILGATE_THROTTLES__DAY__LIMIT": "5"}, cwd=tmp_path)
    assert config.throttles["day"].windows() == ((5, 86400.0),)


def test_a_throttle_that_limits_nothing_or_selects_nothing_is_a_fault(tmp_path):
    found = faults(
        """
        [throttles.empty]
        per = "recipient"
        [throttles.endless]
        limit = 3
        [throttles.nothing]
        window = "1h"
        [throttles.other]
        limit = "3/h"
        streams = ["nope"]
        [throttles.later]
        limit = "3/h"
        on_limit = "digest"
        digest = "nowhere"
        [throttles.early]
        limit = "3/h"
        digest = "throttled"
        [digests.news]
        stream = "nope"
        order = "by name"
        [throttles.odd]
        limit = "3/h burst 2"
        [streams.codes]
        bypass_throttles = true
        hard_cap = "30/h burst 5"
        [producers.shop]
        throttle = "all"
        weight = 0
        """,
        tmp_path,
    )
    assert found == {
        "throttles.empty.limit": "is required, or spacing instead",
        "throttles.endless.window": "is required with a limit: "
        "a duration such as '10m', '24h' or '7d'",
        "throttles.nothing.limit": "is required with a window: a whole number, at least 1",
        "throttles.other.streams": "names 'nope', which is no stream; "
        "the streams are: 'transactional', 'codes', 'bulk'",
        "throttles.later.digest": "names 'nowhere', which is no digest; "
        "the digests are: 'throttled', 'news'",
        "throttles.early.digest": "is only for on_limit = 'digest'",
        "digests.news.stream": "names 'nope', which is no stream; "
        "the streams are: 'transactional', 'codes', 'bulk'",
        "digests.news.order": "is 'by name'; it must be 'newest', 'oldest', or a field of the "
        "items, with '-' before it for downwards",
        "throttles.odd.limit": "is '3/h burst 2'; it must be a whole number, at least 1 "
        "or a rate such as '3/10m', which says the window too",
        "streams.codes.hard_cap": "has no burst: it counts in a sliding window",
        "producers.shop.throttle": "is 'all'; it must be one of 'stricter', 'any', 'none'",
        "producers.shop.weight": "is 0; it must be a whole number from 1 to 1000",
    }


def test_a_fault_says_where_the_value_came_from(tmp_path):
    file = write(tmp_path / "mailgate.toml", "[worker]\nconversations = 0\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"MAILGATE_WORKER__LEASE": "soon"}, cwd=tmp_path)
    sources = {fault.key: fault.source for fault in caught.value.faults}
    assert sources == {
        "worker.conversations": str(file),
        "worker.lease": "environment variable MAILGATE_WORKER__LEASE",
    }


def test_a_key_that_is_wrong_is_not_told_again_by_the_rules_of_its_section(tmp_path):
    found = faults('[relays.a]\nhost = "h"\nusername = "u"\npassword_env = 5\n', tmp_path)
    assert set(found) == {"relays.a.password_env"}


def test_a_wrong_value_that_holds_a_url_is_shown_without_its_password(tmp_path):
    found = faults('[worker]\nlease = "redis://ann:hunter2@host"\n', tmp_path)
    assert "hunter2" not in found["worker.lease"]


def test_a_variable_wins_over_the_file_key_by_key(tmp_path):
    write(tmp_path / "mailgate.toml", '[relays.main]\nhost = "file"\nport = 25\n')
    environ = {"MAILGATE_RELAYS__MAIN__HOST": "env", "MAILGATE_INBOX__KEEP": "7"}
    config = load(None, environ, cwd=tmp_path)
    assert (config.relays["main"].host, config.relays["main"].port) == ("env", 25)
    assert config.inbox.keep == 7


def test_variables_are_read_as_toml_where_they_are_toml(tmp_path):
    config = load(
        None,
        {
            "MAILGATE_RELAYS__A__HOST": "a.example",
            "MAILGATE_RELAYS__A__VERIFY": "false",
            "MAILGATE_RELAYS__A__RATE": "14/s burst 20",
            "MAILGATE_RELAYS__B__HOST": '"b.example"',
            "MAILGATE_STREAMS__BULK__RELAYS": '["b", "a"]',
            "MAILGATE_STREAMS__CODES__RELAYS": "a",
            "MAILGATE_STREAMS__NEW__RETRY__FIRST": "90s",
            "MAILGATE_STREAMS__NEW__LANE": "high",
            "MAILGATE_STREAMS__NEW__FROM": "Ann <ann@example.com>",
            "MAILGATE_STREAMS__NEW__THROTTLE": '[{limit = 1, window = "24h"}]',
            "MAILGATE_LIMITS__GLOBAL": "100/m",
        },
        cwd=tmp_path,
    )
    assert config.relays["a"].verify is False
    assert config.relays["a"].rate == Rate(14, 1.0, 20)
    assert config.relays["b"].host == "b.example"
    assert config.route("bulk") == ("b", "a")
    assert config.route("codes") == ("a",)
    assert config.streams["new"].retry.first == 90
    assert config.streams["new"].lane is Lane.HIGH
    assert config.streams["new"].sender is not None
    assert config.streams["new"].throttle[0].window == 86400
    assert config.limits.total == Rate(100, 60.0)


def test_a_text_that_looks_like_a_number_stays_a_text(tmp_path):
    environ = {
        "MAILGATE_RELAYS__A__HOST": "h",
        "MAILGATE_RELAYS__A__USERNAME": "0123",
        "MAILGATE_RELAYS__A__PASSWORD_ENV": "PW",
    }
    assert load(None, environ, cwd=tmp_path).relays["a"].username == "0123"


def test_a_variable_cannot_smuggle_in_a_second_key(tmp_path):
    environ = {"MAILGATE_INBOX__KEEP": "7\nother = 1"}
    with pytest.raises(ConfigError) as caught:
        load(None, environ, cwd=tmp_path)
    assert [fault.key for fault in caught.value.faults] == ["inbox.keep"]


def test_a_dash_in_a_name_of_the_file_is_an_underscore_in_a_variable(tmp_path):
    write(tmp_path / "mailgate.toml", '[relays.eu-west]\nhost = "file"\n')
    config = load(None, {"MAILGATE_RELAYS__EU_WEST__PORT": "2525"}, cwd=tmp_path)
    assert config.relays["eu-west"].port == 2525
    assert set(config.relays) == {"eu-west"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAILGATE_BROKR__URL", "MAILGATE_BROKER__URL"),
        ("MAILGATE_BROKER_URL", "MAILGATE_BROKER__URL"),
        ("MAILGATE_RELAYS__MAIN__HOTS", "MAILGATE_RELAYS__MAIN__HOST"),
        ("MAILGATE_STATEDIR", "MAILGATE_STATE_DIR"),
    ],
)
def test_an_unknown_variable_is_a_fault_that_names_the_nearest_key(tmp_path, name, meant):
    with pytest.raises(ConfigError) as caught:
        load(None, {name: "x"}, cwd=tmp_path)
    (fault,) = caught.value.faults
    assert fault.key == name
    assert f"did you mean {meant}?" in fault.rule


def test_variables_of_a_container_platform_are_left_alone(tmp_path):
    environ = {
        "MAILGATE_SERVICE_HOST": "10.0.0.1",
        "MAILGATE_PORT": "tcp://10.0.0.1:25",
        "MAILGATE_PORT_25_TCP_ADDR": "10.0.0.1",
        "MAILGATE_INBOX_SERVICE_PORT_HTTP": "80",
    }
    assert load(None, environ, cwd=tmp_path) == load(None, {}, cwd=tmp_path)


def test_the_variable_that_holds_a_password_is_no_unknown_key(tmp_path):
    write(
        tmp_path / "mailgate.toml",
        '[relays.main]\nhost = "h"\nusername = "u"\npassword_env = "MAILGATE_MAIN_PASSWORD"\n',
    )
    environ = {"MAILGATE_MAIN_PASSWORD": "hunter2"}
    config = load(None, environ, cwd=tmp_path)
    assert resolve_password(config.relays["main"], environ) == "hunter2"


def test_a_text_can_come_from_a_file_without_its_line_end(tmp_path):
    write(tmp_path / "secret", "postgresql://ann:pw@db/mail\n")
    config = load(None, {"MAILGATE_JOURNAL__URL_FILE": "secret"}, cwd=tmp_path)
    assert config.journal.url == "postgresql+psycopg://ann:pw@db/mail"


def test_a_secret_file_that_is_missing_is_a_fault_of_its_key(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(None, {"MAILGATE_JOURNAL__URL_FILE": "absent"}, cwd=tmp_path)
    (fault,) = caught.value.faults
    assert fault.key == "journal.url"
    assert "cannot be read from 'absent'" in fault.rule


def test_a_key_given_as_value_and_as_file_is_a_fault(tmp_path):
    write(tmp_path / "secret", "amqp://host")
    environ = {"MAILGATE_BROKER__URL": "amqp://other", "MAILGATE_BROKER__URL_FILE": "secret"}
    with pytest.raises(ConfigError, match="is set twice"):
        load(None, environ, cwd=tmp_path)


def test_a_key_that_ends_in_file_is_itself(tmp_path):
    environ = {
        "MAILGATE_RELAYS__A__HOST": "h",
        "MAILGATE_RELAYS__A__USERNAME": "u",
        "MAILGATE_RELAYS__A__PASSWORD_FILE": "pw",
    }
    assert load(None, environ, cwd=tmp_path).relays["a"].password_file == tmp_path / "pw"


def test_relative_paths_begin_at_the_file_and_those_of_variables_where_we_stand(tmp_path):
    file = write(
        tmp_path / "etc" / "m.toml",
        'state_dir = "../state"\n[templates]\npath = "mine"\n[journal]\nurl = "sqlite:///j.db"\n',
    )
    config = load(file, {}, cwd=tmp_path / "work")
    assert config.state_dir == tmp_path / "state"
    assert config.templates.path == (tmp_path / "etc" / "mine",)
    assert config.journal.url == f"sqlite:///{tmp_path}/etc/j.db"
    config = load(
        file,
        {"MAILGATE_STATE_DIR": "s", "MAILGATE_JOURNAL__URL": "sqlite:///j.db"},
        cwd=tmp_path / "work",
    )
    assert config.state_dir == tmp_path / "work" / "s"
    assert config.journal.url == f"sqlite:///{tmp_path}/work/j.db"


def test_a_table_where_a_value_belongs_and_the_reverse_are_faults(tmp_path):
    found = faults('broker = "redis://x"\n[worker.lease]\nx = 1\n', tmp_path)
    assert found["broker"] == "is 'redis://x'; it must be a table"
    assert found["worker.lease"].startswith("is a table; it must be a duration")


def test_a_variable_below_a_value_that_should_be_a_table_leaves_its_fault(tmp_path):
    found = faults('broker = "redis://x"\n', tmp_path, {"MAILGATE_BROKER__URL": "redis://y"})
    assert set(found) == {"broker"}


def relay(**said: object) -> Relay:
    return Relay.model_validate({"host": "h", "username": "u", **said})


def test_a_password_comes_from_its_variable_or_its_file(tmp_path):
    secret = write(tmp_path / "pw", "s3cret \r\n")
    assert resolve_password(relay(password_env="PW"), {"PW": "x"}) == "x"
    assert resolve_password(relay(password_file=secret), {}) == "s3cret "
    assert resolve_password(Relay(host="h"), {"PW": "x"}) is None


def test_a_password_that_is_not_there_is_a_fault_of_its_key(tmp_path):
    empty = write(tmp_path / "empty", "\n")
    config = Config(
        relays={
            "unset": relay(password_env="PW"),
            "blank": relay(password_env="BLANK"),
            "absent": relay(password_file=tmp_path / "absent"),
            "empty": relay(password_file=empty),
            "good": relay(password_env="GOOD"),
        }
    )
    found = {f.key: f.rule for f in secret_faults(config, {"BLANK": "", "GOOD": "x"})}
    assert found == {
        "relays.unset.password_env": "names the variable PW, which is not set",
        "relays.blank.password_env": "names the variable BLANK, which is empty",
        "relays.absent.password_file": "cannot be read: no such file or directory",
        "relays.empty.password_file": "is an empty file",
    }


def token_relay(file: object) -> Relay:
    return relay(token_file=file, auth=["xoauth2"])


def test_a_token_is_read_again_each_time_it_is_asked_for(tmp_path):
    file = write(tmp_path / "token", "ya29.one\n")
    secret = resolve_password(token_relay(file), {})
    assert callable(secret)
    assert secret() == "ya29.one"
    file.write_text("ya29.two\n")
    assert secret() == "ya29.two"
    file.write_text("")
    with pytest.raises(ValueError, match="is an empty file"):
        secret()


@pytest.mark.parametrize("text", ["two words", "a\x01auth=Bearer b", '{"access_token": "x"}', "é"])
def test_a_file_that_holds_no_token_is_a_fault_that_does_not_repeat_it(tmp_path, text):
    file = write(tmp_path / "token", text)
    with pytest.raises(ConfigError) as caught:
        resolve_password(token_relay(file), {}, name="main")
    (fault,) = caught.value.faults
    assert fault.key == "relays.main.token_file"
    assert fault.rule.startswith("is not one access token")
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "key", "rule"),
    [
        ('username = "u"', "username", "needs password_env, password_file or token_file"),
        ('password_env = "X"', "password_env", "needs username beside it"),
        ('username = "u"\ntoken_file = "t"', "auth", "must be ['xoauth2']"),
        ('username = "u"\nauth = "xoauth2"\npassword_env = "X"', "auth", "which needs token_file"),
        ('username = "u"\nauth = []\npassword_env = "X"', "auth", "is empty"),
        (
            'username = "u"\nauth = ["xoauth2", "plain"]\ntoken_file = "t"',
            "auth",
            "mixes xoauth2 with mechanisms that send a password",
        ),
        (
            'username = "u"\nauth = "xoauth2"\ntoken_file = "t"\npassword_file = "p"',
            "token_file",
            "is set and so is password_file",
        ),
        ('source_address = "mail.example.com"', "source_address", "it must be an IP address"),
    ],
)
def test_what_does_not_belong_together_in_a_relay_is_said_in_one_fault(tmp_path, said, key, rule):
    found = faults(f'[relays.main]\nhost = "h"\n{said}\n', tmp_path)
    assert list(found) == [f"relays.main.{key}"]
    assert rule in found[f"relays.main.{key}"]


def test_the_environment_of_this_process_is_never_read(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "MAILGATE_INBOX__KEEP", "3")
    assert load(None, {}, cwd=tmp_path).inbox.keep == 1000


# --- signing ------------------------------------------------------------------------


def test_domains_and_selectors_are_read_as_dns_has_them(tmp_path):
    text = '[dkim."Bücher.Example"]\nkeys = { MG2026 = "keys/one.pem" }\nunsigned = "Date"\n'
    file = write(tmp_path / "mailgate.toml", text)
    section = load(file, {}, cwd=tmp_path).dkim["xn--bcher-kva.example"]
    assert section.keys == {"mg2026": tmp_path / "keys" / "one.pem"}
    assert section.unsigned == ("date",)


def test_the_faults_of_signing_name_the_quoted_domain(tmp_path):
    said = faults(
        '[dkim."example.com"]\nkeys = { "a b" = "k" }\nunsigned = ["from"]\n'
        '[dkim."example.net"]\nkeys = {}\n[dkim."not a domain"]\nkeys = { s = "k" }\n'
        '[dkim."example.org"]\nkey = "k"\n',
        tmp_path,
    )
    assert set(said) == {
        'dkim."example.com".keys.a b',
        'dkim."example.com".unsigned.0',
        'dkim."example.net".keys',
        "dkim.not a domain",
        'dkim."example.org".key',
        'dkim."example.org".keys',
    }
    assert "is not a selector" in said['dkim."example.com".keys.a b']
    assert "From, which is always signed" in said['dkim."example.com".unsigned.0']
    assert said["dkim.not a domain"] == "is not a domain such as 'example.com'"


def test_a_variable_finds_a_domain_that_the_file_knows(tmp_path):
    file = write(tmp_path / "mailgate.toml", '[dkim."a-b.example"]\nkeys = { s = "k.pem" }\n')
    environ = {"MAILGATE_DKIM__A_B_EXAMPLE__KEYS__S": "/run/secrets/k.pem"}
    section = load(file, environ, cwd=tmp_path).dkim["a-b.example"]
    assert section.keys == {"s": Path("/run/secrets/k.pem")}
