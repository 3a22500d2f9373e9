"""Signing keys: how they are written down, and what they are called.

A key is written as the base64 of its PKCS#8 form (DER, Ed25519), several of them on lines of their own or between commas; what
follows a `#` is a comment. The first one signs. `BASE64 until=MS` is a key of the past, which verifies until that time (unix ms).
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from memoturnd.errors import ConfigurationError

_UNTIL: Final = "until="
_CLUSTER_CONTEXT: Final = b"memoturn-cluster-key-v1\0"


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key. `until_ms` is when it verifies no more, None for never."""

    private: Ed25519PrivateKey
    until_ms: int | None = None

    def __repr__(self) -> str:
        return f"SigningKey({self.kid})"

    @cached_property
    def public(self) -> Ed25519PublicKey:
        """The half that verifies."""
        return self.private.public_key()

    @cached_property
    def kid(self) -> str:
        """What tokens and receipts call the key."""
        return kid_of(raw_of(self.public))

    @cached_property
    def der(self) -> bytes:
        """Its PKCS#8 form."""
        return self.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_key() -> SigningKey:
    """Return a random key."""
    return SigningKey(Ed25519PrivateKey.generate())


def raw_of(public: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a public key."""
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def kid_of(raw: bytes) -> str:
    """Return the id of a public key: the first 8 bytes of its SHA-256, in hex."""
    return hashlib.sha256(raw).hexdigest()[:16]


def cluster_key_of(key: SigningKey) -> str:
    """Return the cluster key that follows from a signing key."""
    return hashlib.sha256(_CLUSTER_CONTEXT + key.der).hexdigest()


def jwk_of(raw: bytes, status: str) -> dict[str, str]:
    """Return a public key as the JSON Web Key of RFC 8037, and whether it signs, verifies or is retired."""
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": x,
        "kid": kid_of(raw),
        "alg": "EdDSA",
        "use": "sig",
        "status": status,
    }


def parse_keys(text: str, *, where: str) -> list[SigningKey]:
    """Return the keys that `text` writes down, at least one. Raises ConfigurationError, which shows none of it."""
    keys: list[SigningKey] = []
    for line in text.splitlines():
        parts = line.partition("#")[0].split(",")
        keys += [_parse(part.split(), where) for part in parts if part.strip()]
    if not keys:
        raise ConfigurationError(f"{where} holds no key; give it the base64 of an Ed25519 key in PKCS#8")
    return list({key.kid: key for key in reversed(keys)}.values())[::-1]


def written(keys: list[SigningKey]) -> str:
    """Return what `parse_keys` reads."""
    return "".join(
        base64.b64encode(key.der).decode()
        + ("" if key.until_ms is None else f" {_UNTIL}{key.until_ms}")
        + "\n"
        for key in keys
    )


def _parse(words: list[str], where: str) -> SigningKey:
    until_ms = None
    if len(words) == 2 and words[1].startswith(_UNTIL) and words[1].removeprefix(_UNTIL).isdigit():  # noqa: PLR2004
        until_ms = int(words[1].removeprefix(_UNTIL))
    elif len(words) != 1:
        raise ConfigurationError(
            f"{where} has a line that is no key: it takes one base64 word, then nothing or until=MS"
        )
    try:
        der = base64.b64decode(words[0], validate=True)
        private = serialization.load_der_private_key(der, password=None)
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{where} holds what is not the base64 of a key in PKCS#8; make one with: "
            "openssl genpkey -algorithm ed25519 -outform DER | base64"
        ) from None  # the cause may show what stands there
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{where} holds a key that is not of Ed25519; tokens are signed with no other"
        )
    return SigningKey(private, until_ms)
