"""Lays out the branches of a database as a graph: a lane for each branch, the newest on top. Pure; it draws text.

A lane runs from its branch's newest commit of note down to the commit that it was forked from. Commits of note are heads, checkpoints, rewinds
and what others were forked from; all others are left out.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class Mark(NamedTuple):
    """A checkpoint; `at_ms` is when it was named."""

    name: str
    txid: int
    at_ms: int


class Turn(NamedTuple):
    """A rewind: commit `txid` brought back the state of `to_txid`; `from_txid` was the head before."""

    txid: int
    to_txid: int
    from_txid: int
    at_ms: int


@dataclass(frozen=True)
class Lane:
    """A branch. `parent` is an index among the branches, None where it began by itself; times are unix ms.

    `head_txid` is None for a deleted one, of which nothing but its fork is known.
    """

    name: str
    parent: int | None = None
    fork_txid: int = 0
    created_at: int = 0
    head_txid: int | None = 0
    head_at: int = 0
    note: str = ""
    is_deleted: bool = False
    checkpoints: tuple[Mark, ...] = ()
    rewinds: tuple[Turn, ...] = ()


class Part(NamedTuple):
    """A piece of a label, and how it is shown."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the graph: what is drawn, a character for each lane with one between them, and what it says.

    `lane` and `txid` are those of the commit on it; a row that only joins lanes has none.
    """

    cells: str
    label: tuple[Part, ...] = ()
    lane: int | None = None
    txid: int | None = None


@dataclass
class _Commit:
    """A commit of note. `waits` is how many commits have to stand above it."""

    lane: int
    txid: int
    at_ms: int = 0
    is_head: bool = False
    marks: list[str] = field(default_factory=list)
    turns: list[Part] = field(default_factory=list)
    forks: list[int] = field(default_factory=list)
    below: "_Commit | None" = None
    waits: int = 0


ASCII: Final = str.maketrans("│─├╭╯┴┼●◆○✗↶…", "|-++''|*o.x<~")
_ENDED: Final = -1
"""Holds the column of a lane that just ends: what began right below it would look like what it came from."""
_HEAD, _MARK, _FORK, _GONE, _TURN = "●◆○✗↶"
_LANE_STYLES: Final = ("cyan", "green", "magenta", "yellow")


def layout(lanes: Sequence[Lane]) -> list[Row]:
    """Return the rows of the graph, the newest on top; a commit stands above everything that it came from."""
    return list(_rows(lanes, _commits(lanes)))


def attached(lanes: Sequence[Lane], index: int) -> int | None:
    """Return the lane that a branch's line leaves: the parent's, or that ancestor's which has the commit."""
    at = lanes[index].parent
    while at is not None and lanes[at].parent is not None and lanes[index].fork_txid < lanes[at].fork_txid:
        at = lanes[at].parent
    return at


def text(row: Row, *, width: int, ascii_only: bool, colour: Mapping[str, str] | None = None) -> str:
    """Return a row as a line of at most `width` characters, coloured by the ANSI codes of `colour`."""
    cells, label = row.cells, list(row.label)
    room = max(12, width - len(cells) - 2)
    shown: list[Part] = []
    for part in label:
        if len(part.text) > room - (part is not label[-1]):  # there is room to say that more follows
            shown.append(Part(part.text[: max(0, room - 1)].rstrip() + "…", part.style))
            break
        shown.append(part)
        room -= len(part.text)
    line = "".join(_styled(cell, _lane_style(number, cell), colour) for number, cell in enumerate(cells))
    line += "  " + "".join(_styled(part.text, part.style, colour) for part in shown) if shown else ""
    return (line.translate(ASCII) if ascii_only else line).rstrip()


