"""The verifier finds whatever is done to a stream: real streams of two nodes, changed in every way."""

import asyncio
import base64
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from audit_support import event, started
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from memoturn.audit import StreamVerifier, genesis, heads_of, is_head

from memoturnd.audit.ports import ALL, Rule
from memoturnd.audit.retention import AuditRetention
from memoturnd.core import audit
from memoturnd.stores.memory import MemoryStore

NODE_KEY = Ed25519PrivateKey.generate()
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


def jwks(*keys):
    raws = [key.public_key().public_bytes_raw() for key in keys]
    return {
        "keys": [{"kty": "OKP", "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()} for raw in raws]
    }


def signer(key):
    kid = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]
    return lambda data: (kid, key.sign(data))


async def contents(store):
    return {info.key: (await store.get(info.key)).data async for info in store.list("v1/_audit/")}


async def written(folder, *, rounds=4, per_round=3, step_ms=1000, restart=True):
    """A stream of two nodes, one of which was started again."""
    store = MemoryStore()
    number = 0
    for process in range(2 if restart else 1):
        with (
            started(store, folder / "a", node="a", sign=signer(NODE_KEY)) as a,
            started(store, folder / "b", node="b", sign=signer(NODE_KEY)) as b,
        ):
            for round_ in range(rounds):
                for _ in range(per_round):
                    number += 1
                    ts = START_MS + number * step_ms
                    a.append("app", event(number, ts=ts, node="a"))
                    b.append("app", event(1000 + number, ts=ts, node="b"))
                assert await a.flush()
                if round_ % 2 == process:
                    assert await b.flush()
            assert await b.flush()
    return store


def built():
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_built(Path(folder)))


async def _built(folder):
    return await contents(await written(folder))


STREAM = built()
OBJECTS = sorted(key for key in STREAM if not is_head(key))
HEADS = sorted(key for key in STREAM if is_head(key))
LINES = [(key, index) for key in OBJECTS for index in range(len(STREAM[key].splitlines()))]


def report_of(files, *, keys=None, since=None):
    verifier = StreamVerifier("app", jwks(NODE_KEY) if keys is None else keys)
    for key, data in files.items():
        (verifier.add_head if is_head(key) else verifier.add_object)(key, data)
    return verifier.report(since)


def kinds(report):
    return {problem["kind"] for problem in report["problems"]}


def with_lines(files, key, lines):
    return {**files, key: b"".join(line + b"\n" for line in lines)}


def chain_of(key):
    return audit.parse_object_key(key).chain


def test_an_untouched_stream_is_sound():
    report = report_of(STREAM)

    assert (report["outcome"], report["problems"]) == ("sound", [])
    assert len(report["chains"]) == 2
    assert report["events"] == sum(row["seq"] for row in report["chains"]) == 48
    assert all(row["signed"] for row in report["chains"])


def test_the_client_and_the_server_begin_chains_alike():
    assert genesis("app", "n.1") == audit.genesis("app", "n.1").hash


@given(st.sampled_from(LINES))
def test_a_deleted_event_is_found(place):
    key, index = place
    lines = STREAM[key].splitlines()

    assert report_of(with_lines(STREAM, key, lines[:index] + lines[index + 1 :]))["outcome"] == "damaged"


@given(st.sampled_from(LINES), st.data())
def test_a_changed_byte_is_found(place, data):
    key, index = place
    lines = STREAM[key].splitlines()
    line = bytearray(lines[index])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    lines[index] = bytes(line)

    assert report_of(with_lines(STREAM, key, lines))["outcome"] == "damaged"


@given(st.sampled_from(LINES), st.sampled_from(["outcome", "actor", "ts", "action"]))
def test_an_edited_event_is_found_however_well_it_is_written(place, name):
    key, index = place
    lines = STREAM[key].splitlines()
    changed = json.loads(lines[index])
    changed[name] = "changed"
    lines[index] = json.dumps(changed, separators=(",", ":")).encode()

    assert report_of(with_lines(STREAM, key, lines))["outcome"] == "damaged"


@given(st.sampled_from(LINES), st.sampled_from(LINES))
def test_an_inserted_event_is_found(place, other):
    key, index = place
    lines = STREAM[key].splitlines()
    lines.insert(index, STREAM[other[0]].splitlines()[other[1]])

    assert report_of(with_lines(STREAM, key, lines))["outcome"] == "damaged"


@given(st.sampled_from(LINES), st.sampled_from(LINES))
def test_events_that_changed_places_are_found(one, other):
    if one == other:
        return
    files = {key: STREAM[key].splitlines() for key in OBJECTS}
    files[one[0]][one[1]], files[other[0]][other[1]] = files[other[0]][other[1]], files[one[0]][one[1]]
    changed = {key: b"".join(line + b"\n" for line in lines) for key, lines in files.items()}

    assert report_of({**STREAM, **changed})["outcome"] == "damaged"


