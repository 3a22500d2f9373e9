"""The synchronous client is what scripts/unasync makes of the asynchronous one."""

import subprocess
import sys
from pathlib import Path

import memoturn
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/unasync"
PAIRS = [
    (memoturn.AsyncMemoturn, memoturn.Memoturn),
    (memoturn.AsyncMemoryProfile, memoturn.MemoryProfile),
    (memoturn.AsyncDb, memoturn.Db),
    (memoturn.AsyncKeyValues, memoturn.KeyValues),
    (memoturn.AsyncBranches, memoturn.Branches),
]


def test_the_synchronous_client_is_made_of_the_asynchronous_one():
    checked = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_both_have_the_same_methods(asynchronous, synchronous):
    words = {"__aenter__": "__enter__", "__aexit__": "__exit__"}

    asked = {"__annotations__"}  # Python makes it for whoever looks at it first, such as another test
    assert {words.get(name, name) for name in vars(asynchronous)} - asked == set(vars(synchronous)) - asked
