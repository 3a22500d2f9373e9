"""Answers kept in the profile's file: found once more, scoped, bounded, carried over a rewind."""

import pytest

from memoturnd.engine import idempotency, schema
from memoturnd.engine.connection import open_connection
from memoturnd.engine.idempotency import KEPT_MS, Kept, Request
from memoturnd.errors import IdempotencyKeyReusedError, InvalidRequestError

NOW = 10**12


def made():
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    return conn


@pytest.fixture
def conn():
    conn = made()
    yield conn
    conn.close()


def request(key="k", *, branch="b", route="POST /x", principal="", digest=b"d"):
    return Request(branch, route, principal, key, digest)


def keep(conn, key="k", answer=b"1", at_ms=NOW, txid=7):
    conn.round_txid = txid
    idempotency.record(conn, at_ms, request(key), answer)


def kept(conn):
    return [key for (key,) in conn.execute("SELECT key FROM __memoturn_idempotency ORDER BY seq")]


def test_an_answer_is_found_with_its_txid(conn):
    assert idempotency.find(conn, NOW, request()) is None
    keep(conn, answer=b'{"a":1}')

    assert idempotency.find(conn, NOW, request()) == Kept(7, b'{"a":1}')


@pytest.mark.parametrize(
    "other", [{"branch": "c"}, {"route": "POST /y"}, {"principal": "ann"}, {"key": "other"}]
)
def test_a_key_is_of_one_branch_route_and_principal(conn, other):
    keep(conn)

    assert idempotency.find(conn, NOW, request(**other)) is None


def test_another_request_under_the_same_key_is_refused(conn):
    keep(conn)

    with pytest.raises(IdempotencyKeyReusedError, match="use a new key"):
        idempotency.find(conn, NOW, request(digest=b"e"))


def test_an_answer_is_kept_for_a_day_and_may_then_be_given_anew(conn):
    keep(conn)

    assert idempotency.find(conn, NOW + KEPT_MS - 1, request()) is not None
    assert idempotency.find(conn, NOW + KEPT_MS, request()) is None
    assert idempotency.find(conn, NOW + KEPT_MS, request(digest=b"e")) is None
    keep(conn, answer=b"2", at_ms=NOW + KEPT_MS, txid=9)
    assert idempotency.find(conn, NOW + KEPT_MS, request()) == Kept(9, b"2")


def test_the_number_of_answers_is_bounded(conn, monkeypatch):
    monkeypatch.setattr(idempotency, "KEPT_ENTRIES", 3)
    for key in "abcde":
        keep(conn, key)

    assert kept(conn) == ["c", "d", "e"]


def test_their_bytes_are_bounded(conn, monkeypatch):
    monkeypatch.setattr(idempotency, "KEPT_BYTES", 10)
    for key in "abc":
        keep(conn, key, b"xx")
    keep(conn, "large", b"x" * 9)

    assert kept(conn) == ["large"]
    keep(conn, "more", b"x")
    assert kept(conn) == ["large", "more"]


def test_an_answer_that_is_too_large_is_refused_before_it_is_kept(conn):
    with pytest.raises(InvalidRequestError, match="let it return less"):
        keep(conn, answer=b"x" * (idempotency.ANSWER_LIMIT_BYTES + 1))

    assert kept(conn) == []


def test_a_sweep_removes_what_is_kept_no_longer(conn):
    for at, key in enumerate("abc"):
        keep(conn, key, at_ms=NOW + at)

    assert idempotency.sweep(conn, NOW + KEPT_MS + 1, 1) == 1
    assert idempotency.sweep(conn, NOW + KEPT_MS + 1, 10) == 1
    assert kept(conn) == ["c"]


def test_a_state_that_is_replaced_keeps_the_answers_of_the_newest(conn):
    old = made()
    keep(old, "only there")
    for key in "ab":
        keep(conn, key)

    idempotency.carry_forward(conn, old)

    assert kept(old) == ["a", "b"]
    assert idempotency.find(old, NOW, request("b")) == Kept(7, b"1")
    keep(old, "c")
    assert kept(old) == ["a", "b", "c"]
    old.close()
