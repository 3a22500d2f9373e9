"""A gateway in a process of its own that knows one node, at BENCH_NODE, which owns BENCH_DATABASE: no etcd is measured along."""

import asyncio
import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from gateway.serving import serve_watching
from memoturnd.logs import set_up_logging
from memoturnd.seams.leases import Change, LiveNode, Owner, Placed, Placements
from memoturnd.settings_table import Address

_SETTINGS = SimpleNamespace(
    listen=Address("127.0.0.1", 0),
    gateway_concurrency=1024,
    gateway_body_bytes=256 << 20,
    gateway_hedge_ms=0,
    cors_origins=(),
    request_log="problems",
    slow_request_ms=1000,
    request_timeout_s=30.0,
    model_timeout_s=60.0,
    log_level="info",
    log_format="json",
)


class _Known:
    async def watch(self) -> AsyncIterator[Change]:
        address, database = os.environ["BENCH_NODE"], os.environ["BENCH_DATABASE"]
        owner = Owner("n1", address, 1)
        yield Placements((Placed("id", database, "main", owner),), (LiveNode("n1", address),))
        await asyncio.Event().wait()


def main() -> None:
    set_up_logging(cast("Any", _SETTINGS))
    uvloop.run(serve_watching(cast("Any", _SETTINGS), _Known()))


if __name__ == "__main__":
    main()
