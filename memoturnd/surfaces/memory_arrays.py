"""A profile's memories as arrays: what recall ranks by and filters by.

Each memory has a slot. One that changed gets a new slot, and its old one is dead, so what was written to a slot
never changes: a `State` is how many slots there are and which of them live, and readers of two states share
the arrays. The file stays the truth: a state is used only for the txid that it stands for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memoturnd.core import relevance
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.relevance import Conversation, Postings
from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces.models import Model

LOG_LIMIT: Final = 1024
"""Memories whose words are kept one by one; beyond them postings are read from the file again."""
_SLACK: Final = 64
_LOG_ENTRY_BYTES: Final = 1500
_POSTING_BYTES: Final = 200
_NAME_BYTES: Final = 150
_STATE_BYTES: Final = 8 * 1024
_COLUMNS: Final = 2
"""Columns of text that the index has."""
_UNIT_WITHIN: Final = 1e-4
_MORE: Final = 0x80
"""The bit of a varint's byte that says that another one follows."""

_POSTINGS: Final = "SELECT group_concat(doc) FROM __memoturn_memory_terms WHERE term = ?"

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Row = tuple[int, int, str | None, str | None, int, int | None, int, bytes]
"""What is kept of a memory: rid, type by number, session id, source, created and expires at in unix ms, whether it is
superseded, and how many tokens each column of its text has, as FTS5 notes it."""


def _lengths(sizes: Sequence[bytes]) -> Any:
    """Return the sum of the varints of each."""
    joined = np.frombuffer(b"".join(sizes), np.uint8)
    if set(map(len, sizes)) == {_COLUMNS} and joined.max() < _MORE:  # short texts, a byte for each column
        return joined.reshape(-1, _COLUMNS).sum(axis=1)
    return list(map(_tokens, sizes))


