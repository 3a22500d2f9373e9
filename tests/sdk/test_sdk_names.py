"""What `memoturn` offers is loaded when it is asked for, and is what its modules have."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import memoturn
import pytest


def told() -> dict[str, str]:
    """The names that the package's type-checked imports bring, and the modules that they are from."""
    tree = ast.parse(Path(memoturn.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def test_every_name_is_the_one_that_is_told_to_type_checkers():
    names = told()
    assert set(memoturn.__all__) == {*names, "__version__"}
    for name, module in names.items():
        assert getattr(memoturn, name) is getattr(importlib.import_module(module), name), name


def test_modules_can_be_reached_and_other_names_cannot():
    assert memoturn.errors.MemoturnError is memoturn.MemoturnError
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        memoturn.nothing  # noqa: B018 - that is the test
    assert {"Memoturn", "errors"} <= set(dir(memoturn))


@pytest.mark.parametrize("name", ["MemoturnError", "MAIN", "RecallHit", "__version__"])
def test_a_name_of_no_client_loads_none(name):
    code = f"import sys; from memoturn import {name}; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("line", ["--help", "branch --help", "completions bash", "version", "kv get --help"])
def test_a_command_that_asks_no_server_loads_neither_a_client_nor_what_draws_tables(line):
    code = (
        "import sys; from memoturn.cli.app import run; code = run(sys.argv[1:]); "
        "loaded = {'httpx', 'rich', 'prompt_toolkit'} & set(sys.modules); "
        "sys.exit(f'{loaded} {code}' if loaded or code else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
