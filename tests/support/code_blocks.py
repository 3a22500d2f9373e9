"""The code blocks of the documents, fenced and indented, and the commands in them.

Each block is one of these: it is run by a test of its own (`RUN_BY`), it is read by a parser (`PARSED`), it is drawn for people
(`DRAWN`), or it holds commands, which are run as they stand (tests/cli/test_cli_documented.py), read as settings
(`settings_of`), or listed with the reason why they are not run (`NOT_RUN`). tests/docs/test_code_blocks.py sees to it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from walkthrough import prompted

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "sdk").glob("*/README.md")),
    REPOSITORY / "charts" / "memoturn" / "README.md",
]
SHELL = frozenset({"", "console", "sh", "bash"})
"""Languages of blocks that hold commands; where none is named, too."""
PARSED = frozenset({"json", "yaml", "toml", "promql"})
RUN_BY = {
    ("README.md", "console"): ["tests/docs/test_docs.py::test_the_tour_of_the_readme_shows_what_happens"],
    ("docs/quickstart.md", "python"): ["tests/sdk/test_quickstart.py::test_a_python_program_needs_no_server"],
    ("docs/quickstart.md", "console"): [
        "tests/sdk/test_quickstart.py::test_a_python_program_needs_no_server",
        "tests/sdk/test_quickstart.py::test_a_server_the_command_line_and_a_model_that_speaks_mcp",
        "tests/typescript/test_typescript_package.py::test_the_commands_of_the_quickstart_make_a_project",
    ],
    ("docs/quickstart.md", "ts"): [
        "tests/typescript/test_typescript_package.py::test_the_quickstart_runs_as_either_kind_of_module"
    ],
    ("sdk/python/README.md", "python"): ["tests/sdk/test_sdk_readme.py::test_the_blocks_of_the_readme_run"],
    ("sdk/typescript/README.md", "ts"): [
        "tests/typescript/test_typescript_package.py::test_the_readme_compiles_and_runs"
    ],
}
"""By page and language: the tests that run all of them."""

DRAWN = {
    "docs/adr/0004-object-layout.md": {"v1/{uuid}/database.json": "keys of objects"},
    "docs/api.md": {'{"topic_key", "type", "active": id or null': "the shape of an answer"},
    "docs/architecture.md": {"POST /v1/memory/app/alice": "a picture", "client ---> gateway/": "a picture"},
    "docs/concepts.md": {"2 x (is of the topic)": "a formula"},
    "docs/formats.md": {
        "type, a zero byte, topic key (empty": "the bytes of an id",
        "type, a zero byte, topic key, a zero byte": "the bytes of an id",
    },
    "docs/operations.md": {
        "data/  ": "a folder",
        "{MEMOTURN_DATA_DIR}/": "a folder",
        "manifest.json  ": "a folder",
    },
    "docs/recall.md": {"score = 2": "a formula"},
    "sdk/vectors/README.md": {'[{"name": "what it shows"': "the shape of a file"},
}
"""By page and the beginning of the block: what it is."""

REGISTRY = "it gets packages from a registry; tests/sdk/test_quickstart.py and tests/typescript install the built ones"
CLUSTER = "it needs a Kubernetes cluster, as scripts/kind-smoke does; tests/chart/test_chart_documented.py renders what is installed"
DOCKER = "it needs a container engine; tests/chart judges the image's definition and compose.yaml"
POSTGRES = (
    "it needs Postgres on another host; tests/e2e and tests/catalog run these commands on one of their own"
)
SELF = "it would run these tests within themselves"
STORES = "it needs credentials of an object store, or builds one; tests/stores runs the same on MinIO"
NOT_RUN = {
    "README.md": {
        "make run": "the tour below runs it",
        "make test": SELF,
        ".venv/bin/memoturnd --workers 4": "tests/workers starts some",
    },
    "docs/cli.md": {
        "memoturn init --start": "a node answers already; tests/cli/test_cli_init.py starts one",
        "memoturn erase verify": "an erasure takes the collector's grace time; tests/cli/test_receipts.py has genuine ones",
    },
    "docs/configuration.md": {"pip install": REGISTRY},
    "docs/install.md": {
        "python3 -m venv": REGISTRY,
        "~/memoturn/bin/": REGISTRY,
        "pip ": REGISTRY,
        "docker": DOCKER,
        "cp .env.example": DOCKER,
        "curl -s http://127.0.0.1:8080/ready": DOCKER,
        "helm install": CLUSTER,
        "kubectl": CLUSTER,
    },
    "docs/mcp.md": {"pip install": REGISTRY},
    "docs/object-stores.md": {
        "export MEMOTURN_TEST_S3": STORES,
        ".venv/bin/python -m pytest": SELF,
        "MEMOTURN_TEST_URL=az://container": STORES,
        'eval "$(scripts/services': STORES,
        "scripts/services": STORES,
    },
    "docs/operations.md": {
        "createdb": POSTGRES,
        "export MEMOTURN_CATALOG": POSTGRES,
        "memoturn-control migrate": POSTGRES,
        "memoturn-control rebuild": POSTGRES,
        "memoturn --url http://10.0.0.6:8090 cluster": "it needs the cluster of the lines before; tests/cli/test_cli_cluster.py",
        "memoturn erase verify": "an erasure takes the collector's grace time; tests/cli/test_receipts.py has genuine ones",
    },
    "docs/testing.md": {"make simulate": SELF},
    "sdk/python/README.md": {"pip install": REGISTRY},
    "sdk/typescript/README.md": {"npm install": REGISTRY},
    "charts/memoturn/README.md": {"helm install": CLUSTER, "kubectl": CLUSTER},
}
"""By page and the beginning of the command: why nobody runs it."""

_NODE = re.compile(r"(?:[A-Z_0-9]+=\S.* )?(memoturnd|memoturn-gateway|memoturn-control serve)")
_COMMENT = re.compile(r"(?<!\S)#(?!.*[\"']).*$", re.MULTILINE)
_FENCE = re.compile(r" *```+ *(\S*)")


class Block(NamedTuple):
    """One block of a page, named by its path in the repository; `language` is empty where none is named."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which lists name it."""
        return self.text.split("\n", 1)[0].strip()

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path | str) -> list[Block]:
    """Return the blocks of a page. Indented lines are one after an empty line, outside of lists."""
    path = REPOSITORY / page
    return list(_blocks(path.relative_to(REPOSITORY).as_posix(), path.read_text().split("\n")))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    at, listed = 0, False
    while at < len(lines):
        line, start = lines[at], at + 1
        fence = _FENCE.match(line)
        if fence:
            end = next(n for n in range(start, len(lines)) if lines[n].strip().startswith("```"))
            yield Block(page, start + 1, fence[1], _dedented(lines[start:end]))
            at = end + 1
            continue
        if line.startswith("    ") and not listed and not lines[at - 1].strip():
            while at < len(lines) and (lines[at].startswith("    ") or _blank_within(lines, at)):
                at += 1
            yield Block(page, start, "", _dedented(lines[start - 1 : at]))
            continue
        if line.strip() and not line.startswith(" "):
            listed = bool(re.match(r"([-*+]|\d+\.) ", line))
        at += 1


