"""What authentication adds to a request: the same requests, in turn, to a node with it and to one without."""

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import msgspec

from bench.machine import watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import US, Table, duration, middle, percentile
from bench.wire import KeptClient, encode

TARGET_S: Final = 60 * US
_COLUMNS: Final = (
    "request",
    "n",
    "p50 without",
    "p50 with",
    "added",
    "target",
    "",
    "p99 without",
    "p99 with",
)
_PROFILE: Final = "app--ann"
_JSON: Final = {"memories": [{"type": "fact", "topic_key": "t", "summary": "likes dark"}]}


class _Sender:
    """Sends requests to one node, with what it needs to be let in."""

    def __init__(self, child: Child, key: str | None) -> None:
        self._client = KeptClient(child.host, child.port)
        self._headers = ""
        if key is not None:
            self._headers = _bearer(key)
            minted = self.send("POST", "/v1/namespaces/app/tokens", encode({"scope": "write"}))
            self._headers = _bearer(msgspec.json.decode(minted)["token"])
        self.send("POST", "/v1/memory/app/ann/memories", encode(_JSON))
        self.send("PUT", f"/v1/db/{_PROFILE}/kv/s/k", b"v")

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the answer's body."""
        return self._client.send(method, path, body, self._headers)


def _bearer(credential: str) -> str:
    return f"Authorization: Bearer {credential}\r\n"


def _timed(one: Callable[[], object]) -> float:
    start_ns = time.perf_counter_ns()
    one()
    return (time.perf_counter_ns() - start_ns) / 1e9


def _row(name: str, n: int, open_one: Callable[[], object], guarded: Callable[[], object]) -> list[str]:
    without, with_it = [], []
    for i in range(n):  # in turn and in both orders, so that whatever else the machine does is shared
        for samples, one in ((without, open_one), (with_it, guarded))[:: 1 if i % 2 else -1]:
            samples.append(_timed(one))
    added_s = middle(with_it) - middle(without)
    return [
        name,
        f"{n:,}",
        duration(middle(without)),
        duration(middle(with_it)),
        duration(max(0.0, added_s)),
        duration(TARGET_S),
        "met" if added_s <= TARGET_S else "MISSED",
        duration(percentile(without, 0.99)),
        duration(percentile(with_it, 0.99)),
    ]


def measure(*, quick: bool) -> list[Table]:
    """Return the table."""
    n = 200 if quick else 10_000
    key = secrets.token_hex(16)
    with watched() as busy, ExitStack() as stack:
        one, other = (stack.enter_context(temporary_folder()) for _ in range(2))
        plain = _Sender(stack.enter_context(child_node(one)), None)
        guarded = _Sender(stack.enter_context(child_node(other, AUTH="on", PLATFORM_KEY=key)), key)

        def pair(method: str, path: str, body: bytes | None = None) -> tuple[Callable[[], object], ...]:
            return (lambda: plain.send(method, path, body)), (lambda: guarded.send(method, path, body))

        requests = {
            "hot key read": pair("GET", f"/v1/db/{_PROFILE}/kv/s/k"),
            "hot key write": pair("PUT", f"/v1/db/{_PROFILE}/kv/s/k", b"v"),
            "recall of one memory": pair("POST", "/v1/memory/app/ann/recall", encode({"query": "dark"})),
        }
        rows = [_row(name, n, *both) for name, both in requests.items()]
    notes = [
        (
            "Two nodes in processes of their own, over connections that stay open, one request at a time, to each in "
            "turn; a token of a namespace, which the node has verified before."
        ),
        f"{busy}.",
    ]
    return [Table("Credentials: what authentication adds to a request", _COLUMNS, rows, notes)]
