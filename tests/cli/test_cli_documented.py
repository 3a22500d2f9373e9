"""The commands of the documents are run as they stand, page by page, on a node that asks for credentials.

Each page has a tenant, a folder and a home of its own. `BEFORE` has what a page takes for granted: commands that are run
before one of it. What is not run, and why, is told in `code_blocks.NOT_RUN`.
"""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from code_blocks import commands_to_run, pages_with_commands
from memoturn import Memoturn
from memoturn.types import IngestItem
from processes import free_port

PLATFORM_KEY = "platform-key-of-the-tests"
WITHIN_S = 30
FILES = {
    "report.sql": "select 1;\n",
    "alice.png": "\x89PNG",
    "turns.json": '[{"role": "user", "content": "fact moon: the moon is far"}]\n',
    "turns.jsonl": '{"role": "user", "content": "hello"}\n{"role": "assistant", "content": "hello, Alice"}\n',
    "people.jsonl": '{"name": "Bob", "age": 41}\n{"name": "Cid", "age": 7}\n',
    "vectors.jsonl": '{"id": "p2", "embedding": [0.2, 0.8]}\n',
    "calls.jsonl": '{"key": "search", "data": {"ms": 30}}\n',
    "policy.json": '{"memory": {"task_ttl_max_secs": 600}}\n',
    "token": "eyJ.a.token\n",
}
EATS_ALL: IngestItem = {
    "type": "fact",
    "topic_key": "diet",
    "summary": "Alice eats everything",
    "content": None,
}
"""What everybody's profile begins with; the pages know its id."""
EATS_ALL_AGAIN = f"""curl -s http://127.0.0.1:8080/v1/memory/app/alice/memories -H "Authorization: Bearer $MEMOTURN_TOKEN" \\
-H 'Content-Type: application/json' -d '{json.dumps({"memories": [EATS_ALL]})}'"""
VEGAN = 'memoturn memory ingest app alice --topic diet --summary "Alice is vegan"'
MONDAY = "memoturn branch checkpoint app--alice main monday"
WHAT_IF = "memoturn branch create app--alice what-if --at monday"
BEFORE: dict[str, dict[str, list[str]]] = {
    "docs/cli.md": {
        "memoturn memory topic ": [VEGAN],
        "memoturn memory drop-model": [
            """curl -sf http://127.0.0.1:8080/v1/memory/app/alice/memories -H "Authorization: Bearer $MEMOTURN_TOKEN" \\
            -H 'Content-Type: application/json' -d '{"memories": [{"type": "event", "summary": "x", "embedding": [1, 0],
            "embedding_model": "text-embedding-3-small"}]}'"""
        ],
        "memoturn memory patch": [VEGAN, EATS_ALL_AGAIN],  # its topic was erased
        "memoturn db create": ["memoturn db delete orders --yes"],
        "memoturn timelines show": ["memoturn timelines append app--alice calls search"],
        "memoturn changes": ["memoturn memory ingest app bob --summary x"],
        "memoturn db undelete": ["memoturn db delete orders --yes"],
        "memoturn branch create": ['memoturn sql app--alice "create table orders(total)"', MONDAY],
        "memoturn branch rewind": [MONDAY],
        "memoturn docs get": ['memoturn docs insert orders people \'{"_id": "01KB2T6V4Z8D0J3W5Y7N9Q1R2S"}\''],
    },
    "docs/operations.md": {"memoturn verify app--alice@what-if": [MONDAY, WHAT_IF]},
}
"""By the page: what goes before the command that begins like this."""

OPENED = {"app", "app-restored", "orders"}
"""What tokens are made for."""
GOES_ON = re.compile(r"memoturn (changes .*--follow|mcp --http)")
"""What runs until it is stopped."""
OF_A_SHELL = re.compile(r"[|`~]|\$[({A-Z]|^(?!memoturn )|memoturn (mcp --profile|shell)")
"""What is not run in this process."""


