"""The end of a run: everything settles, and what is in the store is held to everything that anybody was told."""

import asyncio
from bisect import bisect_left
from pathlib import Path

import apsw

from memoturnd.core import layout, segment
from memoturnd.core.durability import Durability
from memoturnd.core.manifest import Manifest
from memoturnd.errors import MemoturnError
from memoturnd.replication.restore import restore
from memoturnd.seams.catalog import MAIN
from memoturnd.seams.executor import InlineExecutor
from simulation.board import DB, Board, Write, write
from simulation.chaos import start_at_last
from simulation.truth import State, dump, log_of

LIVENESS_S = 60.0
"""Virtual seconds after the last fault, at the usual pace, within which every branch must take a durable write."""


class Judge:
    """Looks at a board when all faults have ended. `samples` txids of each branch are restored besides the heads."""

    def __init__(self, board: Board, samples: int) -> None:
        self._board = board
        self._shared = board.shared
        self._world = board.shared.world
        self._source = board.shared.world.stream("judge")
        self._samples = samples
        self._chains: dict[str, list[int]] = {}
        """Branch id to every txid that its objects hold."""

    # ---- settling

    async def settle(self) -> None:
        """Let every branch take writes, then let every node in turn bring in what is only on its disk."""
        for node in self._board.nodes:
            node.weather.at_swap = None
            node.weather.cut = node.line.cut = False
            node.weather.trouble = node.weather.damage = 0.0
        self._world.note("settle")
        await self._write_everywhere("with every node up")
        self._one_owner_each()
        for node in self._board.nodes:
            await node.stop()
        for node in self._board.nodes:
            await start_at_last(node, self._source)
            await self._write_everywhere(f"with {node.name} alone")
            await node.stop()
            self._world.check()

    async def _write_everywhere(self, when: str) -> None:
        for branch in await self._live():
            try:
                async with asyncio.timeout(LIVENESS_S * self._world.pace):
                    while not await self._write(branch):
                        await asyncio.sleep(0.5)
                        self._world.check()
            except TimeoutError:
                self._world.violated(f"branch {branch} takes no durable write {when}")
        self._world.check()

    async def _write(self, branch: str) -> bool:
        board = self._board
        serving = board.serving()
        if not serving:
            return False
        owner = board.owner(self._shared.branch_ids.get(branch, ""))
        board.numbers += 1
        record = Write(board.numbers, branch, Durability.DURABLE)
        await write(board, owner or self._source.choice(serving), record, self._source)
        return record.outcome == "ok"

    async def _live(self) -> list[str]:
        """Return the names of the branches that must work: main, and every fork that was made to its end."""
        database = await self._shared.catalog.get_database(DB)
        rows = await self._shared.catalog.list_branches(database.uuid)
        made = [r.name for r in rows if self._shared.bucket.manifest(database.uuid, r.branch_id) is not None]
        return [MAIN, *(name for name in made if name not in self._board.deleted)]

    def _one_owner_each(self) -> None:
        for branch_id, current in self._shared.bucket.seen.items():
            owners = [
                node.name
                for node in self._board.serving()
                for branch in node.node.tiers.hot()  # type: ignore[union-attr]
                if branch.ref.branch_id == branch_id
                and branch.owned is not None
                and not branch.is_fenced
                and branch.owned.epoch == current.epoch
            ]
            self._world.require(len(owners) <= 1, f"branch {branch_id} has owners {owners}")

    # ---- judging

    async def judge(self) -> None:
        """Hold every manifest that the register leads to, and every answer, to the truth."""
        found: list[Manifest] = []
        for register in self._shared.bucket.registers.values():
            for name, entry in self._shared.bucket.branches(register).items():
                current = self._shared.bucket.manifest(register.uuid, entry.id)
                if current is None:
                    continue
                current = self._shared.bucket.whole(current)
                found.append(current)
                self._world.note(
                    "judge", name, current.head_txid, current.head_checksum, len(current.segments)
                )
                self._shared.bucket.check_pin(current)
                self._check_chain(current)
                await self._check_restores(current)
        self._check_writes(found)
        self._world.check()

    def _rounds(self, current: Manifest) -> list[int]:
        """Return every txid that the manifest's objects hold."""
        txids = {ref.max for ref in current.snapshots}
        for ref in current.segments:
            blob = self._shared.bucket.get(layout.object_key(current.db, ref))
            if blob is None:
                self._world.violated(f"branch {current.branch} lacks {ref.key_name}")
                continue
            part = segment.decode(blob.data, name_hash=ref.hash)
            txids |= {entry.txid for entry in part.rounds if entry.txid <= ref.end}
        return sorted(txids)

    def _check_chain(self, current: Manifest) -> None:
        before: State = ()
        rounds = self._chains[current.branch_id] = self._rounds(current)
        self._world.require(
            (rounds[-1] if rounds else 0) == current.head_txid, f"branch {current.branch} lacks its head"
        )
        lost = sorted(self._shared.bucket.held[current.branch_id].keys() - set(rounds))
        self._world.require(not lost, f"branch {current.branch} lost its states at {lost}")
        for txid in rounds:
            commit = self._shared.truth.lookup(current.branch_id, txid)
            if commit is None:
                self._world.violated(f"branch {current.branch} holds txid {txid}, which nobody committed")
                continue
            if not commit.is_rewind:
                old, new = log_of(before), log_of(commit.state)
                self._world.require(
                    new[: len(old)] == old,
                    f"branch {current.branch} lost writes at txid {txid}: {old} to {new}",
                )
            before = commit.state

    async def _check_restores(self, current: Manifest) -> None:
        rounds = self._chains[current.branch_id]
        bucket = self._shared.bucket
        chosen = {point.txid for point in bucket.checkpoints(current).values()} | {current.head_txid}
        chosen |= {pin.txid for pin in bucket.pins(current).values()}
        chosen |= set(self._source.sample(rounds, min(self._samples, len(rounds))))
        for txid in sorted(chosen - {0}):
            path = self._world.root / "restored.db"
            try:
                await restore(
                    self._shared.bucket.objects, current, txid, path, executor=InlineExecutor(), fsync=False
                )
            except MemoturnError as error:
                self._world.violated(f"txid {txid} of branch {current.branch} does not restore: {error}")
                continue
            state = _look(path, whole=txid == current.head_txid)
            commit = self._shared.truth.lookup(current.branch_id, txid)
            expected = commit.state if commit is not None else None
            self._world.require(
                state == expected, f"txid {txid} of branch {current.branch} restores {state}, not {expected}"
            )

    def _check_writes(self, found: list[Manifest]) -> None:
        applied = {n for commit in self._shared.truth.commits.values() for n in log_of(commit.state)}
        disks = {node.name: (node.disk, node.boot) for node in self._board.nodes}
        for record in self._board.writes:
            label = f"write {record.number} to {record.branch} ({record.node})"
            if record.outcome == "refused":
                self._world.require(record.number not in applied, f"{label} was refused, and applied")
            if record.outcome == "applied":
                self._world.require(record.number in applied, f"{label} is said to be applied, and is not")
            if record.outcome == "fenced":
                mine = [m for m in found if m.branch_id == record.branch_id]
                self._world.require(
                    not any(self._ever_held(m, record.number) for m in mine),
                    f"{label} was refused as fenced, and is in the branch",
                )
            if record.outcome != "ok" or record.branch in self._board.deleted:
                continue
            if record.reached is Durability.DURABLE:
                self._world.require(
                    any(self._holds(m, record) for m in found if m.branch_id == record.branch_id),
                    f"{label} was durable as txid {record.txid}, and is gone",
                )
                continue
            if record.reached is Durability.REPLICATED:
                self._world.require(
                    any(self._holds(m, record) for m in found if m.branch_id == record.branch_id)
                    or self._is_excused(record),
                    f"{label} was replicated as txid {record.txid}, and is gone",
                )
            if record.disk == disks[record.node]:
                self._world.require(
                    any(self._holds(m, record) for m in found),
                    f"{label} was answered as txid {record.txid}, its disk is there, and it is gone",
                )

    def _is_excused(self, record: Write) -> bool:
        promises = self._shared.truth.promises
        acks = promises.acks.get(record.branch_id, ())
        return any(ack.number == record.number and promises.is_excused(record.branch_id, ack) for ack in acks)

    def _ever_held(self, current: Manifest, number: int) -> bool:
        commits = [self._shared.truth.lookup(current.branch_id, t) for t in self._chains[current.branch_id]]
        return any(commit is not None and number in log_of(commit.state) for commit in commits)

    def _holds(self, current: Manifest, record: Write) -> bool:
        """Return whether a branch, or one that was kept of it, holds a write where it was answered.

        Rounds that could not be captured one by one are in the next state that is there.
        """
        origin = self._shared.bucket.forked_at.get(current.branch_id)
        kept = (
            origin is not None
            and origin[0] == record.branch_id
            and current.branch_id not in self._shared.bucket.children
        )
        if current.branch_id != record.branch_id and not kept:
            return False
        chain = self._chains[current.branch_id]
        at = bisect_left(chain, record.txid)
        if at == len(chain):
            return False
        commit = self._shared.truth.lookup(current.branch_id, chain[at])
        while commit is not None and record.number not in log_of(commit.state):
            if commit.is_rewind:
                return True  # undone, in a run of rounds of which only the last state was kept
            if commit.prev_txid < record.txid:
                return False
            commit = self._shared.truth.lookup(current.branch_id, commit.prev_txid)
        return commit is not None


def _look(path: Path, *, whole: bool) -> State:
    """Return the state in a restored file, which SQLite must find sound."""
    conn = apsw.Connection(f"file:{path}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        if whole:
            assert conn.execute("PRAGMA integrity_check").get == "ok"
        return dump(conn)
    finally:
        conn.close()
        path.unlink()