def _tokens(sizes: bytes) -> int:
    total = value = 0
    for byte in sizes:
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
        self.reserve(at, end)
        self.data[at:end] = values

    def reserve(self, used: int, end: int) -> None:
        """Make room for values up to `end`, of which `used` are there."""
        if end > len(self.data):
            grown = np.empty((end + end // 8 + _SLACK, *self.data.shape[1:]), self.data.dtype)
            grown[:used] = self.data[:used]
            self.data = grown


class Codes:
    """Small numbers for the values of a column of text."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: dict[str | None, int] = {None: -1}

    def of(self, values: Sequence[str | None]) -> list[int]:
        """Return the numbers of values, which they have from now on; -1 for None."""
        numbers = self.numbers
        for value in dict.fromkeys(values):
            numbers.setdefault(value, len(numbers) - 1)
        return [numbers[value] for value in values]

    def find(self, value: str) -> int:
        """Return the number of a value; one that no memory has where it is unknown."""
        return self.numbers.get(value, -2)


class Columns:
    """What is kept of each slot."""

    def __init__(self) -> None:
        self.rids = Grown(np.empty(0, np.int64))
        self.lengths = Grown(np.empty(0, np.float64))
        self.created_at = Grown(np.empty(0, np.int64))
        self.expires_at = Grown(np.empty(0, np.int64))
        self.active = Grown(np.empty(0, np.bool_))
        self.types = Grown(np.empty(0, np.int8))
        self.sessions = Grown(np.empty(0, np.int64))
        self.sources = Grown(np.empty(0, np.int32))
        self.session_codes = Codes()
        self.source_codes = Codes()

    def put(self, at: int, rows: Sequence[Row]) -> None:
        """Write rows to the slots from `at` on."""
        if not rows:
            return
        rids, types, sessions, sources, created_at, expires_at, superseded, sizes = zip(*rows, strict=True)
        self.rids.put(at, rids)
        self.types.put(at, types)
        self.sessions.put(at, self.session_codes.of(sessions))
        self.sources.put(at, self.source_codes.of(sources))
        self.created_at.put(at, created_at)
        self.expires_at.put(at, [INTEGER_MAX if e is None else e for e in expires_at])
        self.active.put(at, np.logical_not(superseded))
        self.lengths.put(at, _lengths(sizes))

    @property
    def size_bytes(self) -> int:
        """Return about how much memory the columns take."""
        arrays = [self.rids, self.lengths, self.created_at, self.expires_at, self.active, self.types]
        arrays += [self.sessions, self.sources]
        names = len(self.session_codes.numbers) + len(self.source_codes.numbers)
        return sum(array.data.nbytes for array in arrays) + _NAME_BYTES * names


class Vectors:
    """The vectors of a model, one row for each slot that has one, in order of slots."""

    def __init__(self, model: Model, made_at: int) -> None:
        self.model = model
        self.made_at = made_at
        self.used = 0
        self.slots = Grown(np.empty(0, np.int64))
        self.matrix = Grown(np.empty((0, model.dimensions), np.float32))

    def reserve(self, more: int) -> None:
        """Make room for so many rows more."""
        self.slots.reserve(self.used, self.used + more)
        self.matrix.reserve(self.used, self.used + more)

    def put(self, slots: Slots, blobs: Iterable[bytes]) -> None:
        """Append rows for slots, which ascend and are above all others."""
        rows = np.frombuffer(b"".join(blobs), "<f4").reshape(len(slots), self.model.dimensions)
        self.matrix.put(self.used, rows)
        with np.errstate(all="ignore"):
            squares = np.vecdot(rows, rows)
            odd = ~(np.abs(squares - 1.0) < _UNIT_WITHIN)
        if odd.any():  # null vectors, and what an imported file may hold
            self.matrix.data[self.used + np.flatnonzero(odd)] = _directions(rows[odd])
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


@dataclass(frozen=True, slots=True)
class Posting:
    """The slots below `upto` that have a word, ascending, and how often each has it; without those that were dead at
    `txid`, when it was read from the file.
    """

    slots: Slots
    counts: Floats
    upto: int
    txid: int

    @property
    def size_bytes(self) -> int:
        """Return about how much memory the posting takes."""
        return self.slots.nbytes + self.counts.nbytes + _POSTING_BYTES


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
            known = self._note(word, self._read(conn, state, word))
        elif known.txid > state.txid:  # a newer state may have lost what lives in this one
            known = self._read(conn, state, word)
        elif known.upto < state.count:
            known = self._follow(known, state.count, word)
        elif known.upto > state.count:
            end = int(np.searchsorted(known.slots, state.count))
            return Posting(known.slots[:end], known.counts[:end], state.count, known.txid)
        return known

    def _read(self, conn: ProfileConnection, state: "State", word: str) -> Posting:
        text: str | None = conn.execute(_POSTINGS, (word,)).get
        rids, counts = np.unique(np.fromstring(text or "", np.int64, sep=","), return_counts=True)
        slots, is_known = state.slots_of(rids)
        slots, counts = slots[is_known], counts[is_known]
        order = np.argsort(slots, kind="stable")
        return Posting(slots[order], counts[order].astype(np.float64), state.count, state.txid)

    def _follow(self, known: Posting, upto: int, word: str) -> Posting:
        texts = self.log[known.upto - self.base : upto - self.base]
        found = [(known.upto + at, count) for at, text in enumerate(texts) if (count := text.get(word, 0))]
        slots, counts = known.slots, known.counts
        if found:
            slots = np.concatenate((slots, np.array([slot for slot, _ in found], np.int64)))
            counts = np.concatenate((counts, np.array([count for _, count in found], np.float64)))
        return self._note(word, Posting(slots, counts, upto, known.txid))

    def _note(self, word: str, posting: Posting) -> Posting:
        before = self.postings.get(word)
        self.postings[word] = posting
        self.size_bytes += posting.size_bytes - (0 if before is None else before.size_bytes)
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
    rows: int
    tokens: float
    columns: Columns
    words: Words
    vectors: dict[int, Vectors]
    _by_rid: tuple[Slots, Slots] | None = field(default=None, repr=False)
    _conversation: Conversation | None = field(default=None, repr=False)

    @property
    def all_live(self) -> bool:
        """Return whether no slot is dead."""
        return self.rows == self.count

    @property
    def mean_length(self) -> float:
        """Return how many tokens a memory's text has in the mean, 1 where none has any."""
        return self.tokens / self.rows if self.tokens else 1.0

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

    def postings(self, conn: ProfileConnection, word: str) -> Postings:
        """Return where a word stands, in what lives."""
        posting = self.words.posting(conn, self, word)
        if self.all_live:
            return Postings(posting.slots, posting.counts)
        lives = self.alive[posting.slots]
        return Postings(posting.slots[lives], posting.counts[lives])

    def conversation(self) -> Conversation:
        """Return which memories stand beside each other in their sessions."""
        if self._conversation is None:
            columns, count = self.columns, self.count
            self._conversation = relevance.conversation_of(
                columns.sessions.data[:count],
                columns.lengths.data[:count],
                self.alive,
                columns.rids.data[:count],
            )
        return self._conversation

    @property
    def size_bytes(self) -> int:
        """Return about how much memory the state and what it shares with others take."""
        words = self.words
        own = _STATE_BYTES + self.count + _LOG_ENTRY_BYTES * len(words.log) + words.size_bytes
        if self._by_rid is not None:
            own += 16 * self.count
        if self._conversation is not None:
            own += 16 * self.count
        return own + self.columns.size_bytes + sum(v.size_bytes for v in self.vectors.values())
