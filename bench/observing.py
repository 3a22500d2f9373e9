"""What metrics cost: the updates that a request makes, and a scrape, both on the event loop.

The updates are counted, and each kind is timed by itself, since a few microseconds drown in the noise of whole requests. Times are processor time of the
thread that runs the event loop, so that neighbours on the machine do not count.
"""

import asyncio
import time
import timeit
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message

from bench.in_process import run_on_uvloop
from bench.nodes import node_here, temporary_folder
from bench.stats import Table, duration, middle, percentile
from bench.wire import encode
from memoturnd.config import Settings
from memoturnd.http.app import create_app
from memoturnd.http.routes import ROUTES
from memoturnd.metrics import Metrics

_UPDATES: Final[tuple[tuple[type, str], ...]] = (
    (Counter, "inc"),
    (Gauge, "inc"),
    (Gauge, "dec"),
    (Gauge, "set"),
    (Histogram, "observe"),
)
_FACT: Final = {"type": "fact", "topic_key": "t", "summary": "likes dark"}
_REQUESTS: Final = (
    ("PUT a key of 100 bytes", "PUT", "/v1/db/bench/kv/n/k", b"x" * 100),
    ("GET a key of 100 bytes", "GET", "/v1/db/bench/kv/n/k", b""),
    ("ingest a fact", "POST", "/v1/memory/bench/p/memories", encode({"memories": [_FACT]})),
    ("recall", "POST", "/v1/memory/bench/p/recall", encode({"query": "dark", "topic_key": "t"})),
)


def measure(*, quick: bool) -> list[Table]:
    """Return what was measured."""
    with temporary_folder() as folder:
        requests: Table = run_on_uvloop(_requests(folder, 20 if quick else 2000))
    return [requests, _scrapes(3 if quick else 50)]


# ---- requests


async def _requests(folder: Path, n: int) -> Table:
    table = Table(
        "What metrics cost a request",
        ("request", "updates", "their time", "the whole request, without a network", "share"),
    )
    costs_s = {kind: _cost_s(*kind) for kind in _UPDATES}
    with _counted() as tally:
        async with node_here(folder, sync="normal") as node:
            app = create_app(node, Settings.from_env({"MEMOTURN_DATA_DIR": str(folder)}))
            await _call(app, "POST", "/v1/databases", encode({"name": "bench"}))
            for name, method, path, body in _REQUESTS:
                await _call(app, method, path, body)
                tally.clear()
                taken_s = [await _timed(app, method, path, body) for _ in range(n)]
                updates = {kind: count / n for kind, count in tally.items()}
                update_s, whole_s = (
                    sum(count * costs_s[kind] for kind, count in updates.items()),
                    middle(taken_s),
                )
                table.rows.append(
                    [
                        name,
                        f"{sum(updates.values()):.1f}",
                        duration(update_s),
                        duration(whole_s),
                        f"{update_s / whole_s:.1%}",
                    ]
                )
    times = ", ".join(f"{kind.__name__}.{name} {duration(cost)}" for (kind, name), cost in costs_s.items())
    table.notes = [f"One update: {times}. What ships and runs in the background meanwhile is counted along."]
    return table


@contextmanager
def _counted() -> Iterator[Tally[tuple[type, str]]]:
    """Count every update of a metric that is made from now on, by its kind."""
    tally: Tally[tuple[type, str]] = Tally()
    before = {kind: getattr(*kind) for kind in _UPDATES}
    for kind, original in before.items():
        setattr(*kind, _counting(tally, kind, original))
    try:
        yield tally
    finally:
        for kind, original in before.items():
            setattr(*kind, original)


def _counting(
    tally: Tally[tuple[type, str]], kind: tuple[type, str], original: Callable[..., None]
) -> Callable[..., None]:
    def update(*arguments: Any, **named: Any) -> None:
        tally[kind] += 1
        original(*arguments, **named)

    return update


def _cost_s(kind: type, name: str) -> float:
    """Return the seconds that one update takes, at best."""
    metric = kind("m", "m", registry=None, **({"buckets": tuple(range(1, 14))} if kind is Histogram else {}))
    update, number = getattr(metric, name), 20_000
    return min(timeit.repeat(lambda: update(1), timer=time.thread_time, number=number, repeat=7)) / number


async def _timed(app: ASGIApp, method: str, path: str, body: bytes) -> float:
    start_ns = time.thread_time_ns()
    await _call(app, method, path, body)
    return (time.thread_time_ns() - start_ns) / 1e9


async def _call(app: ASGIApp, method: str, path: str, body: bytes) -> None:
    """Call the application. Raises RuntimeError for an answer that is none of 2xx."""
    told: list[Message] = []
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        message = next(sent, None)
        return message if message is not None else await asyncio.Future()

    async def send(message: Message) -> None:
        told.append(message)

    headers = [(b"host", b"127.0.0.1:8080"), (b"content-length", b"%d" % len(body))]
    if method == "POST":
        headers.append((b"content-type", b"application/json"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    await app(scope, receive, send)
    if not 200 <= told[0]["status"] < 300:
        raise RuntimeError(f"{method} {path}: {told[0]['status']} {told[-1].get('body', b'')[:200]!r}")


# ---- scrapes


def _scrapes(n: int) -> Table:
    table = Table(
        "What a scrape of a node costs",
        ("the node has served", "series", "size", "time of all pieces", "of every 30 s", "one piece"),
    )
    metrics = Metrics()
    for name, routes, classes in (
        ("nothing yet", (), ()),
        ("30 routes, with two classes of status each", ROUTES[:30], (2, 4)),
        ("every route, with every class", ROUTES, (2, 3, 4, 5)),
    ):
        for route in routes:
            for status in classes:
                metrics.request_timer(route.template, route.method, f"{status}xx")(0.001)
        scrapes = [asyncio.run(_scraped(metrics)) for _ in range(n)]
        text, took_s = scrapes[0][0], middle([sum(pieces_s) for _, pieces_s in scrapes])
        series = sum(not line.startswith(b"#") for line in text.splitlines())
        pieces_s = [piece_s for _, one in scrapes for piece_s in one]
        table.rows.append(
            [
                name,
                f"{series:,}",
                f"{len(text) / 1024:.0f} KiB",
                duration(took_s),
                f"{took_s / 30:.2%}",
                f"p50 {duration(middle(pieces_s))}, p99 {duration(percentile(pieces_s, 0.99))}",
            ]
        )
    table.notes = ["Requests are served between the pieces, so one piece is what a scrape makes them wait."]
    return table


async def _scraped(metrics: Metrics) -> tuple[bytes, list[float]]:
    """Return a scrape, and the seconds for which each of its pieces held the event loop."""
    scraping, held_s = asyncio.create_task(metrics.scrape()), []
    while not scraping.done():
        start_ns = time.thread_time_ns()
        await asyncio.sleep(0)
        held_s.append((time.thread_time_ns() - start_ns) / 1e9)
    return await scraping, held_s
