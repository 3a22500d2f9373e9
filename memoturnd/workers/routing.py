"""The gateway of one machine's workers: it listens where the machine is reached, and sends each request to a worker."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.app import Shown
from gateway.serving import serve_watching
from memoturnd.config import Settings
from memoturnd.leases.file_watch import FileWatch
from memoturnd.serving import bind
from memoturnd.settings_table import Address
from memoturnd.workers.child import tell_ready, when_orphaned
from memoturnd.workers.metrics import fetched
from memoturnd.workers.settings import LEASES_FOLDER


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """The settings of a gateway in front of workers: they follow from those of its workers."""

    listen: Address
    cors_origins: tuple[str, ...]
    request_log: Literal["off", "problems", "all"]
    slow_request_ms: int
    request_timeout_s: float
    model_timeout_s: float
    gateway_concurrency: int
    gateway_body_bytes: int
    gateway_hedge_ms: int = 0


async def route(settings: Settings, workers: int, descriptors: Sequence[int], metrics_port: int) -> None:
    """Serve on sockets that the parent has bound, until SIGTERM, or until the parent ends.

    At `metrics_port` the parent shows the metrics of all processes; at a port of its own this one shows its own to the parent.
    Raises OSError where a descriptor is no socket.
    """
    own = bind(Address("127.0.0.1", 0))
    port = own[0].getsockname()[1]
    when_orphaned(asyncio.get_running_loop(), lambda: os.kill(os.getpid(), signal.SIGTERM))
    await serve_watching(
        RoutingSettings(
            settings.listen,
            settings.cors_origins,
            settings.request_log,
            settings.slow_request_ms,
            settings.request_timeout_s,
            settings.model_timeout_s,
            workers * settings.max_concurrency,
            settings.memory_budget_bytes // 4,
        ),
        FileWatch(settings.data_dir / LEASES_FOLDER),
        sockets=[*(socket.socket(fileno=descriptor) for descriptor in descriptors), *own],
        on_ready=lambda _port: tell_ready(f"http://127.0.0.1:{port}"),
        shown=Shown(lambda: fetched(metrics_port), but_at=port),
    )
