"""One run: a world from a seed, faults for a while, then everything settles and is judged."""

import asyncio
import gc
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import structlog

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd import node as node_module
from memoturnd.core import compaction, keyed
from memoturnd.engine import branching, replica, schema
from memoturnd.engine import writer as writer_module
from memoturnd.engine.tails import Tails
from memoturnd.metrics import Metrics
from memoturnd.replication.tail_store import TailStore
from memoturnd.seams.catalog import Database
from simulation.board import DB, Board
from simulation.bucket import Bucket
from simulation.chaos import Chaos, start_at_last
from simulation.clients import Client
from simulation.gateways import SimGateway
from simulation.judge import Judge
from simulation.loop import PROCESS, StuckError, VirtualLoop
from simulation.nodes import Shared, SimNode
from simulation.peers import Mesh
from simulation.promises import Promises
from simulation.table import Table
from simulation.truth import Truth
from simulation.world import PoolOfOne, ViolationError, World

Mutant = Callable[[], Any]
"""Returns a context manager in which the product is broken in one way."""

SLOW = 20
SLOW_SHARE = 0.1
"""Which share of runs is so much slower, and as much longer and more, that garbage comes of age and is collected."""
_SLOW_WORK = {"SWEEP_S": 20.0, "EXPORT_S": 20.0, "BURNER_S": 100.0, "ROWS_S": 600.0, "TICK_S": 20.0}
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Focus:
    """The kinds of faults, and those of requests, of which a run is made: what else hardly ever meets then meets often.

    `think` is how long clients wait between requests, in parts of the usual.
    """

    faults: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    think: float = 1.0


