"""The layout of `branch graph`: what has to be there is there once, and lines lead where they should."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from memoturn.cli.graph import Lane, Mark, Row, Turn, attached, layout, text
from test_cli_node import on_a_terminal

STORY = [
    Lane(
        "main",
        head_txid=7,
        head_at=70,
        checkpoints=(Mark("monday", 4, 45),),
        rewinds=(Turn(6, 4, 5, 60), Turn(7, 5, 6, 70)),
    ),
    Lane("what-if", 0, fork_txid=4, created_at=50, head_txid=9, head_at=90),
    Lane("old", 0, fork_txid=4, created_at=48, head_txid=None, is_deleted=True, note="deleted"),
]


def drawn(lanes: list[Lane], *, width: int = 80, ascii_only: bool = False) -> list[str]:
    return [text(row, width=width, ascii_only=ascii_only) for row in layout(lanes)]


def test_a_story_of_forks_rewinds_and_checkpoints():
    assert drawn(STORY) == [
        "  ●  what-if  txid 9",
        "↶ │  main  txid 7  undo, as at txid 5",
        "↶ │  txid 6  rewound to txid 4 (undone)",
        "│ │ ✗  old  deleted",
        "├─┴─╯",
        "◆  txid 4  [monday]",
    ]


def test_without_unicode_it_is_plain_ascii():
    lines = drawn(STORY, ascii_only=True)
    assert all(line.isascii() for line in lines)
    assert lines[4:] == ["+-'-'", "o  txid 4  [monday]"]


def test_a_branch_that_was_never_written_is_one_line():
    assert drawn([Lane("main")]) == ["●  main  txid 0"]


def test_a_fork_without_commits_leaves_the_head_of_its_parent():
    lanes = [Lane("main", head_txid=3, head_at=30), Lane("fork", 0, 3, 40, head_txid=3, head_at=30)]
    assert drawn(lanes) == ["  ●  fork  txid 3", "╭─╯", "●  main  txid 3"]


def test_a_fork_of_what_its_parent_had_before_it_was_forked_leaves_the_grandparent():
    lanes = [
        Lane("main", head_txid=9, head_at=9),
        Lane("a", 0, fork_txid=5, created_at=10, head_txid=10, head_at=11),
        Lane("b", 1, fork_txid=2, created_at=12, head_txid=3, head_at=12),
    ]
    assert attached(lanes, 2) == 0
    assert [row.txid for row in layout(lanes) if row.lane == 0] == [9, 5, 2]


def test_a_line_is_cut_to_the_width_and_says_so():
    lanes = [Lane("main", head_txid=3, checkpoints=tuple(Mark(f"checkpoint-{n}", 3, 1) for n in range(20)))]
    (line,) = drawn(lanes, width=40)
    assert len(line) <= 40
    assert line.endswith("…")


@st.composite
def histories(draw: st.DrawFn) -> list[Lane]:
    """Any tree of branches, with checkpoints and rewinds anywhere on them, and some that are deleted."""
    lanes = [_lane(draw, "main", None, 0)]
    for number in range(draw(st.integers(0, 12))):
        parent = draw(st.none() | st.integers(0, len(lanes) - 1))
        if parent is None:  # made of a file
            lanes.append(_lane(draw, f"b{number}", None, 0))
            continue
        top = lanes[parent].head_txid
        fork_txid = draw(st.integers(0, lanes[parent].fork_txid if top is None else top))
        lanes.append(_lane(draw, f"b{number}", parent, fork_txid))
    return lanes


def _lane(draw: st.DrawFn, name: str, parent: int | None, fork_txid: int) -> Lane:
    if parent is not None and draw(st.integers(0, 4)) == 0:
        return Lane(name, parent, fork_txid, draw(st.integers(1, 99)), None, is_deleted=True)
    head = fork_txid + draw(st.integers(0, 6))
    txids = st.integers(fork_txid, head)
    times = st.integers(0, 99)
    marks = draw(st.lists(st.tuples(txids, times), max_size=4))
    turns = draw(st.lists(txids, max_size=3, unique=True))
    return Lane(
        name,
        parent,
        fork_txid,
        draw(times),
        head,
        draw(times),
        checkpoints=tuple(Mark(f"{name}-{n}", txid, at) for n, (txid, at) in enumerate(marks)),
        rewinds=tuple(Turn(txid, 0, txid - 1, 5) for txid in sorted(turns)),
    )


def said(rows: list[Row]) -> list[str]:
    return [part.text.strip() for row in rows for part in row.label]


@settings(max_examples=300, deadline=None)
@given(histories())
def test_every_branch_and_every_checkpoint_is_there_once(lanes):
    told = said(layout(lanes))
    for lane in lanes:
        assert told.count(lane.name) == 1
        for mark in lane.checkpoints:
            assert told.count(f"[{mark.name}]") == 1
    assert sum("rewound" in words or "undo" in words for words in told) == sum(len(x.rewinds) for x in lanes)


@settings(max_examples=300, deadline=None)
@given(histories())
def test_a_line_leads_from_every_commit_down_to_the_one_it_came_from(lanes):
    rows = layout(lanes)
    columns = {(row.lane, row.txid): _column(row) for row in rows if row.lane is not None}
    order = [(row.lane, row.txid) for row in rows if row.lane is not None]
    assert len(order) == len(set(order))
    for at, row in enumerate(rows):
        if row.lane is None:
            continue
        below = _traced(rows, at, columns[row.lane, row.txid])
        older = [txid for lane, txid in order if lane == row.lane and txid < row.txid]
        if older:
            assert below == (row.lane, max(older))
        elif (parent := attached(lanes, row.lane)) is not None:
            assert below == (parent, lanes[row.lane].fork_txid)
        else:
            assert below is None


def _column(row: Row) -> int:
    (column,) = [at for at, cell in enumerate(row.cells) if cell in "●◆○✗↶"]
    return column


def _cell(row: Row, column: int) -> str:
    return row.cells[column] if column < len(row.cells) else " "


def _traced(rows: list[Row], at: int, column: int) -> tuple[int, int] | None:
    """Follow the line down from a commit; return the commit that it leads to, None where it just ends."""
    for row in rows[at + 1 :]:
        cell = _cell(row, column)
        if cell in "╯┴":
            while row.cells[column] not in "├╭":
                assert row.cells[column] in "╯┴─┼", "a line to the left is broken"
                column -= 1
        elif cell in " ─":
            return None
        elif cell in "●◆○✗↶":
            assert column == _column(row)
            return row.lane, row.txid
        else:
            assert cell in "│┼├", f"a line ends in {cell!r}"
    return None


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(30, 120))
def test_rows_keep_to_the_width_where_lanes_leave_room(lanes, width):
    for row in layout(lanes):
        line = text(row, width=width, ascii_only=True)
        assert len(line) <= max(width, len(row.cells) + 14)


def test_on_a_terminal_it_is_in_colour_and_keeps_to_the_width(cli, node_url):
    cli("memory", "ingest", "drawn", "ann", "--summary", "x")
    cli("branch", "checkpoint", "drawn--ann", "main", "a-checkpoint-with-a-long-name-for-narrow-terminals")
    cli("branch", "create", "drawn--ann", "what-if")

    code, shown = on_a_terminal(node_url, "branch", "graph", "drawn--ann", columns=40)
    wide = cli("branch", "graph", "drawn--ann", "--limit", "0")
    told = cli("branch", "graph", "drawn--ann", "--json").json

    assert code == 0
    assert "╭" in shown
    assert "\x1b[1mmain\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 40
    assert plain.rstrip().endswith("…")
    assert wide.text.isascii()
    assert "a-checkpoint" not in wide.text
    assert [one["branch"] for one in told["branches"]] == ["main", "what-if"]
    assert told["branches"][1]["parent"] == "main"


def test_without_colour_where_nobody_wants_it(cli, node_url):
    cli("memory", "ingest", "drawn", "bob", "--summary", "x")
    _, coloured = on_a_terminal(node_url, "branch", "graph", "drawn--bob")
    _, plain = on_a_terminal(node_url, "branch", "graph", "drawn--bob", NO_COLOR="1")
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain


def test_branches_that_are_left_out_are_counted(cli):
    cli("memory", "ingest", "drawn", "cid", "--summary", "x")
    for name in ("a", "b", "c"):
        cli("branch", "create", "drawn--cid", name)

    outcome = cli("branch", "graph", "drawn--cid", "--branches", "2")

    assert "1 older branches are left out" in outcome.stderr
    assert not re.search(r"\ba  txid", outcome.text)
    assert cli("branch", "graph", "drawn--none").code == 3
