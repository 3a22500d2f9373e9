"""`python -m bench`: measure everything, print the tables, write bench/RESULTS.md."""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import (
    big,
    costs,
    credentials,
    embedder,
    fairness,
    gateway,
    in_process,
    lazy,
    loop_lag,
    machine,
    memory,
    object_stores,
    observing,
    over_http,
    processes,
    recall_speed,
    replicas,
    report,
    scale,
    sdk,
    shipping,
    throughput,
    timelines,
    wakes,
)
from bench.stats import Table

_RESULTS: Final = Path(__file__).parent / "RESULTS.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--dbs", type=int, default=10_000, help="databases of row 9 (default 10000)")
    parser.add_argument("--memories", type=int, default=10_000, help="memories of row 8 (default 10000)")
    parser.add_argument(
        "--profiles", type=int, default=100_000, help="profiles of the scale part (default 100000)"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: few samples, no report")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(_PARTS), help="run these parts; a report only with --output"
    )
    parser.add_argument("--profile", action="store_true", help="print where each in-process row's time goes")
    parser.add_argument(
        "--stacks", action="store_true", help="print what held the event loop in the lag part"
    )
    parser.add_argument("--output", type=Path, help=f"where the report goes (default {_RESULTS.name})")
    return parser.parse_args()


def _in_process(given: argparse.Namespace) -> list[Table]:
    dbs, memories = (
        (min(given.dbs, 200), min(given.memories, 600)) if given.quick else (given.dbs, given.memories)
    )
    return in_process.measure(
        in_process.run_on_uvloop, dbs=dbs, seeded=memories, quick=given.quick, profile=given.profile
    )


_PARTS: Final[dict[str, Callable[[argparse.Namespace], list[Table]]]] = {
    "in-process": _in_process,
    "http": lambda given: over_http.measure(quick=given.quick),
    "throughput": lambda given: throughput.measure(quick=given.quick),
    "stores": lambda given: object_stores.measure(quick=given.quick),
    "wakes": lambda given: wakes.measure(quick=given.quick),
    "costs": lambda given: costs.measure(quick=given.quick),
    "shipping": lambda given: shipping.measure(quick=given.quick),
    "memory": lambda given: memory.measure(quick=given.quick),
    "big": lambda given: big.measure(in_process.run_on_uvloop, quick=given.quick),
    "recall": lambda given: recall_speed.measure(in_process.run_on_uvloop, quick=given.quick),
    "timelines": lambda given: timelines.measure(in_process.run_on_uvloop, quick=given.quick),
    "embedder": lambda given: embedder.measure(quick=given.quick),
    "lazy": lambda given: lazy.measure(in_process.run_on_uvloop, quick=given.quick),
    "credentials": lambda given: credentials.measure(quick=given.quick),
    "fairness": lambda given: fairness.measure(quick=given.quick),
    "gateway": lambda given: gateway.measure(quick=given.quick),
    "metrics": lambda given: observing.measure(quick=given.quick),
    "sdk": lambda given: sdk.measure(quick=given.quick),
    "scale": lambda given: scale.measure(quick=given.quick, profiles=given.profiles),
    "processes": lambda given: processes.measure(quick=given.quick),
    "replicas": lambda given: replicas.measure(quick=given.quick),
    "lag": lambda given: loop_lag.measure(quick=given.quick, stacks=given.stacks),
}
_ON_REQUEST: Final = {"lazy", "processes", "replicas", "scale"}
"""Parts that run only where they are named: what the first measures is not part of the product, the others need
services, take longer, and have reports of their own (RESULTS-processes.md, RESULTS-replicas.md, RESULTS-scale.md)."""


def _measured(name: str, given: argparse.Namespace) -> tuple[list[Table], bool]:
    """Return a part's tables and True; where it fails, a table that says so and False, so that the others stand."""
    try:
        return _PARTS[name](given), True
    except Exception as error:  # noqa: BLE001 - whatever it is, the figures of the other parts are worth keeping
        traceback.print_exc()
        cell = " ".join(f"{type(error).__name__}: {error}".split())[:300].replace("|", "/")
        return [Table(f"Not measured: {name}", ("error",), [[cell]])], False


def main() -> int:
    """Run what the command line asks for, and return the exit code: 1 where a part failed."""
    given = _arguments()
    start_s, load, noise = time.monotonic(), os.getloadavg(), machine.noise()
    tables: list[Table] = []
    all_measured = True
    for name in given.only or [part for part in _PARTS if part not in _ON_REQUEST]:
        measured, done = _measured(name, given)
        for table in measured:
            print(table.text(), flush=True)
        tables += measured
        all_measured = all_measured and done
    taken = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {time.monotonic() - start_s:.0f} s, `{' '.join(['python -m bench', *sys.argv[1:]])}`",
        f"load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after",
        f"a fixed piece of work (256 KiB hashed): {noise} before; {machine.noise()} after",
    ]
    output = given.output or (None if given.quick or given.only else _RESULTS)
    if output is not None:
        output.write_text(report.render(machine.describe(Path(tempfile.gettempdir())), taken, tables))
        print(f"written to {output}")
    return 0 if all_measured else 1


if __name__ == "__main__":
    # Ended like Ctrl-C, so that the processes that were started end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
