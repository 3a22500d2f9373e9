"""The API reference of the Python client is made without a warning, and names all that is public."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
from python_reference import MODULES

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "python_reference.py"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it was written into."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def public(module: ModuleType) -> Iterator[str]:
    """The public names of a module, of the members of its classes, and of the fields of its typed dicts."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_"
        and getattr(value, "__module__", "") == module.__name__
        and not isinstance(value, TypeVar)
    ]
    for name in names:
        yield name
        value = getattr(module, name)
        if isinstance(value, type):
            yield from (f"{name}.{member}" for member in members(value))


def members(kind: type) -> set[str]:
    ours = [vars(base) for base in kind.__mro__ if base.__module__.startswith("memoturn")]
    return {
        name
        for own in (*ours, getattr(kind, "__annotations__", {}))
        for name in own
        if not name.startswith("_")
    }


@pytest.mark.parametrize("name", MODULES)
def test_it_names_every_public_class_function_method_and_field(name: str, reference: Path) -> None:
    page = (reference / f"{name.replace('.', '/')}.html").read_text()
    shown = set(re.findall(r'\bid="([\w.]+)"', page))
    there = set(public(import_module(name)))

    assert there
    assert there - shown == set()


def test_methods_are_shown_with_what_they_take_and_what_is_said_of_them(reference: Path) -> None:
    page = (reference / "memoturn.html").read_text()
    text = " ".join(re.sub(r"<[^>]+>", "", page.partition('id="Branches.create"')[2][:6000]).split())

    assert "create" in text
    assert "from_branch: str = 'main'," in text
    assert "at the revision at, its head when None; no data is copied." in text


def test_it_says_nothing_of_how_the_package_is_put_together(reference: Path) -> None:
    for name in MODULES:
        page = (reference / f"{name.replace('.', '/')}.html").read_text()
        assert set(re.findall(r"memoturn\._\w+(?:\.\w+)+", re.sub(r"<[^>]+>", "", page))) <= {
            "memoturn._core.bodies.Unset"  # what stands for an option that was not given
        }
