"""Which memories a recall may find, as conditions of a statement and as a mask over arrays."""

from dataclasses import dataclass

import numpy as np

from memoturnd.engine.connection import Binding
from memoturnd.surfaces import memories
from memoturnd.surfaces.memory_arrays import Mask, State


@dataclass(frozen=True, slots=True)
class Scope:
    """The filters of a recall. `types` of None means every type, an empty tuple none; `since` and `until` are of
    `created_at`, in unix ms, both included.
    """

    types: tuple[str, ...] | None = None
    session_id: str | None = None
    source: str | None = None
    include_superseded: bool = False
    since: int | None = None
    until: int | None = None

    def conditions(self, now_ms: int) -> tuple[str, tuple[Binding, ...]]:
        """Return the conditions on a memory `m`, from few enough spellings for the statement cache."""
        conditions = ["AND (m.expires_at IS NULL OR m.expires_at > ?)"]
        bindings: list[Binding] = [now_ms]
        if not self.include_superseded:
            conditions.append("AND m.superseded_at IS NULL")
        if self.types is not None:
            conditions.append(f"AND m.type IN ({', '.join('?' * len(self.types))})")
            bindings.extend(self.types)
        for condition, value in (
            ("AND m.session_id = ?", self.session_id),
            ("AND m.source = ?", self.source),
            ("AND m.created_at >= ?", self.since),
            ("AND m.created_at <= ?", self.until),
        ):
            if value is not None:
                conditions.append(condition)
                bindings.append(value)
        return " ".join(conditions), tuple(bindings)

    def mask(self, state: State, now_ms: int) -> Mask:
        """Return which slots of a state are in scope."""
        columns, count = state.columns, state.count
        mask = state.alive & (columns.expires_at.data[:count] > now_ms)
        if not self.include_superseded:
            mask &= columns.active.data[:count]
        if self.types is not None:
            wanted = np.zeros(len(memories.TYPES), np.bool_)
            wanted[[memories.TYPES.index(name) for name in self.types]] = True
            mask &= wanted[columns.types.data[:count]]
        if self.session_id is not None:
            mask &= columns.sessions.data[:count] == columns.session_codes.find(self.session_id)
        if self.source is not None:
            mask &= columns.sources.data[:count] == columns.source_codes.find(self.source)
        if self.since is not None:
            mask &= columns.created_at.data[:count] >= self.since
        if self.until is not None:
            mask &= columns.created_at.data[:count] <= self.until
        return mask