def _lane_style(number: int, cell: str) -> str:
    return "" if cell == " " else "dim" if cell == "─" else _LANE_STYLES[number // 2 % len(_LANE_STYLES)]


def _styled(text: str, style: str, colour: Mapping[str, str] | None) -> str:
    return f"\x1b[{colour[style]}m{text}\x1b[0m" if colour and style and text.strip() else text


# ---- which commits there are


def _commits(lanes: Sequence[Lane]) -> list[_Commit]:
    known: dict[tuple[int, int], _Commit] = {}

    def commit(lane: int, txid: int, at_ms: int) -> _Commit:
        found = known.setdefault((lane, txid), _Commit(lane, txid))
        found.at_ms = max(found.at_ms, at_ms)
        return found

    for index, lane in enumerate(lanes):
        head = lane.fork_txid if lane.head_txid is None else lane.head_txid
        commit(index, head, lane.head_at or lane.created_at).is_head = True
        for mark in lane.checkpoints:
            commit(index, mark.txid, mark.at_ms).marks.append(mark.name)
        for turn, said in zip(lane.rewinds, _turns(lane.rewinds), strict=True):
            commit(index, turn.txid, turn.at_ms).turns.append(said)
    for index, lane in enumerate(lanes):
        at = attached(lanes, index)
        if at is not None:
            commit(at, lane.fork_txid, 0).forks.append(index)
    for index in range(len(lanes)):
        line = sorted((one for one in known.values() if one.lane == index), key=lambda one: -one.txid)
        at = attached(lanes, index)
        end = None if at is None else known[at, lanes[index].fork_txid]
        for above, below in zip(line, [*line[1:], end], strict=True):
            above.below = below
            if below is not None:
                below.waits += 1
                below.at_ms = below.at_ms or above.at_ms
    return list(known.values())


def _turns(turns: Sequence[Turn]) -> Iterator[Part]:
    """Yield what is said of each rewind: whether it undoes the one before, and whether the next one undid it."""
    for at, turn in enumerate(turns):
        before = turns[at - 1] if at else None
        after = turns[at + 1] if at + 1 < len(turns) else None
        if before is not None and _undoes(turn, before):
            said = f"undo, as at txid {turn.to_txid}"
        else:
            said = f"rewound to txid {turn.to_txid}"
        undone = after is not None and _undoes(after, turn)
        yield Part(said + (" (undone)" if undone else ""), "dim" if undone else "yellow")


def _undoes(turn: Turn, before: Turn) -> bool:
    return turn.to_txid == before.from_txid and turn.from_txid == before.txid


# ---- which line each is on


def _rows(lanes: Sequence[Lane], commits: Sequence[_Commit]) -> Iterator[Row]:
    columns: list[int | None] = []  # lane by column, None for one that the next lane may have
    started: set[int] = set()
    ready = [(_order(one), one.lane, one.txid) for one in commits if not one.waits]
    by_key = {(one.lane, one.txid): one for one in commits}
    heapq.heapify(ready)
    while ready:
        _, index, txid = heapq.heappop(ready)
        one = by_key[index, txid]
        _enter(lanes, columns, index)
        joining = [lane for lane in one.forks if lane in columns]
        if joining:
            yield Row(_joined(columns, started, index, joining))
            for lane in joining:
                columns[columns.index(lane)] = None
                started.discard(lane)
        started.add(index)
        yield Row(_drawn(columns, started, one, lanes[index]), _label(one, lanes[index]), index, txid)
        if one.below is None:
            columns[columns.index(index)] = _ENDED
            started.discard(index)
            continue
        one.below.waits -= 1
        if not one.below.waits:
            heapq.heappush(ready, (_order(one.below), one.below.lane, one.below.txid))


def _order(one: _Commit) -> tuple[int, int]:
    return -one.at_ms, -one.txid


def _enter(lanes: Sequence[Lane], columns: list[int | None], index: int) -> None:
    """Give a lane a column, right of that of the lane which it leaves."""
    if index in columns:
        return
    at = attached(lanes, index)
    first = 0
    if at is not None:
        _enter(lanes, columns, at)
        first = columns.index(at) + 1
    free = next((c for c in range(first, len(columns)) if columns[c] is None), None)
    if free is None:
        columns.append(index)
    else:
        columns[free] = index


def _drawn(columns: list[int | None], started: set[int], one: _Commit, lane: Lane) -> str:
    cells = ["│" if held in started else " " for held in columns]
    kinds = ((lane.is_deleted, _GONE), (one.turns, _TURN), (one.marks, _MARK), (one.is_head, _HEAD))
    cells[columns.index(one.lane)] = next((glyph for is_so, glyph in kinds if is_so), _FORK)
    return " ".join(cells).rstrip()


def _joined(columns: list[int | None], started: set[int], index: int, joining: list[int]) -> str:
    left = columns.index(index)
    right = max(columns.index(lane) for lane in joining)
    cells = []
    for column, held in enumerate(columns):
        if column == left:
            cell = "├" if index in started else "╭"
        elif held in joining:
            cell = "╯" if column == right else "┴"
        elif held in started:
            cell = "┼" if left < column < right else "│"
        else:
            cell = "─" if left < column < right else " "
        cells.append(cell + ("─" if left <= column < right else " "))
    return "".join(cells).rstrip()


def _label(one: _Commit, lane: Lane) -> tuple[Part, ...]:
    parts: list[Part] = []
    if one.is_head:
        parts.append(Part(lane.name, "dim" if lane.is_deleted else "bold"))
    if not (lane.is_deleted and lane.head_txid is None):
        parts.append(Part(f"txid {one.txid}"))
    parts += [Part(f"[{name}]", "cyan") for name in sorted(one.marks)]
    parts += one.turns
    if one.is_head and lane.note:
        parts.append(Part(lane.note, "dim"))
    return tuple(Part(("  " if number else "") + part.text, part.style) for number, part in enumerate(parts))
