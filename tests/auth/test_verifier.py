"""The verifier against whatever may be sent: it says no, and breaks on nothing."""

import base64
import json
import time

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.auth.keyring import Keyring
from memoturnd.auth.keys import SigningKey, new_key, written
from memoturnd.auth.sources import FixedKeys
from memoturnd.auth.verifier import KEPT_LIMIT, Verifier
from memoturnd.errors import UnauthorizedError
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import SystemClock
from memoturnd.stores.memory import MemoryStore

KEY = new_key()


def verifier_of(metrics=None):
    clock = SystemClock()
    keyring = Keyring(FixedKeys(written([KEY])), MemoryStore(), clock)
    keyring._keys = [KEY]
    return Verifier(keyring, clock, metrics or Metrics(), audience=None, max_lifetime_s=3600)


VERIFIER = verifier_of()


def signed(**claims):
    now = int(time.time())
    payload = {"db": "notes", "scope": "read", "iat": now, "exp": now + 600, **claims}
    return jwt.encode(payload, KEY.private, algorithm="EdDSA", headers={"kid": KEY.kid}).encode()


GOOD = signed()


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def test_the_good_one_is_good():
    assert VERIFIER.bearer_of(GOOD).db == "notes"


@given(st.binary(max_size=200))
def test_bytes_are_no_token(data):
    with pytest.raises(UnauthorizedError):
        VERIFIER.bearer_of(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADERS = JSON | st.fixed_dictionaries(
    {"alg": JSON | st.just("EdDSA")}, optional={"kid": JSON, "typ": JSON, "crit": JSON}
)


@given(HEADERS, JSON, st.binary(max_size=80))
def test_what_is_formed_like_a_token_and_not_signed_is_none(header, claims, signature):
    token = b".".join([part(header), part(claims), base64.urlsafe_b64encode(signature).rstrip(b"=")])
    with pytest.raises(UnauthorizedError):
        VERIFIER.bearer_of(token)


@given(st.integers(0, len(GOOD) - 90), st.integers(0, 255))
def test_no_byte_of_what_was_signed_can_be_changed(place, byte):
    changed = bytearray(GOOD)
    changed[place] = byte
    if bytes(changed) == GOOD:
        return
    with pytest.raises(UnauthorizedError):
        VERIFIER.bearer_of(bytes(changed))


CLAIMS = ("db", "ns", "scope", "exp", "iat", "iat_ms", "jti", "aud", "sub", "tenant", "parents", "branches", "surfaces",
          "profiles", "limits")  # fmt: skip


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(CLAIMS), JSON, min_size=1, max_size=4))
def test_claims_that_a_key_has_signed_are_those_of_a_token_or_refused(claims):
    try:
        bearer = VERIFIER.bearer_of(signed(**claims))
    except UnauthorizedError:
        return
    assert bool(bearer.db) != bool(bearer.ns)
    assert bearer.scope in ("read", "write", "admin")


def test_verified_tokens_are_kept_and_their_number_is_bounded():
    metrics = Metrics()
    verifier = verifier_of(metrics)
    verifier.bearer_of(GOOD)
    verifier.bearer_of(GOOD)
    assert b'tokens_verified_total{outcome="kept"} 1.0' in metrics.render()
    first = next(iter(verifier._kept))
    assert GOOD not in verifier._kept  # its hash is there, and it is not
    verifier._kept.update({bytes([n % 256, n // 256]): verifier._kept[first] for n in range(KEPT_LIMIT - 1)})
    verifier.bearer_of(signed(sub="new"))
    assert len(verifier._kept) == KEPT_LIMIT
    assert first not in verifier._kept


def test_what_was_kept_goes_with_the_time_of_its_key():
    class HandClock(SystemClock):
        ms = 1000 * int(time.time())

        def now_ms(self):
            return self.ms

    clock = HandClock()
    keyring = Keyring(FixedKeys(""), MemoryStore(), clock)
    keyring._keys = [SigningKey(KEY.private, until_ms=clock.ms + 5000)]
    verifier = Verifier(keyring, clock, Metrics(), audience=None, max_lifetime_s=3600)
    assert verifier.bearer_of(GOOD).db == "notes"
    clock.ms += 5000
    with pytest.raises(UnauthorizedError):
        verifier.bearer_of(GOOD)
