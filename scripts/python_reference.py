#!/usr/bin/env python3
"""Writes the API reference of the Python client into `build/reference/python`, or the folder that is named, by pdoc."""

import sys
from functools import cached_property
from pathlib import Path
from typing import Any, is_typeddict

import pdoc
import pdoc.doc
import pdoc.render

FOLDER = Path(__file__).resolve().parent.parent / "build" / "reference" / "python"
MODULES = (
    "memoturn",
    "memoturn.types",
    "memoturn.errors",
    "memoturn.receipts",
    "memoturn.backup",
    "memoturn.audit",
)


class Class(pdoc.doc.Class):
    """A class as whoever uses it sees it: where in the package its members are written is nothing to them."""

    def _taken_from(self, member_name: str, obj: Any) -> tuple[str, str]:
        """Where a member is written. Python does not say which typed dict a field was inherited from: it is its own."""
        if member_name in getattr(self.obj, "__annotations__", {}) and is_typeddict(self.obj):
            return self.modulename, f"{self.qualname}.{member_name}"
        return super()._taken_from(member_name, obj)

    @cached_property
    def own_members(self) -> list[pdoc.doc.Doc[Any]]:
        """Its members, with those of the private classes that it is put together of; without constructors that users never call."""
        written = (one for one in self.members.values() if one.taken_from[0].partition(".")[0] == "memoturn")
        return [one for one in written if one.name != "__init__" or not _of_the_package(one)]

    @cached_property
    def inherited_members(self) -> dict[tuple[str, str], list[pdoc.doc.Doc[Any]]]:
        """None: what comes from the standard library is not of this reference."""
        return {}

    @cached_property
    def bases(self) -> list[tuple[str, str, str]]:
        """The public ones; of a typed dict none, whose fields are all shown."""
        return [base for base in super().bases if "_" not in base[0] and base[1] != "dict"]


def _of_the_package(constructor: pdoc.doc.Doc[Any]) -> bool:
    """Whether it takes what only the package itself has."""
    return "memoturn._" in str(getattr(constructor, "signature", ""))


def write(folder: Path) -> None:
    """Write the reference into a folder. What pdoc is not sure of, it warns of."""
    pdoc.doc.Class = Class  # type: ignore[misc]  # what pdoc makes of every class that it comes across
    pdoc.render.configure(docformat="markdown", show_source=False)
    pdoc.pdoc(*MODULES, output_directory=folder)


def main(arguments: list[str]) -> int:
    """Write it, and return the exit code."""
    folder = Path(arguments[0]) if arguments else FOLDER
    write(folder)
    sys.stdout.write(f"{folder / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
