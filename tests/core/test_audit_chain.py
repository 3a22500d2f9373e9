"""The audit stream's format: lines that hang together, keys that say where to look, names that are not shown."""

import hashlib
import json

import pytest
from audit_support import event
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import audit
from memoturnd.core.audit import Link
from memoturnd.errors import CorruptionError


def lines_of(events, link):
    data, end = audit.chained([audit.waiting(e) for e in events], link)
    return data.splitlines(), end


def test_each_line_carries_its_number_and_the_hash_of_the_line_before_it():
    first = audit.genesis("app", "n1.00000000")

    lines, end = lines_of([event(1), event(2)], first)

    shown = [json.loads(line) for line in lines]
    assert [line["seq"] for line in shown] == [1, 2]
    assert shown[0]["prev"] == first.hash
    assert shown[1]["prev"] == hashlib.sha256(lines[0]).hexdigest()
    assert end == Link(2, hashlib.sha256(lines[1]).hexdigest())


def test_lines_are_the_same_however_they_are_cut_into_objects():
    events = [event(n) for n in range(5)]
    first = audit.genesis("app", "c")
    whole, end = audit.chained(map(audit.waiting, events), first)
    head, middle = audit.chained(map(audit.waiting, events[:2]), first)

    tail, cut_end = audit.chained(map(audit.waiting, events[2:]), middle)

    assert (head + tail, cut_end) == (whole, end)


def test_chains_of_other_streams_and_directories_begin_elsewhere():
    begins = {audit.genesis(stream, chain).hash for stream in ("a", "b") for chain in ("x", "y")}

    assert len(begins) == 4


def test_an_event_reads_as_the_wire_contract_says():
    actor = audit.Actor("token", token_hash="0" * 16, scope="write", claim_ns="app", iat=1)
    shown = audit.shown(
        lines_of([event(7, ts=1_700_000_000_123, txid=4, actor=actor)], Link(0, "0" * 64))[0][0]
    )

    assert shown == {
        "seq": 1,
        "prev": "0" * 64,
        "v": 1,
        "id": "evt_1700000000123-00000007",
        "ts": 1_700_000_000_123,
        "node": "n1",
        "ns": "app",
        "action": "kv.put",
        "outcome": "ok",
        "txid": 4,
        "actor": {"kind": "token", "token_hash": "0" * 16, "scope": "write", "claim_ns": "app", "iat": 1},
    }


@given(st.lists(st.integers(0, 3 * audit.OBJECT_SPAN_MS), min_size=1, max_size=700))
def test_an_object_holds_events_of_its_first_events_time_or_a_minute_later(steps):
    events = [audit.waiting(event(1, ts=1_700_000_000_000 + step)) for step in steps]
    count = audit.first_batch(events)

    assert 1 <= count <= audit.OBJECT_EVENTS
    assert all(0 <= e.ts - events[0].ts < audit.OBJECT_SPAN_MS for e in events[:count])
    if count < min(len(events), audit.OBJECT_EVENTS):
        assert not 0 <= events[count].ts - events[0].ts < audit.OBJECT_SPAN_MS


def test_large_events_fill_an_object_by_bytes():
    events = [audit.waiting(event(1, resource="x" * 200_000)) for _ in range(8)]

    assert audit.first_batch(events) == 5


def test_a_key_says_its_day_time_chain_and_number():
    key = audit.object_key("app", "node-1.ab12cd34", 7, 1_700_000_000_123)

    assert key == "v1/_audit/app/2023/11/14/1700000000123-node-1.ab12cd34-000007.jsonl"
    assert audit.parse_object_key(key) == (1_700_000_000_123, "node-1.ab12cd34", 7)
    assert audit.position_ms("app", key) == 1_700_000_000_123
    assert audit.position_ms("app", audit.position("app", 5)) == 5


@pytest.mark.parametrize(
    "key",
    [
        "v1/_audit/other/2023/11/14/1700000000123-c-000007.jsonl",
        "v1/_audit/app/../other/2023/11/14/1700000000123",
        "v1/_audit/app/2023/11/14/17",
        "v1/_audit/app/",
        "",
    ],
)
def test_no_other_streams_key_is_a_position(key):
    assert audit.position_ms("app", key) is None


def test_streams_of_tenants_are_apart():
    streams = {audit.stream_of(t, n) for t in ("default", "app", "x") for n in ("app", "x", audit.PLATFORM)}

    assert len(streams) == 9
    assert all(audit.stream_of(*audit.split_stream(stream)) == stream for stream in streams)


def test_names_that_users_choose_are_hidden_and_can_be_looked_for():
    assert audit.hidden("alice@example.com") == audit.hidden("alice@example.com")
    assert "alice" not in audit.hidden("alice@example.com")
    assert audit.hidden("a") != audit.hidden("b")


def test_a_head_is_read_only_as_that_of_its_own_chain():
    head = audit.begun("app", "c", "n1", 5, None)
    data = audit.encode_head(head)

    assert audit.decode_head(data, stream="app", chain="c") == head
    for stream, chain in (("app", "d"), ("other", "c")):
        with pytest.raises(CorruptionError):
            audit.decode_head(data, stream=stream, chain=chain)
    for bad in (b"", b"{}", b"\xff", b"[" * 5000):
        with pytest.raises(CorruptionError):
            audit.decode_head(bad, stream="app", chain="c")


def test_a_signature_covers_all_of_a_head_but_itself_and_the_swap():
    head = audit.begun("app", "c", "n1", 5, None)
    same = [{"sig": "x"}, {"key_id": "k"}, {"commit_id": "y"}]
    other = [
        {"seq": 1},
        {"hash": "z"},
        {"kept": audit.Kept(2, "p", 2, "d")},
        {"objects": 3},
        {"alg": "Ed25519"},
    ]
    import msgspec

    assert {audit.signed_part(msgspec.structs.replace(head, **change)) for change in same} == {
        audit.signed_part(head)
    }
    assert all(
        audit.signed_part(msgspec.structs.replace(head, **c)) != audit.signed_part(head) for c in other
    )
