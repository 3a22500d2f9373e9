"""Which objects of a database nothing names any more, and which of those may go (`garbage.json`, docs/formats.md).

An object is deleted when two marks, at least the grace time apart, both found that no registered branch
names it, and it was stored longer ago than the grace. Both clocks have to say so: that of the node, and
that of the store. Nothing here reads anything; memoturnd.replication.collector does.
"""

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from memoturnd.core import layout, versioned
from memoturnd.core.bounds import Count, Id
from memoturnd.core.manifest import HistoryPage, Manifest
from memoturnd.core.register import Register, RegisteredBranch

FORMAT_VERSION = 2
KEYS_LIMIT = 10_000
"""Unreachable keys that are remembered of one database; what is beyond them waits for a later pass."""
_KEY = re.compile(
    r"v1/[^/]+/(?:register/[^/]+|branches/([^/]+)/"
    r"(?:manifest\.json|(?:segments|snapshots|pages|checkpoints|pins)/[^/]+))"
)

_PAGES = re.compile(r"v1/[^/]+/branches/[^/]+/(?:segments|snapshots)/([0-9]+)-[^/]*")


class Listed(NamedTuple):
    """One row of a listing; `modified_ms` is unix ms by the store's clock."""

    key: str
    size_bytes: int
    modified_ms: int


class Mark(msgspec.Struct, frozen=True):
    """Keys, below the database's prefix, that nothing named at `at`, unix ms by the clock of the node that looked.

    `stored_at` is the same moment by the store's clock; 0 stands for the time at which the store got this version.
    """

    at: Count
    stored_at: Count
    keys: tuple[str, ...]


class Garbage(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `garbage.json`. `commit_id` is new on every write."""

    format: int = FORMAT_VERSION
    db: Id
    commit_id: str = ""
    marks: tuple[Mark, ...] = ()


class Verdict(NamedTuple):
    """What a pass found: what may go, what is remembered for later, and whether more did not fit."""

    delete: tuple[Listed, ...]
    marks: tuple[Mark, ...]
    is_full: bool


class Survey(NamedTuple):
    """What the object store has of a database: manifests, every object, and those that no manifest names."""

    manifests: tuple[Manifest, ...]
    listed: tuple[Listed, ...]
    unnamed: tuple[Listed, ...]

    def former(self, last_txid: int, stored_ms: int) -> list[Listed]:
        """Return the unnamed objects that hold pages of commits up to `last_txid`, and were stored up to `stored_ms`.

        That is a time by the store's clock; what compaction has written and let go of since is none of them.
        """
        old = (row for row in self.unnamed if row.modified_ms <= stored_ms)
        return [row for row in old if 0 < first_txid(row.key) <= last_txid]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Garbage)


def encode(garbage: Garbage) -> bytes:
    """Return the JSON of what is remembered."""
    return _encoder.encode(garbage)


def decode(data: bytes) -> Garbage:
    """Return what is remembered. Raises CorruptionError when it is cut off or newer."""
    return versioned.read(_decoder.decode, data, what="garbage.json", newest=FORMAT_VERSION)


# ---- what is named


def named_by_register(register: Register, branches: Iterable[RegisteredBranch]) -> Iterator[str]:
    """Yield the keys that the register names: itself, its runs, and a manifest for each of its `branches`."""
    yield layout.register_key(register.uuid)
    yield layout.garbage_key(register.uuid)
    for run in register.branch_runs:
        yield layout.run_key(register.uuid, run, "branches")
    for branch in branches:
        yield layout.manifest_key(register.uuid, branch.id)


def named_by_manifest(current: Manifest) -> Iterator[str]:
    """Yield the keys that a manifest itself names: objects, history pages, runs of checkpoints and pins."""
    for ref in current.objects:
        yield layout.object_key(current.db, ref)
    for page in (*current.pages, *current.drafts):
        yield layout.page_key(current.db, page)
    for run in current.checkpoint_runs:
        yield layout.run_key(current.db, run, "checkpoints")
    for run in current.pin_runs:
        yield layout.run_key(current.db, run, "pins")


def named_by_page(uuid: str, page: HistoryPage) -> Iterator[str]:
    """Yield the keys that a history page names."""
    for ref in (*page.segments, *page.snapshots):
        yield layout.object_key(uuid, ref)


# ---- what may go


def is_collectable(key: str) -> bool:
    """Return whether the key is of a kind that this version writes; others' objects are left alone."""
    return _KEY.fullmatch(key) is not None


def writer_of(key: str) -> str:
    """Return the id of the branch in whose folder the object lies, empty for one of the register's."""
    found = _KEY.fullmatch(key)
    return (found[1] or "") if found else ""


def first_txid(key: str) -> int:
    """Return the first txid whose pages a segment or snapshot holds, 0 for any other object."""
    found = _PAGES.fullmatch(key)
    return int(found[1]) if found else 0


def is_ripe(mark: Mark, *, now_ms: int, stored_now_ms: int, grace_ms: int) -> bool:
    """Return whether the grace has passed since the mark, by the clocks of the node and of the store."""
    return now_ms - mark.at >= grace_ms and 0 < mark.stored_at <= stored_now_ms - grace_ms


def judge(
    known: Iterable[Mark],
    listed: Iterable[Listed],
    reachable: AbstractSet[str],
    *,
    prefix: str,
    now_ms: int,
    stored_now_ms: int,
    grace_ms: int,
    limit: int = KEYS_LIMIT,
) -> Verdict:
    """Decide on what was listed, before `reachable` was found out at `now_ms`, and marked as `known` before.

    `stored_now_ms` is a time by the store's clock that is not after the listing. A key that is named again,
    or not listed any more, is forgotten.
    """
    marks = list(known)
    ripe = [is_ripe(mark, now_ms=now_ms, stored_now_ms=stored_now_ms, grace_ms=grace_ms) for mark in marks]
    place = {key: number for number, mark in enumerate(marks) for key in mark.keys}
    kept: list[list[str]] = [[] for _ in marks]
    new: list[str] = []
    delete: list[Listed] = []
    is_full = False
    room = limit
    for row in listed:
        if row.key in reachable or not is_collectable(row.key):
            continue
        name = row.key.removeprefix(prefix)
        number = place.get(name)
        if number is not None and ripe[number] and stored_now_ms - row.modified_ms >= grace_ms:
            delete.append(row)
        elif room == 0:
            is_full = True
        else:
            room -= 1
            (new if number is None else kept[number]).append(name)
    remembered = [
        msgspec.structs.replace(mark, keys=tuple(names))
        for mark, names in zip(marks, kept, strict=True)
        if names
    ]
    if new:
        remembered.append(Mark(now_ms, 0, tuple(new)))
    return Verdict(tuple(delete), tuple(remembered), is_full)


def stored(marks: Iterable[Mark], at_ms: int) -> tuple[Mark, ...]:
    """Return the marks with `at_ms`, when the store got the version that has them, where they lack that time."""
    return tuple(mark if mark.stored_at else msgspec.structs.replace(mark, stored_at=at_ms) for mark in marks)


def put_back(marks: Iterable[Mark], rows: Iterable[Listed], prefix: str) -> tuple[Mark, ...]:
    """Return the marks of those rows alone, which were to be deleted and were not."""
    names = {row.key.removeprefix(prefix) for row in rows}
    cut = (msgspec.structs.replace(m, keys=tuple(k for k in m.keys if k in names)) for m in marks)
    return tuple(mark for mark in cut if mark.keys)
