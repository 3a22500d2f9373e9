"""The parent of `memoturnd --workers N`: it starts the workers and what routes to them, starts again what crashed, and ends them in order.

It serves nothing itself and opens no file of a profile. Its hold of the data directory is handed down to its children,
so that nobody else can start there before the last of them has ended, however each one ends.
"""

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from memoturnd.config import Settings
from memoturnd.datadir import DataDirLock, lock_data_dir
from memoturnd.metrics import watch_loop_lag
from memoturnd.seams.clock import Clock, SystemClock
from memoturnd.serving import bind
from memoturnd.settings_table import Address
from memoturnd.workers.child import GO, READY
from memoturnd.workers.metrics import KINDS, WorkersMetrics, gathered, serve_metrics
from memoturnd.workers.settings import check_workers

FIRST_PAUSE_S: Final = 0.1
MOST_PAUSE_S: Final = 10.0
LIVED_S: Final = 60.0
"""A process that lived so long is started again as if it had never crashed."""
STOP_S: Final = 15.0
"""How long a child may take to stop: a node ships and closes for 9 s at most."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Child:
    """One process that is to run as long as its parent does: `memoturnd` with these arguments."""

    name: str
    arguments: tuple[str, ...]
    descriptors: tuple[int, ...] = ()
    process: asyncio.subprocess.Process | None = None
    port: int | None = None
    """Where on this machine it shows its metrics, once it is ready."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def kind(self) -> str:
        """What it is: worker, gateway or preparation."""
        return self.name.partition(" ")[0]

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Signal its process, where there is one."""
        if self.process is not None and self.runs:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def go(self) -> None:
        """Tell its process that it is its turn."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(GO)


def gateways_for(workers: int) -> int:
    """Return how many gateways there are to be: a hop takes a gateway about as long as a small read takes a worker, and all else less."""
    return (workers + 1) // 2


def next_pause_s(pause_s: float, lived_s: float) -> float:
    """Return how long to wait before a process that lived for so long is started again, `pause_s` after the last time."""
    return FIRST_PAUSE_S if lived_s >= LIVED_S else min(MOST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))


async def supervise(settings: Settings, workers: int, environ: Mapping[str, str]) -> int:
    """Run the workers until SIGTERM or SIGINT, and return the exit code: 0 when all of them stopped cleanly.

    Raises ConfigurationError for settings that they cannot share, and a data directory that another process holds.
    """
    check_workers(settings)
    with (
        lock_data_dir(settings.data_dir, listen=str(settings.listen)) as lock,
        contextlib.ExitStack() as stack,
    ):
        sockets = [stack.enter_context(bound) for bound in bind(settings.listen)]
        return await Supervisor(settings, workers, environ, lock, sockets, SystemClock()).run()


