"""`python -m bench`: measure everything, print the tables, write bench/RESULTS.md."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import big, in_process, loop_lag, machine, memory, over_http, report, throughput
from bench.stats import Table

_RESULTS: Final = Path(__file__).parent / "RESULTS.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--dbs", type=int, default=10_000, help="databases of row 9 (default 10000)")
    parser.add_argument("--memories", type=int, default=10_000, help="memories of row 8 (default 10000)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few samples, no report")
    parser.add_argument("--only", choices=sorted(_PARTS), help="run one part, without a report")
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
    "memory": lambda given: memory.measure(quick=given.quick),
    "big": lambda given: big.measure(in_process.run_on_uvloop, quick=given.quick),
    "lag": lambda given: loop_lag.measure(quick=given.quick, stacks=given.stacks),
}


def main() -> None:
    """Run what the command line asks for."""
    given = _arguments()
    start_s, load, noise = time.monotonic(), os.getloadavg(), machine.noise()
    tables: list[Table] = []
    for name in [given.only] if given.only else list(_PARTS):
        measured = _PARTS[name](given)
        for table in measured:
            print(table.text(), flush=True)
        tables += measured
    taken = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {time.monotonic() - start_s:.0f} s, `{' '.join(['python -m bench', *sys.argv[1:]])}`",
        f"load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after",
        f"a fixed piece of work (256 KiB hashed): {noise} before; {machine.noise()} after",
    ]
    output = given.output or (None if given.quick or given.only else _RESULTS)
    if output is not None:
        output.write_text(report.render(machine.describe(Path(tempfile.gettempdir())), taken, tables))
        print(f"written to {output}")


if __name__ == "__main__":
    main()
