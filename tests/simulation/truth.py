"""What was really committed, seen at each COMMIT, and the rules that a commit, an answer and a read must keep.

A state is the profile's key-values: registers that a write sets to its own number, and `log`, to which it appends
its number. So the state at a txid says which writes made it, in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from memoturnd.core import manifest as manifests
from memoturnd.core.durability import Durability
from memoturnd.engine import schema
from simulation.bucket import Bucket
from simulation.loop import PROCESS
from simulation.promises import Promises
from simulation.world import World

State = tuple[tuple[str, str], ...]
_DUMP = "SELECT k, CASE WHEN length(v) > 400 AND k LIKE 'big%' THEN substr(v, 1, 16) ELSE v END \
FROM __memoturn_kv ORDER BY k"


def dump(conn: Any, _now_ms: int = 0) -> State:
    """Return the state that a connection sees."""
    if schema.read_meta(conn).txid == 0:
        return ()
    return tuple(conn.execute(_DUMP).fetchall())


def log_of(state: State) -> tuple[int, ...]:
    """Return the numbers of the writes that made a state, in their order."""
    text = dict(state).get("log", "")
    return tuple(map(int, text.split(","))) if text else ()


class Commit(NamedTuple):
    """One committed round."""

    state: State
    epoch: int
    process: str
    prev_txid: int
    is_rewind: bool


@dataclass(slots=True)
class Truth:
    """Every commit of every branch, by (branch id, txid)."""

    world: World
    bucket: Bucket
    promises: Promises
    commits: dict[tuple[str, int], Commit] = field(default_factory=dict)
    at_commit: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Node to what happens right behind its next COMMIT, before anybody hears of it."""
    epochs: dict[tuple[str, int], str] = field(default_factory=dict)
    """(branch id, epoch) to the process that committed under it."""

    def lookup(self, branch_id: str, txid: int) -> Commit | None:
        """Return the commit that made a branch's state at `txid`, its own or inherited."""
        while (found := self.commits.get((branch_id, txid))) is None:
            parent = self.bucket.forked_at.get(branch_id)
            if parent is None or txid > parent[1]:
                return None
            branch_id = parent[0]
        return found

    def committed(self, conn: Any, prev_txid: int, txid: int, epoch: int, *, is_rewind: bool = False) -> None:
        """Note a COMMIT that has just happened, and hold it to the rules."""
        folder = Path(conn.filename).parent
        branch_id, uuid = folder.name, folder.parent.name
        process = PROCESS.get()
        name = process.name if process is not None else "nobody"
        state = dump(conn)
        world = self.world
        world.note(name, "commit", branch_id, txid, epoch, is_rewind)
        label = f"{name} committed txid {txid} of {branch_id} under epoch {epoch}"
        known = self.commits.get((branch_id, txid))
        world.require(known is None, f"{label}, which {known and known.process} had used before")
        self.commits[branch_id, txid] = Commit(state, epoch, name, prev_txid, is_rewind)
        owner = self.epochs.setdefault((branch_id, epoch), name)
        world.require(owner == name, f"{label}, which is the epoch of {owner}")
        before = self.lookup(branch_id, prev_txid) if prev_txid else None
        if prev_txid and before is None:
            world.violated(f"{label} on top of {prev_txid}, which nobody committed")
        if not is_rewind:
            old, new = log_of(before.state) if before else (), log_of(state)
            world.require(new[: len(old)] == old, f"{label}, which lost writes: {old} became {new}")
            world.require(len(set(new)) == len(new), f"{label}, which applied a write twice: {new}")
        self._check_manifest(uuid, branch_id, txid, epoch, label)
        strike = self.at_commit.pop(name.partition("/")[0], None)
        if strike is not None:
            strike()

    def _check_manifest(self, uuid: str, branch_id: str, txid: int, epoch: int, label: str) -> None:
        current = self.bucket.manifest(uuid, branch_id)
        if current is None:
            self.world.require(branch_id in self.bucket.gone, f"{label} without a manifest")
            return
        self.world.require(current.epoch >= epoch, f"{label}, and the manifest has epoch {current.epoch}")
        self.world.require(
            txid <= current.txid_ceiling, f"{label}, above the manifest's ceiling {current.txid_ceiling}"
        )

    def answered(
        self, uuid: str, branch_id: str, number: int, txid: int, durable_txid: int, level: Durability
    ) -> None:
        """Hold the answer to a write to what is committed, and to what the store has."""
        label = f"write {number} was answered with txid {txid} of {branch_id}"
        commit = self.lookup(branch_id, txid)
        if commit is None:
            self.world.violated(f"{label}, which nobody committed")
            return
        self.world.require(number in log_of(commit.state), f"{label}, whose state does not hold it")
        self.world.require(
            level < Durability.DURABLE or durable_txid >= txid, f"{label} as durable at {durable_txid}"
        )
        self.check_durable(uuid, branch_id, durable_txid, label)
        current = self.bucket.manifest(uuid, branch_id)
        standing = 0 if current is None else current.epoch
        self.promises.acknowledged(branch_id, number, txid, level, commit.epoch, standing)

    def check_durable(self, uuid: str, branch_id: str, durable_txid: int, label: str) -> None:
        """Require that the store holds a txid that somebody was told is durable."""
        current = self.bucket.manifest(uuid, branch_id)
        if current is None:
            gone = branch_id in self.bucket.gone
            self.world.require(
                gone or durable_txid == 0, f"{label}, {durable_txid} durable, without a manifest"
            )
            return
        self.world.require(
            durable_txid == 0 or manifests.contains(self.bucket.whole(current), durable_txid),
            f"{label}, {durable_txid} durable, which the manifest (head {current.head_txid}) does not hold",
        )

    def seen(self, uuid: str, branch_id: str, state: State, txid: int, durable_txid: int) -> None:
        """Hold a read to the state that was committed as the txid that it names."""
        label = f"a read saw txid {txid} of {branch_id}"
        commit = self.lookup(branch_id, txid) if txid else None
        if txid and commit is None:
            self.world.violated(f"{label}, which nobody committed")
            return
        expected = commit.state if commit else ()
        self.world.require(state == expected, f"{label} as {state} instead of {expected}")
        self.check_durable(uuid, branch_id, durable_txid, label)

    def copied(self, conn: Any) -> None:
        """Hold a copy to the state that was committed as the txid that it was brought to."""
        branch_id, label = (
            Path(conn.filename).parent.name,
            f"the copy that {PROCESS.get()} brought up to date",
        )
        try:
            txid, state = schema.read_meta(conn).txid, dump(conn)
        except apsw.Error as error:
            self.world.violated(f"{label} is no database: {error}")
            return
        commit = self.lookup(branch_id, txid)
        expected = None if commit is None else commit.state
        self.world.require(state == expected, f"{label} has txid {txid} as {state} instead of {expected}")
