"""Whole histories of several nodes, from seeds: fresh ones, those that failed before, and broken products.

A seed that fails is printed with the command that replays it, and kept in seeds.txt.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.mutants import MUTANTS, OF_GARBAGE, PROVOKED_BY
from simulation.run import Finished, Focus, simulate

HERE = Path(__file__).parent
SEEDS = HERE / "seeds.txt"
FRESH = 60
SOAK = 5000
CHUNK = 20
MUTANT_SEEDS = 300
REACH_SEEDS = 120
PROVOKED_SEEDS = (*range(1, 6), 20)
OF_A_BROKEN_MUTANT = ("TypeError", "AttributeError", "NameError")
"""Of a mutant that does not fit the product any more: it is no proof that anything is noticed."""
FIRST = int.from_bytes(os.urandom(5))
"""The first of this run's fresh seeds: the others follow it."""


def kept_seeds() -> list[int]:
    lines = SEEDS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def hold(seed: int) -> Finished:
    """Run a seed; one that breaks a rule is kept, and fails with the way to see it again."""
    done = simulate(seed)
    if done.violation is None:
        return done
    if seed not in kept_seeds():
        with SEEDS.open("a") as file:
            file.write(f"{seed:<7} {done.violation[:100]}\n")
    pytest.fail(f"seed {seed}: {done.violation}\nits trace: make simulate SEED={seed}")


@pytest.mark.parametrize("chunk", range(FRESH // CHUNK))
def test_fresh_seeds_keep_every_rule(chunk: int) -> None:
    first = FIRST + chunk * CHUNK
    print(f"seeds {first} to {first + CHUNK - 1}")  # noqa: T201 - pytest shows it with a failure
    for seed in range(first, first + CHUNK):
        hold(seed)


@pytest.mark.soak
@pytest.mark.parametrize("chunk", range(SOAK // CHUNK))
def test_thousands_of_seeds_keep_every_rule(chunk: int) -> None:
    first = FIRST + FRESH + chunk * CHUNK
    print(f"seeds {first} to {first + CHUNK - 1}")  # noqa: T201 - pytest shows it with a failure
    for seed in range(first, first + CHUNK):
        hold(seed)


@pytest.mark.parametrize("seed", kept_seeds())
def test_seeds_that_failed_before_keep_every_rule(seed: int) -> None:
    hold(seed)


def test_same_seed_gives_the_same_trace() -> None:
    for seed, slow in ((1, False), (2, False), (FIRST, False), (888188088152, True)):
        first, second = simulate(seed, slow=slow), simulate(seed, slow=slow)
        assert first.events == second.events, f"seed {seed}"
        assert first.digest == second.digest


def test_same_seed_gives_the_same_trace_in_another_process() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "simulation", "--quiet", "1", "2", str(FIRST)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(HERE.parent)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        digests.add(tuple(line.partition("[")[2].partition(",")[0] for line in done.stdout.splitlines()))
    assert len(digests) == 1
    assert len(digests.pop()) == 3


def test_another_seed_gives_another_trace() -> None:
    assert simulate(1).digest != simulate(2).digest


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_product_is_noticed(name: str) -> None:
    mutant, slow, focus = MUTANTS[name], name in OF_GARBAGE, PROVOKED_BY.get(name, Focus())
    for seed in range(1, MUTANT_SEEDS + 1):
        noticed = simulate(seed, mutant=mutant, slow=slow, focus=focus).violation
        if noticed is not None:
            assert not any(bug in noticed for bug in OF_A_BROKEN_MUTANT), noticed
            return
    pytest.fail(f"{name} survives {MUTANT_SEEDS} seeds: no rule of the simulation speaks against it")


@pytest.mark.parametrize("name", PROVOKED_BY)
def test_what_provokes_a_broken_product_leaves_the_whole_one_whole(name: str) -> None:
    for seed in PROVOKED_SEEDS:
        assert simulate(seed, focus=PROVOKED_BY[name]).violation is None


def test_runs_reach_what_they_are_made_for() -> None:
    answers: set[str] = set()
    words: set[str] = set()
    for seed in range(1, REACH_SEEDS + 1):
        done = simulate(seed)
        answers |= done.answers.keys()
        for _, _, *facts in done.events:
            words |= {str(fact) for fact in facts[:2]}
            words |= {"found"} if "replicated commits were found" in str(facts[-1:]) else set()
            words |= {"kept aside"} if "local commits kept" in str(facts[-1:]) else set()
        if answers >= ANSWERS and words >= FAULTS:
            return
    pytest.fail(f"{REACH_SEEDS} seeds reach none of {sorted((ANSWERS - answers) | (FAULTS - words))}")


ASKED = (
    "write",
    "durable write",
    "replicated write",
    "keyed write",
    "unkeyed write",
    "routed read",
    "cached read",
    "read",
    "sync",
    "checkpoint",
    "fork",
    "rewind",
    "undo",
    "delete",
    "evict",
)
HAPPENED = (
    "kill",
    "kill_and_lose_disk",
    "power_cut",
    "restart",
    "crash_then_stop",
    "pause",
    "wipe_leases",
    "cut_nodes",
    "lose_unshipped",
    "blind_gateway",
    "cut_store",
    "cut_leases",
    "cut_both",
    "storm",
)
ANSWERS = {
    *(f"{kind}: ok" for kind in ASKED),
    *(f"chaos: {event}" for event in HAPPENED),
    "replica: shown",
    "unkeyed write: OutcomeUnknownError",
    "durable write: NotDurableError",
    "write: NotOwnerError",
}
FAULTS = {
    "slow",
    "lost request",
    "lost reply",
    "late",
    "repeated",
    "409",
    "412",
    "500",
    "503",
    "bit flip",
    "short read",
}
FAULTS |= {"kept aside", "found"}
