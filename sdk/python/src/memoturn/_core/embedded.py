"""A node within this process, where the server is installed: `memoturn[embedded]`."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, cast

import httpx

from memoturn.errors import EmbeddedError

EMBEDDED_URL: Final = "http://localhost"
EMBEDDED_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_SERVER: Final = "memoturnd"


class Node(Protocol):
    """A node that runs on a thread of this process."""

    @property
    def socket_path(self) -> Path:
        """The Unix socket that it serves on."""
        ...

    def close(self) -> None:
        """Ship, and stop. Safe to repeat."""
        ...


def start_node(path: "str | os.PathLike[str]", settings: Mapping[str, object]) -> Node:
    """Run a node on the data in a folder; settings that are None are left out. Raises EmbeddedError."""
    try:
        module = importlib.import_module(f"{_SERVER}.embedded")
        refused = importlib.import_module(f"{_SERVER}.errors").MemoturnError
    except ImportError as error:
        raise EmbeddedError(
            "an embedded node needs the server, on Python 3.11 or newer, which the extra memoturn[embedded] brings: "
            f"in a checkout, pip install . './sdk/python[embedded]' ({error})",
            code="embedded",
        ) from error
    environ = {
        f"MEMOTURN_{name.upper()}": _text(value) for name, value in settings.items() if value is not None
    }
    try:
        return cast("Node", module.EmbeddedNode.start(Path(path), environ))
    except (refused, OSError) as error:
        raise EmbeddedError(
            f"no node can run on {os.fspath(path)} in this process: {error}", code="embedded"
        ) from error


def stop_node(node: Node) -> None:
    """Stop a node. Raises EmbeddedError where it did not end well."""
    try:
        node.close()
    except Exception as error:
        raise EmbeddedError(f"the embedded node did not end well: {error}", code="embedded") from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
