"""The clients: each sends one request after another, to the owner mostly, and holds every answer to the rules."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from memoturnd.core.consistency import Consistency
from memoturnd.core.durability import Durability
from memoturnd.core.retries import Asked
from memoturnd.core.revisions import parse
from memoturnd.engine.consistency import Reading, reading_as
from memoturnd.node import Node
from memoturnd.seams.profile import Work
from simulation.board import DB, Board, Write, classify, write, write_through
from simulation.nodes import SimNode
from simulation.truth import dump
from simulation.world import EPOCH_MS

MAX_FORKS = 4


class Client:
    """One client. `think_s` is the mean pause between its requests, in virtual seconds.

    `loyalty` is the share of them that goes to the branch's owner; the others go anywhere. With `kinds` it asks for
    nothing else.
    """

    def __init__(
        self, name: str, board: Board, think_s: float, loyalty: float, kinds: Collection[str] = ()
    ) -> None:
        self._board = board
        self._name = name
        self._world = board.shared.world
        self._source: random.Random = self._world.stream(name)
        self._think_s = think_s
        self._loyalty = loyalty
        self._through = self._source.choice([0.0, 0.3, 0.8])
        """Share of its requests that this client sends through a gateway."""
        self._floor: dict[str, int] = {}
        """Branch to the newest txid that this client was told is durable."""
        self._shown: dict[str, int] = {}
        """Branch to the newest durable txid that a cached read has shown to this client."""
        self._near: dict[str, SimNode] = {}
        """Branch to the node at which this client reads copies."""
        self._actions: list[tuple[int, Callable[[SimNode, str], Awaitable[Any]]]] = [
            (26, self._write_local),
            (16, self._write_durable),
            (16, self._write_replicated),
            (12, self._read),
            (10, self._read_cached),
            (8, self._read_past),
            (4, self._sync),
            (4, self._checkpoint),
            (5, self._fork),
            (5, self._rewind),
            (1, self._undo),
            (2, self._delete),
            (4, self._evict),
            (4 if self._world.pace > 1 else 0, self._collect),
        ]
        if kinds:
            self._actions = [a for a in self._actions if a[1].__name__.strip("_") in kinds]
            assert len(self._actions) == len(kinds), kinds

    async def run(self) -> None:
        """Send requests until cancelled."""
        weights = [weight for weight, _ in self._actions]
        while True:
            await asyncio.sleep(self._source.expovariate(1 / self._think_s))
            branch = self._source.choice(self._board.branches)
            sim = self._choose(branch)
            if sim is None:
                continue
            (_, action) = self._source.choices(self._actions, weights)[0]
            await action(sim, branch)

    def _choose(self, branch: str) -> SimNode | None:
        serving = self._board.serving()
        if not serving:
            return None
        owner = self._board.owner(self._board.shared.branch_ids.get(branch, ""))
        if owner is not None and self._source.random() < self._loyalty:
            return owner
        return self._source.choice(serving)

    async def _ask(self, kind: str, sim: SimNode, work: Callable[[Node], Awaitable[Any]]) -> Any:
        """Send a request; None where it failed."""
        source = self._source
        if sim.node is None:
            return None
        try:
            result = await sim.call(work(sim.node), source.uniform(5, 20), leave=source.random() < 0.5)
        except Exception as error:  # noqa: BLE001 - classify tells failures from bugs
            classify(self._board, kind, error)
            return None
        self._board.count(kind, "ok")
        return result

    async def _write(self, sim: SimNode, branch: str, level: Durability) -> None:
        board = self._board
        together = self._source.choice([1, 1, 1, 2, 4])
        records = []
        for _ in range(together):
            board.numbers += 1
            records.append(Write(board.numbers, branch, level))
        if board.gateways and self._source.random() < self._through:
            gateway, keyed = self._source.choice(board.gateways), self._source.random() < 0.5
            sending = [write_through(board, gateway, record, self._source, keyed=keyed) for record in records]
        else:
            sending = [write(board, sim, record, self._source) for record in records]
        await asyncio.gather(*sending)
        for record in records:
            if level is Durability.DURABLE and record.outcome == "ok":
                self._floor[branch] = max(self._floor.get(branch, 0), record.txid)

    async def _write_local(self, sim: SimNode, branch: str) -> None:
        await self._write(sim, branch, Durability.LOCAL)

    async def _write_durable(self, sim: SimNode, branch: str) -> None:
        await self._write(sim, branch, Durability.DURABLE)

    async def _write_replicated(self, sim: SimNode, branch: str) -> None:
        await self._write(sim, branch, Durability.REPLICATED)

    async def _read(self, sim: SimNode, branch: str) -> None:
        truth = self._board.shared.truth
        promises = truth.promises
        floor = self._floor.get(branch, 0) if self._source.random() < 0.5 else 0
        work = self._source.choice([Work.POINT, Work.SCAN, Work.USER])

        branch_id = self._board.shared.branch_ids.get(branch, "")
        acks = len(promises.acks.get(branch_id, ()))

        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            ref = profile.ref
            seen = await profile.read(dump, min_txid=floor, work=work)
            self._world.require(seen.txid >= floor, f"a read above {floor} saw txid {seen.txid}")
            truth.seen(ref.database.uuid, ref.branch_id, seen.value, seen.txid, seen.durable_txid)
            promises.check_newest(ref.branch_id, acks, seen.txid, "a primary read")

        if self._board.gateways and self._source.random() < self._through:
            gateway = self._source.choice(self._board.gateways)
            database = await self._board.shared.catalog.get_database(DB)
            asked, budget_s = Asked(reads=True, keyed=False), self._source.uniform(3, 15)
            answer = await gateway.route(lambda _, node: request(node), asked, database, branch, budget_s)
            told = "ok" if answer.error is None else type(answer.error).__name__
            self._board.count("routed read", told)
            return
        await self._ask("read", sim, request)

    async def _read_cached(self, _owner: SimNode, branch: str) -> None:
        """Read from a copy, again and again at one node mostly, never behind what this client has seen."""
        truth = self._board.shared.truth
        serving = self._board.serving()
        known = self._near.get(branch)
        sim = known if known in serving and self._source.random() < 0.9 else self._source.choice(serving)
        self._near[branch] = sim
        for _ in range(self._source.choice([1, 1, 3])):
            floor = max(self._floor.get(branch, 0), self._shown.get(branch, 0))
            floor = floor if self._source.random() < 0.7 else 0

            async def request(node: Node, floor: int = floor) -> None:
                profile = await node.profile(DB, branch)
                ref = profile.ref
                acks = len(truth.promises.acks.get(ref.branch_id, ()))
                with reading_as(Reading(Consistency.CACHED)) as asked:
                    seen = await profile.read(dump, min_txid=floor)
                label = f"a cached read at {sim.name}"
                self._world.require(seen.txid >= floor, f"{label} above {floor} saw txid {seen.txid}")
                truth.seen(ref.database.uuid, ref.branch_id, seen.value, seen.txid, seen.durable_txid)
                if asked.age_ms is None:
                    truth.promises.check_newest(ref.branch_id, acks, seen.txid, label)
                else:
                    self._board.count("replica", "shown")
                    truth.promises.check_age(ref.branch_id, seen.txid, asked.age_ms / 1000, label)
                self._world.note("cached", sim.name, ref.branch_id, seen.txid, asked.age_ms)
                durable_txid = min(seen.txid, seen.durable_txid)
                self._shown[branch] = max(self._shown.get(branch, 0), durable_txid)

            if sim.serves:
                await self._ask("cached read", sim, request)
            await asyncio.sleep(self._source.expovariate(1.0 / (0.3 * self._world.pace)))

    async def _read_past(self, sim: SimNode, branch: str) -> None:
        truth = self._board.shared.truth
        at = self._source.choice([self._some_txid(branch) or "head", "head~1", "head~3", "cp-x"])
        if self._source.random() < 0.2:
            at = str(EPOCH_MS + int(1000 * self._source.uniform(0, self._world.loop.time())))
        work = self._source.choice([Work.POINT, Work.USER])

        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            seen = await (await node.past(DB, branch, parse(at))).read(dump, work=work)
            self._world.require(
                not at.isdecimal() or len(at) > 10 or str(seen.txid) == at, f"{at} shows {seen.txid}"
            )
            ref = profile.ref
            truth.seen(ref.database.uuid, ref.branch_id, seen.value, seen.txid, seen.durable_txid)

        await self._ask("past read", sim, request)

    async def _sync(self, sim: SimNode, branch: str) -> None:
        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            durable_txid = await node.branches.sync(DB, branch)
            uuid, branch_id = profile.ref.database.uuid, profile.ref.branch_id
            self._board.shared.truth.check_durable(uuid, branch_id, durable_txid, "sync answered")

        await self._ask("sync", sim, request)

    async def _checkpoint(self, sim: SimNode, branch: str) -> None:
        name = self._source.choice(["cp-x", "cp-y", "cp-z"])

        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            made = await node.branches.checkpoint(DB, branch, name)
            uuid, branch_id = profile.ref.database.uuid, profile.ref.branch_id
            self._board.shared.truth.check_durable(uuid, branch_id, made.txid, f"checkpoint {name} was made")

        await self._ask("checkpoint", sim, request)

    async def _fork(self, sim: SimNode, branch: str) -> None:
        board = self._board
        if len(board.branches) > MAX_FORKS:
            return
        board.forks += 1
        name = f"f{board.forks}"
        at = self._some_txid(branch)
        made = await self._ask(
            "fork", sim, lambda node: node.branches.create(DB, name, from_branch=branch, at=at)
        )
        if made is not None and at is not None:
            self._world.require(str(made.fork_txid) == at, f"fork {name} at {at} stands at {made.fork_txid}")
        if made is not None or self._source.random() < 0.5:  # one that failed may be there all the same
            board.branches.append(name)

    async def _rewind(self, sim: SimNode, branch: str) -> None:
        to = self._some_txid(branch) or self._source.choice(["cp-x", "cp-y"])

        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            rewound = await node.branches.rewind(DB, branch, to)
            self._check_rewound(profile.ref.branch_id, rewound)

        await self._ask("rewind", sim, request)
        if self._source.random() < 0.5:
            await self._undo(sim, branch)

    async def _undo(self, sim: SimNode, branch: str) -> None:
        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            self._check_rewound(profile.ref.branch_id, await node.branches.undo_rewind(DB, branch))

        await self._ask("undo", sim, request)

    def _check_rewound(self, branch_id: str, rewound: Any) -> None:
        truth = self._board.shared.truth
        now, then = truth.lookup(branch_id, rewound.txid), truth.lookup(branch_id, rewound.rewound_to)
        label = f"rewind to {rewound.rewound_to} by txid {rewound.txid} of {branch_id}"
        self._world.require(now is not None and then is not None and now.state == then.state, label)

    async def _delete(self, sim: SimNode, branch: str) -> None:
        if branch == "main":
            return
        self._board.deleted.add(branch)
        done = await self._ask("delete", sim, lambda node: self._deleted(node, branch))
        if done and branch in self._board.branches:
            self._board.branches.remove(branch)

    @staticmethod
    async def _deleted(node: Node, branch: str) -> bool:
        await node.branches.delete(DB, branch)
        return True

    async def _evict(self, sim: SimNode, branch: str) -> None:
        async def request(node: Node) -> None:
            await node.tiers.evict(await node.profile(DB, branch))

        await self._ask("evict", sim, request)

    async def _collect(self, sim: SimNode, branch: str) -> None:
        async def request(node: Node) -> None:
            profile = await node.profile(DB, branch)
            await node.collector.collect(profile.ref.database.uuid)

        await self._ask("collect", sim, request)

    def _some_txid(self, branch: str) -> str | None:
        """Return a txid that the branch may hold, or None for its head."""
        branch_id = self._board.shared.branch_ids.get(branch)
        txids = [txid for owner, txid in self._board.shared.truth.commits if owner == branch_id]
        if not txids or self._source.random() < 0.2:
            return None
        return str(self._source.choice(txids))
