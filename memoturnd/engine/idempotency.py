"""Answers of writes that came with an Idempotency-Key, kept in the profile's file by the write's own transaction.

So a write and the memory of it stand or fall together, whatever dies in between. An answer is found again under
the id of the branch (a fork starts without any), the operation, the principal and the key. A rewind replaces the
whole state and carries them forward, because what a client may send again does not depend on it.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import IdempotencyKeyReusedError, InvalidRequestError

KEPT_MS: Final = 24 * 3_600_000
KEPT_ENTRIES: Final = 10_000
KEPT_BYTES: Final = 16 * 1024 * 1024
"""Most that the answers kept in one profile take; the oldest go first."""
ANSWER_LIMIT_BYTES: Final = 1024 * 1024
_COLUMNS = "branch, route, principal, key, digest, txid, at_ms, size_bytes_before, answer"
_FIND = """SELECT digest, txid, answer FROM __memoturn_idempotency
 WHERE branch = ? AND route = ? AND principal = ? AND key = ? AND at_ms > ?"""
_REPLACE = f"INSERT OR REPLACE INTO __memoturn_idempotency({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LAST = (
    """SELECT seq, size_bytes_before + length(answer) FROM __memoturn_idempotency ORDER BY seq DESC LIMIT 1"""
)
_FORGET = """DELETE FROM __memoturn_idempotency WHERE seq < (SELECT seq FROM __memoturn_idempotency
 WHERE at_ms > ? AND seq > ? AND size_bytes_before >= ? ORDER BY seq LIMIT 1)"""
"""Removes the oldest up to the first that stays; the newest always does."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one write is known by: the branch's id, `METHOD template`, who asks, the key, and a hash of the request."""

    branch: str
    route: str
    principal: str
    key: str
    digest: bytes


@dataclass(slots=True)
class Once:
    """What a request with an Idempotency-Key asks for, of whichever branch it turns out to address.

    `replayed` tells whether its answer is an earlier one's.
    """

    route: str
    principal: str
    key: str
    digest: bytes
    replayed: bool = False

    def request(self, branch_id: str) -> Request:
        """Return what a write to that branch is known by."""
        return Request(branch_id, self.route, self.principal, self.key, self.digest)


class Kept(NamedTuple):
    """The answer of an earlier request: JSON, and the txid of its commit."""

    txid: int
    answer: bytes


def find(conn: ProfileConnection, now_ms: int, request: Request) -> Kept | None:
    """Return the answer that the same request has had, None when it is a new one.

    Raises IdempotencyKeyReusedError when the key came with another request.
    """
    wanted = (request.branch, request.route, request.principal, request.key, now_ms - KEPT_MS)
    row: Any = conn.execute(_FIND, wanted).fetchone()
    if row is None:
        return None
    digest, txid, answer = row
    if digest != request.digest:
        raise IdempotencyKeyReusedError(
            f"the Idempotency-Key {request.key!a} came with another request before: use a new key for each write"
        )
    return Kept(txid, answer)


def record(conn: ProfileConnection, now_ms: int, request: Request, answer: bytes) -> None:
    """Keep the answer of a request that is being applied in this transaction, and let go of the oldest.

    Raises InvalidRequestError when the answer is too large to be kept.
    """
    if len(answer) > ANSWER_LIMIT_BYTES:
        raise InvalidRequestError(
            f"the answer takes {len(answer)} bytes, and up to {ANSWER_LIMIT_BYTES} are kept under an Idempotency-Key: "
            "send the write without one, or let it return less"
        )
    last: Any = conn.execute(_LAST).fetchone()
    size_bytes = 0 if last is None else last[1]
    conn.execute(
        _REPLACE,
        (
            request.branch,
            request.route,
            request.principal,
            request.key,
            request.digest,
            conn.round_txid,
            now_ms,
            size_bytes,
            answer,
        ),
    )
    newest_seq, end_bytes = conn.last_insert_rowid(), size_bytes + len(answer)
    conn.execute(_FORGET, (now_ms - KEPT_MS, newest_seq - KEPT_ENTRIES, end_bytes - KEPT_BYTES))


def sweep(conn: ProfileConnection, now_ms: int, limit: int) -> int:
    """Remove up to `limit` answers that are kept no longer; return how many went."""
    before = conn.total_changes()
    conn.execute(
        "DELETE FROM __memoturn_idempotency WHERE seq IN"
        " (SELECT seq FROM __memoturn_idempotency WHERE at_ms <= ? ORDER BY seq LIMIT ?)",
        (now_ms - KEPT_MS, limit),
    )
    return conn.total_changes() - before


def forget_all(conn: ProfileConnection) -> None:
    """Remove every answer, inside the transaction that is open: those of another file are of none of its branches."""
    conn.execute("DELETE FROM __memoturn_idempotency")


def carry_forward(source: ProfileConnection, target: ProfileConnection) -> None:
    """Let `target`, whose transaction is open, keep the answers that `source` keeps, and no others."""
    forget_all(target)
    for row in source.execute(f"SELECT seq, {_COLUMNS} FROM __memoturn_idempotency ORDER BY seq"):
        target.execute(
            f"INSERT INTO __memoturn_idempotency(seq, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
        )
