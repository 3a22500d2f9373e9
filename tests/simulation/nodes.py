"""A node of the simulation: the product's own composition on simulated seams, with lives that end in many ways."""

import asyncio
import random
import shutil
import struct
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.app import GRACE_S
from memoturnd.config import Settings
from memoturnd.core import wal
from memoturnd.errors import MemoturnError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.node import Node, running
from simulation.bucket import Bucket
from simulation.loop import Process
from simulation.network import Network, Weather
from simulation.peers import Mesh, SimPeers
from simulation.table import Line, SharedLeases, Table, address_of
from simulation.truth import Truth
from simulation.world import Ids, NodeClock, PoolOfOne, World

FRAME_BYTES = wal.frame_size_bytes(4096)


class SharedCatalog:
    """The catalog that all nodes share, behind a way that takes time and now and then fails."""

    def __init__(
        self, inner: SqliteCatalog, process: Process, weather: Weather, source: random.Random
    ) -> None:
        self._inner = inner
        self._process = process
        self._weather = weather
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if not callable(known := getattr(self._inner, name)):
            return known

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._process.check_alive()
            if self._source.random() < 0.2:
                await asyncio.sleep(self._source.expovariate(500.0))
            troubled = self._source.random() < self._weather.trouble / 4
            if troubled and self._source.random() < 0.5:
                raise RetryableError("the catalog does not answer (simulated); try again")
            result = await getattr(self._inner, name)(*args, **kwargs)
            if troubled:
                raise RetryableError("the catalog's answer was lost (simulated); try again")
            return result

        return call


@dataclass(slots=True)
class Shared:
    """What outlives every node."""

    world: World
    bucket: Bucket
    table: Table
    catalog: SqliteCatalog
    truth: Truth
    metrics: Metrics
    settings: dict[str, str]
    mesh: Mesh
    branch_ids: dict[str, str] = field(default_factory=dict)
    """Branch name to the id that a client last met."""


