"""The export of the catalog: what is not in any `database.json`, as changes that can be joined in any order (docs/formats.md).

A change says what something of a kind is now, or that it is gone. Of two changes of one thing that with the higher
number is the newer one, so that objects may be written by many nodes, twice, late, and read in any order. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from memoturnd.core import versioned

FORMAT_VERSION: Final = 1
GONE_KEPT_MS: Final = 24 * 3600 * 1000
"""How long it is remembered that something is gone: far longer than an upload can be under way."""
OBJECTS_LIMIT: Final = 64
"""Objects of a kind beyond which they are joined."""
FULL_BYTES: Final = 256 * 1024
"""An object of this size has as many changes as one may have, or nearly: joined with others it would be split again."""


class Entry(NamedTuple):
    """One change. `body` is the thing as JSON, None where it is gone; `at` is when it was exported (unix ms)."""

    change: int
    id: str
    body: bytes | None
    at: int


class _Row(msgspec.Struct, frozen=True, array_like=True):
    change: int
    id: str
    body: msgspec.Raw
    at: int


class Body(msgspec.Struct, frozen=True):
    """What an object of the export holds."""

    entries: list[_Row]
    format: int = FORMAT_VERSION


class Stored(NamedTuple):
    """An object of the export, as it is listed."""

    key: str
    size_bytes: int


_GONE: Final = b"null"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)


def encode(entries: Iterable[Entry]) -> bytes:
    """Return the object with these changes."""
    rows = [_Row(change, id_, msgspec.Raw(body or _GONE), at) for change, id_, body, at in entries]
    return _encoder.encode(Body(rows))


def decode(data: bytes) -> list[Entry]:
    """Return the changes in an object. Raises CorruptionError where it is damaged, or newer than this release."""
    found = versioned.read(
        _decoder.decode, data, what="an object of the catalog's export", newest=FORMAT_VERSION
    )
    bodies = (
        bytes(row.body) for row in found.entries
    )  # copies, which do not hold the whole object in memory
    return [
        Entry(row.change, row.id, None if body == _GONE else body, row.at)
        for row, body in zip(found.entries, bodies, strict=True)
    ]


def join(state: dict[str, Entry], entries: Iterable[Entry]) -> None:
    """Let `state`, by id, know of these changes, the newer of two staying."""
    for entry in entries:
        known = state.get(entry.id)
        if known is None or known.change <= entry.change:
            state[entry.id] = entry


def present(state: Mapping[str, Entry]) -> dict[str, bytes]:
    """Return what is there, by id, as JSON."""
    return {id_: entry.body for id_, entry in state.items() if entry.body is not None}


def without_old_ends(state: Mapping[str, Entry], *, now_ms: int) -> list[Entry]:
    """Return the changes that are still to be kept, by id, where all that is exported was joined."""
    return [
        entry
        for _, entry in sorted(state.items())
        if entry.body is not None or now_ms - entry.at < GONE_KEPT_MS
    ]


def to_join(objects: Sequence[Stored]) -> tuple[list[Stored], bool]:
    """Return which objects to join into one, and whether those are all; none where there are few.

    The small ones, up to where the next one is larger than they are together: so each byte is written anew a few
    times and not with every join. Full ones are joined, which lets ends go that are old, only as long as all of them
    together are few: what a join costs is never in proportion to all that was ever exported.
    """
    count = len(objects)
    if sum(stored.size_bytes for stored in objects) > OBJECTS_LIMIT * FULL_BYTES:
        objects = [stored for stored in objects if stored.size_bytes < FULL_BYTES]
    if len(objects) <= OBJECTS_LIMIT:
        return [], False
    ordered = sorted(objects, key=lambda stored: (stored.size_bytes, stored.key))
    taken = ordered[: OBJECTS_LIMIT // 2]
    size_bytes = sum(stored.size_bytes for stored in taken)
    for stored in ordered[len(taken) :]:
        if stored.size_bytes > size_bytes:
            break
        taken.append(stored)
        size_bytes += stored.size_bytes
    return taken, len(taken) == count
