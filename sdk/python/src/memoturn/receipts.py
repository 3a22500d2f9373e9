"""Receipts of erasures, checked without a node: the signature, by a published key, and what the receipt says.

The signature (Ed25519, base64) is of `memoturn-erasure-receipt-v1`, a zero byte, and the payload as compact JSON with
sorted keys in UTF-8. `key_id` is the first 8 bytes, in hex, of the SHA-256 of the public key. Needs the package
`cryptography`, which `memoturn[cli]` brings.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from memoturn.errors import InvalidReceiptError

CONTEXT = b"memoturn-erasure-receipt-v1\x00"
_KEY_BYTES = 32


def verify_receipt(receipt: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a receipt, or of a coupon that has one, once a key of `keys` (JWKS) has proved it.

    Raises InvalidReceiptError for one that is unsigned, signed by no such key, changed, or of an erasure that did not
    end clean.
    """
    found = receipt.get("receipt", receipt)
    payload = found.get("payload") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(payload, dict):
        raise InvalidReceiptError(
            "this is no receipt: it has no `payload`; fetch the coupon of a completed erasure"
        )
    if found.get("alg") == "none":
        raise InvalidReceiptError("the receipt is not signed: the node that made it had no keys")
    if found.get("alg") != "Ed25519":
        raise InvalidReceiptError(
            f"the receipt is signed by {found.get('alg')!r}, which this release cannot check"
        )
    _check(_key(keys, str(found.get("key_id"))), str(found.get("sig")), payload)
    if receipt.get("id", payload.get("erasure_id")) != payload.get("erasure_id"):
        raise InvalidReceiptError("the receipt is of another erasure than the coupon that it stands in")
    if not payload.get("evidence", {}).get("clean"):
        raise InvalidReceiptError("the receipt says itself that the erasure did not end clean")
    return payload


def key_of(keys: Mapping[str, Any], key_id: str) -> bytes | None:
    """Return the public key of that id in a JWKS, which its own bytes have to prove; None without it."""
    for entry in keys.get("keys", []):
        try:
            text = str(entry["x"])
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (KeyError, TypeError, ValueError):
            continue
        if len(raw) == _KEY_BYTES and hashlib.sha256(raw).hexdigest()[:16] == key_id:
            return raw
    return None


def _key(keys: Mapping[str, Any], key_id: str) -> bytes:
    raw = key_of(keys, key_id)
    if raw is None:
        raise InvalidReceiptError(
            f"none of the keys has the id {key_id[:64]!r}: use the keys of the node that signed it"
        )
    return raw


def _check(key: bytes, signature: str, payload: dict[str, Any]) -> None:
    if not is_signed_by(key, signature, CONTEXT + canonical(payload)):
        raise InvalidReceiptError(
            "the signature does not fit: the receipt was changed, or made by somebody else"
        )


def is_signed_by(key: bytes, signature: str, message: bytes) -> bool:
    """Return whether a signature in base64 is one of the message by this public key. Raises InvalidReceiptError without `cryptography`."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise InvalidReceiptError(
            "checking signatures needs `cryptography`, which the extra memoturn[cli] brings: "
            "in a checkout, pip install './sdk/python[cli]'"
        ) from error
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def canonical(payload: dict[str, Any]) -> bytes:
    """Return the bytes of a payload that are signed."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
