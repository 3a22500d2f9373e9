"""The examples do what they say, against a real node with authentication on."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"

Example = Callable[..., list[str]]


@pytest.fixture
def example(guarded, mint) -> Example:
    """Run an example as its first lines say, with a token of its namespace, and return what it printed."""

    def run(name: str, namespace: str, *arguments: str, said: str = "") -> list[str]:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *arguments],
            env={**os.environ, "MEMOTURN_URL": guarded.url, "MEMOTURN_TOKEN": mint(namespace)},
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


def test_a_chat_remembers_from_one_start_to_the_next(example):
    first = example("chat.py", "chat", "ada", said="hello there\nremember diet: Ada is vegan\n")
    assert first == ["> I know nothing about that yet: 'hello there'", "> Noted."]
    second = example(
        "chat.py",
        "chat",
        "ada",
        said="what is the diet of Ada\nremember diet: Ada eats fish\nthe diet of Ada\n",
    )
    assert second == [
        "> I know: Ada is vegan",
        "> Noted, in place of what I knew.",
        "> I know: Ada eats fish",
    ]


def test_several_agents_lose_no_write_and_are_followed(example):
    told = example("several_agents.py", "team")
    assert told[1:] == ["planner: 20 findings", "researcher: 20 findings", "writer: 20 findings"]
    assert told[0].startswith("seen ")


def test_a_fork_changes_nothing_on_main_and_a_rewind_is_undone(example):
    assert example("what_if.py", "what-if") == [
        "on the fork: Alice loves steak; on main: Alice is vegan",
        "after the rewind: Alice is vegan",
        "after its undo: Alice eats everything",
    ]


def test_what_was_known_is_read_as_of_then(example):
    told = example("time_travel.py", "support")
    assert told[0].endswith("The customer lives in the city of Oslo")
    assert told[1] == "known now: The customer lives in the city of Bergen"
    assert told[2] == "known then: The customer lives in the city of Oslo"
    assert told[3:] == [
        "  version 2: The customer lives in the city of Bergen",
        "  version 1: The customer lives in the city of Oslo",
    ]


def test_every_example_is_run_here():
    tested = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tested] == []
