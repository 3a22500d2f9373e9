"""A profile's memories as arrays: what recall ranks by and filters by, kept in memory between reads.

Each memory has a slot. A memory whose text or vector changed gets a new slot, and its old one is dead, so what
was written to a slot never changes: a `State` is how many slots there are and which of them live, and readers
of two states share the arrays. The file stays the truth. A state is used only for the txid that it stands for,
and whatever is ranked by it is looked at in the file before it is answered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces.models import Model

LOG_LIMIT: Final = 1024
"""Memories whose words are kept one by one; beyond them postings are read from the file again."""
_SLACK: Final = 64
_LOG_ENTRY_BYTES: Final = 1500
_MORE: Final = 0x80
"""The bit of a varint's byte that says that another one follows."""
_UNIT_WITHIN: Final = 1e-4

_POSTINGS: Final = "SELECT group_concat(doc) FROM __memoturn_memory_terms WHERE term = ?"

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Row(NamedTuple):
    """What is kept of a memory: the columns that recall filters by, and how many tokens its text has."""

    rid: int
    type: int
    session_id: str | None
    source: str | None
    created_at: int
    superseded: int
    sizes: bytes

    @property
    def length(self) -> int:
        """Return how many tokens the text has, from what FTS5 notes of it: a varint for each column."""
        total = value = 0
        for byte in self.sizes:
            value = value << 7 | byte & (_MORE - 1)
            if byte < _MORE:
                total, value = total + value, 0
        return total


