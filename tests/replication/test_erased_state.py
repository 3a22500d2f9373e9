"""States without rows, made round by round, against those made from the whole file, and against SQLite."""

import random

import apsw
import pytest

from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.segment import RoundEntry
from memoturnd.errors import CorruptionError
from memoturnd.replication import erased_state
from memoturnd.replication.erased_state import ErasedState

SIZE = 512
MARK = b"4711-is-the-secret"


def erase(conn):
    before = conn.total_changes()
    conn.execute("DELETE FROM t WHERE id >= 1000")
    conn.execute("DELETE FROM u WHERE k >= 1000")
    return conn.total_changes() - before


class Life:
    """A file as an old node wrote it, without overwriting what it deleted, and the pages of each round."""

    def __init__(self, seed, *, secure=False):
        self.rng = random.Random(seed)
        self.conn = apsw.Connection(":memory:")
        pragmas = f"page_size={SIZE}", f"secure_delete={int(secure)}", "auto_vacuum=NONE", "cache_size=-20000"
        for pragma in pragmas:
            self.conn.execute(f"PRAGMA {pragma}").fetchall()
        self.conn.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v, w); CREATE INDEX tw ON t(w)")
        self.conn.execute("CREATE INDEX tv ON t(v); CREATE TABLE u(k, v)")
        self.pages, self.txid, self.hashes = [], 0, PageHashes()

    def value(self, text):
        length = self.rng.choice((1, 40, 200, SIZE - 30, 3 * SIZE, 3 * SIZE + 60, 20 * SIZE))
        return text + self.rng.randbytes(1) * length + text

    def change(self):
        """Change some rows; those with a large id have the mark."""
        for _ in range(self.rng.randrange(1, 6)):
            doomed = self.rng.random() < 0.5
            key, text = self.rng.randrange(60) + (1000 if doomed else 0), MARK if doomed else b"kept"
            dice = self.rng.random()
            if dice < 0.5:
                self.conn.execute(
                    "INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (key, self.value(text), self.value(text))
                )
            elif dice < 0.7:
                self.conn.execute("INSERT INTO u VALUES (?, ?)", (key, self.value(text)))
            else:
                self.conn.execute(f"DELETE FROM {self.rng.choice('tu')} WHERE rowid % 5 = ?", (key % 5,))

    def round(self, commits=1):
        """Commit so often, and return (entry, images, hashes) of all of it as one round."""
        images = {}
        for _ in range(commits):
            self.conn.execute("BEGIN")
            self.change()
            self.conn.execute("COMMIT")
            images |= self._differences()
        sums = {pgno: page_hash(pgno, image) for pgno, image in images.items()}
        self.hashes.apply(sums, len(self.pages))
        self.txid += commits
        entry = RoundEntry(self.txid, 1000 + self.txid, self.hashes.checksum, len(self.pages), len(images))
        return entry, images, sums

    def _differences(self):
        data, before = self.conn.serialize("main"), self.pages
        self.pages = [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
        return {
            n: image for n, image in enumerate(self.pages, 1) if n > len(before) or before[n - 1] != image
        }

    def whole(self):
        """Return (entry, images) of the state that stands."""
        entry = RoundEntry(
            self.txid, 1000 + self.txid, self.hashes.checksum, len(self.pages), len(self.pages)
        )
        return entry, dict(enumerate(self.pages, 1))


def content(data):
    conn = apsw.Connection(":memory:")
    conn.deserialize("main", data)
    assert conn.execute("PRAGMA integrity_check").get == "ok"
    return [conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in ("t", "u")]


def file_of(state):
    return b"".join(state.image(pgno) for pgno in range(1, state.size_pages + 1))


@pytest.mark.parametrize("seed", range(12))
def test_round_by_round_comes_to_the_same_pages_as_the_whole_file(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(erased_state, "_LOADED_PAGES", 7)
    life = Life(seed, secure=seed % 3 == 2)
    state = ErasedState(tmp_path / "a", SIZE, erase)
    pages, hashes = {}, PageHashes()
    remains = 0
    for n in range(40):
        entry, images, sums = life.round()
        made = state.advance(entry, images, sums)
        pages = {p: i for p, i in (pages | made.images).items() if p <= made.db_size_pages}
        assert hashes.apply(made.hashes, made.db_size_pages) == made.checksum == state.hashes.checksum
        data = b"".join(pages.get(p, bytes(SIZE)) for p in range(1, made.db_size_pages + 1))
        assert MARK not in data
        assert data == file_of(state)
        assert set(images) <= set(made.images)
        kept = content(b"".join(life.pages))
        assert content(data) == [[row for row in rows if row[0] < 1000] for rows in kept]
        remains += state.rows
        if n % 8 == 7:
            whole = ErasedState(tmp_path / "b", SIZE, erase)
            at, everything = life.whole()
            whole.load([everything], at)
            assert file_of(whole) == data
            whole.close()
    state.close()
    assert remains > 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(8))
def test_round_that_was_joined_leads_on_from_each_snapshot_within_it(tmp_path, seed):
    life = Life(100 + seed)
    state = ErasedState(tmp_path / "a", SIZE, erase)
    state.advance(*life.round(5))
    for _ in range(6):
        before = state.hashes.duplicate()
        parts, inside = [], []
        for n in range(3):
            parts.append(life.round(2))
            if n < 2:
                snapshot = ErasedState(tmp_path / "b", SIZE, erase)
                entry, everything = life.whole()
                snapshot.load([everything], entry)
                inside.append(snapshot.hashes.duplicate())
                snapshot.close()
        entry = parts[-1][0]
        images = {p: i for _, images, _ in parts for p, i in images.items() if p <= entry.db_size_pages}
        sums = {p: page_hash(p, image) for p, image in images.items()}

        made = state.advance(entry, images, sums, inside)

        for start in (before, *inside):
            assert start.apply(made.hashes, made.db_size_pages) == made.checksum
    state.close()


def test_round_that_does_not_fit_is_refused(tmp_path):
    life = Life(1)
    state = ErasedState(tmp_path / "a", SIZE, erase)
    entry, images, sums = life.round()
    with pytest.raises(CorruptionError, match="chain breaks"):
        state.advance(entry._replace(checksum=entry.checksum ^ 1), images, sums)
    state.close()


def test_states_that_deleting_does_not_look_at_run_no_statement(tmp_path):
    life, calls = Life(2), []

    def counted(conn):
        calls.append(1)
        return erase(conn)

    state = ErasedState(tmp_path / "a", SIZE, counted)
    state.advance(*life.round(10))
    assert len(calls) == 1
    entry, images, _ = life.round(0)
    state.advance(entry._replace(txid=entry.txid + 1), images, {})
    assert len(calls) == 1
    state.close()