@given(st.sets(st.sampled_from(OBJECTS), min_size=1))
def test_deleted_objects_are_found(gone):
    report = report_of({key: data for key, data in STREAM.items() if key not in gone})

    assert kinds(report) & {"missing", "cut"}


@given(st.sampled_from(OBJECTS), st.sampled_from(OBJECTS))
def test_objects_that_changed_places_are_found(one, other):
    if one == other:
        return

    assert report_of({**STREAM, one: STREAM[other], other: STREAM[one]})["outcome"] == "damaged"


@given(st.sampled_from(OBJECTS), st.integers(1, 400))
def test_a_cut_object_is_found(key, size):
    assert report_of({**STREAM, key: STREAM[key][:-size]})["outcome"] == "damaged"


CHAINS = sorted({chain_of(key) for key in OBJECTS})


@pytest.mark.parametrize("chain", CHAINS, ids=map(str, range(len(CHAINS))))
def test_a_cut_off_end_is_found_object_by_object(chain):
    mine = [key for key in OBJECTS if chain_of(key) == chain]
    for kept in range(len(mine)):
        files = {key: data for key, data in STREAM.items() if key not in mine[kept:]}
        assert kinds(report_of(files)) & {"missing", "cut"}


@pytest.mark.parametrize("key", HEADS, ids=map(str, range(len(HEADS))))
def test_a_deleted_head_is_found(key):
    assert kinds(report_of({k: d for k, d in STREAM.items() if k != key})) == {"headless"}


@given(
    st.sampled_from(HEADS),
    st.sampled_from(["seq", "hash", "objects", "at", "kept", "node", "follows"]),
    st.data(),
)
def test_a_changed_head_is_found(key, name, data):
    head = json.loads(STREAM[key])
    old = head[name]
    kept = {"seq": 4, "prev": "0" * 64, "object": 2, "day": "2023/11/14"}
    head[name] = {"kept": kept, "follows": {"chain": "x", "seq": 1, "hash": ""}}.get(name) or (
        data.draw(st.integers(0, 100)) if isinstance(old, int) else "f" * 64
    )
    if head[name] != old:
        assert report_of({**STREAM, key: json.dumps(head).encode()})["outcome"] == "damaged"


@pytest.mark.parametrize("key", HEADS, ids=map(str, range(len(HEADS))))
def test_a_head_without_a_signature_or_by_another_key_is_found(key):
    head = json.loads(STREAM[key])
    bare = {**head, "alg": "none", "sig": None, "key_id": None}
    other = Ed25519PrivateKey.generate()

    assert kinds(report_of({**STREAM, key: json.dumps(bare).encode()})) == {"unsigned"}
    assert kinds(report_of(STREAM, keys=jwks(other))) == {"forged"}


@given(st.sampled_from(OBJECTS))
def test_an_added_object_is_found(key):
    name = audit.parse_object_key(key)
    behind = audit.object_key("app", name.chain, 99, name.at_ms)
    twice = audit.object_key("app", name.chain, name.number, name.at_ms + 1)

    assert kinds(report_of({**STREAM, behind: STREAM[key]})) == {"unanchored"}
    assert kinds(report_of({**STREAM, twice: STREAM[key]})) == {"inserted"}


@given(st.binary(max_size=200))
def test_rubbish_is_damage_and_no_failure(data):
    for key in (OBJECTS[0], HEADS[0]):
        if data != STREAM[key]:
            assert report_of({**STREAM, key: data})["outcome"] == "damaged"
    assert report_of({**STREAM, "v1/_audit/app/strange": data})["outcome"] == "damaged"


def earlier(objects):
    """The stream as it was, with heads of that time: what a bucket that was put back looks like."""
    return asyncio.run(_earlier(objects))


async def _earlier(rounds):
    with tempfile.TemporaryDirectory() as folder:
        store = MemoryStore()
        with started(store, Path(folder), node="a", sign=signer(NODE_KEY)) as log:
            for number in range(rounds):
                log.append("app", event(number))
                assert await log.flush()
            old = await contents(store)
            log.append("app", event(99))
            assert await log.flush()
            return old, await contents(store)


def test_a_bucket_that_was_put_back_is_found_by_whoever_remembers():
    old, new = earlier(2)
    seen = heads_of(report_of(new))

    assert report_of(old)["outcome"] == "sound", "by itself it is as it once was"
    assert kinds(report_of(old, since=seen)) == {"rolled_back"}
    assert kinds(report_of({}, since=seen)) == {"rolled_back"}
    assert report_of(new, since=heads_of(report_of(old)))["outcome"] == "sound"