class Grown:
    """An array that grows at its end; what was read of it before stays as it was."""

    __slots__ = ("data",)

    def __init__(self, values: Array) -> None:
        self.data = values

    def put(self, at: int, values: Any) -> None:
        """Write `values` from `at` on."""
        end = at + len(values)
        if end > len(self.data):
            grown = np.empty((end + end // 4 + _SLACK, *self.data.shape[1:]), self.data.dtype)
            grown[:at] = self.data[:at]
            self.data = grown
        self.data[at:end] = values


class Codes:
    """Small numbers for the values of a column of text."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, value: str | None) -> int:
        """Return the number of a value, which it has from now on; -1 for None."""
        return -1 if value is None else self.numbers.setdefault(value, len(self.numbers))

    def find(self, value: str) -> int:
        """Return the number of a value; one that no memory has where it is unknown."""
        return self.numbers.get(value, -2)


class Columns:
    """What is kept of each slot."""

    def __init__(self) -> None:
        self.rids = Grown(np.empty(0, np.int64))
        self.lengths = Grown(np.empty(0, np.float64))
        self.created_at = Grown(np.empty(0, np.int64))
        self.types = Grown(np.empty(0, np.int8))
        self.sessions = Grown(np.empty(0, np.int32))
        self.sources = Grown(np.empty(0, np.int32))
        self.session_codes = Codes()
        self.source_codes = Codes()

    def put(self, at: int, rows: Sequence[Row]) -> None:
        """Write rows to the slots from `at` on."""
        self.rids.put(at, [row.rid for row in rows])
        self.lengths.put(at, [row.length for row in rows])
        self.created_at.put(at, [row.created_at for row in rows])
        self.types.put(at, [row.type for row in rows])
        self.sessions.put(at, [self.session_codes.of(row.session_id) for row in rows])
        self.sources.put(at, [self.source_codes.of(row.source) for row in rows])

    @property
    def size_bytes(self) -> int:
        """Return about how much memory the columns take."""
        arrays = (self.rids, self.lengths, self.created_at, self.types, self.sessions, self.sources)
        names = len(self.session_codes.numbers) + len(self.source_codes.numbers)
        return sum(array.data.nbytes for array in arrays) + 150 * names


class Vectors:
    """The vectors of a model, one row for each slot that has one, in order of slots."""

    def __init__(self, model: Model, made_at: int) -> None:
        self.model = model
        self.made_at = made_at
        self.used = 0
        self.slots = Grown(np.empty(0, np.int64))
        self.matrix = Grown(np.empty((0, model.dimensions), np.float32))

    def put(self, slots: Slots, blobs: Iterable[bytes]) -> None:
        """Append rows for slots, which ascend and are above all others."""
        rows = np.frombuffer(b"".join(blobs), "<f4").reshape(len(slots), self.model.dimensions)
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float32)
        odd = ~(np.abs(squares - 1.0) < _UNIT_WITHIN)
        self.matrix.put(self.used, rows)
        if odd.any():  # null vectors, and what an imported file may hold
            at = self.used + np.flatnonzero(odd)
            self.matrix.data[at] = _directions(rows[odd])
        self.slots.put(self.used, slots)
        self.used += len(slots)

    def cut(self, count: int) -> None:
        """Forget the rows of slots from `count` on, which no state has."""
        self.used = int(np.searchsorted(self.slots.data[: self.used], count))

    def of(self, count: int) -> tuple[Slots, npt.NDArray[np.float32]]:
        """Return (slots, rows) of the first `count` slots."""
        used = self.used
        slots = self.slots.data[:used]
        end = int(np.searchsorted(slots, count))
        return slots[:end], self.matrix.data[:end]

    @property
    def size_bytes(self) -> int:
        """Return about how much memory the vectors take."""
        return self.matrix.data.nbytes + self.slots.data.nbytes


def _directions(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return rows at unit length; those without a direction as null vectors."""
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64)
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        directions = np.where((lengths > 0) & np.isfinite(lengths), wide / lengths, 0.0)
    return directions.astype(np.float32)


class Posting(NamedTuple):
    """The slots below `upto` that have a word, ascending, and how often each has it."""

    slots: Slots
    counts: npt.NDArray[np.float64]
    upto: int


class Words:
    """Postings by word, read from the file when they are asked for, and kept up with what came after them."""

    def __init__(self, base: int) -> None:
        self.base = base
        """Slots whose words are in the file alone."""
        self.log: list[dict[str, int]] = []
        """Words of the slots from `base` on, with how often each is there."""
        self.postings: dict[str, Posting] = {}
        self.size_bytes = 0

    def posting(self, conn: ProfileConnection, state: "State", word: str) -> Posting:
        """Return a word's posting in a state, which is that of the connection's transaction."""
        known = self.postings.get(word)
        if known is None:
            known = self._read(conn, state, word)
        elif known.upto < state.count:
            known = self._follow(known, state.count, word)
        elif known.upto > state.count:
            end = int(np.searchsorted(known.slots, state.count))
            return Posting(known.slots[:end], known.counts[:end], state.count)
        return known

    def _read(self, conn: ProfileConnection, state: "State", word: str) -> Posting:
        text: str | None = conn.execute(_POSTINGS, (word,)).get
        rids = np.fromstring(text or "", np.int64, sep=",")
        distinct, counts = np.unique(rids, return_counts=True)
        slots, is_known = state.slots_of(distinct)
        slots, counts = slots[is_known], counts[is_known]
        order = np.argsort(slots, kind="stable")
        return self._note(word, Posting(slots[order], counts[order].astype(np.float64), state.count))

    def _follow(self, known: Posting, upto: int, word: str) -> Posting:
        texts = self.log[known.upto - self.base : upto - self.base]
        found = [(known.upto + at, count) for at, text in enumerate(texts) if (count := text.get(word, 0))]
        slots, counts = known.slots, known.counts
        if found:
            slots = np.concatenate((slots, np.array([slot for slot, _ in found], np.int64)))
            counts = np.concatenate((counts, np.array([count for _, count in found], np.float64)))
        return self._note(word, Posting(slots, counts, upto))

    def _note(self, word: str, posting: Posting) -> Posting:
        before = self.postings.get(word)
        self.postings[word] = posting
        self.size_bytes += posting.slots.nbytes + posting.counts.nbytes + 200
        if before is not None:
            self.size_bytes -= before.slots.nbytes + before.counts.nbytes + 200
        return posting

    def shrink(self, limit_bytes: int) -> None:
        """Forget all postings where they take too much memory."""
        if self.size_bytes > limit_bytes:
            self.postings = {}
            self.size_bytes = 0


@dataclass(slots=True)
class State:
    """The memories of one txid: of the first `count` slots those that are `alive`."""

    txid: int
    changes: int
    """Number of the last noted change that is in it."""
    highest: int
    """Highest rid of what lives."""
    count: int
    alive: Mask
    current: Mask
    """Those that live and are not known to be superseded."""
    rows: int
    tokens: float
    columns: Columns
    words: Words
    vectors: dict[int, Vectors]
    _by_rid: tuple[Slots, Slots] | None = field(default=None, repr=False)

    def slots_of(self, rids: Slots) -> tuple[Slots, Mask]:
        """Return (the slot of each rid, whether it has one)."""
        if self._by_rid is None:
            slots = np.flatnonzero(self.alive)
            of_slots = self.columns.rids.data[slots]
            order = np.argsort(of_slots, kind="stable")
            self._by_rid = of_slots[order], slots[order]
        known, slots = self._by_rid
        if not len(known):
            return np.zeros(len(rids), np.int64), np.zeros(len(rids), np.bool_)
        at = np.minimum(np.searchsorted(known, rids), len(known) - 1)
        return slots[at], known[at] == rids

    @property
    def size_bytes(self) -> int:
        """Return about how much memory the state and what it shares with others take."""
        words = self.words
        own = 2 * self.count + _LOG_ENTRY_BYTES * len(words.log) + words.size_bytes
        if self._by_rid is not None:
            own += 16 * self.count
        return own + self.columns.size_bytes + sum(v.size_bytes for v in self.vectors.values())