@dataclass
class Reader:
    """Somebody who types what stands on a page."""

    command: Callable[..., Any]
    environ: pytest.MonkeyPatch
    operator: Memoturn
    meant: dict[str, str]
    """What is written on a page, and what is typed for it."""
    tokens: dict[str, str] = field(default_factory=dict)
    """By the namespace or database that they open."""

    def type(self, line: str) -> None:
        """Run a line, which has to end well."""
        for written, meant in self.meant.items():
            line = line.replace(written, meant)
        self.environ.setenv("MEMOTURN_TOKEN", self._token(line))
        if line.startswith("export "):
            self._export(line)
        elif GOES_ON.match(line):
            self._until_it_does(line)
        elif OF_A_SHELL.search(line):
            self._in_a_shell(line)
        else:
            self._here(line)

    def _export(self, line: str) -> None:
        for one in shlex.split(line)[1:]:
            self.environ.setenv(*one.split("=", 1))

    def _token(self, line: str) -> str:
        """The token of the namespace or database that is named first, of `app` where none is."""
        words = [re.split("--|[@:]", word)[0] for word in line.split()]
        named = next((word for word in words if word in OPENED), "app")
        if line.startswith("memoturn db "):
            self.tokens.pop("orders", None)  # a database that is made anew has new tokens
        elif named not in self.tokens:
            mint = self.operator.create_token if named == "orders" else self.operator.create_namespace_token
            self.tokens[named] = mint(named, "admin")["token"]
        return self.tokens.get(named, "")

    def _here(self, line: str) -> None:
        words = shlex.split(line, comments=True)[1:]
        given, taken = _after(words, "<"), _after(words, ">")
        outcome = self.command(*words, stdin=Path(given).read_bytes() if given else b"")
        assert outcome.code == 0, f"$ {line}\n{outcome.stdout!r}\n{outcome.stderr}"
        if erasure := re.search(r"\bers_\w+", outcome.stdout.decode(errors="replace")):
            self.meant["ers_019f3c7d2a1b4c5d"] = erasure[0]
        if taken:
            Path(taken).write_bytes(outcome.stdout)

    def _in_a_shell(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}"

    def _until_it_does(self, line: str) -> None:
        """Run what goes on until it is stopped, and stop it as a terminal does, once it has answered or said something."""
        with subprocess.Popen(
            shlex.split(line, comments=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            port = re.search(r"--http (\d+)", line)
            deadline = time.monotonic() + WITHIN_S
            while time.monotonic() < deadline and not (answers(port[1]) if port else self._speaks(process)):
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=WITHIN_S)
        assert time.monotonic() < deadline, f"$ {line}\ndoes nothing in {WITHIN_S} s\n{said}"
        assert process.returncode == 0, f"$ {line}\n{said}"

    def _speaks(self, process: "subprocess.Popen[str]") -> bool:
        """Change something, and return whether the process said something."""
        self._here(f"memoturn memory ingest app alice --summary '{time.monotonic_ns()}'")
        return bool(select.select([process.stdout], [], [], 0.2)[0])


def answers(port: str) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=1)
    except httpx.TransportError:
        return False
    return True


def _after(words: list[str], sign: str) -> str | None:
    """Take a redirection out of the words of a command, and return the file that it names."""
    if sign not in words:
        return None
    at = words.index(sign)
    name = words[at + 1]
    del words[at : at + 2]
    return name


@pytest.fixture
def reader(request, command, guarded, monkeypatch, tmp_path) -> Iterator[Reader]:
    """A reader of the page, in a folder with what its commands read."""
    tenant = re.sub(r"\W+", "-", request.node.callspec.params["page"]).lower()
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        operator.create_tenant(tenant)
    (tmp_path / "here").mkdir()
    for name, text in FILES.items():
        (tmp_path / "here" / name).write_bytes(text.encode("latin-1"))
    (tmp_path / ".config" / "fish" / "completions").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MEMOTURN_URL", guarded.url)
    monkeypatch.setenv("MEMOTURN_PLATFORM_KEY", PLATFORM_KEY)
    monkeypatch.setenv("MEMOTURN_TENANT", tenant)
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY, tenant=tenant) as of_tenant:
        of_tenant.create_database("orders")
        token = of_tenant.create_namespace_token("app", "write")["token"]
        with Memoturn(guarded.url, token=token) as client:
            client.memory("app", "alice").ingest([EATS_ALL])
        meant = {
            "http://127.0.0.1:8080": guarded.url,
            "https://memory.example": guarded.url,
            "MEMOTURN_PLATFORM_KEY=...": f"MEMOTURN_PLATFORM_KEY={PLATFORM_KEY}",
            "MEMOTURN_TOKEN=eyJ...": f"MEMOTURN_TOKEN={token}",
            "curl -s ": "curl -sS --fail-with-body ",
            "--http 9000": f"--http {free_port()}",
            "tok_01": of_tenant.create_token("app--alice", "read")["id"],
            "changes app--alice --since 0": "changes app--bob --since 0",  # of what is older than an erasure none are kept
        }
        yield Reader(command, monkeypatch, of_tenant, meant)


@pytest.mark.parametrize("page", pages_with_commands())
def test_the_commands_of_a_page_do_what_they_say(page: str, reader: Reader) -> None:
    waiting = dict(BEFORE.get(page, {}))
    for line in commands_to_run(page):
        for start in [start for start in waiting if line.startswith(start)]:
            for one in waiting.pop(start):
                reader.type(one)
        reader.type(line)
    assert waiting == {}, "what goes before what is not there any more"
