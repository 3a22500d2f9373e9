"""Many HTTP clients at once, in a process of their own, so that they never share the node's interpreter lock.

`python -m bench.load` reads a `Load` as JSON from its standard input and writes a list of `Outcome`s. Every
client is a coroutine with one kept connection and one request under way.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench import workload
from bench.nodes import Child
from bench.stats import percentile
from bench.wire import Connection, KeptClient, encode, request_bytes

_KEYS: Final = 100
_EMBEDDINGS: Final = 256
BULK_ITEMS: Final = 1000
_MARK: Final = 1_000_000_000
_CREATING: Final = 8
_END_S: Final = 120.0
SCAN: Final = "SELECT sum(a.v * b.v % 7) FROM numbers AS a, numbers AS b"
"""A user's statement that takes seconds: 64 million pairs of a table with 8,000 rows."""

Make = Callable[[int], Sequence[bytes]]


class Stream(Struct, frozen=True):
    """Clients that send the same kind of request.

    `op` is a key of `MAKERS`; request i goes to profile i modulo their number, and client c sends c,
    c + clients, and so on, counted from `first`. `every_s` paces each client (0 sends as soon as the last
    answer is there); paced latencies count from when the request was due, so that a stall is not hidden.
    """

    op: str
    clients: int
    profiles: list[str]
    dimensions: int = 64
    first: int = 0
    every_s: float = 0.0


class Load(Struct, frozen=True):
    """Streams to run side by side for `seconds` after `warm_s` that do not count."""

    host: str
    port: int
    streams: list[Stream]
    seconds: float
    warm_s: float = 0.3


class Outcome(Struct, frozen=True):
    """What one stream saw. Times are seconds; `sent` counts warm-up too, `client_cpu_s` is the whole process."""

    count: int
    refused: int
    p50_s: float
    p99_s: float
    max_s: float
    seconds: float
    sent: int
    client_cpu_s: float
    an_error: str


def _database(profile: str) -> str:
    """Return the path of a profile of the namespace `bench`, or of one that has its namespace in its name."""
    return f"/v1/db/{profile if '--' in profile else f'bench--{profile}'}"


def _memory(profile: str) -> str:
    return f"/v1/memory/bench/{profile}"


