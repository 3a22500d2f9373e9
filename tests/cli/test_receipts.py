import base64
import hashlib
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from memoturn import InvalidReceiptError, verify_receipt
from memoturn.receipts import CONTEXT, canonical

from memoturnd.core import erasures

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = KEY.public_key().public_bytes_raw()
KEY_ID = hashlib.sha256(RAW).hexdigest()[:16]
JWKS = {"keys": [{"kty": "OKP", "x": base64.urlsafe_b64encode(RAW).rstrip(b"=").decode(), "kid": KEY_ID}]}
PAYLOAD = {"erasure_id": "ers_1", "db": "a", "target": {"topic_key": "é\x01"}, "evidence": {"clean": True}}


def signed(payload=PAYLOAD, **changes):
    sig = base64.b64encode(KEY.sign(erasures.signed_bytes(payload))).decode()
    return {"payload": payload, "alg": "Ed25519", "key_id": KEY_ID, "sig": sig, **changes}


def test_a_genuine_receipt_gives_its_payload_alone_and_in_its_coupon():
    assert verify_receipt(signed(), JWKS) == PAYLOAD
    assert verify_receipt({"id": "ers_1", "receipt": signed()}, JWKS) == PAYLOAD
    assert verify_receipt(json.loads(json.dumps(signed())), JWKS) == PAYLOAD


OTHER = base64.b64encode(bytes(64)).decode()


@pytest.mark.parametrize(
    ("said", "receipt", "keys"),
    [
        ("was changed", signed(payload={**PAYLOAD, "db": "b"}, sig=signed()["sig"]), JWKS),
        ("was changed", signed(sig=OTHER), JWKS),
        ("was changed", signed(sig="?"), JWKS),
        ("none of the keys", signed(), {"keys": []}),
        ("none of the keys", signed(key_id="0" * 16), JWKS),
        ("none of the keys", signed(), {"keys": [{**JWKS["keys"][0], "x": "AAAA"}]}),
        ("not signed", signed(alg="none"), JWKS),
        ("cannot check", signed(alg="rs256"), JWKS),
        ("another erasure", {"id": "ers_2", "receipt": signed()}, JWKS),
        ("not end clean", signed({**PAYLOAD, "evidence": {"clean": False}}), JWKS),
        ("no receipt", {"id": "ers_1"}, JWKS),
        ("no receipt", {"receipt": None}, JWKS),
    ],
)
def test_a_receipt_that_is_not_genuine_says_why(said, receipt, keys):
    with pytest.raises(InvalidReceiptError, match=said):
        verify_receipt(receipt, keys)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.integers(-(2**53), 2**53) | st.text() | st.booleans(),
            lambda inner: st.lists(inner, max_size=3),
        ),
    )
)
def test_client_and_node_make_the_same_bytes_of_a_payload(payload):
    assert canonical(msgspec.json.decode(erasures.canonical(payload))) == erasures.canonical(payload)
    assert CONTEXT == erasures.CONTEXT
