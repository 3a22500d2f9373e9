"""The quickstart as a newcomer follows it: the built packages in environments that have nothing else, and the page's own commands and programs."""

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import python_packages
from mcp import StdioServerParameters
from mcp.client import Client
from processes import NodeHome, RunningNode, free_port
from python_packages import PROJECTS, REPOSITORY, Fresh
from walkthrough import Shell, blocks, check, section, steps

pytestmark = pytest.mark.timeout(300)  # the first run may get wheels
as_one_reader = pytest.mark.xdist_group("reader")
beside_each_other = pytest.mark.xdist_group("fresh_environments")
"""Tests that share environments, which each worker would make for itself."""
PAGE = REPOSITORY / "docs" / "quickstart.md"
DEFAULT_URL = "http://127.0.0.1:8080"
BUILT = {".": "memoturn-server", "./sdk/python": "memoturn"}
"""What a path of the checkout builds, for pip to find among what was built."""
OF_HTTPX = {"anyio", "certifi", "h11", "httpcore", "httpx", "idna", "typing_extensions"}
RECEIPT = """
import hashlib, memoturn
receipt = {"payload": {}, "alg": "Ed25519", "key_id": hashlib.sha256(bytes(32)).hexdigest()[:16], "sig": ""}
memoturn.verify_receipt(receipt, {"keys": [{"x": "A" * 43}]})
"""
BOTH_CLIENTS = """
import asyncio, sys
from memoturn import AsyncMemoturn, Memoturn
with Memoturn(sys.argv[1]) as client:
    client.memory("app", "plain").ingest([{"type": "fact", "topic_key": "diet", "summary": "Alice is vegan"}])
    print(client.memory("app", "plain").recall("vegan")["memories"][0]["summary"])
async def again():
    async with AsyncMemoturn(sys.argv[1]) as client:
        print((await client.memory("app", "plain").recall("vegan"))["memories"][0]["summary"])
asyncio.run(again())
"""


