"""Memories as they are shown: which columns are read, and what a reader makes of a row."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces import origins

_NAMES: Final = (
    "id", "type", "topic_key", "summary", "content", "keywords", "session_id", "source", "created_at", "expires_at",
    "superseded_by", "superseded_at", "pinned", "importance", "version", "reason", "updated_at", "undone_at", "rid",
)  # fmt: skip
COLUMNS: Final = ", ".join(_NAMES)
"""What `shown` takes, as a statement selects it."""


def shown(conn: ProfileConnection, row: Iterable[Any]) -> dict[str, Any]:
    """Return a memory as JSON shows it, from a row of COLUMNS.

    `updated_at` is when it last changed, by hand or by being superseded; `content` is encoded already.
    """
    memory: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    memory["content"] = msgspec.Raw(memory["content"].encode())
    memory["source_turns"] = origins.read(conn, memory.pop("rid"))
    memory["pinned"] = bool(memory["pinned"])
    memory["updated_at"] = max(memory["created_at"], memory["updated_at"] or 0, memory["superseded_at"] or 0)
    return memory


def size_bytes(memory: dict[str, Any]) -> int:
    """Return about how much a shown memory takes in an answer."""
    content: msgspec.Raw = memory["content"]
    return len(bytes(content)) + len(memory["summary"]) + len(memory["keywords"])