class Supervisor:
    """Starts, watches and stops the processes."""

    def __init__(
        self,
        settings: Settings,
        workers: int,
        environ: Mapping[str, str],
        lock: DataDirLock,
        sockets: Sequence[socket.socket],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._lock = lock
        self._clock = clock
        self._environ = {**environ}
        if settings.cluster_key is None and settings.cluster_key_file is None:
            self._environ["MEMOTURN_CLUSTER_KEY"] = secrets.token_urlsafe(32)
        self._preparing = Child("preparation", ("--worker", f"prepare/{workers}"))
        self._workers = [Child(f"worker {k}", ("--worker", f"{k}/{workers}")) for k in range(workers)]
        descriptors = tuple(bound.fileno() for bound in sockets)
        words = ("--sockets", ",".join(map(str, descriptors)))
        self._gateways = [
            Child(f"gateway {k}", ("--worker", f"gateway/{workers}", *words), descriptors)
            for k in range(gateways_for(workers))
        ]
        self._url = f"http://{Address(settings.listen.host, sockets[0].getsockname()[1])}"
        self._stopping = asyncio.Event()
        self._failure: int | None = None
        self._metrics = WorkersMetrics()
        self._metrics.before_scrape(self._measure)

    async def run(self) -> int:
        """Run all until a signal, or until one of them cannot be started at all; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        shown = await serve_metrics(self._gathered)
        words = ("--metrics", str(shown.sockets[0].getsockname()[1]))
        for gateway in self._gateways:
            gateway.arguments += words
        try:
            return await self._run_all()
        finally:
            shown.close()

    async def _run_all(self) -> int:
        children = [self._preparing, *self._workers, *self._gateways]
        for child in children:  # all at once: most of a start is imports
            await self._start(child)
        self._preparing.go()
        code = await self._end_of(self._preparing)
        if code or self._stopping.is_set():
            for child in children:  # none of them has begun
                child.send(signal.SIGKILL)
            await asyncio.gather(*(child.process.wait() for child in children if child.process is not None))
            return 0 if self._stopping.is_set() else _exit_code(code)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch_loop_lag(self._metrics, self._clock))
            await self._run_in_order([self._workers, self._gateways], group)
            watching.cancel()
        return 0 if self._failure is None else self._failure

    async def _run_in_order(self, stages: Sequence[Sequence[Child]], group: asyncio.TaskGroup) -> None:
        """Start one stage after the other, wait for the end, and stop them in the opposite order."""
        started: list[Sequence[Child]] = []
        for children in stages:
            started.append(children)
            for child in children:
                group.create_task(self._keep(child))
            await self._either(*(child.ready for child in children))
            if self._stopping.is_set():
                break
        else:
            _log.info(
                "memoturnd is up",
                url=self._url,
                workers=len(self._workers),
                gateways=len(self._gateways),
                data_dir=str(self._settings.data_dir),
            )
        await self._stopping.wait()
        for children in reversed(started):
            await self._end(children)

    async def _keep(self, child: Child) -> None:
        """Let a process run, and start it again whenever it ends, until all are to stop."""
        pause_s, has_run = 0.0, False
        while not self._stopping.is_set():
            started_s = self._clock.monotonic_s()
            child.ready.clear()
            child.port = None
            if not child.runs:
                await self._start(child)
            child.go()
            code = await self._end_of(child)
            has_run = has_run or child.ready.is_set()
            if self._stopping.is_set():
                break
            if not has_run:
                _log.error("a process cannot be started", process=child.name, code=code)
                self._failure = _exit_code(code)
                self._stopping.set()
                break
            pause_s = next_pause_s(pause_s, self._clock.monotonic_s() - started_s)
            _log.error(
                "a process has ended and is started again", process=child.name, code=code, pause_s=pause_s
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
        last = child.process.returncode if child.process is not None else 0
        if last not in {0, -signal.SIGTERM} and self._failure is None:  # one that had not begun dies of it
            _log.error("a process did not stop cleanly", process=child.name, code=last)
            self._failure = 1

    async def _start(self, child: Child) -> None:
        """Start a process that ends with this one: its standard input is a pipe which nobody else holds."""
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "memoturnd",
            *child.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environ,
            pass_fds=(self._lock.fileno(), *child.descriptors),
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children in order
        )
        if child.kind in KINDS:
            self._metrics.starts[child.kind].inc()
        _log.info("started", process=child.name, pid=child.process.pid)

    def _measure(self) -> None:
        for kind, children in (("worker", self._workers), ("gateway", self._gateways)):
            self._metrics.wanted[kind].set(len(children))
            self._metrics.running[kind].set(sum(child.runs for child in children))

    async def _gathered(self) -> bytes:
        """Return the metrics of all processes."""
        children = [*self._workers, *self._gateways]
        ports = {child.name.replace(" ", "-"): child.port for child in children if child.port is not None}
        return await gathered(self._metrics, ports, unknown=len(children) - len(ports))

    async def _end_of(self, child: Child) -> int:
        """Return a process' exit code once it has ended; meanwhile note that it is ready."""
        process = child.process
        if process is None or process.stdout is None:
            raise AssertionError("the process was not started")
        while line := await process.stdout.readline():
            words = line.split()
            if words[:1] == [READY.encode()]:
                port = words[-1].rpartition(b":")[2]
                child.port = int(port) if port.isdigit() else None
                child.ready.set()
        return await process.wait()

    async def _either(self, *events: asyncio.Event) -> None:
        """Return once all of these have happened, or all is to stop."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        waiting = asyncio.gather(*(event.wait() for event in events))
        both: list[asyncio.Future[Any]] = [stopping, waiting]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)

    async def _end(self, children: Sequence[Child]) -> None:
        """Stop processes; those that do not stop in time are killed."""
        for child in children:
            child.send(signal.SIGTERM)
        ending = [asyncio.create_task(c.process.wait()) for c in children if c.process is not None]
        if not ending:
            return
        _, late = await asyncio.wait(ending, timeout=STOP_S)
        if late:
            for child in children:
                if child.runs:
                    _log.error("a process does not stop and is killed", process=child.name)
                    child.send(signal.SIGKILL)
            await asyncio.wait(late)

    def _stop(self, number: signal.Signals) -> None:
        _log.info("stopping", signal=number.name)
        self._stopping.set()
        self._preparing.send(signal.SIGTERM)


def _exit_code(code: int) -> int:
    """Return the exit code of the command for that of a child, which is negative for a signal."""
    return code if code > 0 else 1
