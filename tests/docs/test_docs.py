"""What the documentation says is so: its links, lists, numbers and commands are held against the program."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
from metric_support import of_each_process
from processes import RunningNode, environment, free_port
from walkthrough import Shell, check, steps

from gateway.settings import GATEWAY_SETTINGS
from memoturnd import errors
from memoturnd.config import help_markdown
from memoturnd.http.envelope import STATUS, status_of
from memoturnd.http.routes import ROUTES
from memoturnd.settings_table import SETTINGS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def page_id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def prose(page: Path) -> str:
    """The page without its code blocks, which may hold what only looks like a link."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[tuple[str, str]]:
    return LINK.findall(prose(page))


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The names of tests that a file defines, those of classes and of aliases such as a state machine's included."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return frozenset(name for name in names if name.startswith(("test_", "Test")))


# ---- links


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page):
    broken = []
    for text, target in links(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(f"[{text}]({target})")

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_linked_test_exists(page):
    named = [(text, page.parent / target) for text, target in links(page) if re.match(r"[Tt]est_?\w", text)]
    missing = [text for text, path in named if path.suffix != ".py" or text not in defined_in(path.resolve())]

    assert missing == []


def test_every_claim_has_a_test():
    claims = re.split(r"^### ", (DOCS / "guarantees.md").read_text(), flags=re.MULTILINE)[1:]
    numbers = [int(claim.split(".")[0]) for claim in claims]
    unproven = [claim.splitlines()[0] for claim in claims if not re.search(r"\[[Tt]est_?\w+\]\(", claim)]

    assert numbers == list(range(1, len(claims) + 1))
    assert unproven == []


def test_every_decision_says_when_what_instead_of_what_and_how_it_is_verified():
    records = sorted((DOCS / "adr").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{n:04d}" for n in range(1, len(records) + 1)]

    for record in records:
        text = record.read_text()
        headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Rejected", "Consequences", "Verified by"], record.name
        assert re.search(r"^Status: accepted, \d{4}-\d{2}-\d{2}$", text, flags=re.MULTILINE), record.name
        assert re.search(r"\[test_\w+\]\(", text.partition("## Verified by")[2]), record.name


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            targets = {(page.parent / target.partition("#")[0]).resolve() for _, target in links(page)}
            waiting.extend(target for target in targets if target.suffix == ".md" and target.exists())

    assert [page_id(page) for page in PAGES if page not in seen] == []


# ---- lists


def test_the_settings_are_those_of_the_node():
    page = (DOCS / "configuration.md").read_text()

    assert help_markdown() in page, (
        "put the output of memoturnd.config.help_markdown() into docs/configuration.md"
    )


def test_the_api_lists_the_routes_of_the_table_and_no_others():
    listed = re.findall(r"^### `([A-Z]+) (\S+)`", (DOCS / "api.md").read_text(), flags=re.MULTILINE)

    assert len(listed) == len(set(listed))
    assert set(listed) == {(route.method, route.template) for route in ROUTES}


def test_the_api_lists_the_errors_that_can_be_answered():
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    listed = {(code, int(status)) for code, statuses in rows for status in statuses.split(", ")}
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    of_the_tree = [kind for kind in classes if issubclass(kind, errors.MemoturnError)]
    answered = {
        (kind.code, STATUS[base]) for kind in of_the_tree for base in kind.__mro__[:1] if base in STATUS
    }
    answered |= {(kind.code, status_of(kind("x"))) for kind in of_the_tree}

    assert listed == answered


def test_the_metrics_are_those_of_each_process():
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (.*?) \| (.+) \|$", re.MULTILINE)
    rows = row.findall((DOCS / "metrics.md").read_text())
    processes = of_each_process()

    assert len(rows) == len({name for name, *_ in rows})
    assert processes.pop("control").keys() == processes["node"].keys()
    for process, there in processes.items():
        told = {name: (kind, labels) for name, kind, of, labels, _ in rows if of in {"all", process}}
        assert told == {
            name: (kind, ", ".join(f"`{label}`" for label in labels))
            for name, (kind, labels, _) in there.items()
        }, process


def test_the_limits_are_those_of_the_code():
    numbers = (DOCS / "limits.md").read_text().partition("## Numbers")[2]
    lines = re.findall(r"^\| [^-].*$", numbers, flags=re.MULTILINE)
    stated = [line for line in lines if line != "| what | most | is |"]
    row = re.compile(r"\| [^|]+ \| (-?\d+(?:\.\d+)?) ?(\w*)[^|]* \| `([\w.]+)` \|")
    assert [line for line in stated if not row.fullmatch(line)] == [], "| what | number unit | `constant` |"
    rows = [match.groups() for match in map(row.fullmatch, stated) if match]
    assert len(rows) > 50

    wrong = {
        name: (number, unit, limit)
        for number, unit, name in rows
        if (limit := limit_of(name)) != Decimal(number) * UNITS.get(unit, 1)
    }
    assert wrong == {}


def limit_of(name: str) -> Decimal:
    """The default of a setting, or the value of a constant by its dotted name."""
    for setting in (*SETTINGS, *GATEWAY_SETTINGS):
        if setting.variable == name:
            return Decimal(setting.default)
    module, _, constant = name.rpartition(".")
    return Decimal(str(getattr(importlib.import_module(module), constant)))


def test_the_make_targets_are_those_of_the_makefile():
    targets = set(re.findall(r"^([a-z]+):.*## ", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    readme = (REPOSITORY / "README.md").read_text()
    named = set(re.findall(r"(?:`|^ {4}|^\$ )make ([a-z]+)", readme, flags=re.MULTILINE))

    assert targets - named == {"help", "clean"}
    assert named <= targets


# ---- the tour


class Terminal:
    """Runs the README's commands as a reader would, in a folder of its own and against a node of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.nodes: list[RunningNode] = []
        self._folder = folder
        self._log = folder / "node.log"
        self._environment = environment(LISTEN=self.url.removeprefix("http://"), URL=self.url) | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._shell = Shell(folder, self._environment)

    def type(self, command: str) -> str:
        """Run a command and return what it prints; `make run` starts the node, and prints nothing here."""
        if command == "make run":
            self._start_node()
            return ""
        return self._shell.type(command.replace("http://127.0.0.1:8080", self.url))

    def close(self) -> None:
        """End the shell, and what it has started."""
        self._shell.close()
        for node in self.nodes:
            node.kill()

    def _start_node(self) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "memoturnd"],
                cwd=self._folder,
                env=self._environment | {"PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.nodes.append(RunningNode(process, self.url, self))
        self.nodes[-1].wait_until_ready()

    def log(self) -> str:
        return self._log.read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour needs curl")
def test_the_tour_of_the_readme_shows_what_happens(tmp_path):
    tour = steps((REPOSITORY / "README.md").read_text())
    assert len(tour) > 15
    terminal = Terminal(tmp_path)
    try:
        for command, said in tour:
            check(command, said, terminal.type(command))
    finally:
        terminal.close()


# ---- the tree

_EVERYBODYS = re.compile(
    "app|bin|boot|builds|code|data|dev|etc|home|lib|media|mnt|opt|private|proc|root|run|sbin|srv|src|sys|tmp|usr|"
    "Users|v1|var|workspace"
)


def test_no_file_names_a_folder_or_host_of_whoever_works_here():
    top = REPOSITORY.parts[1]
    places = [r"/home/\w+/", r"/Users/\w+/", r"\b[\w-]+\.(?:internal|corp|lan)\b"]
    if not _EVERYBODYS.fullmatch(top):
        places.append(rf"(?<![\w.}}])/{re.escape(top)}/")
    private = re.compile("|".join(places))
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = REPOSITORY / name
        if path.is_file() and path != Path(__file__):
            hits = private.findall(path.read_bytes().decode(errors="replace"))
            found += [f"{name}: {hit}" for hit in hits]

    assert found == []
