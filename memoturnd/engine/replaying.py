"""Rounds from elsewhere put into a branch's open file: what a replica is sent, and what a takeover finds at others.

The file is closed for it, and opened again on a log that holds the rounds (memoturnd.replication.apply). Until the rounds
are applied the file has no mark that would let anybody trust it after a crash.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import apsw

from memoturnd.core.wal import LogRound
from memoturnd.engine.connection import PAGE_SIZE_BYTES, disk_refusals_told
from memoturnd.errors import RetryableError, invariant
from memoturnd.replication.apply import write_log

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch

READ_WAIT_S: Final = 0.2
"""How long a user's read may go on before it is stopped for a newer state."""
INLINE_BYTES: Final = 128 * 1024
"""Images up to which rounds are applied on the event loop: less work than a thread hop."""


async def replay(
    branch: "Branch",
    rounds: Callable[[], Iterable[LogRound]],
    *,
    txid: int,
    size_bytes: int,
    wait_s: float = READ_WAIT_S,
) -> None:
    """Bring the branch's open file to `txid` by committed rounds that follow on it, `size_bytes` of images.

    For within the transition lock of a branch that is not owned (yet), with the engine's reads held back. The file is open
    again behind it, its log holds exactly these rounds, and `branch.known` is as it was: capture from that cursor finds
    them all. Raises RetryableError where a read does not end, DiskFullError, CorruptionError; the file is closed then.
    """
    invariant(
        branch.owned is None, "rounds from elsewhere go into a file that nobody writes", branch=branch.ref
    )
    await branch.close_for_a_log(wait_s=wait_s)
    salts = branch.services.randomness.hex(8)

    def work() -> None:
        conn = branch.conn
        if branch.services.sync == "normal":
            conn.execute(
                "PRAGMA synchronous=off", can_cache=False
            )  # the file is a cache, as restored ones are
        with disk_refusals_told(branch.files.main):
            frames, done = conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if frames != done:
            raise RetryableError(f"a reader holds the log of {branch.ref}; try again")
        branch.close_connections()
        write_log(
            branch.files.wal,
            rounds(),
            page_size=PAGE_SIZE_BYTES,
            salts=(int(salts[:8], 16), int(salts[8:], 16)),
            fsync=branch.services.sync == "full",
        )
        branch.open_file()

    if size_bytes <= INLINE_BYTES:
        work()
    else:
        await branch.services.executor.run(work)
    branch.look_at_log()
    invariant(branch.txid == txid, "the log leads to the rounds' txid", branch=branch.ref, txid=txid)
