"""The examples in `examples/typescript` do what they say, in a fresh project, against a node with authentication on."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import node_packages
import pytest
from typescript_support import PLATFORM_KEY, Served

pytestmark = pytest.mark.xdist_group("typescript")
EXAMPLES = node_packages.SDK.parents[1] / "examples" / "typescript"
WITHIN_S = 60

Example = Callable[..., list[str]]


@pytest.fixture
def example(project: Path, served: Served) -> Example:
    """Run an example as its first lines say, with a token of its namespace, and return what it printed."""
    operator = {"Authorization": f"Bearer {PLATFORM_KEY}"}

    def run(name: str, namespace: str, *arguments: str, said: str = "") -> list[str]:
        path = f"{served.node.url}/v1/namespaces/{namespace}/tokens"
        minted = httpx.post(path, json={"scope": "admin"}, headers=operator).raise_for_status().json()
        shutil.copy(EXAMPLES / name, project)
        done = subprocess.run(
            [node_packages.node(), name, *arguments],
            cwd=project,
            env={**os.environ, "MEMOTURN_URL": served.node.url, "MEMOTURN_TOKEN": minted["token"]},
            input=said,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


def test_a_chat_remembers_from_one_start_to_the_next(example: Example) -> None:
    first = example("chat.mjs", "chat", "ada", said="hello there\nremember diet: Ada is vegan\n")
    asked = "what is the diet of Ada\nremember diet: Ada eats fish\nthe diet of Ada\n"
    second = example("chat.mjs", "chat", "ada", said=asked)

    assert first == ["> I know nothing about that yet: 'hello there'", "> Noted."]
    assert second == [
        "> I know: Ada is vegan",
        "> Noted, in place of what I knew.",
        "> I know: Ada eats fish",
    ]


def test_several_agents_lose_no_write_and_are_followed(example: Example) -> None:
    told = example("several_agents.mjs", "team")

    assert told[0].startswith("seen ")
    assert told[1:] == ["planner: 20 findings", "researcher: 20 findings", "writer: 20 findings"]


def test_a_fork_changes_nothing_on_main_and_a_rewind_is_undone(example: Example) -> None:
    assert example("what_if.mjs", "what-if") == [
        "on the fork: Alice loves steak; on main: Alice is vegan",
        "after the rewind: Alice is vegan",
        "after its undo: Alice eats everything",
    ]


def test_what_was_known_is_read_as_of_then(example: Example) -> None:
    told = example("time_travel.mjs", "support")

    assert told[0].endswith("The customer lives in the city of Oslo")
    assert told[1:] == [
        "known now: The customer lives in the city of Bergen",
        "known then: The customer lives in the city of Oslo",
        "  version 2: The customer lives in the city of Bergen",
        "  version 1: The customer lives in the city of Oslo",
    ]


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text()

    assert [path.name for path in EXAMPLES.glob("*") if f'"{path.name}"' not in tested] == []
