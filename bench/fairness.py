"""What one namespace feels of another that sends as much as it can, with and without limits.

The quiet one reads and writes keys at a fixed pace; the noisy one has many connections, each of which sends its next
request as soon as the last one is answered, refusals included.
"""

from dataclasses import dataclass
from typing import Final

from bench import workload
from bench.load import Load, Outcome, Running, Stream
from bench.machine import watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import Table, duration
from bench.wire import KeptClient, encode

TARGET: Final = 2.0
"""The quiet one's p99 is to stay within so many times its p99 alone."""
RATE_PER_S: Final = 100
CONNECTIONS: Final = 128
_QUIET: Final = 20
_PACE_S: Final = 0.1
_NUMBERS: Final = 8000
_FEW_SLOTS: Final = 32
"""Slots of the node that is sent long statements by one client more than it has: so many that all could be taken."""
_COLUMNS: Final = (
    "meanwhile",
    "n",
    "p50",
    "p99",
    "p99 / alone",
    "target",
    "",
    "noisy: answered",
    "of these refused",
)


@dataclass(frozen=True, slots=True)
class _Phase:
    name: str
    quiet: Outcome
    noisy: Outcome | None


def _prepare(child: Child) -> None:
    client = KeptClient(child.host, child.port)
    for name in ("noisy--one", *(f"bench--quiet{i}" for i in range(_QUIET))):
        ns, _, profile = name.partition("--")
        body = encode({"memories": [workload.event(0, None)]})
        client.send("POST", f"/v1/memory/{ns}/{profile}/memories", body)
        for key in range(100):
            client.send("PUT", f"/v1/db/{name}/kv/s/k{key}", b"v")
    numbers = f"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {_NUMBERS})"
    for q in ("CREATE TABLE numbers (v INTEGER)", f"INSERT INTO numbers {numbers} SELECT x FROM c"):
        client.send("POST", "/v1/db/noisy--one/sql", encode({"stmts": [{"q": q}]}))
    client.close()


def _limit(child: Child, requests_per_s: int | None) -> None:
    client = KeptClient(child.host, child.port)
    client.send("PUT", "/v1/namespaces/noisy/quotas", encode({"requests_per_s": requests_per_s}))
    client.close()


def _run(child: Child, name: str, op: str | None, seconds: float, connections: int = CONNECTIONS) -> _Phase:
    quiet = Stream("kv mixed", _QUIET, [f"quiet{i}" for i in range(_QUIET)], every_s=_PACE_S)
    noisy = None
    if op is not None:
        stream = Stream(op, connections, ["noisy--one"])
        noisy = Running(Load(child.host, child.port, [stream], seconds + 1.0, warm_s=0.0))
    [seen] = Running(Load(child.host, child.port, [quiet], seconds, warm_s=1.0)).outcomes()
    return _Phase(name, seen, None if noisy is None else noisy.outcomes()[0])


def _phases(child: Child, seconds: float, rounds: int) -> list[_Phase]:
    """Measure alone and beside one at its limit in turn, so that what else the machine does is in both."""
    at_limit = f"key reads over {CONNECTIONS} connections, limited to {RATE_PER_S} a second"
    _limit(child, RATE_PER_S)
    alone, limited = [], []
    for _ in range(rounds):
        alone.append(_run(child, "nothing: alone", None, seconds))
        limited.append(_run(child, at_limit, "kv read", seconds))
    _limit(child, None)
    unlimited = _run(child, f"key reads over {CONNECTIONS} connections, not limited", "kv read", seconds)
    return [_middle(alone), _middle(limited), unlimited]


def _middle(phases: list[_Phase]) -> _Phase:
    """Return the one with the median p99."""
    return sorted(phases, key=lambda phase: phase.quiet.p99_s)[len(phases) // 2]


def _slow(child: Child, seconds: float) -> _Phase:
    more = _FEW_SLOTS + 1
    name = f"statements of seconds over {more} connections, to a node with {_FEW_SLOTS} slots"
    return _run(child, name, "user scan", seconds, more)


def _cells(phase: _Phase, alone_s: float) -> list[str]:
    quiet, noisy = phase.quiet, phase.noisy
    times = quiet.p99_s / alone_s
    aimed = noisy is not None and "limited to" in phase.name
    return [
        phase.name,
        f"{quiet.count:,}",
        duration(quiet.p50_s),
        duration(quiet.p99_s),
        f"{times:.2f}",
        f"{TARGET:g}" if aimed else "-",
        ("met" if times <= TARGET else "MISSED") if aimed else "-",
        "-" if noisy is None else f"{noisy.sent / (noisy.seconds + 1e-9):,.0f} a second",
        "-" if noisy is None or not noisy.sent else f"{noisy.refused / noisy.sent:.0%}",
    ]


def measure(*, quick: bool) -> list[Table]:
    """Return the table."""
    seconds, rounds = (0.3, 1) if quick else (5.0, 5)
    with temporary_folder() as folder, watched() as busy:
        with child_node(folder) as child:
            _prepare(child)
            phases = _phases(child, seconds, rounds)
        with child_node(folder, MAX_CONCURRENCY=str(_FEW_SLOTS)) as child:
            phases.append(_slow(child, seconds))
    alone_s = phases[0].quiet.p99_s
    notes = [
        (
            f"{_QUIET} quiet clients, each at {1 / _PACE_S:g} requests a second, key reads and writes in turn, in "
            f"another namespace; latencies count from when a request was due."
        ),
        f"Alone and limited were measured {rounds} times in turn; the rows are those with the median p99.",
        "Quiet and noisy clients are processes of their own on the machine of the node, and share its processors with it.",
        f"{busy}.",
    ]
    return [
        Table(
            "Fairness: one namespace beside a noisy one",
            _COLUMNS,
            [_cells(p, alone_s) for p in phases],
            notes,
        )
    ]
