"""A watch on the lease table of one machine's processes, for whoever routes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from memoturnd.errors import ConfigurationError, RetryableError
from memoturnd.leases.file_table import (
    NodeLocks,
    Table,
    counter,
    nodes_in,
    owned_by,
    owners_in,
    owners_since,
)
from memoturnd.seams.leases import Change, LiveNode, NodeLeft, Placed, Placements

POLL_S: Final = 0.2
"""How often the table is looked at, which takes some 20 us while nothing changes."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    """What was told: up to which change, and which nodes."""

    change: int = -1
    version: int = -1
    nodes: dict[str, LiveNode] = field(default_factory=dict)


class FileWatch:
    """Watches the table in `folder`; holds nothing in it."""

    def __init__(self, folder: Path, *, poll_s: float = POLL_S) -> None:
        self._folder = folder
        self._locks = NodeLocks(folder)
        self._poll_s = poll_s

    async def watch(self) -> AsyncIterator[Change]:
        """Yield everything, then what changes, and everything again where the table could not be read in between."""
        while True:
            table: Table | None = None
            try:
                table = Table(self._folder, to_read=True)
                seen = _Seen()
                while True:
                    for change in self._look(table, seen):
                        yield change
                    await asyncio.sleep(self._poll_s)
            except (RetryableError, ConfigurationError) as error:
                _log.warning("the lease table cannot be watched; trying again", error=str(error))
            finally:
                if table is not None:
                    table.close()
            await asyncio.sleep(self._poll_s)

    def _look(self, table: Table, seen: _Seen) -> list[Change]:
        """Return what is news, and note that it was told."""
        version = table.version()
        if version == seen.version:
            gone = [node_id for node_id in seen.nodes if not self._locks.is_alive(node_id)]
            return self._left(table, seen, gone)
        with table.transaction() as connection:
            change, pruned = counter(connection, "change"), counter(connection, "pruned")
            nodes = {n.node_id: n for n in nodes_in(connection) if self._locks.is_alive(n.node_id)}
            is_whole = seen.change < pruned
            placed = owners_in(connection) if is_whole else owners_since(connection, seen.change)
        gone = [node_id for node_id in seen.nodes if node_id not in nodes]
        alive = [_alive(one, nodes) for one in placed]
        if is_whole:
            news: list[Change] = [
                Placements(tuple(p for p in alive if p.owner is not None), tuple(nodes.values()))
            ]
        else:
            came = [node for node in nodes.values() if seen.nodes.get(node.node_id) != node]
            news = [*came, *self._left(table, seen, gone), *alive]
        seen.change, seen.version, seen.nodes = change, version, nodes
        return news

    def _left(self, table: Table, seen: _Seen, gone: list[str]) -> list[Change]:
        """Return what the end of nodes means: what they owned has no owner."""
        news: list[Change] = []
        for node_id in gone:
            with table.transaction() as connection:
                news += [replace(placed, owner=None) for placed in owned_by(connection, node_id)]
            news.append(NodeLeft(node_id))
            seen.nodes.pop(node_id)
        return news


def _alive(placed: Placed, nodes: dict[str, LiveNode]) -> Placed:
    owner = placed.owner
    return placed if owner is None or owner.node_id in nodes else replace(placed, owner=None)