class Reader:
    """Follows sections of the page, in a home and with an environment of their own. The node is on a free port, and nothing else differs."""

    def __init__(self, home: Path, wheels: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.home = home
        self._environment = python_packages.of_a_newcomer(home, wheels) | {
            "MEMOTURN_LISTEN": self.url.removeprefix("http://"),
            "MEMOTURN_URL": self.url,
        }
        self._log = home / "node.log"
        self._shells = [Shell(home, self._environment)]
        self._nodes: list[RunningNode] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shell in self._shells:
            shell.close()
        for node in self._nodes:
            node.kill()

    def follow(self, *titles: str) -> None:
        """Save the programs of these sections, and run their commands, each of which must show what the page says."""
        for title in titles:
            text = section(PAGE, title)
            for program in blocks(text, "python"):
                (self.home / "first.py").write_text(program)
            for command, said in steps(text):
                self._do(command, said)

    def log(self) -> str:
        return self._log.read_text()

    def _do(self, command: str, said: str) -> None:
        if command == "memoturnd":
            self._start_node()
            self._shells.append(Shell(self.home, self._environment))  # the page: "in another terminal"
            return
        shown = self._shells[-1].type(of_what_is_built(command))
        if not command.startswith("pip "):
            check(command, said, shown.replace(self.url, DEFAULT_URL))

    def _start_node(self) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [self.home / "memoturn" / "bin" / "memoturnd"],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._nodes.append(RunningNode(process, self.url, self))
        self._nodes[-1].wait_until_ready()


def of_what_is_built(command: str) -> str:
    """Return a command of the page with the packages' names for the paths of the checkout. The extra `embedded` has to bring the server by itself."""
    if not command.startswith("pip install "):
        return command
    paths = [word.partition("[") for word in shlex.split(command)[2:]]
    named = [f"{BUILT[path]}{bracket}{extras}" for path, bracket, extras in paths]
    if "memoturn[embedded]" in named:
        named.remove("memoturn-server")
    return shlex.join(["pip", "install", *named])


def names_the_extra(shown: str, extra: str) -> bool:
    """Whether an error says which extra is missing, and how a checkout installs it."""
    return f"extra memoturn[{extra}]" in shown and f"'./sdk/python[{extra}]'" in shown


@pytest.fixture(scope="module")
def wheelhouse(packages_folder: Path) -> str:
    """What pip finds: the built packages, and what they depend on."""
    return f"{packages_folder} {python_packages.dependencies()}"


@pytest.fixture(scope="module")
def reader(wheelhouse: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody who has read the page's beginning, and done what it says."""
    with Reader(tmp_path_factory.mktemp("reader"), wheelhouse) as reader:
        reader.follow("Quickstart")
        yield reader


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that is there already."""
    with NodeHome(tmp_path_factory.mktemp("node")) as home:
        yield home.start()


@pytest.fixture(scope="module")
def plain(wheelhouse: str, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """An environment with the client, and nothing that was asked for besides."""
    return Fresh(tmp_path_factory.mktemp("plain"), wheelhouse, "memoturn")


@pytest.fixture(scope="module")
def with_cli(wheelhouse: str, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """An environment with the client and its command."""
    return Fresh(tmp_path_factory.mktemp("cli"), wheelhouse, "memoturn[cli]")


@as_one_reader
def test_a_python_program_needs_no_server(reader):
    reader.follow("Python, without a server")

    assert (reader.home / "memories" / "objects").is_dir(), "the data is where the page says"


@as_one_reader
async def test_a_server_the_command_line_and_a_model_that_speaks_mcp(reader):
    reader.follow("A server and the command line", "MCP")
    entry = json.loads((reader.home / ".claude.json").read_text())["mcpServers"]["memoturn"]
    started = StdioServerParameters(
        command=entry["command"], args=entry["args"], env={"PATH": os.defpath, "HOME": str(reader.home)}
    )
    async with Client(started) as client:
        found = await client.call_tool("memory_recall", {"query": "what does Alice eat?"})

    assert entry["command"] == str(reader.home / "memoturn" / "bin" / "memoturn")
    assert [memory["summary"] for memory in found.structured_content["memories"]] == ["Alice is vegan"]


@beside_each_other
def test_the_client_needs_httpx_alone(plain, node):
    there = plain.run(
        "python", "-c", "import importlib.metadata as m; print(*[d.name for d in m.distributions()])"
    )
    ran = plain.run("python", "-W", "error", "-c", BOTH_CLIENTS, node.url)

    assert set(there.stdout.split()) == {"memoturn", *OF_HTTPX}
    assert (ran.stdout, ran.stderr) == ("Alice is vegan\n" * 2, "")


def test_the_client_runs_on_the_oldest_python(wheelhouse, node, tmp_path):
    oldest = python_packages.interpreter("3.10")
    if oldest is None:
        pytest.skip("there is no Python 3.10, on the PATH or of pyenv")
    fresh = Fresh(tmp_path, wheelhouse, "memoturn", python=oldest)

    ran = fresh.run("python", "-W", "error", "-c", BOTH_CLIENTS, node.url)
    refused = fresh.run("python", "-c", "import memoturn; memoturn.Memoturn.embedded('data')")

    assert (ran.stdout, ran.stderr) == ("Alice is vegan\n" * 2, "")
    assert "an embedded node needs the server, on Python 3.11 or newer" in refused.stderr


@beside_each_other
@pytest.mark.parametrize(
    ("program", "extra"),
    [
        (("python", "-c", "import memoturn; memoturn.Memoturn.embedded('data')"), "embedded"),
        (
            (
                "python",
                "-c",
                "import asyncio, memoturn; asyncio.run(memoturn.AsyncMemoturn.embedded('data'))",
            ),
            "embedded",
        ),
        (("python", "-c", RECEIPT), "cli"),
        (("memoturn", "memory", "recall", "app", "alice", "vegan"), "cli"),
        (("python", "-m", "memoturn", "--help"), "cli"),
        (("memoturn", "mcp"), "mcp"),
        (("memoturn", "--url", DEFAULT_URL, "mcp", "install", "cursor"), "mcp"),
    ],
)
def test_what_needs_an_extra_names_it(program, extra, plain):
    ran = plain.run(*program)

    assert ran.returncode != 0
    assert names_the_extra(ran.stderr, extra), ran.stderr


@beside_each_other
def test_the_command_needs_its_own_extra_alone(with_cli, node):
    saved = with_cli.run(
        "memoturn", "memory", "ingest", "app", "cli", "--summary", "Alice is vegan", URL=node.url
    )
    found = with_cli.run("memoturn", "memory", "recall", "app", "cli", "vegan", "--json", URL=node.url)
    helped = with_cli.run("memoturn", "mcp", "--help")
    refused = with_cli.run("memoturn", "mcp", URL=node.url)
    started = with_cli.run("memoturn", "init", "--start", "--no-save", URL=f"http://127.0.0.1:{free_port()}")

    assert saved.returncode == 0, saved.stderr
    assert json.loads(found.stdout)["memories"][0]["summary"] == "Alice is vegan"
    assert "--http" in helped.stdout
    assert refused.returncode != 0
    assert names_the_extra(refused.stderr, "mcp"), refused.stderr
    assert "memoturnd is not installed here" in started.stderr


def test_nobody_is_told_to_install_what_others_have_under_our_name():
    """What PyPI has as `memoturn` is another program, which an extra that cannot be had there would even bring in place of this one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md", "*.py", "*.yaml", "*.txt", "Dockerfile", "scripts"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    by_name = re.compile(
        r"pip3? (?:install|download|wheel)\b[^\n`]*[\s'\"=](?:memoturn|memoturn-server)(?![\w./-])"
    )
    pages = [REPOSITORY / name for name in listed.split("\0") if name and not name.startswith("tests/")]

    assert by_name.search("pip install --upgrade memoturn")
    assert by_name.search("pip install 'memoturn[cli]'")
    assert not by_name.search("pip install . './sdk/python[cli]' dist/memoturn-0.1.0-py3-none-any.whl")
    assert [f"{path}: {found[0]}" for path in pages if (found := by_name.search(path.read_text()))] == []


@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_and_an_sdist_bring_what_they_must(name, packages_folder):
    (wheel,) = packages_folder.glob(f"{name}-[0-9]*.whl")
    (sdist,) = packages_folder.glob(f"{name}-[0-9]*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {one.split("/", 1)[-1] if ".dist-info/" in one else one for one in archive.namelist()}
        (metadata,) = [archive.read(one).decode() for one in archive.namelist() if one.endswith("/METADATA")]
    with tarfile.open(sdist) as archive:
        in_sdist = {one.split("/", 1)[1] for one in archive.getnames()}

    assert "licenses/LICENSE" in in_wheel
    assert "License-Expression: Apache-2.0" in metadata
    assert (PROJECTS[name] / "README.md").read_text() in metadata
    assert {"README.md", "LICENSE", "pyproject.toml", "PKG-INFO"} <= in_sdist
    assert not [one for one in in_sdist | in_wheel if re.match(r"(tests|bench|docs|charts|data)/", one)]
    if name == "memoturn":
        assert "memoturn/py.typed" in in_wheel
        assert "src/memoturn/py.typed" in in_sdist


@pytest.mark.parametrize("name", PROJECTS)
def test_an_sdist_builds_the_same_wheel(name, packages_folder, tmp_path):
    (sdist,) = packages_folder.glob(f"{name}-[0-9]*.tar.gz")
    (wheel,) = packages_folder.glob(f"{name}-[0-9]*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()

    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=unpacked, check=True, capture_output=True, timeout=60)

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
