"""The targets by name."""

import importlib

from fuzz_target import Target

NAMES = ("segment", "manifest", "register", "archive", "wal", "meta")


def target(name: str) -> Target:
    """Import and return one target. What it decodes with is imported here first, so that it can be instrumented."""
    return importlib.import_module(f"fuzz_{name}").TARGET