def _blank_within(lines: list[str], at: int) -> bool:
    return not lines[at].strip() and at + 1 < len(lines) and lines[at + 1].startswith("    ")


def _dedented(lines: list[str]) -> str:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:].rstrip() for line in lines)


def steps(block: Block) -> list[tuple[str, str]]:
    """The commands of a block, each with what it is shown to print; nothing is shown where no prompts are."""
    if block.language == "console" or block.text.startswith("$ "):
        return prompted(block.text)
    return [(part, "") for part in re.split(r"(?<!\\)\n", block.text) if part.strip()]


def is_json(block: Block) -> bool:
    """Whether it is JSON though no language is named."""
    return not block.language and block.first[0] in "{["


def is_drawn(block: Block) -> bool:
    return not block.language and any(block.first.startswith(start) for start in DRAWN.get(block.page, ()))


def holds_commands(block: Block) -> bool:
    known = (block.page, block.language) in RUN_BY or is_drawn(block) or is_json(block)
    return block.language in SHELL and not known


def settings_of(block: Block) -> list[tuple[str, str]]:
    """The programs that a block starts with settings, each with what a shell reads before it: `export` and `NAME=value`."""
    found, exported = [], ""
    for command, _ in steps(block):
        bare = _COMMENT.sub("", command).strip()
        if bare.startswith("export "):
            exported += f"{bare}\n"
        elif starts := _NODE.fullmatch(bare):
            found.append((starts[1], exported + bare.removesuffix(starts[1])))
    return found


def not_run(page: str, command: str) -> bool:
    return any(command.startswith(start) for start in NOT_RUN.get(page, ()))


def commands_to_run(page: str) -> list[str]:
    """The commands of a page that are run as they stand, in their order."""
    found = []
    for block in filter(holds_commands, blocks(page)):
        sets = bool(settings_of(block))
        for command, _ in steps(block):
            bare = _COMMENT.sub("", command).strip()
            of_settings = sets and (bare.startswith("export ") or _NODE.fullmatch(bare))
            if not of_settings and not not_run(page, command):
                found.append(bare)
    return found


def pages_with_commands() -> list[str]:
    """The pages of which commands are run."""
    names = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
    return [name for name in names if commands_to_run(name)]
