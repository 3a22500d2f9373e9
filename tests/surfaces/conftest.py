"""A profile without an engine: one real connection, one transaction per write."""

import json

import msgspec
import pytest

from memoturnd.core.durability import Durability
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.seams.profile import Seen, Work, Written


class FakeProfile:
    """Runs ops the way the seam says: a write in a transaction of its own, undone when it raises."""

    def __init__(self):
        self.conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
        self.now_ms = 1_000_000
        self.txid = 0
        self.works = []
        self.conn.execute("BEGIN")
        schema.create(self.conn)
        self.conn.execute("COMMIT")

    async def write(self, op, *, durability=Durability.LOCAL, work=Work.POINT):
        self.works.append(("write", work))
        self.conn.round_txid = self.txid + 1
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            value, changed = op(self.conn, self.now_ms)
        except BaseException:
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")
            raise
        self.txid += changed
        self.conn.execute("COMMIT")
        return Written(value, self.txid, self.txid if durability is Durability.DURABLE else 0, durability)

    async def read(self, op, *, min_txid=0, work=Work.POINT):
        self.works.append(("read", work))
        before = self.conn.total_changes()
        value = op(self.conn, self.now_ms)
        assert self.conn.total_changes() == before, "a read wrote"
        return Seen(value, self.txid, 0)

    branch_id = "b"

    def count(self, table):
        return self.conn.execute(f"SELECT count(*) FROM {table}").get


@pytest.fixture
def profile():
    fake = FakeProfile()
    yield fake
    fake.conn.execute(
        "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rank) VALUES ('integrity-check', 1)"
    )
    fake.conn.close()


@pytest.fixture(scope="session")
def new_profile():
    """Makes profiles for tests that need one for each of many examples; they close its connection."""
    return FakeProfile


@pytest.fixture
def plain():
    """What a client gets: the value after JSON."""
    return lambda value: json.loads(msgspec.json.encode(value))
