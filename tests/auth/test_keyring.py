"""Keys: how they are read, which of them signs, and that none is lost or shown."""

import asyncio
import base64
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from memoturnd.auth.keyring import PUBLIC_PREFIX, PUBLISHED_TIMES, Keyring
from memoturnd.auth.keys import SigningKey, cluster_key_of, kid_of, new_key, parse_keys, raw_of, written
from memoturnd.auth.sources import KEYS_OBJECT, FixedKeys, KeysInFile, OwnKeys, StoredKeys
from memoturnd.errors import ConfigurationError, ConflictError
from memoturnd.stores.memory import MemoryStore

LIFETIME_S = 1000


class HandClock:
    def __init__(self):
        self.ms = 1_000_000

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return self.ms / 1000


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def store():
    return MemoryStore()


async def ring(source, store, clock):
    keyring = Keyring(source, store, clock)
    await keyring.start()
    return keyring


def der(private):
    return base64.b64encode(
        private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    ).decode()


# ---- how keys are written down


def test_keys_are_read_from_lines_and_commas_with_comments():
    keys = [new_key() for _ in range(3)]
    text = f"# ours\n{written(keys[:1])}\n{written(keys[1:2]).strip()},{written(keys[2:]).strip()} # the oldest\n"
    assert [key.kid for key in parse_keys(text, where="x")] == [key.kid for key in keys]


