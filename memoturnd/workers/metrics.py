"""What `GET /metrics` of the common port shows: the metrics of every process of the machine, with the label `part` that says whose they are.

The parent gathers them, since it alone knows all processes: each worker answers at its port, each gateway at one of its own beside the common
one. A gateway that is asked passes on what the parent says.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from memoturnd.errors import RetryableError
from memoturnd.metrics.base import CONTENT_TYPE, Registry

KINDS: Final = ("worker", "gateway")
FETCH_S: Final = 2.0
"""How long one process may take to show its metrics; what does not answer is left out, and counted."""
MOST_BYTES: Final = 16 << 20
"""Most bytes of metrics that one process may show."""
_HEAD_BYTES: Final = 8192
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_ASK: Final = b"GET /metrics HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n"
_log = structlog.get_logger(__name__)


class WorkersMetrics(Registry):
    """The metrics of the parent itself."""

    def __init__(self) -> None:
        super().__init__(process="workers", prefix="memoturn_workers_")
        self.running = self._gauges("running", "Processes that run, by kind.", "kind", KINDS)
        self.wanted = self._gauges("wanted", "Processes that are to run, by kind.", "kind", KINDS)
        self.starts = self._counters(
            "starts_total", "Starts of processes, the first of each included, by kind.", "kind", KINDS
        )
        self.unscraped = self._gauge(
            "unscraped", "Processes that did not show their metrics when they were last asked."
        )


async def fetched(port: int) -> bytes:
    """Return what the process that listens on a port of this machine shows as metrics. Raises RetryableError."""
    writer = None
    try:
        async with asyncio.timeout(FETCH_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MOST_BYTES)
            writer.write(_ASK)
            status, _, head = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            length = re.search(rb"content-length: *([0-9]{1,8})\r\n", head, re.IGNORECASE)
            if b" 200 " not in status or length is None or int(length[1]) > MOST_BYTES:
                raise RetryableError(f"the process at port {port} shows no metrics")
            return await reader.readexactly(int(length[1]))
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise RetryableError(f"the process at port {port} does not show its metrics: {error!r}") from error
    finally:
        if writer is not None:
            writer.close()


def merged(shown: Mapping[str, bytes]) -> bytes:
    """Return the metrics of several processes as one text, each sample with the label `part`, each family told once."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for part, text in shown.items():
        family = ""
        for line in text.decode().splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                told = heads.setdefault(family, [])
                if len(told) < 2 and not any(one.startswith(line[:7]) for one in told):  # noqa: PLR2004 - its help and type
                    told.append(line)
            elif found := _SAMPLE.fullmatch(line):
                name, labels, value = found.groups()
                own = f'part="{part}"' + (f",{labels}" if labels else "")
                samples.setdefault(family, []).append(f"{name}{{{own}}} {value}")
    lines = [line for family in heads for line in (*heads[family], *samples.get(family, ()))]
    return "".join(f"{line}\n" for line in lines).encode()


async def gathered(metrics: WorkersMetrics, ports: Mapping[str, int], *, unknown: int) -> bytes:
    """Return the metrics of the parent and of the processes at these ports; `unknown` more are there whose ports are not known."""
    names = list(ports)
    answers = await asyncio.gather(*(fetched(ports[name]) for name in names), return_exceptions=True)
    shown = {name: answer for name, answer in zip(names, answers, strict=True) if isinstance(answer, bytes)}
    metrics.unscraped.set(len(names) - len(shown) + unknown)
    return merged({"parent": metrics.render(), **shown})


async def serve_metrics(gather: Callable[[], Awaitable[bytes]]) -> asyncio.Server:
    """Answer whoever asks on a port of this machine, which the system chooses, with what `gather` returns."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                await reader.readuntil(b"\r\n\r\n")
            body = await gather()
            head = f"HTTP/1.0 200 OK\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            async with asyncio.timeout(FETCH_S):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _log.warning("metrics could not be shown", error=repr(error))
        finally:
            writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0, limit=_HEAD_BYTES)
