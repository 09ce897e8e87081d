"""Private keys for DKIM: read from their files, judged, made, and shown as DNS records.

Owns ``cryptography`` and every rule about a key. Reads key files, once, when a
process starts; never keeps or shows a private key's text.
"""

from __future__ import annotations

import stat
from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from mailgate.config.dkim import Dkim
from mailgate.config.faults import ConfigError, ConfigFault, dotted
from mailgate.render.dkim import Identity, Key, Signer

#: RFC 8301 section 3.2: signers must not use less than the first, and should use the
#: second; no verifier has to take more than the third.
LEAST_BITS, GOOD_BITS, MOST_BITS = 1024, 2048, 4096

Private = RSAPrivateKey | Ed25519PrivateKey


class KeyFault(ValueError):
    """No mail can be signed with this key; says which rule it breaks."""


@dataclass(slots=True)
class Keys:
    """Every key that the configuration names: who signs, what is wrong, what may hurt."""

    identities: list[Identity] = field(default_factory=list)
    faults: list[ConfigFault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def signer(self) -> Signer | None:
        """What signs, or None where nothing does. Raises ``ConfigError`` with all faults."""
        if self.faults:
            raise ConfigError(self.faults)
        return Signer(self.identities) if self.identities else None


@dataclass(frozen=True, slots=True)
class Record:
    """What a domain publishes, so that receivers can verify (RFC 6376 section 3.6)."""

    name: str
    text: str


def read_keys(sections: Mapping[str, Dkim]) -> Keys:
    """Read every key file of ``[dkim]``."""
    out = Keys()
    for domain, section in sections.items():
        keys = []
        for selector, path in section.keys.items():
            key = dotted(("dkim", domain, "keys", selector))
            try:
                private = read_key(path)
            except KeyFault as fault:
                out.faults.append(ConfigFault(key, str(fault), str(path)))
                continue
            keys.append(_key(selector, private))
            out.warnings += [f"{key} {said}" for said in _doubts(path, private)]
        if keys and all(key.algorithm == "ed25519-sha256" for key in keys):
            out.warnings.append(
                f"{dotted(('dkim', domain, 'keys'))} holds Ed25519 only, which many receivers "
                "do not verify: add an RSA key"
            )
        identity = Identity(domain, tuple(keys), section.subdomains, frozenset(section.unsigned))
        out.identities.append(identity)
    return out


def read_key(path: Path) -> Private:
    """A private key from a PEM file. Raises ``KeyFault``."""
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise KeyFault(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    try:
        private = serialization.load_pem_private_key(octets, password=None)
    except TypeError:
        raise KeyFault("is encrypted: there is nobody to ask for its passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("is no private key in PEM") from None
    if isinstance(private, Ed25519PrivateKey):
        return private
    if not isinstance(private, RSAPrivateKey):
        raise KeyFault("is neither an RSA nor an Ed25519 key (RFC 8301, RFC 8463)")
    if not LEAST_BITS <= private.key_size <= MOST_BITS:
        raise KeyFault(
            f"has {private.key_size} bits: an RSA key has {LEAST_BITS} to {MOST_BITS} "
            f"(RFC 8301), and should have {GOOD_BITS}"
        )
    return private


def make_key(algorithm: Literal["rsa", "ed25519"]) -> bytes:
    """A new private key in PEM."""
    private: Private
    if algorithm == "rsa":
        private = generate_private_key(65537, GOOD_BITS)
    else:
        private = Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def record(domain: str, selector: str, private: Private) -> Record:
    """The TXT record that belongs to a key."""
    if isinstance(private, RSAPrivateKey):
        kind, form = "rsa", serialization.PublicFormat.SubjectPublicKeyInfo
        octets = private.public_key().public_bytes(serialization.Encoding.DER, form)
    else:
        # The bare 32 octets (RFC 8463 section 4).
        kind, octets = "ed25519", private.public_key().public_bytes_raw()
    text = f"v=DKIM1; k={kind}; p={b2a_base64(octets, newline=False).decode()}"
    return Record(f"{selector}._domainkey.{domain}", text)


def _key(selector: str, private: Private) -> Key:
    if isinstance(private, RSAPrivateKey):
        rsa, padding, algorithm = private, PKCS1v15(), hashes.SHA256()
        return Key(selector, "rsa-sha256", lambda octets: rsa.sign(octets, padding, algorithm))
    ed25519 = private
    # RFC 8463 section 3: the hash is what is signed.
    return Key(selector, "ed25519-sha256", lambda octets: ed25519.sign(sha256(octets).digest()))


def _doubts(path: Path, private: Private) -> list[str]:
    said = []
    if isinstance(private, RSAPrivateKey) and private.key_size < GOOD_BITS:
        said.append(
            f"has {private.key_size} bits, which receivers may take for too weak: "
            f"use {GOOD_BITS} (RFC 8301)"
        )
    if path.stat().st_mode & stat.S_IROTH:
        said.append(f"can be read by everyone on this machine: chmod o-r {path}")
    return said
