"""What clients were told, and whether it still has to hold: levels of durability, and how new a read must be.

A write that was acknowledged as replicated is found by every takeover that got an answer from one member of the recorded
set whose disk is there. Where the network let no such answer through it may be missing: that excuses it, and the takeover
must have said so. A lease service that loses its memory excuses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from memoturnd.core.durability import Durability
from simulation.loop import PROCESS, Process
from simulation.peers import Mesh
from simulation.table import Holding, Table
from simulation.world import World

_SAID = (
    "no node that holds replicated commits answers",
    "no node holds replicated commits of this branch",
)
_DRIFT = 0.03
_SLACK_S = 0.02
"""Of a replica's age: clocks run up to 1 % fast or slow, and what is told is rounded."""


@dataclass(frozen=True, slots=True)
class Ack:
    """A write that a client was told of, at the level that was reached, by a process under what the table had then."""

    number: int
    txid: int
    level: Durability
    epoch: int
    at_s: float
    process: Process | None
    held: Holding | None
    session: str
    """Of the process, by its own clock."""


@dataclass(frozen=True, slots=True)
class Look:
    """A takeover that asked the sync set: under which epoch, how far what it found leads, and who answered with its disk."""

    epoch: int
    reached: int
    at_s: float
    members: tuple[str, ...] | None
    answered: frozenset[str]


@dataclass(slots=True)
class Promises:
    """Every acknowledgement and every look at a sync set, by branch id."""

    world: World
    table: Table
    mesh: Mesh
    acks: dict[str, list[Ack]] = field(default_factory=dict)
    looks: dict[str, list[Look]] = field(default_factory=dict)
    suspected: set[str] = field(default_factory=set)
    """Branches of which the members are unknown, while every node is recorded as one."""
    _fences: dict[tuple[str, int, str], int] = field(default_factory=dict)
    """The highest epoch that a node with this disk has given the tail of a branch to."""
    _disks: dict[str, tuple[float, dict[str, int]]] = field(default_factory=dict)
    """Branch id to when its set was recorded, and the disks of its members then."""

    def recorded(self, branch_id: str, members: Sequence[str]) -> None:
        """Note that a sync set was recorded; of those who only may hold a tail nothing is asked."""
        if branch_id in self.suspected:
            return
        self._disks[branch_id] = (self.world.loop.time(), {name: self._disk(name) for name in members})

    def fenced(self, branch_id: str, epoch: int) -> None:
        """Note that this process has given a tail to the owner under `epoch`."""
        key = (*self._here(), branch_id)
        self._fences[key] = max(epoch, self._fences.get(key, 0))

    def kept(self, branch_id: str, epoch: int) -> None:
        """Require that this process keeps nothing of an owner below one that it has answered."""
        fence = self._fences.get((*self._here(), branch_id), 0)
        self.world.require(
            epoch >= fence,
            f"{PROCESS.get()} keeps a tail of {branch_id} under epoch {epoch}, and has answered {fence}",
        )

    def let_go(self, branch_id: str) -> None:
        """Note that nothing of a branch is held here any more, nor who was answered."""
        self._fences.pop((*self._here(), branch_id), None)

    def _here(self) -> tuple[str, int]:
        name = str(PROCESS.get()).partition("/")[0]
        return name, self._disk(name)

    def acknowledged(
        self, branch_id: str, number: int, txid: int, level: Durability, epoch: int, standing: int
    ) -> None:
        """Note the answer to a write, in the process that gives it; `standing` is the epoch in the manifest."""
        process = PROCESS.get()
        ack = Ack(
            number,
            txid,
            level,
            epoch,
            self.world.loop.time(),
            process,
            self.table.owner(branch_id),
            self._session(process),
        )
        self.acks.setdefault(branch_id, []).append(ack)
        if level is Durability.LOCAL and ack.process is not None:
            holder = None if ack.held is None else ack.held.node_id
            is_forgotten = (
                standing <= epoch and self._wiped_lately()
            )  # of which nobody else can take the branch yet
            self.world.require(
                is_forgotten or holder == ack.process.name.partition("/")[0],
                f"write {number} was acknowledged by {ack.process} as local, while {branch_id} was {holder}'s",
            )

    def looked(
        self, branch: Any, epoch: int, reached: int, members: Any, answered: set[str], since: int
    ) -> None:
        """Note what a takeover found at the members of the set; `since` is the first event of its look."""
        branch_id = branch.branch_id
        _, disks = self._disks.get(branch_id, (0.0, {}))
        intact = {name for name in answered if disks.get(name) == self._disk(name)}
        names = None if members is None else tuple(node.node_id for node in members)
        look = Look(epoch, reached, self.world.loop.time(), names, frozenset(intact))
        self.looks.setdefault(branch_id, []).append(look)
        self.world.note("looked", branch_id, epoch, reached, names, sorted(intact))
        if names and not answered:
            told = [str(event[-1]) for event in self.world.events[since:]]
            said = any(one in line for one in _SAID for line in told)
            self.world.require(
                said, f"a takeover of {branch_id} got no answer from {names}, and did not say so"
            )

    def is_excused(self, branch_id: str, ack: Ack) -> bool:
        """Return whether a write that was acknowledged as replicated may be missing."""
        return any(self._excuses(look, ack) for look in self.looks.get(branch_id, ()))

    def _excuses(self, look: Look, ack: Ack) -> bool:
        if look.epoch <= ack.epoch or look.reached >= ack.txid:
            return False
        return look.members is not None and not look.answered

    def stands(self, branch_id: str, ack: Ack) -> bool:
        """Return whether the newest state must hold a write now."""
        if ack.level is Durability.DURABLE:
            return True
        if ack.level is Durability.REPLICATED and not self.is_excused(branch_id, ack):
            return True
        process = ack.process
        if ack.session and process is not None and not process.dead and ack.session == self._session(process):
            return True
        return (
            ack.held is not None
            and process is not None
            and not process.dead
            and self.table.owner(branch_id) is ack.held
        )

    def check_newest(self, branch_id: str, acks: int, txid: int, label: str) -> None:
        """Require that a state is as new as every one of the first `acks` writes that stand."""
        self._check(branch_id, self.acks.get(branch_id, [])[:acks], txid, label)

    def check_age(self, branch_id: str, txid: int, age_s: float, label: str) -> None:
        """Require that a copy is as new as its age says, which counts what is in object storage."""
        as_of_s = self.world.loop.time() - age_s * (1 + _DRIFT) - _SLACK_S
        acks = [
            ack
            for ack in self.acks.get(branch_id, ())
            if ack.at_s < as_of_s and ack.level is Durability.DURABLE
        ]
        self._check(branch_id, acks, txid, f"{label}, {age_s:.3f} s old,")

    def _check(self, branch_id: str, acks: list[Ack], txid: int, label: str) -> None:
        for ack in acks:
            if ack.txid > txid and self.stands(branch_id, ack):
                self.world.violated(
                    f"{label} saw txid {txid} of {branch_id}, behind write {ack.number}, which was acknowledged before "
                    f"as {ack.level.label} with txid {ack.txid}"
                )
                return

    def _session(self, process: Process | None) -> str:
        client = None if process is None else self.table.clients.get(process.name)
        return "" if client is None else client.session()

    def _wiped_lately(self) -> bool:
        now_s = self.world.loop.time()
        return any(now_s - wiped_s < self.table.ttl_s for wiped_s in self.table.wiped_s)

    def _disk(self, name: str) -> int:
        return self.mesh.nodes[name].disk
