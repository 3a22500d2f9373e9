"""The fuzz targets over what was once found, and over a fixed number of new inputs; `make fuzz` goes on for longer."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import fuzz_target
import pytest
from fuzz_target import BreachError
from targets import NAMES, target

RUNS = {
    "segment": 3000,
    "manifest": 10_000,
    "register": 10_000,
    "archive": 8_000,
    "wal": 1500,
    "meta": 10_000,
}
INPUTS = [
    pytest.param(name, path, id=f"{name}-{path.name}")
    for name in NAMES
    for path in target(name).regressions()
]
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


@pytest.mark.parametrize(("name", "path"), INPUTS)
def test_input_that_once_broke_a_rule_is_refused(name, path):
    """One that is rightly taken has a name that says so."""
    assert target(name).hold(path.read_bytes()) == path.name.startswith("taken-")


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_taken(name):
    assert all(target(name).hold(data) for data in target(name).seeds())


@pytest.mark.parametrize("name", NAMES)
def test_changed_inputs_get_past_the_checksums(name):
    """Some are taken and some are refused for what they say: neither a wall of refusals nor a rule without teeth."""
    chosen, rng = target(name), Random(7)
    inputs = [chosen.mutate(data, rng) for data in chosen.seeds() for _ in range(60)]
    changed = [data for data in inputs if data not in chosen.seeds()]
    taken = sum(chosen.hold(data) for data in changed)

    assert len(changed) // 20 < taken < len(changed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris has no wheel for this Python")
def test_a_few_thousand_new_inputs_break_no_rule(name, tmp_path):
    ran = subprocess.run(
        [
            sys.executable, "tests/fuzz/run.py", name, "--found", str(tmp_path),
            "-seed=1", f"-runs={RUNS[name]}",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip
    found = [path.read_bytes() for path in tmp_path.iterdir()]

    assert ran.returncode == 0, (
        f"keep this input in tests/fuzz/regressions/{name}: {found}\n{ran.stderr[-3000:]}"
    )
    assert f"#{RUNS[name]}\tDONE" in ran.stderr


def test_targets_see_a_decoder_that_breaks_a_rule(monkeypatch):
    honest = target("register")
    (seed, *_) = honest.seeds()

    def crashes(data):
        return data[10_000]

    def takes_memory(data):
        return honest.read(bytes(2_000_000) and data)

    def takes_long(data):
        return honest.read(data) if sum(range(10**6)) else None

    with pytest.raises(IndexError):
        replace(honest, read=crashes).hold(seed)
    with pytest.raises(BreachError, match="bytes of memory"):
        replace(honest, read=takes_memory).hold(seed)
    with pytest.raises(BreachError, match="differs"):
        replace(honest, again=lambda known: fuzz_target.same(known, None)).hold(seed)
    monkeypatch.setattr(fuzz_target, "TIME_LIMIT_S", 0.001)
    with pytest.raises(BreachError, match=r"bytes took \d.\d s"):
        replace(honest, read=takes_long, constant=1 << 30).hold(seed)