def test_a_stream_that_was_written_anew_is_found_by_whoever_remembers():
    seen = heads_of(report_of(earlier(2)[1]))
    [chain] = seen
    other = {**seen, chain: {**seen[chain], "hash": "0" * 64}}

    assert kinds(report_of(earlier(2)[1], since=other)) == {"rolled_back"}


async def test_a_chain_that_follows_another_accuses_who_put_that_one_back(tmp_path):
    store = MemoryStore()
    with started(store, tmp_path, node="a", sign=signer(NODE_KEY)) as log:
        log.append("app", event(1))
        assert await log.flush()
        old = await contents(store)
        log.append("app", event(2))
        assert await log.flush()
        for key in await contents(store):
            await store.delete(key)
        for key, data in old.items():
            await store.put(key, data)
        log.append("app", event(3))
        assert await log.flush()

    assert kinds(report_of(await contents(store))) == {"rolled_back"}


class Daily:
    """A clock that stands some days behind the stream's start."""

    def __init__(self, days):
        self.days = days

    def now_ms(self):
        return START_MS + self.days * DAY_MS

    def monotonic_s(self):
        return 0.0

    async def sleep(self, _seconds):
        await asyncio.sleep(0)


class Fixed:
    """Rules that are the same for all."""

    def __init__(self, retention_s):
        self._rule = Rule(enabled=True, include_reads=True, retention_s=retention_s)

    async def rule(self, *_of):
        return self._rule


async def test_retention_takes_days_and_leaves_a_chain_that_can_be_verified(tmp_path):
    store = await written(tmp_path, rounds=6, per_round=1, step_ms=DAY_MS, restart=False)
    before = await contents(store)
    seen = heads_of(report_of(before))
    for day in range(5, 9):
        with started(store, tmp_path / "c", node="c", sign=signer(NODE_KEY), clock=Daily(day)) as log:
            retention = AuditRetention(store, log, Fixed(3 * 86400), Daily(day))
            await retention.run()
            await retention.run()
            files = await contents(store)
            kept = [audit.parse_object_key(key).at_ms for key in files if not is_head(key)]
            assert min(kept, default=10**15) >= START_MS + (day - 4) * DAY_MS - DAY_MS
            report = report_of(files, since=seen)
            assert report["problems"] == []
            assert sum(row["from_seq"] > 1 for row in report["chains"]) >= 1

    assert len(kept) < len([key for key in before if not is_head(key)])
    with started(store, tmp_path / "a", node="a", sign=signer(NODE_KEY)) as log:
        log.append("app", event(77, ts=START_MS + 9 * DAY_MS))
        assert await log.flush()
    assert report_of(await contents(store))["problems"] == []


async def test_what_retention_took_cannot_be_made_more(tmp_path):
    store = await written(tmp_path, rounds=6, per_round=1, step_ms=DAY_MS, restart=False)
    with started(store, tmp_path / "c", clock=Daily(6), sign=signer(NODE_KEY)) as log:
        await AuditRetention(store, log, Fixed(3 * 86400), Daily(6)).run()
    files = await contents(store)
    first = min(key for key in files if not is_head(key))

    assert report_of(files)["problems"] == []
    assert kinds(report_of({key: data for key, data in files.items() if key != first})) == {"missing"}


async def test_without_a_policy_all_is_kept(tmp_path):
    store = await written(tmp_path, restart=False)
    before = await contents(store)
    with started(store, tmp_path / "c", clock=Daily(900)) as log:
        assert await AuditRetention(store, log, Fixed(ALL.retention_s), Daily(900)).run() == 0

    assert await contents(store) == before


@pytest.mark.parametrize("jump_ms", [-10 * DAY_MS, 10 * DAY_MS])
async def test_a_clock_that_jumps_leaves_a_chain_that_can_be_verified_and_kept(tmp_path, jump_ms):
    store = MemoryStore()
    with started(store, tmp_path, sign=signer(NODE_KEY)) as log:
        for number, at_ms in enumerate([START_MS, START_MS + jump_ms, START_MS + 1, START_MS + 2 * DAY_MS]):
            log.append("app", event(number, ts=at_ms))
            if number % 2:
                assert await log.flush()
    assert report_of(await contents(store))["problems"] == []
    for day in (0, 6, 30):
        with started(store, tmp_path / "c", clock=Daily(day), sign=signer(NODE_KEY)) as log:
            for _ in range(3):
                await AuditRetention(store, log, Fixed(3 * 86400), Daily(day)).run()
        assert report_of(await contents(store))["problems"] == []

    assert [key for key in await contents(store) if not is_head(key)] == []
