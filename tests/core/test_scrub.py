"""Scrubbed files against SQLite itself: the same rows, nothing that it complains of, and nothing that was deleted."""

import random

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import scrub
from memoturnd.errors import CorruptionError

MARK = b"this was deleted"


def pages_of(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def scrubbed(data, size):
    """Return the whole file scrubbed, page by page."""
    pages = pages_of(data, size)

    def page(pgno):
        return pages[pgno - 1]

    free = scrub.free_pages(page)
    made, tails = [], {}
    for pgno, image in enumerate(pages, 1):
        if pgno in free.leaves:
            made.append(bytes(size))
        elif pgno in free.trunks:
            made.append(scrub.without_tail(image, free.trunks[pgno]))
        elif scrub.is_btree(image, pgno):
            clean, spills = scrub.scrub_btree(image, pgno)
            made.append(clean)
            tails |= dict(scrub.last_overflow(page, spill, size) for spill in spills)
        else:
            made.append(image)
    for pgno, used in tails.items():
        made[pgno - 1] = scrub.without_tail(made[pgno - 1], used)
    return b"".join(made)


def dump(conn):
    return {
        table: conn.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid").fetchall() for table in ("t", "u")
    }


def life(seed, size, *, rounds=60):
    """Return a file with a past: rows of all lengths that came, changed and went, every deleted one with the mark."""
    rng = random.Random(seed)
    conn = apsw.Connection(":memory:")
    conn.execute(f"PRAGMA page_size={size}; PRAGMA secure_delete=OFF; PRAGMA auto_vacuum=NONE").fetchall()
    conn.execute(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w); CREATE INDEX tw ON t(w); CREATE INDEX tv ON t(v)"
    )
    conn.execute("CREATE TABLE u(k, v)")

    def value(text=b""):
        length = rng.choice(
            (1, 5, 40, 200, size - 30, size, 3 * size, 40 * size if rng.random() < 0.1 else 7)
        )
        return text + rng.randbytes(1) * length + text

    for _ in range(rounds):
        conn.execute("BEGIN")
        for _ in range(rng.randrange(30)):
            doomed = rng.random() < 0.5
            text = MARK if doomed else b"kept"
            key = rng.randrange(500) + (1000 if doomed else 0)
            conn.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (key, value(text), value(text)))
            if rng.random() < 0.3:
                conn.execute("INSERT INTO u VALUES (?, ?)", (key, value(text)))
        conn.execute("DELETE FROM t WHERE id % 7 = ?", (rng.randrange(7),))
        conn.execute("COMMIT")
    conn.execute("DELETE FROM t WHERE id >= 1000")
    conn.execute("DELETE FROM u WHERE k >= 1000")
    return conn


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([512, 1024, 4096, 65536]))
def test_scrubbed_file_is_the_same_database_without_what_was_deleted(seed, size):
    conn = life(seed, size, rounds=8 if size == 65536 else 40)
    before, data = dump(conn), conn.serialize("main")

    made = scrubbed(data, size)

    after = apsw.Connection(":memory:")
    after.deserialize("main", made)
    assert after.execute("PRAGMA integrity_check").get == "ok"
    assert dump(after) == before
    assert MARK not in made
    assert scrubbed(made, size) == made
    # It goes on as any other file does.
    after.execute("INSERT INTO t SELECT id + 5000, v, w FROM t; DELETE FROM t WHERE id % 3 = 0")
    assert after.execute("PRAGMA integrity_check").get == "ok"


def test_the_lives_leave_something_behind_that_would_be_found():
    assert sum(MARK in life(seed, 1024).serialize("main") for seed in range(5)) == 5


def test_page_that_needs_nothing_is_the_same_object():
    conn = apsw.Connection(":memory:")
    conn.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    for pgno, image in enumerate(pages_of(conn.serialize("main"), 4096), 1):
        assert scrub.scrub_btree(image, pgno)[0] is image


@given(st.binary(min_size=512, max_size=512), st.sampled_from([2, 5, 10, 13]))
def test_page_that_is_no_page_of_a_table_is_refused_or_keeps_its_length(data, kind):
    image = bytes([kind]) + data[1:]
    try:
        made, _ = scrub.scrub_btree(image, 7)
    except CorruptionError:
        return
    assert len(made) == 512


def test_free_list_in_a_circle_is_refused():
    first = bytearray(512)
    first[32:36] = (2).to_bytes(4, "big")
    trunk = (2).to_bytes(4, "big") + bytes(508)

    with pytest.raises(CorruptionError, match="circle"):
        scrub.free_pages(lambda pgno: bytes(first) if pgno == 1 else trunk)
