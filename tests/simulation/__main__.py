"""Replay seeds: `PYTHONPATH=tests:tests/support .venv/bin/python -m simulation SEED...` prints the trace of each."""

# ruff: noqa: T201 - a command prints
import argparse
import sys
import time

from simulation.run import simulate

parser = argparse.ArgumentParser(description="Run seeds of the simulation.")
parser.add_argument("seeds", nargs="+", help="a seed, or a range such as 1-50")
parser.add_argument("--quiet", action="store_true", help="no trace")
arguments = parser.parse_args()
failed = 0
for text in arguments.seeds:
    first, _, last = text.partition("-")
    for seed in range(int(first), int(last or first) + 1):
        started_s = time.perf_counter()
        done = simulate(seed)
        if not arguments.quiet:
            for event in done.events:
                print(*event)
        took_s = time.perf_counter() - started_s
        print(
            f"seed {seed}: {done.violation or 'ok'} [{done.digest}, {done.steps} steps, "
            f"{done.virtual_s:.1f} virtual s, {took_s:.2f} s]"
        )
        failed += done.violation is not None
sys.exit(failed > 0)
