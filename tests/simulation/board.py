"""What the clients and the judge know of a run: the branches that were made, and what became of every write."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.routing import MISDIRECTED
from memoturnd.core.durability import Durability
from memoturnd.core.retries import Asked
from memoturnd.engine.idempotency import Once
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    InvariantError,
    MemoturnError,
    NotDurableError,
    NotFoundError,
    RetryableError,
)
from memoturnd.http.once import OnceProfile
from memoturnd.node import Node
from memoturnd.seams.profile import Work
from simulation.gateways import SimGateway
from simulation.nodes import Shared, SimNode

DB = "p"


@dataclass(slots=True)
class Write:
    """One write of a client: what was asked, of whom, and the outcome.

    `outcome` is `ok`, `refused` (it must never be seen), `applied` (at level local), `fenced` (it must not be in
    the branch, since the client was told to send it again), or `unknown`.
    """

    number: int
    branch: str
    level: Durability
    node: str = ""
    disk: tuple[int, int] = (0, 0)
    branch_id: str = ""
    outcome: str = "unknown"
    txid: int = 0
    asks: tuple[str, int, Work] | None = None
    """Which key it sets, how much it adds, and where it runs."""
    reached: Durability = Durability.LOCAL
    """The level that the answer said."""

    @property
    def kind(self) -> str:
        """Return what it is counted as."""
        return "write" if self.level is Durability.LOCAL else f"{self.level.label} write"


@dataclass(slots=True)
class Board:
    """The run's nodes, branches and writes."""

    shared: Shared
    nodes: list[SimNode]
    gateways: list[SimGateway] = field(default_factory=list)
    branches: list[str] = field(default_factory=lambda: ["main"])
    deleted: set[str] = field(default_factory=set)
    writes: list[Write] = field(default_factory=list)
    numbers: int = 0
    forks: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    """How often each operation ended in each way: what a run covered."""

    def serving(self) -> list[SimNode]:
        """Return the nodes that take requests."""
        return [node for node in self.nodes if node.serves]

    def owner(self, branch_id: str) -> SimNode | None:
        """Return the node that holds a branch's lease, where it takes requests."""
        held = self.shared.table.owner(branch_id)
        return next((n for n in self.serving() if held is not None and n.name == held.node_id), None)

    def count(self, kind: str, outcome: str) -> None:
        """Count an answer."""
        label = f"{kind}: {outcome}"
        self.answers[label] = self.answers.get(label, 0) + 1


def classify(board: Board, kind: str, error: BaseException) -> str:
    """Return the outcome that an error tells of; a bug of the product is noted as a violation."""
    world = board.shared.world
    match error:
        case TimeoutError() | ConnectionError():
            outcome = "unknown"
        case NotDurableError():
            outcome = "applied"
        case FencedError():
            outcome = "fenced"
        case CorruptionError() | NotFoundError():
            outcome = "unknown"
        case InvariantError():
            outcome = "bug"
        case RetryableError() | ConflictError():
            outcome = "refused"
        case MemoturnError():
            outcome = "unknown"
        case _:
            outcome = "bug"
    if outcome == "bug":
        world.violated(f"{kind} failed with {type(error).__name__}: {world.plain(error)}")
    world.note(kind, type(error).__name__, world.plain(error)[:160])
    board.count(kind, type(error).__name__)
    return outcome


def write_op(number: int, key: str, size: int) -> Callable[[Any, int], tuple[None, bool]]:
    """Return a write that sets `key` to its number and appends that to the log; `size` characters besides."""

    def op(conn: Any, _now_ms: int) -> tuple[None, bool]:
        put = "INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', ?, ?)"
        log = conn.execute("SELECT v FROM __memoturn_kv WHERE ns = 'n' AND k = 'log'").get
        conn.execute(put, (key, str(number)))
        conn.execute(put, ("log", f"{log},{number}" if log else str(number)))
        if size:
            conn.execute(put, (f"big-{key}", f"{number:016d}" + "x" * size))
        return None, True

    return op


async def apply(
    board: Board, sim: SimNode, node: Node, record: Write, source: random.Random, *, keyed: bool
) -> int:
    """Do what one write asks for, in a node, and hold its answer to the rules; return its txid."""
    truth = board.shared.truth
    key, size, work = record.asks or _asks(source)
    record.asks = (key, size, work)
    profile: Any = await node.profile(DB, record.branch)
    record.branch_id = board.shared.branch_ids[record.branch] = profile.ref.branch_id
    branch = profile
    if keyed:
        name = f"write-{record.number}"
        branch = OnceProfile(profile, Once("PUT /", "client", name, name.encode()))
    written = await branch.write(
        write_op(record.number, key, size),
        durability=record.level,
        work=work,
    )
    truth.answered(
        profile.ref.database.uuid,
        record.branch_id,
        record.number,
        written.txid,
        written.durable_txid,
        written.durability,
    )
    record.reached = written.durability
    record.node, record.disk = sim.name, (sim.disk, sim.boot)
    truth.world.require(
        written.durability >= record.level,
        f"write {record.number} asked for {record.level.label} and got {written.durability.label}",
    )
    return written.txid


def _asks(source: random.Random) -> tuple[str, int, Work]:
    key = source.choice("abcd")
    size = source.choice([0, 0, 0, 0, 3000, 20_000])
    return key, size, source.choices([Work.POINT, Work.HEAVY, Work.USER], [7, 2, 1])[0]


async def write(board: Board, sim: SimNode, record: Write, source: random.Random) -> None:
    """Send one write to a node and note its outcome."""
    node = sim.node
    assert node is not None
    record.asks = _asks(source)
    record.node, record.disk = sim.name, (sim.disk, sim.boot)
    board.writes.append(record)
    request = apply(board, sim, node, record, source, keyed=False)
    try:
        record.txid = await sim.call(request, source.uniform(5, 20), leave=source.random() < 0.5)
        record.outcome = "ok"
    except BaseException as error:
        if not isinstance(error, Exception):
            raise
        record.outcome = classify(board, record.kind, error)
    else:
        board.count(record.kind, "ok")
    board.shared.world.note("write", record.number, record.branch, sim.name, record.outcome, record.txid)


async def write_through(
    board: Board, gateway: SimGateway, record: Write, source: random.Random, *, keyed: bool
) -> None:
    """Send one write to a gateway and note its outcome: of what is not said to be unapplied nobody knows."""
    record.asks = _asks(source)
    board.writes.append(record)
    database = await board.shared.catalog.get_database(DB)
    kind = f"{'keyed' if keyed else 'unkeyed'} write"

    async def request(sim: SimNode, node: Node) -> int:
        return await apply(board, sim, node, record, source, keyed=keyed)

    asked = Asked(reads=False, keyed=keyed)
    answer = await gateway.route(request, asked, database, record.branch, source.uniform(3, 15))
    if answer.error is None:
        record.txid, record.outcome = answer.value, "ok"
    elif answer.is_unapplied:
        record.outcome = "refused"
    elif isinstance(answer.error, NotDurableError):
        record.outcome = "applied"
    board.count(kind, "ok" if answer.error is None else type(answer.error).__name__)
    if answer.status == MISDIRECTED:
        board.shared.world.violated(f"a client of {gateway.name} was shown 421")
    board.shared.world.note(kind, record.number, record.branch, gateway.name, record.outcome, record.txid)