_EVERYTHING = Focus()


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run left: its trace, what it covered, and the rule that it broke, if any."""

    seed: int
    digest: str
    events: list[tuple[Any, ...]]
    answers: dict[str, int]
    violation: str | None
    steps: int
    virtual_s: float


def simulate(
    seed: int,
    *,
    samples: int = 3,
    mutant: Mutant | None = None,
    slow: bool = False,
    focus: Focus = _EVERYTHING,
) -> Finished:
    """Run one seed to its end or its first violation; `slow` makes it one of the long histories."""
    root = Path(tempfile.mkdtemp(prefix="memoturn-sim-", dir=_MEMORY if _MEMORY.is_dir() else None))
    loop = VirtualLoop()
    world = World(seed, loop, root)
    world.pace = SLOW if slow or world.stream("pace").random() < SLOW_SHARE else 1
    board: list[Board] = []
    violation = None
    collecting = gc.isenabled()
    gc.disable()  # when a weakly held branch goes must not depend on what else this process did
    quiet = warnings.catch_warnings()
    quiet.__enter__()
    if mutant is not None:
        warnings.simplefilter("ignore")  # a broken product may leave coroutines behind that nobody awaits
    try:
        with _observed(world) as truth, mutant() if mutant is not None else ExitStack():
            loop.set_exception_handler(lambda _loop, context: _lost_exception(world, context))
            try:
                loop.run_until_complete(_history(world, truth, board, samples, focus))
            except (ViolationError, StuckError) as error:
                violation = str(error)
            finally:
                _end(loop, board)
    finally:
        loop.close()
        shutil.rmtree(root, ignore_errors=True)
        if collecting:
            gc.enable()
        gc.collect()
        quiet.__exit__(None, None, None)
    answers = board[0].answers if board else {}
    return Finished(seed, world.digest(), world.events, answers, violation, loop.steps, loop.time())


async def _history(world: World, truth: Truth, boards: list[Board], samples: int, focus: Focus) -> None:
    source = world.stream("shape")
    shared = await _shared(world, truth, source)
    nodes = [SimNode(f"n{i}", shared) for i in range(source.choice([2, 3, 3, 4]))]
    board = Board(shared, nodes)
    boards.append(board)
    trouble = source.choice([0.0, 0.02, 0.1, 0.25])
    damage = source.choice([0.0, 0.0, 0.02])
    for node in nodes:
        await start_at_last(node, source)
        node.weather.trouble, node.weather.damage = trouble, damage
    board.gateways = [SimGateway(f"g{i}", shared) for i in range(source.choice([0, 1, 2]))]
    feeds = [asyncio.create_task(gateway.run(trouble)) for gateway in board.gateways]
    chaos = Chaos(board, source.choice([1.0, 2.0, 5.0]) * world.pace, focus.faults)
    loyalty = source.choice([0.5, 0.8, 0.95])
    clients = [
        Client(
            f"client-{i}",
            board,
            source.uniform(0.3, 1.5) * world.pace * focus.think,
            loyalty,
            focus.requests,
        )
        for i in range(3)
    ]
    work = [asyncio.create_task(part.run()) for part in (chaos, *clients)]
    await asyncio.wait(
        work,
        timeout=source.uniform(8, 25) if world.pace == 1 else source.uniform(900, 2000),
        return_when=asyncio.FIRST_COMPLETED,
    )
    for task in work:
        task.cancel()
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    await chaos.end()
    for feed in feeds:
        feed.cancel()
    world.check()
    judge = Judge(board, samples)
    await judge.settle()
    await judge.judge()


async def _shared(world: World, truth: Truth, source: random.Random) -> Shared:
    catalog = SqliteCatalog(":memory:")
    ids = world.stream("database")
    await catalog.create_database(
        Database(DB, ids.randbytes(16).hex(), ids.randbytes(8).hex(), 1_750_000_000_000)
    )
    warm_after_s, cold_after_s = source.choice([("1", "2"), ("3", "5"), ("60", "600")])
    settings = {
        "MEMOTURN_HOT_CAP": str(source.choice([1, 2, 100])),
        "MEMOTURN_WARM_AFTER_S": warm_after_s,
        "MEMOTURN_COLD_AFTER_S": cold_after_s,
        "MEMOTURN_SHIP_INTERVAL_MS": str(source.choice([20, 200, 1000])),
        "MEMOTURN_UNSHIPPED_WAIT_S": "2",
        "MEMOTURN_MAINTENANCE_INTERVAL_S": "60",
        "MEMOTURN_DELETE_GRACE_S": "0",
        "MEMOTURN_SYNC_REPLICAS": source.choice(["1", "1", "2"]),
    }
    promises = truth.promises
    return Shared(world, truth.bucket, promises.table, catalog, truth, Metrics(), settings, promises.mesh)


def _lost_exception(world: World, context: dict[str, Any]) -> None:
    handle, task = context.get("handle"), context.get("task")
    process = handle._context.get(PROCESS) if handle is not None else getattr(task, "process", None)
    if process is None or not process.dead:
        world.violated(f"{context.get('message')}: {context.get('exception')!r}")


def _end(loop: VirtualLoop, boards: list[Board]) -> None:
    """Stop whatever still runs."""

    async def stop() -> None:
        for node in boards[0].nodes if boards else ():
            if node.process is not None:
                await node.kill()
        for _ in range(100):
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.sleep(0)

    loop.run_until_complete(stop())


def _sizes(source: random.Random) -> dict[str, int]:
    """Return bounds so small that short histories reach them, or the product's own."""
    if source.random() < 0.2:
        return {"names": keyed.RECENT_LIMIT}
    return {
        "names": source.choice([1, 2, 3, 10]),
        "JOIN_SEGMENTS": source.choice([2, 3, 6]),
        "RESTORE_SEGMENTS": source.choice([3, 10]),
        "REQUEST_COST_BYTES": source.choice([64, 1024, 16 * 1024]),
        "SNAPSHOT_SPACING_BYTES": source.choice([0, 4096, 1024 * 1024]),
        "SNAPSHOT_MARGIN_BYTES": 0,
        "PAGE_ENTRIES": source.choice([2, 4, 96]),
        "HEAD_ENTRIES": source.choice([8, 160]),
    }


