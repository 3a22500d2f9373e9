"""One commit round: many requests, one transaction, one txid, one COMMIT.

Each op runs in its own savepoint and fails alone. Some errors make SQLite roll the whole transaction back
underneath (an interrupt, OR ROLLBACK, RAISE(ROLLBACK), a full disk, an I/O error, no memory): after each op
the round therefore looks whether its transaction is still open, and where it is not, the others are run
again in a new transaction without the culprit. Ops may so run more than once, and must have no effect but
on the connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from memoturnd.engine import changes, schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import DiskFullError, InvariantError, RequestTimeoutError, RetryableError
from memoturnd.seams.profile import WriteOp


@dataclass(slots=True)
class Outcome:
    """What became of one op: its value, or the error that undid it."""

    value: Any = None
    changed: bool = False
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round: an outcome per op, whether it was committed, and its wall time in unix ms."""

    outcomes: tuple[Outcome, ...]
    committed: bool
    now_ms: int


def run_round(
    conn: ProfileConnection,
    ops: Sequence[WriteOp[Any]],
    *,
    txid: int,
    now_ms: int,
    epoch: int,
    lost_after: int | None = None,
) -> Round:
    """Run `ops` in one transaction that commits as `txid`; without any change nothing is committed.

    `lost_after` is the commit before it where there may have been others between them, which were lost with their node.
    """
    conn.round_txid = txid
    outcomes = tuple(Outcome() for _ in ops)
    live = list(range(len(ops)))
    while live:
        try:
            culprit, changed = _attempt(conn, ops, live, outcomes, now_ms)
            if culprit is not None:
                live.remove(culprit)
                continue
            if not changed:
                conn.execute("ROLLBACK")
                return Round(outcomes, committed=False, now_ms=now_ms)
            if conn.noted or lost_after is not None:
                changes.record(conn, txid, now_ms, epoch, lost_after=lost_after)
            else:
                schema.write_meta(conn, txid, now_ms, epoch)
            conn.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - BEGIN, the meta row or COMMIT itself: no single op is to blame
            roll_back(conn)
            for index in live:
                outcomes[index].error = outcomes[index].error or translate(error)
            return Round(outcomes, committed=False, now_ms=now_ms)
        except BaseException:
            roll_back(conn)
            raise
        return Round(outcomes, committed=True, now_ms=now_ms)
    return Round(outcomes, committed=False, now_ms=now_ms)


def _attempt(
    conn: ProfileConnection,
    ops: Sequence[WriteOp[Any]],
    live: Sequence[int],
    outcomes: Sequence[Outcome],
    now_ms: int,
) -> tuple[int | None, bool]:
    """Run the live ops in an open transaction; return (the op that ended the transaction, any change)."""
    conn.execute("BEGIN IMMEDIATE")
    noted = conn.noted
    noted.clear()
    together = len(live) > 1
    any_change = False
    for index in live:
        outcome = outcomes[index]
        outcome.value, outcome.changed, outcome.error = None, False, None
        if together:
            conn.execute("SAVEPOINT op")
            mark = noted.mark()
        try:
            outcome.value, outcome.changed = ops[index](conn, now_ms)
        except Exception as error:  # noqa: BLE001 - whatever an op raises is its own answer
            outcome.error = translate(error)
            if not conn.in_transaction:
                return index, False
            if together:
                conn.execute("ROLLBACK TO op")
                noted.back_to(mark)
        if not conn.in_transaction:
            outcome.error = InvariantError("a statement ended the round's transaction without an error")
            return index, False
        if together:
            conn.execute("RELEASE op")
        any_change = any_change or outcome.changed
    if not together and outcomes[live[0]].error is not None:
        return None, False
    return None, any_change


def roll_back(conn: ProfileConnection) -> None:
    """Leave no transaction open, whatever state the connection is in."""
    if conn.in_transaction:
        conn.execute("ROLLBACK")


def translate(error: BaseException) -> BaseException:
    """Return what the caller of a write should see for an error of SQLite's."""
    match error:
        case apsw.FullError():
            translated: Exception = DiskFullError(
                "the node's disk is full: the write was rolled back; free space or lower "
                "MEMOTURN_DISK_BUDGET_BYTES, then try again"
            )
        case apsw.InterruptError():
            translated = RequestTimeoutError(
                "the statement ran past its deadline and was rolled back; do less in one request"
            )
        case apsw.NoMemError() | MemoryError():
            translated = RetryableError("the node is out of memory: the write was rolled back; try again")
        case apsw.IOError() | apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.BusyError():
            translated = RetryableError(
                f"the node's disk refused the write ({error}): it was rolled back; check the data directory"
            )
        case _:
            return error
    translated.__cause__ = error
    return translated