def _kv_read(stream: Stream) -> Make:
    names = stream.profiles
    requests = [
        [(request_bytes("GET", f"{_database(name)}/kv/s/k{key}"),) for key in range(_KEYS)] for name in names
    ]
    return lambda i: requests[i % len(names)][i // len(names) % _KEYS]


def _kv_write(stream: Stream, headers: str = "") -> Make:
    names = stream.profiles

    def make(i: int) -> Sequence[bytes]:
        path = f"{_database(names[i % len(names)])}/kv/s/k{i // len(names) % _KEYS}"
        return (request_bytes("PUT", path, b"v%d" % i, headers),)

    return make


def _durable_write(stream: Stream) -> Make:
    return _kv_write(stream, "Memoturn-Durability: durable\r\n")


def _kv_mixed(stream: Stream) -> Make:
    """Reads and writes in turn, as each client counts."""
    read, write = _kv_read(stream), _kv_write(stream)
    return lambda i: (read if i // stream.clients % 2 else write)(i)


def _ingest(stream: Stream) -> Make:
    names = stream.profiles
    vectors = [
        encode(v)
        for v in workload.embeddings(range(10_000, 10_000 + _EMBEDDINGS), stream.dimensions).tolist()
    ]

    def make(i: int) -> Sequence[bytes]:
        body = b'{"memories":[{"type":"fact","topic_key":"user.topic-%d","summary":"%b preference v%d",' % (
            i % 50,
            workload.WORDS[i % 10].encode(),
            i,
        )
        body += b'"content":{"v":%d},"keywords":"preference","embedding":%b}]}' % (
            i,
            vectors[i % _EMBEDDINGS],
        )
        return (request_bytes("POST", f"{_memory(names[i % len(names)])}/memories", body),)

    return make


def _recall(stream: Stream) -> Make:
    names = stream.profiles
    bodies = [encode(query) for query in workload.queries(_EMBEDDINGS, stream.dimensions)]
    return lambda i: (
        request_bytes("POST", f"{_memory(names[i % len(names)])}/recall", bodies[i % _EMBEDDINGS]),
    )


def _scan(stream: Stream) -> Make:
    request = request_bytes("POST", f"{_database(stream.profiles[0])}/sql", encode({"stmts": [{"q": SCAN}]}))
    return lambda _: (request,)


def _bulk(stream: Stream) -> Make:
    """Ingests of 1000 memories with embeddings, new content every time."""
    [body] = workload.event_batches(BULK_ITEMS, stream.dimensions, size=BULK_ITEMS)
    for item in body["memories"]:
        item["content"] = {**item["content"], "round": _MARK}
    template, mark = encode(body), str(_MARK).encode()

    def make(i: int) -> Sequence[bytes]:
        fresh = template.replace(mark, str(_MARK + 1 + i).encode())
        return (request_bytes("POST", f"{_memory(stream.profiles[0])}/memories", fresh),)

    return make


def _restore(stream: Stream) -> Make:
    """Forks a profile, reads the fork, which restores it whole, and deletes the fork."""
    database = _database(stream.profiles[0])

    def make(i: int) -> Sequence[bytes]:
        return (
            request_bytes("POST", f"{database}/branches", encode({"name": f"r{i}"})),
            request_bytes("GET", f"{database}@r{i}/kv/s/k0"),
            request_bytes("DELETE", f"{database}/branches/r{i}"),
        )

    return make


MAKERS: Final[dict[str, Callable[[Stream], Make]]] = {
    "kv read": _kv_read,
    "kv write": _kv_write,
    "kv mixed": _kv_mixed,
    "durable write": _durable_write,
    "ingest": _ingest,
    "recall": _recall,
    "user scan": _scan,
    "bulk ingest": _bulk,
    "restore": _restore,
}


def create(child: Child, profiles: Sequence[str]) -> None:
    """Create the profiles that streams use, each with one memory, a few at a time."""

    def some(first: int) -> None:
        client = KeptClient(child.host, child.port)
        try:
            for i in range(first, len(profiles), _CREATING):
                body = encode({"memories": [workload.event(i, None)]})
                client.send("POST", f"{_memory(profiles[i])}/memories", body)
        finally:
            client.close()

    with ThreadPoolExecutor(_CREATING) as pool:
        list(pool.map(some, range(_CREATING)))


class _Tally:
    """What the clients of one stream have seen since the warm-up."""

    def __init__(self, count_from_s: float) -> None:
        self.count_from_s = count_from_s
        self.latencies_s: list[float] = []
        self.refused = 0
        self.sent = 0
        self.an_error = ""

    def add(self, start_s: float, end_s: float) -> None:
        """Count one sample that ended."""
        if end_s >= self.count_from_s:
            self.latencies_s.append(end_s - start_s)

    def outcome(self, seconds: float) -> Outcome:
        """Return the stream's figures."""
        samples = self.latencies_s or [0.0]
        return Outcome(
            count=len(self.latencies_s),
            refused=self.refused,
            p50_s=percentile(samples, 0.5),
            p99_s=percentile(samples, 0.99),
            max_s=max(samples),
            seconds=seconds,
            sent=self.sent,
            client_cpu_s=time.process_time(),
            an_error=self.an_error,
        )


async def _client(load: Load, stream: Stream, make: Make, number: int, tally: _Tally, end_s: float) -> None:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, load.host, load.port)
    due_s = time.monotonic() + stream.every_s * number / stream.clients
    i = stream.first + number
    try:
        while True:
            if stream.every_s:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            start_s = due_s if stream.every_s else time.monotonic()
            if time.monotonic() >= end_s:
                return
            for request in make(i):
                status = await connection.send(request)
                tally.sent += 1
                if status >= 300:
                    tally.refused += 1
                    tally.an_error = connection.last.decode(errors="replace")[:600]
            tally.add(start_s, time.monotonic())
            due_s = max(due_s + stream.every_s, start_s)
            i += stream.clients
    finally:
        connection.close()


async def run(load: Load) -> list[Outcome]:
    """Run the load in this process and return an outcome per stream."""
    makes = [MAKERS[stream.op](stream) for stream in load.streams]
    start_s = time.monotonic()
    end_s = start_s + load.warm_s + load.seconds
    tallies = [_Tally(start_s + load.warm_s) for _ in load.streams]
    async with asyncio.TaskGroup() as group:
        for stream, make, tally in zip(load.streams, makes, tallies, strict=True):
            for number in range(stream.clients):
                group.create_task(_client(load, stream, make, number, tally, end_s))
    elapsed_s = time.monotonic() - start_s - load.warm_s
    return [tally.outcome(elapsed_s) for tally in tallies]


class Running:
    """A load in a process of its own."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        self._seconds = load.warm_s + load.seconds
        assert self._process.stdin is not None
        self._process.stdin.write(encode(load))
        self._process.stdin.close()
        self._process.stdin = None

    @property
    def is_running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.poll() is None

    def outcomes(self) -> list[Outcome]:
        """Wait for the end and return the outcomes. Raises RuntimeError when the clients failed, TimeoutExpired."""
        try:
            written, _ = self._process.communicate(timeout=self._seconds + _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.returncode:
            raise RuntimeError(f"the clients ended with {self._process.returncode}; their errors are above")
        return msgspec.json.decode(written, type=list[Outcome])


def main() -> None:
    """Run the load that standard input describes."""
    import uvloop

    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(encode(uvloop.run(run(load))))


if __name__ == "__main__":
    main()
