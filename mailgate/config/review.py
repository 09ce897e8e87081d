"""A second look at a configuration that is valid: what is dangerous, what is secret.

Owns the warnings of ``config check`` and the masking of ``config show``. Pure.
"""

from __future__ import annotations

import re
from typing import Any

from mailgate.config import urls
from mailgate.config.sandbox import Sandbox
from mailgate.config.shape import Config
from mailgate.config.terms import format_duration

#: RFC 5321 section 4.5.3.2.6 asks for ten minutes after the dot.
_DOT_TIMEOUT = 600.0
#: A broker or limiter URL that takes any certificate.
_UNVERIFIED = re.compile(r"(?i)[?&]ssl_cert_reqs=(cert_)?(none|optional)\b")


def masked(config: Config) -> dict[str, Any]:
    """The whole configuration as plain values, keys as in TOML, passwords in URLs as ``***``."""
    plain = _mask(config.model_dump(mode="json", by_alias=True))
    assert isinstance(plain, dict)
    return plain


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mask(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mask(inner) for inner in value]
    return urls.mask(value) if isinstance(value, str) and "://" in value else value


def warnings(config: Config) -> list[str]:
    """What works and may still hurt, as sentences that begin with the key."""
    return [
        *_transport(config),
        *_relays(config),
        *_limits(config),
        *_order(config),
        *_signatures(config),
        *_sandbox(config),
    ]


def _transport(config: Config) -> list[str]:
    said = []
    for key, url in (
        ("broker.url", config.broker.url),
        ("intake.url", config.intake.url),
        ("events.url", config.events.url),
        ("limiter.url", config.limiter.url),
        ("journal.url", config.journal.url),
    ):
        far = [host for host in urls.hosts(url or "") if not urls.is_loopback(host)]
        if url and far and _in_clear(url):
            said.append(f"{key} talks to {far[0]} without TLS: {_tls_instead(url)}")
        elif url and far and _UNVERIFIED.search(url):
            said.append(
                f"{key} does not verify the certificate of {far[0]}: anyone between here and "
                "there can read along; name its authority by ssl_ca_certs"
            )
    broker = config.broker.url or ""
    far = [host for host in urls.hosts(broker) if not urls.is_loopback(host)]
    if far and (config.journal.url or "sqlite:").startswith("sqlite:"):
        said.append(
            "journal.url is SQLite, which serves one machine: workers elsewhere on this broker "
            "would have a journal of their own"
        )
    if not urls.is_loopback(config.inbox.host):
        said.append(
            f"inbox.host is {config.inbox.host}: the inbox has no login and shows every mail "
            "to who can reach it; 127.0.0.1 keeps it on this machine"
        )
    return said


def _in_clear(url: str) -> bool:
    if url.startswith("postgresql"):
        return "sslmode=require" not in url and "sslmode=verify-" not in url
    return url.startswith(("redis://", "amqp://", "sentinel://"))


def _tls_instead(url: str) -> str:
    if url.startswith("postgresql"):
        return "add ?sslmode=verify-full"
    if url.startswith("amqp"):
        return "use amqps://"
    return "use rediss://" if url.startswith("redis") else "keep it on a trusted network"


def _relays(config: Config) -> list[str]:
    said = []
    if not config.relays and (config.broker.url or config.journal.url):
        said.append("relays is empty: mail goes nowhere but to the local inbox of `mailgate up`")
    for name, relay in config.relays.items():
        key = f"relays.{name}"
        near = urls.is_loopback(relay.host)
        if relay.security == "none" and not near:
            said.append(f"{key}.security is 'none': mail travels to {relay.host} in clear")
        if not relay.verify and relay.security != "none":
            said.append(
                f"{key}.verify is false: anyone between here and {relay.host} can read the mail"
                + (" and the password" if relay.username else "")
            )
        if relay.dot_timeout < _DOT_TIMEOUT:
            said.append(
                f"{key}.dot_timeout is {format_duration(relay.dot_timeout)}, and RFC 5321 asks "
                "for 10m: what a slow relay has taken would be sent again"
            )
        if relay.max_age < relay.idle:
            said.append(f"{key}.idle is longer than max_age, which closes the connection first")
    return said


def _limits(config: Config) -> list[str]:
    limits = config.limits
    rated = ["limits.global"] if limits.total is not None else []
    rated += [f"limits.producer.{name}" for name in limits.producer]
    rated += [f"limits.sender.'{name}'" for name in limits.sender]
    rated += [f"limits.domain.'{name}'" for name, at in limits.domain.items() if at.rate]
    for name, relay in config.relays.items():
        rated += [f"relays.{name}.rate"] if relay.rate is not None else []
        rated += [f"relays.{name}.domains.'{d}'" for d, at in relay.domains.items() if at.rate]
    broker = config.broker.url
    if rated and config.limiter.url is None and broker and not urls.is_redis(broker):
        return [
            f"limiter.url is not set and the broker is no Redis, but there are rates "
            f"({', '.join(rated)}): they are kept in the journal, which is slower; "
            "set a Redis URL, or 'journal' if that is meant"
        ]
    return []


def _order(config: Config) -> list[str]:
    said = []
    worker = config.worker
    if worker.deadline >= worker.lease:
        said.append(
            f"worker.deadline ({format_duration(worker.deadline)}) is not shorter than "
            f"worker.lease ({format_duration(worker.lease)}): a task should end before its "
            "process can be taken for dead"
        )
    for name, stream in config.streams.items():
        key, retry = f"streams.{name}.retry", stream.retry
        if retry.first > retry.cap:
            said.append(f"{key}.first is longer than cap, which shortens it")
        if retry.give_up <= retry.first:
            said.append(f"{key}.give_up is not longer than first: nothing is tried twice")
        if stream.expires_after is not None and stream.expires_after > retry.give_up:
            said.append(f"streams.{name}.expires_after is longer than retry.give_up, which ends it")
    return said


def _signatures(config: Config) -> list[str]:
    """Streams whose sender nobody signs for, where others are signed for."""
    said = []
    for name, stream in config.streams.items():
        domain = stream.sender.domain if stream.sender else ""
        parents = domain.split(".")
        above = [".".join(parents[at:]) for at in range(1, len(parents))]
        signed = domain in config.dkim or any(
            parent in config.dkim and config.dkim[parent].subdomains for parent in above
        )
        if config.dkim and domain and not signed:
            said.append(f"streams.{name}.from is at {domain}, whose mail no key in dkim signs")
    return said


def _sandbox(config: Config) -> list[str]:
    if config.sandbox.mode == "off":
        return []
    return [f"sandbox.mode is '{config.sandbox.mode}': {sandbox_sentence(config.sandbox)}"]


def sandbox_sentence(sandbox: Sandbox) -> str:
    """What the sandbox does with mail, for whoever wonders where it is."""
    redirected = sandbox.mode == "redirect"
    kept = f"goes to {sandbox.redirect_to}" if redirected else "is captured"
    return f"all mail {kept}" + (
        f" but that to {', '.join(sandbox.allow)}" if sandbox.allow else ""
    )
