"""Maps that outgrow a manifest: the latest changes in it, the rest in immutable runs that it names.

A map of names (checkpoints, pins, the branches of a database) is its `recent` dict over a few `runs`, newest
first. A value of None in either says that the name is gone. When the dict is full it becomes a run, joined
with those runs that are not much larger, so that n names make about log4(n) runs and each is written again
only so often. Finding that a run is still exactly the one that was joined decides whether a swap may land.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from memoturnd.core.bounds import Count, Id

V = TypeVar("V")
RECENT_LIMIT = 64
"""Changes that a manifest holds itself before they become a run."""
_RATIO = 4


class RunRef(msgspec.Struct, frozen=True):
    """One immutable run: `count` entries. `branch` is the id of the branch whose folder holds it, empty for the database's."""

    branch: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})?\Z")]
    count: Count
    hash: Id
    size_bytes: Count

    @property
    def key_name(self) -> str:
        """Return the run's file name: its size and content hash."""
        return f"{self.count:08d}-{self.hash}"


class Flush(NamedTuple):
    """What becomes one new run: the whole of `recent`, over the newest `joined` runs."""

    recent: Mapping[str, object]
    runs: tuple[RunRef, ...]
    """All runs as they stood when the flush was planned."""
    joined: tuple[RunRef, ...]

    @property
    def is_whole(self) -> bool:
        """Return whether no run is left below, so that entries that are gone need not be kept."""
        return self.joined == self.runs


def flush_due(recent: Mapping[str, object]) -> bool:
    """Return whether the dict is so full that it should become a run."""
    return len(recent) >= RECENT_LIMIT


def plan_flush(recent: Mapping[str, object], runs: tuple[RunRef, ...]) -> Flush:
    """Return what to join with `recent`: each run up to four times as large as what is joined before it."""
    count, joined = len(recent), 0
    for run in runs:
        if run.count > _RATIO * count:
            break
        count += run.count
        joined += 1
    return Flush(recent, runs, runs[:joined])


def join(
    flush: Flush, runs: list[Mapping[str, V | None]], recent: Mapping[str, V | None]
) -> dict[str, V | None]:
    """Return the entries of the new run, sorted by name: newer ones win, `runs` being newest first."""
    merged: dict[str, V | None] = {}
    for entries in (*reversed(runs), recent):
        merged.update(entries)
    return {name: merged[name] for name in sorted(merged) if merged[name] is not None or not flush.is_whole}


def flushed(
    recent: Mapping[str, V | None], runs: tuple[RunRef, ...], flush: Flush, new: RunRef | None
) -> tuple[dict[str, V | None], tuple[RunRef, ...]] | None:
    """Return (recent, runs) with `flush` replaced by run `new` (None: it was empty); None where its runs moved.

    Names that changed since the flush began stay in `recent`; one that was dropped since is remembered as gone.
    """
    if runs != flush.runs:
        return None
    gone: dict[str, V | None] = {name: None for name in flush.recent if name not in recent}
    changed = {n: value for n, value in recent.items() if n not in flush.recent or flush.recent[n] != value}
    rest = gone | changed
    kept = runs[len(flush.joined) :]
    return rest, ((new, *kept) if new is not None else kept)


def without(recent: Mapping[str, V | None], runs: tuple[RunRef, ...], name: str) -> dict[str, V | None]:
    """Return `recent` with `name` gone, remembered as gone where a run may have it."""
    rest = {other: value for other, value in recent.items() if other != name}
    return {**rest, name: None} if runs else rest


def live(layers: list[Mapping[str, V | None]]) -> dict[str, V]:
    """Return every name that is there, `layers` being newest first."""
    merged: dict[str, V | None] = {}
    for layer in reversed(layers):
        merged.update(layer)
    return {name: value for name, value in merged.items() if value is not None}
