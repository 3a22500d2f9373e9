"""What clients add to a request: the same one sent by httpx or fetch alone and by the client, in turn; and an embedded node's."""

import asyncio
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
from memoturn import AsyncMemoturn, Memoturn

from bench.machine import watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import US, Table, duration, middle, percentile

TARGET_S: Final = 300 * US
_COLUMNS: Final = (
    "client",
    "request",
    "n",
    "p50 without it",
    "p50 by the client",
    "added",
    "target",
    "",
    "p99 by the client",
)
_ROOT: Final = Path(__file__).parent.parent
_NODE_S: Final = 300.0
_EMBEDDED: Final = ("request", "n", "p50", "p99")
_FACT: Final = {"type": "fact", "topic_key": "t", "summary": "likes dark"}
_PATH: Final = "/v1/db/app--ann/kv/s/k"

One = Callable[[], object]


def _timed(one: One) -> float:
    start_ns = time.perf_counter_ns()
    one()
    return (time.perf_counter_ns() - start_ns) / 1e9


async def _awaited(one: Callable[[], Awaitable[object]]) -> float:
    start_ns = time.perf_counter_ns()
    await one()
    return (time.perf_counter_ns() - start_ns) / 1e9


def _row(client: str, name: str, raw: Sequence[float], ours: Sequence[float]) -> list[str]:
    added_s = middle(ours) - middle(raw)
    return [
        client,
        name,
        f"{len(ours):,}",
        duration(middle(raw)),
        duration(middle(ours)),
        duration(max(0.0, added_s)),
        duration(TARGET_S),
        "met" if added_s <= TARGET_S else "MISSED",
        duration(percentile(ours, 0.99)),
    ]


def _calls(client: Memoturn) -> dict[str, One]:
    profile, kv = client.memory("app", "ann"), client.db("app--ann").kv
    return {
        "key read": lambda: kv.get("s", "k"),
        "key write": lambda: kv.put("s", "k", b"v"),
        "recall": lambda: profile.recall("dark"),
    }


def _key() -> dict[str, str]:
    """Return the header that every write of the client has: what it costs the node is not the client's."""
    return {"Idempotency-Key": secrets.token_hex(16)}


def _sync_rows(child: Child, token: str, n: int) -> list[list[str]]:
    url = f"http://{child.host}:{child.port}"
    headers = {"Authorization": f"Bearer {token}"}
    with (
        httpx.Client(base_url=url, headers=headers, timeout=30.0) as raw,
        Memoturn(url, token=token) as client,
    ):
        client.memory("app", "ann").ingest([_FACT])
        client.db("app--ann").kv.put("s", "k", b"v")
        plain: dict[str, One] = {
            "key read": lambda: raw.get(_PATH).content,
            "key write": lambda: raw.put(_PATH, content=b"v", headers=_key()).json(),
            "recall": lambda: raw.post("/v1/memory/app/ann/recall", json={"query": "dark", "k": 8}).json(),
        }
        rows = []
        for name, ours in _calls(client).items():
            samples: tuple[list[float], list[float]] = ([], [])
            pairs = list(zip(samples, (plain[name], ours), strict=True))
            for i in range(n):  # in turn and in both orders, so that whatever else the machine does is shared
                for taken, one in pairs[:: 1 if i % 2 else -1]:
                    taken.append(_timed(one))
            rows.append(_row("Python", name, *samples))
        return rows


async def _async_row(child: Child, token: str, n: int) -> list[str]:
    url = f"http://{child.host}:{child.port}"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30.0) as raw,
        AsyncMemoturn(url, token=token) as client,
    ):
        kv = client.db("app--ann").kv
        samples: tuple[list[float], list[float]] = ([], [])
        calls = (lambda: raw.get(_PATH), lambda: kv.get("s", "k"))
        pairs = list(zip(samples, calls, strict=True))
        for i in range(n):
            for taken, one in pairs[:: 1 if i % 2 else -1]:
                taken.append(await _awaited(one))
        return _row("Python, asynchronous", "key read", *samples)


def _typescript_rows(child: Child, token: str, n: int) -> list[list[str]]:
    """Raises RuntimeError where Node.js or its packages cannot be had."""
    url = f"http://{child.host}:{child.port}"
    client = _ROOT / "sdk" / "typescript" / "dist" / "esm" / "index.js"
    node = shutil.which("node") or "node"
    build = [sys.executable, str(_ROOT / "scripts" / "typescript_build.py")]
    measuring = [node, str(_ROOT / "bench" / "sdk_typescript.mjs"), str(client), url, token, str(n)]
    for command in (build, measuring):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NODE_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command[1]} ended with {done.returncode}: {done.stderr[-2000:]}")
    taken = json.loads(done.stdout)
    return [_row("TypeScript", name, each["fetch"], each["client"]) for name, each in taken.items()]


def _embedded_rows(n: int) -> list[list[str]]:
    with temporary_folder() as folder:
        began_ns = time.perf_counter_ns()
        with Memoturn.embedded(folder, control_rate=1_000_000) as client:
            started_s = (time.perf_counter_ns() - began_ns) / 1e9
            client.memory("app", "ann").ingest([_FACT])
            client.db("app--ann").kv.put("s", "k", b"v")
            rows = [["start of the node", "1", duration(started_s), "-"]]
            for name, one in _calls(client).items():
                taken = [_timed(one) for _ in range(n)]
                rows.append([name, f"{n:,}", duration(middle(taken)), duration(percentile(taken, 0.99))])
            return rows


def measure(*, quick: bool) -> list[Table]:
    """Return the tables."""
    n = 100 if quick else 5_000
    key = secrets.token_hex(16)
    with watched() as busy, ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        child = stack.enter_context(child_node(folder, AUTH="on", PLATFORM_KEY=key))
        with Memoturn(f"http://{child.host}:{child.port}", platform_key=key) as operator:
            token = operator.create_namespace_token("app", "write")["token"]
        rows = [
            *_sync_rows(child, token, n),
            asyncio.run(_async_row(child, token, n)),
            *_typescript_rows(child, token, n),
        ]
        embedded = _embedded_rows(n)
    notes = [
        (
            "A node in a process of its own, with authentication; one request at a time on a connection that stays open. The "
            "client's share is idempotency keys, read floors, typed errors and the decision whether to repeat. Without it the request is "
            "sent by httpx, or by Node.js's fetch, with a key of its own for each write, so that the node does the same."
        ),
        f"{busy}.",
    ]
    return [
        Table("Clients: what they add to a request of httpx or fetch", _COLUMNS, rows, notes),
        Table(
            "An embedded node, by its client",
            _EMBEDDED,
            embedded,
            ["The node and its client share one process, and its interpreter."],
        ),
    ]