@contextmanager
def _observed(world: World) -> Iterator[Truth]:
    """Watch every COMMIT and every line of the log, and run users' pool on the virtual clock."""
    promises = Promises(world, Table(world), Mesh(world))
    promises.table.on_recorded = promises.recorded
    truth = Truth(world, Bucket(world), promises)
    sizes = _sizes(world.stream("sizes"))
    most_names = sizes.pop("names")
    run_round, replay = writer_module.run_round, branching._replay
    create_as_commit = schema.create_as_commit
    apply, find, suspect_all = replica.apply, Tails.find, Tails.suspect_all
    read, push, remove = TailStore.read, TailStore.push, TailStore._remove

    def check_alive() -> None:
        process = PROCESS.get()
        if process is not None:
            process.check_alive()

    def watched_round(conn: Any, ops: Any, *, txid: int, now_ms: int, epoch: int, **more: Any) -> Any:
        check_alive()
        prev_txid = schema.read_meta(conn).txid
        done = run_round(conn, ops, txid=txid, now_ms=now_ms, epoch=epoch, **more)
        if done.committed:
            truth.committed(conn, prev_txid, txid, epoch)
        return done

    def watched_create(conn: Any, *, txid: int, at_ms: int, epoch: int) -> None:
        check_alive()
        prev_txid = schema.read_meta(conn).txid
        create_as_commit(conn, txid=txid, at_ms=at_ms, epoch=epoch)
        if txid:  # 0 is where a profile without data stands, which is no branch's file
            truth.committed(conn, prev_txid, txid, epoch)

    def watched_replay(past: Path, live: Any, txid: int, at_ms: int, epoch: int, keep: Any) -> None:
        check_alive()
        prev_txid = schema.read_meta(live).txid
        replay(past, live, txid, at_ms, epoch, keep)
        truth.committed(live, prev_txid, txid, epoch, is_rewind=True)

    async def watched_apply(branch: Any, segments: Any) -> bool:
        applied = await apply(branch, segments)
        if applied:
            truth.copied(branch.conn)
        return applied

    async def watched_suspect_all(self: Any, lease: Any) -> None:
        promises.suspected.add(lease.branch_id)
        try:
            await suspect_all(self, lease)
        finally:
            promises.suspected.discard(lease.branch_id)

    async def watched_find(self: Any, branch: Any, current: Any, **more: Any) -> Any:
        process, branch_id = PROCESS.get(), branch.branch_id
        events, reads = len(world.events), len(promises.mesh.read)
        recorded = promises.table.sync_sets.get(branch_id)
        found = await find(self, branch, current, **more)
        members = None if recorded is None else recorded.members
        answered = {
            name for asker, of, name in promises.mesh.read[reads:] if (asker, of) == (str(process), branch_id)
        }
        answered |= {node.node_id for node in members or () if node.node_id == branch.services.node_id}
        reached = found[-1].rounds[-1].txid if found else current.head_txid
        promises.looked(branch, current.epoch, reached, members, answered, events)
        return found

    async def watched_read(self: Any, branch_id: str, epoch: int) -> Any:
        pieces = await read(self, branch_id, epoch)
        promises.fenced(branch_id, epoch)
        return pieces

    async def watched_push(self: Any, pushed: Any, data: bytes) -> None:
        await push(self, pushed, data)
        promises.kept(pushed.branch_id, pushed.epoch)

    def watched_remove(self: Any, branch_id: str, tail: Any) -> None:
        remove(self, branch_id, tail)
        promises.let_go(branch_id)

    def user_pool(_threads: int, name: str, *, waiting: int) -> PoolOfOne:
        process = PROCESS.get()
        assert process is not None
        return PoolOfOne(world, process, world.stream(f"{process}/{name}/{waiting}"))

    async def no_lag(*_: Any) -> None:
        """The loop of a simulation is never late."""

    def log(_logger: Any, level: str, event: dict[str, Any]) -> Any:
        process = PROCESS.get()
        if process is None or not process.dead:
            if level == "exception":
                world.violated(f"{event['event']}: {sys.exc_info()[1]!r}")
            world.note(process and process.name, level, world.plain(event))
        raise structlog.DropEvent

    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[log], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    try:
        with (
            mock.patch.object(writer_module, "run_round", watched_round),
            mock.patch.object(schema, "create_as_commit", watched_create),
            mock.patch.object(branching, "_replay", watched_replay),
            mock.patch.object(replica, "apply", watched_apply),
            mock.patch.object(Tails, "find", watched_find),
            mock.patch.object(Tails, "suspect_all", watched_suspect_all),
            mock.patch.object(TailStore, "read", watched_read),
            mock.patch.object(TailStore, "push", watched_push),
            mock.patch.object(TailStore, "_remove", watched_remove),
            mock.patch.object(node_module, "PoolExecutor", user_pool),
            mock.patch.object(node_module, "watch_loop_lag", no_lag),
            mock.patch.multiple(node_module, **_SLOW_WORK) if world.pace > 1 else nullcontext(),
            mock.patch.multiple(compaction, **sizes) if sizes else nullcontext(),
            mock.patch.object(keyed, "flush_due", lambda recent, limit=most_names: len(recent) >= limit),
        ):
            yield truth
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)