def test_a_key_of_the_past_says_until_when_it_verifies():
    key = new_key()
    (found,) = parse_keys(written([SigningKey(key.private, 5)]), where="x")
    assert (found.kid, found.until_ms) == (key.kid, 5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "not-base64!",
        base64.b64encode(b"no key at all").decode(),
        der(ec.generate_private_key(ec.SECP256R1())),
        f"{der(ed25519.Ed25519PrivateKey.generate())} until=soon",
    ],
    ids=["empty", "comment", "no base64", "no key", "another curve", "no time"],
)
def test_what_is_no_key_is_refused_and_not_shown(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(text, where="MEMOTURN_AUTH_KEY")
    assert "MEMOTURN_AUTH_KEY" in str(caught.value)
    for word in text.replace("#", "").split():
        if len(word) > 10:
            assert word not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_does_not_show_itself():
    key = new_key()
    assert repr(key) == f"SigningKey({key.kid})"


def test_the_cluster_key_is_the_one_of_the_contract():
    import hashlib

    key = new_key()
    assert cluster_key_of(key) == hashlib.sha256(b"memoturn-cluster-key-v1\0" + key.der).hexdigest()


# ---- where they come from


async def test_a_node_makes_its_own_key_once_and_nobody_else_may_read_it(tmp_path, store, clock):
    first = await ring(OwnKeys(tmp_path), store, clock)
    again = await ring(OwnKeys(tmp_path), store, clock)
    assert first.signer.kid == again.signer.kid
    assert stat.S_IMODE((tmp_path / "auth.pkcs8").stat().st_mode) == 0o600


async def test_nodes_that_start_at_once_share_the_key_in_the_object_store(store, clock):
    rings = await asyncio.gather(*(ring(StoredKeys(store), store, clock) for _ in range(5)))
    assert len({keyring.signer.kid for keyring in rings}) == 1
    assert parse_keys((await store.get(KEYS_OBJECT)).data.decode(), where="x")[0].kid == rings[0].signer.kid


async def test_a_file_that_goes_bad_leaves_the_keys_that_stood(tmp_path, store, clock):
    path = tmp_path / "keys"
    path.write_text(written([new_key()]))
    keyring = await ring(KeysInFile(path), store, clock)
    kid = keyring.signer.kid
    for text in ("", "garbage"):
        path.write_text(text)
        with pytest.raises(ConfigurationError):
            await keyring.refresh()
        assert keyring.signer.kid == kid
    path.unlink()
    with pytest.raises(ConfigurationError):
        await keyring.refresh()
    assert keyring.signer.kid == kid


# ---- rotation


async def test_a_new_key_verifies_at_once_and_signs_once_it_is_published(tmp_path, store, clock):
    old, new = new_key(), new_key()
    path = tmp_path / "keys"
    path.write_text(written([old]))
    keyring = await ring(KeysInFile(path), store, clock)

    path.write_text(written([new, old]))
    await keyring.refresh()

    assert keyring.signer.kid == old.kid
    assert keyring.verifying(new.kid)
    assert new.kid in keyring.published()
    clock.ms += round(1000 * PUBLISHED_TIMES * keyring.source.refresh_s)
    assert keyring.signer.kid == new.kid
    assert keyring.verifying(old.kid)


async def test_a_key_that_is_taken_out_verifies_no_token_and_still_old_receipts(tmp_path, store, clock):
    old, new = new_key(), new_key()
    path = tmp_path / "keys"
    path.write_text(written([old]))
    keyring = await ring(KeysInFile(path), store, clock)
    kid, signature = keyring.sign(b"receipt")

    path.write_text(written([new]))
    await keyring.refresh()

    assert keyring.signer.kid == new.kid  # there is no other that could sign
    assert not keyring.verifying(old.kid)
    assert [key.kid for key in [old]] == [kid]
    assert keyring.verify(kid, b"receipt", signature)
    assert not keyring.verify(kid, b"another", signature)
    assert {row["kid"]: row["status"] for row in keyring.jwks()} == {new.kid: "signing", old.kid: "retired"}


async def test_a_node_rotates_its_own_key_and_the_old_one_verifies_until_its_tokens_are_over(
    tmp_path, store, clock
):
    keyring = await ring(OwnKeys(tmp_path), store, clock)
    old = keyring.signer
    new, signs_from_ms = await keyring.rotate(max_lifetime_s=LIFETIME_S)

    assert keyring.signer.kid == old.kid
    clock.ms = signs_from_ms
    assert keyring.signer.kid == new.kid
    clock.ms += 1000 * LIFETIME_S
    assert keyring.verifying(old.kid)
    clock.ms += round(1000 * PUBLISHED_TIMES * keyring.source.refresh_s) + 1
    assert not keyring.verifying(old.kid)
    assert old.kid in keyring.published()
    assert stat.S_IMODE((tmp_path / "auth.pkcs8").stat().st_mode) == 0o600
    restarted = await ring(OwnKeys(tmp_path), store, clock)
    assert restarted.signer.kid == new.kid


async def test_keys_in_the_object_store_are_rotated_by_one_node_and_taken_by_the_others(store, clock):
    one, other = [await ring(StoredKeys(store), store, clock) for _ in range(2)]
    new, _ = await one.rotate(max_lifetime_s=LIFETIME_S)
    await other.refresh()
    assert other.verifying(new.kid)
    assert one.signer.kid == other.signer.kid != new.kid


async def test_two_rotations_at_once_are_one_and_a_conflict(store, clock):
    one, other = [await ring(StoredKeys(store), store, clock) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(keyring.rotate(max_lifetime_s=LIFETIME_S) for keyring in (one, other)), return_exceptions=True
    )
    keys = parse_keys((await store.get(KEYS_OBJECT)).data.decode(), where="x")
    made = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert len(keys) == 1 + made
    assert all(isinstance(o, ConflictError) for o in outcomes if isinstance(o, BaseException))


async def test_the_operators_own_keys_are_not_rotated_by_the_node(tmp_path, store, clock):
    path = tmp_path / "keys"
    path.write_text(written([new_key()]))
    for source in (FixedKeys(written([new_key()])), KeysInFile(path)):
        with pytest.raises(ConflictError, match=r"MEMOTURN_AUTH_KEY"):
            await (await ring(source, store, clock)).rotate(max_lifetime_s=LIFETIME_S)


# ---- what is published


async def test_public_keys_of_other_nodes_are_learned_and_forged_names_are_not(store, clock):
    one = await ring(FixedKeys(written([new_key()])), store, clock)
    other = await ring(FixedKeys(written([new_key()])), store, clock)
    await store.put(
        f"{PUBLIC_PREFIX}{'0' * 16}.json", (await store.get(f"{PUBLIC_PREFIX}{one.signer.kid}.json")).data
    )
    await store.put(f"{PUBLIC_PREFIX}{'1' * 16}.json", b"not json")
    await other.learn()
    assert set(other.published()) == {one.signer.kid, other.signer.kid}
    assert not other.verifying(one.signer.kid)  # what stands in the bucket opens nothing


async def test_a_json_web_key_holds_the_public_half_and_nothing_else(store, clock):
    keyring = await ring(FixedKeys(written([new_key()])), store, clock)
    (row,) = keyring.jwks()
    raw = base64.urlsafe_b64decode(row["x"] + "=")
    assert raw == raw_of(keyring.signer.public)
    assert row == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": row["x"],
        "kid": kid_of(raw),
        "alg": "EdDSA",
        "use": "sig",
        "status": "signing",
    }
