"""Every code block of the documents is run or read by a test, or is listed with the reason why not.

Commands are run in tests/cli/test_cli_documented.py; this sees to it that nothing is left over, and reads what is data or settings.
"""

import base64
import json
import os
import re
import subprocess
import tomllib

import code_blocks
import promql_parser
import pytest
import yaml
from code_blocks import (
    DRAWN,
    NOT_RUN,
    PAGES,
    PARSED,
    REPOSITORY,
    RUN_BY,
    Block,
    blocks,
    commands_to_run,
    holds_commands,
    is_drawn,
    is_json,
    pages_with_commands,
    settings_of,
    steps,
)
from test_docs import defined_in

from gateway.settings import GatewaySettings
from memoturnd.auth.keys import parse_keys
from memoturnd.config import Settings

NAMES = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
ALL = [block for page in PAGES for block in blocks(page)]
PARSERS = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads, "promql": promql_parser.parse}
SECRET = "0123456789abcdef" * 4
"""What stands where a page has dots."""


# ---- nothing is left over


def test_every_block_is_run_or_read_or_listed():
    known = [
        (block.page, block.language) in RUN_BY
        or block.language in PARSED
        or is_drawn(block)
        or is_json(block)
        or (holds_commands(block) and bool(steps(block)))
        for block in ALL
    ]
    assert [block.place for block, is_known in zip(ALL, known, strict=True) if not is_known] == []
    assert len(ALL) > 150


def test_pages_whose_blocks_tests_of_their_own_run_are_named_with_them():
    for (page, language), tests in RUN_BY.items():
        assert [block for block in blocks(page) if block.language == language], f"{page} has no {language}"
        for test in tests:
            file, _, name = test.partition("::")
            assert name in defined_in(REPOSITORY / file), test


def test_every_section_of_the_quickstart_is_followed():
    files = {
        test.partition("::")[0] for (page, _), tests in RUN_BY.items() for test in tests if "quick" in page
    }
    followed = "".join((REPOSITORY / file).read_text() for file in files)
    page = (REPOSITORY / "docs" / "quickstart.md").read_text()

    for part in re.split(r"^#+ ", page, flags=re.MULTILINE):
        assert "```" not in part or f'"{part.splitlines()[0]}"' in followed


@pytest.mark.parametrize("page", sorted({*DRAWN, *NOT_RUN}))
def test_lists_name_only_what_is_there_and_say_why(page: str):
    shown = [block.first for block in ALL if block.page == page and not block.language]
    commands = [command for block in blocks(page) if holds_commands(block) for command, _ in steps(block)]

    for start, what in DRAWN.get(page, {}).items():
        assert [first for first in shown if first.startswith(start)], f"{start} is not on {page} any more"
        assert len(what) > 5
    for start, why in NOT_RUN.get(page, {}).items():
        assert [command for command in commands if command.startswith(start)], (
            f"{start} is not on {page} any more"
        )
        assert len(why) > 10
        for named in re.findall(r"\b(?:tests|scripts)/[\w/.-]+\b", why):
            assert (REPOSITORY / named).exists(), named


def test_commands_of_memoturn_are_run_unless_they_need_what_is_not_here():
    run = {command for page in pages_with_commands() for command in commands_to_run(page)}
    named = {
        command.split("  ")[0]
        for block in ALL
        if holds_commands(block)
        for command, _ in steps(block)
        if command.startswith("memoturn ")
    }

    assert len(named) > 150
    assert len([command for command in named if command not in run]) < 10


def test_what_is_run_as_it_stands_shows_no_output_that_nobody_compares():
    told = [block.place for block in ALL if holds_commands(block) for _, said in steps(block) if said]
    assert told == []


# ---- how blocks are found


PAGE = """# Page

    make run
      more

    make test

- a list

    goes on

Text

```sh
echo a \\
  b
# comment
```

  ```json
  {"a": 1}
  ```

```console
$ one \\
    more
said

again
$ two
```
"""


def test_blocks_are_found_fenced_and_indented_and_not_in_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(code_blocks, "REPOSITORY", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    found = blocks("page.md")

    assert [(block.line, block.language, block.text) for block in found] == [
        (3, "", "make run\n  more\n\nmake test"),
        (15, "sh", "echo a \\\n  b\n# comment"),
        (21, "json", '{"a": 1}'),
        (25, "console", "$ one \\\n    more\nsaid\n\nagain\n$ two"),
    ]
    assert steps(found[3]) == [("one \\\n    more", "said\n\nagain"), ("two", "")]
    assert steps(found[1])[0] == ("echo a \\\n  b", "")


# ---- data


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.language in PARSED or is_json(block)], ids=lambda one: one.place
)
def test_data_is_read_by_a_parser(block: Block):
    if (block.page, block.language) not in RUN_BY and not is_drawn(block):
        assert PARSERS[block.language or "json"](block.text)


# ---- settings

SETTINGS = [
    pytest.param(program, before, id=f"{block.place}-{program}")
    for block in ALL
    if holds_commands(block)
    for program, before in settings_of(block)
]
READ_BY = {
    "memoturnd": Settings,
    "memoturn-control serve": Settings,
    "memoturn-gateway": GatewaySettings,
}


def shell(script: str) -> str:
    return subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout


@pytest.mark.parametrize(("program", "before"), SETTINGS)
def test_settings_before_a_program_are_what_it_takes(program: str, before: str):
    said = shell(re.sub(r"=\.\.\.(?!\S)", f"={SECRET}", before) + "env -0")
    environ = dict(one.split("=", 1) for one in said.split("\0") if one)

    assert [name for name in environ if name.startswith("MEMOTURN_")]
    READ_BY[program].from_env(environ)  # raises for a name or a value that it does not know


def test_the_command_that_makes_a_key_makes_one_that_a_node_takes():
    (command,) = (one for one in commands_to_run("docs/configuration.md") if "genpkey" in one)

    (key,) = parse_keys(shell(command), where="the page")
    assert len(base64.b64decode(shell(command))) == 48
    assert key.kid
