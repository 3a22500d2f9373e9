"""What commit rounds changed, by surface and key: how a round notes it, how a file keeps it, how a feed tells it.

Kept is one line of JSON for each round: `[txid, at_ms, entries]`, or `[txid, at_ms, entries, why, lost_after]`. An entry is
`[surface, within, put, deleted, flags]`, without the empty ones at its end; `within` is the namespace, collection,
session or timeline that the keys are of. Keys are named, values never.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

KEYS_LIMIT: Final = 256
"""Keys that one round names; of what it changed beyond them, it says where alone."""
WITHIN_LIMIT: Final = 64
"""Namespaces, collections and so on that a round names without keys; beyond them, it names surfaces."""
ROUND_LIMIT_BYTES: Final = 16 * 1024
"""Longest line of a round that names keys."""

_PUT, _DELETED, _DROPPED, _MORE = range(4)
_DROPPED_FLAG, _MORE_FLAG = 1, 2
_encode = msgspec.json.Encoder().encode

Key = str | int
Place = tuple[str, str | None]
"""A surface, and what within it."""
_Note = tuple[str, str | None, Key, int]


class Entry(NamedTuple):
    """What a round did in one place: keys put, keys deleted; `dropped` that all before went; `more` that keys are not named."""

    surface: str
    within: str | None
    put: list[Key]
    deleted: list[Key]
    dropped: bool
    more: bool


class Change(NamedTuple):
    """One round. With a `why` anything may have changed. Where `lost_after` is given, the rounds between it and this one,
    if there ever were any, are of a history that was lost with its node.
    """

    txid: int
    at_ms: int
    entries: tuple[Entry, ...]
    why: str | None
    lost_after: int | None


class Noted:
    """What the open round has changed so far, bounded."""

    __slots__ = ("_notes", "_places", "why")

    def __init__(self) -> None:
        self._notes: list[_Note] = []
        self._places: dict[Place, None] = {}
        self.why: str | None = None
        """Why anything may have changed, where it may."""

    def __bool__(self) -> bool:
        return bool(self._notes or self._places or self.why)

    def clear(self) -> None:
        """Begin anew."""
        if self._notes or self._places or self.why:
            self._notes.clear()
            self._places.clear()
            self.why = None

    def mark(self) -> tuple[int, str | None]:
        """Return where it stands, for `back_to`."""
        return len(self._notes), self.why

    def back_to(self, mark: tuple[int, str | None]) -> None:
        """Forget the keys that were noted since. Places without keys stay: they only say to look again."""
        count, self.why = mark
        del self._notes[count:]

    def put(self, surface: str, within: str | None, key: Key) -> None:
        """Note that a key was made, or changed."""
        if len(self._notes) < KEYS_LIMIT:
            self._notes.append((surface, within, key, _PUT))
        else:
            self.more(surface, within)

    def deleted(self, surface: str, within: str | None, key: Key) -> None:
        """Note that a key was removed."""
        if len(self._notes) < KEYS_LIMIT:
            self._notes.append((surface, within, key, _DELETED))
        else:
            self.more(surface, within)

    def put_all(self, surface: str, within: str | None, keys: Iterable[Key]) -> None:
        """Note that keys were made, or changed."""
        self._all(surface, within, keys, _PUT)

    def deleted_all(self, surface: str, within: str | None, keys: Iterable[Key]) -> None:
        """Note that keys were removed."""
        self._all(surface, within, keys, _DELETED)

    def _all(self, surface: str, within: str | None, keys: Iterable[Key], what: int) -> None:
        notes = self._notes
        for key in keys:
            if len(notes) >= KEYS_LIMIT:
                self.more(surface, within)
                return
            notes.append((surface, within, key, what))

    def dropped(self, surface: str, within: str) -> None:
        """Note that all that was in a place went."""
        if len(self._notes) < KEYS_LIMIT:
            self._notes.append((surface, within, "", _DROPPED))
        else:
            self.more(surface, within)

    def more(self, surface: str, within: str | None = None) -> None:
        """Note that something in a place changed, without a key to name."""
        place = (surface, within if len(self._places) < WITHIN_LIMIT else None)
        self._places[place] = None

    def line(self, txid: int, at_ms: int, lost_after: int | None = None) -> str:
        """Return the line that is kept of the round, with its end."""
        notes = self._notes
        if len(notes) == 1 and not self._places and self.why is None and lost_after is None:  # most rounds
            surface, within, key, what = notes[0]
            if what == _PUT:
                line = f"[{txid},{at_ms},[{_encode((surface, within, (key,))).decode()}]]\n"
                if len(line) <= ROUND_LIMIT_BYTES:
                    return line
        ends = [] if self.why is None and lost_after is None else [self.why, lost_after]
        if self.why is not None:
            return _line([txid, at_ms, [], *ends])
        line = _line([txid, at_ms, _entries(self._notes, self._places), *ends])
        if len(line) <= ROUND_LIMIT_BYTES:
            return line
        without = Noted()
        for place in (*(note[:2] for note in self._notes), *self._places):
            without.more(*place)
        return _line([txid, at_ms, _entries([], without._places), *ends])


def _line(round_: list[Any]) -> str:
    return f"{_encode(round_).decode()}\n"


def _entries(notes: list[_Note], places: dict[Place, None]) -> list[list[Any]]:
    # By place: what became of each key last, and flags.
    found: dict[Place, tuple[dict[Key, int], list[int]]] = {}
    for surface, within, key, what in notes:
        keys, flags = found.setdefault((surface, within), ({}, []))
        if what == _DROPPED:
            keys.clear()
            flags.append(_DROPPED_FLAG)
        else:
            keys[key] = what
    for place in places:
        found.setdefault(place, ({}, []))[1].append(_MORE_FLAG)
    entries = []
    for (surface, within), (keys, flags) in found.items():
        put = [key for key, what in keys.items() if what == _PUT]
        deleted = [key for key, what in keys.items() if what == _DELETED]
        entry: list[Any] = [surface, within, put, deleted, sum(set(flags))]
        while not entry[-1]:
            entry.pop()
        entries.append(entry)
    return entries


def as_kept(name: str) -> str:
    """Return a name as it stands in a kept line, without the quotes."""
    return _encode(name).decode()[1:-1]


def parse(line: str) -> Change:
    """Return what a kept line says. Raises ValueError for one that no node writes."""
    decoded: Any = msgspec.json.decode(line)
    txid, at_ms, entries, why, lost_after = (*decoded, None, None)[:5]
    return Change(txid, at_ms, tuple(_entry(*entry) for entry in entries), why, lost_after)


def _entry(
    surface: str,
    within: str | None = None,
    put: list[Key] | None = None,
    deleted: list[Key] | None = None,
    flags: int = 0,
) -> Entry:
    return Entry(
        surface, within, put or [], deleted or [], bool(flags & _DROPPED_FLAG), bool(flags & _MORE_FLAG)
    )


def shown(change: Change, surfaces: frozenset[str] | None) -> dict[str, Any] | None:
    """Return a round as the feed has it, of `surfaces` alone where that is not None; None where nothing is left of it."""
    entries = [
        _shown_entry(entry) for entry in change.entries if surfaces is None or entry.surface in surfaces
    ]
    if not entries and change.why is None:
        return None
    told: dict[str, Any] = {"txid": change.txid, "at": change.at_ms, "changes": entries}
    return told if change.why is None else {**told, "all": change.why}


def _shown_entry(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"surface": entry.surface}
    if entry.within is not None:
        told["in"] = entry.within
    if entry.put:
        told["put"] = entry.put
    if entry.deleted:
        told["deleted"] = entry.deleted
    if entry.dropped:
        told["dropped"] = True
    if entry.more:
        told["more"] = True
    return told