class SimNode:
    """One node through all its lives. `disk` counts the disks that it lost, `boot` the boots of its machine."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.shared = shared
        self.world = shared.world
        self.weather = Weather()
        self.line = Line()
        self.node: Node | None = None
        self.process: Process | None = None
        self.busy = False
        """Whether somebody is bringing it down or up."""
        self.lives = 0
        self.disk = 0
        self.boot = 0
        self._source = shared.world.stream(name)
        self.clock = NodeClock(
            shared.world.loop,
            skew_ms=self._source.randint(-400, 400),
            rate=self._source.uniform(0.99, 1.01),
            start_s=self._source.uniform(0, 1000),
        )
        self._folder = shared.world.root / name / "0"
        self._requests: set[asyncio.Task[Any]] = set()
        self._stop: asyncio.Event | None = None
        self._serving: asyncio.Task[None] | None = None
        shared.mesh.nodes[name] = self

    @property
    def serves(self) -> bool:
        """Return whether requests can be sent to it."""
        return self.node is not None and self.process is not None and not self.process.dead

    async def start(self) -> bool:
        """Start a life; False when the node refused to start."""
        assert self.process is None
        self.lives += 1
        process = self.process = Process(f"{self.name}/{self.lives}")
        self.world.note(process.name, "start", self.disk, self.boot)
        self._stop = asyncio.Event()
        ready = self.world.loop.create_future()
        self._serving = self.world.loop.spawn(process, self._serve(process, self._stop, ready))
        await asyncio.wait([self._serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done() and (error := self._serving.exception()) is not None:
            raise error
        return self.node is not None

    async def _serve(self, process: Process, stop: asyncio.Event, ready: "asyncio.Future[None]") -> None:
        shared, world = self.shared, self.world
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = Settings.from_env(
            {
                "MEMOTURN_DATA_DIR": str(self._folder),
                "MEMOTURN_OBJECT_STORE": "mem://",
                "MEMOTURN_NODE_ID": self.name,
                "MEMOTURN_ADVERTISE": address_of(self.name),
                **shared.settings,
            },
            is_tty=False,
        )
        leases = SharedLeases(shared.table, process, self.clock, self.line, world.stream(f"{process}/leases"))
        keeper = asyncio.create_task(leases.keep())
        try:
            async with running(
                settings,
                store=Network(shared.bucket, process, self.weather, world.stream(f"{process}/network")),
                leases=leases,
                catalog=SharedCatalog(
                    shared.catalog, process, self.weather, world.stream(f"{process}/catalog")
                ),
                clock=self.clock,
                randomness=Ids(world.stream(f"{process}/ids")),
                executor=PoolOfOne(world, process, world.stream(f"{process}/pool")),
                boot_id=f"{self.name}-boot-{self.boot}",
                metrics=shared.metrics,
                peers=SimPeers(shared.mesh, process, self.weather, world.stream(f"{process}/peers")),
            ) as node:
                self.node = node
                ready.set_result(None)
                await stop.wait()
                self.node = None
            await leases.close()
        except* MemoturnError as errors:
            world.note(process.name, "did not run", world.plain(errors.exceptions[0]))
        except* Exception as errors:  # noqa: BLE001 - whatever else ends a node is a bug
            if not process.dead:
                world.violated(f"{process.name} ended with {errors.exceptions[0]!r}")
        finally:
            keeper.cancel()
            if self.process is process and not process.dead:
                self.node = self.process = None

    async def stop(self) -> None:
        """Stop as by SIGTERM: drain, then leave."""
        if self._stop is not None and self._serving is not None:
            self.world.note(self.name, "stop")
            node, self.node = self.node, None
            await self._end_requests()
            self._stop.set()
            await asyncio.wait([self._serving])
            if node is not None:
                _close_files(node)
            if self._folder.name != str(self.lives):  # it did run since
                shutil.rmtree(self._move(), ignore_errors=True)

    async def _end_requests(self) -> None:
        """Let requests end within the server's grace, then cancel them."""
        if self._requests:
            _, late = await asyncio.wait(self._requests, timeout=GRACE_S)
            for task in sorted(late, key=hash):
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def kill(self, *, lose_disk: bool = False, power: bool = False) -> None:
        """End the life as kill -9 does: the disk stays as it is, or loses what was not synced, or is lost."""
        process, node = self.process, self.node
        if process is None:
            return
        self.world.note(process.name, "kill", lose_disk, power)
        old = self._move(lose_disk=lose_disk)
        if power or lose_disk:
            self.boot += 1
        if power:
            for log in sorted(self._folder.rglob("main.db-wal")):
                _lose_unsynced(log, self._source)
        self.node = None
        await self.world.loop.kill(process)
        self.process = None
        if node is not None:
            _close_files(node)
            node.audit.let_go()
        shutil.rmtree(old, ignore_errors=True)

    def _move(self, *, lose_disk: bool = False) -> Path:
        """Give the next life a disk of its own, with what is on this one, and return this one.

        A file that the last life has left open must not be one that the next one opens: SQLite would share its index of the
        log, as it does within a process.
        """
        old, self._folder = self._folder, self._folder.with_name(str(self.lives))
        if lose_disk:
            self.disk += 1
        elif old.exists():
            shutil.copytree(old, self._folder)
        return old

    async def call(self, work: Coroutine[Any, Any, Any], timeout_s: float, *, leave: bool) -> Any:
        """Run a request in the node. Raises TimeoutError where no answer came, ConnectionError where it died.

        With `leave` the request is cancelled at the timeout, as when a client hangs up.
        """
        task = self.begin(work)
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if not done:
            if leave:
                task.cancel()
            raise TimeoutError
        if task.cancelled():
            raise ConnectionError
        return task.result()

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a request in the node."""
        assert self.process is not None
        task = self.world.loop.spawn(self.process, work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        task.add_done_callback(self._look_for_bugs)
        return task

    def _look_for_bugs(self, task: "asyncio.Task[Any]") -> None:
        """Look at an answer that perhaps nobody waits for any more."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, MemoturnError):
            self.world.violated(f"a request failed with {error!r}")


def _close_files(node: Node) -> None:
    """Let go of the files that the end of a process closes."""
    for branch in [*node.tiers._all.values(), *node.tiers.hot()]:
        branch.close_connections()


def _lose_unsynced(log: Path, source: random.Random) -> None:
    """Cut the log somewhere behind what a checkpoint has synced, as a power cut may."""
    index = log.with_name("main.db-shm")
    try:
        head = index.read_bytes()[:136]
    except OSError:
        return
    if len(head) < 136:
        return
    (frames,) = struct.unpack_from("=I", head, 16)
    (backfilled,) = struct.unpack_from("=I", head, 96)
    if not backfilled <= frames:
        return
    kept = source.randint(backfilled, frames)
    size_bytes = wal.HEADER_SIZE_BYTES + kept * FRAME_BYTES
    if kept < frames:
        size_bytes += source.choice([0, 24, 1000])
    elif frames == 0:
        return
    with log.open("r+b") as file:
        file.truncate(min(size_bytes, log.stat().st_size))
    index.unlink()
