"""What users write by SQL is committed, shipped, forked, rewound and restored as everything else is."""

import apsw
import pytest
from harness import node_on

from memoturnd.core.durability import Durability
from memoturnd.errors import MemoturnError, RetryableError
from memoturnd.seams.profile import Seen, Written
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import sql

SCHEMA = (
    "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "CREATE VIRTUAL TABLE words USING fts5(body, tokenize='porter')",
    "CREATE VIRTUAL TABLE places USING vec0(e float[2], kind text partition key)",
    "INSERT INTO auto(v) VALUES ('a'), ('b')",
    "DELETE FROM auto WHERE v = 'b'",
    "INSERT INTO words VALUES ('running dogs')",
    "INSERT INTO places(rowid, e, kind) VALUES (1, '[1, 2]', 'x'), (2, '[5, 5]', 'x')",
)


async def run(profile, *texts, **options):
    return await sql.run(profile, sql.parse_batch({"stmts": [{"q": text} for text in texts]}), **options)


async def rows(profile, text):
    return (await run(profile, text)).value[0]["rows"]


async def profile_on(node):
    await node.databases.create("a")
    return await node.profile("a")


async def holds_its_tables(profile, next_id):
    """Say whether rows are found by word and vector, and the next id is the one after the highest ever."""
    assert await rows(profile, "SELECT body FROM words WHERE words MATCH 'dog'") == [["running dogs"]]
    found = await rows(profile, "SELECT rowid FROM places WHERE e MATCH '[5, 5]' AND k = 1 AND kind = 'x'")
    assert found == [[2]]
    written = await run(profile, "INSERT INTO auto(v) VALUES ('next') RETURNING id")
    assert written.value[0]["rows"] == [[next_id]]
    await run(profile, "INSERT INTO words VALUES ('more dogs')", "DELETE FROM words WHERE body = 'more dogs'")
    await run(
        profile,
        "INSERT INTO places(rowid, e, kind) VALUES (3, '[9, 9]', 'y')",
        "DELETE FROM places WHERE rowid = 3",
    )


@pytest.mark.parametrize(
    ("text", "affected"),
    [
        ("WITH x AS (SELECT 7 AS v) INSERT INTO auto(v) SELECT v FROM x", 1),
        ("INSERT INTO auto(v) VALUES (1), (2) RETURNING id", 2),
        ("UPDATE auto SET v = 'z' RETURNING v", 1),
        ("WITH x AS (SELECT 'a' AS v) UPDATE auto SET v = 'q' FROM x WHERE auto.v = x.v", 1),
        ("DELETE FROM auto RETURNING *", 1),
        (
            "INSERT INTO auto(id, v) VALUES (1, 'u') ON CONFLICT(id) DO UPDATE SET v = excluded.v RETURNING v",
            1,
        ),
    ],
)
async def test_what_writes_counts_commits_and_ships_however_it_begins(tmp_path, text, affected):
    async with node_on(tmp_path, MemoryStore(), SHIP_INTERVAL_MS="60000") as node:
        profile = await profile_on(node)
        await run(profile, *SCHEMA, durability=Durability.DURABLE)
        before = profile.txid

        written = await run(profile, text, durability=Durability.DURABLE)

        assert isinstance(written, Written)
        assert written.value[0]["rows_affected"] == affected
        assert (written.txid, written.durable) == (before + 1, True)
        expected = await rows(profile, "SELECT * FROM auto")
        assert await node.tiers.evict(profile)
        assert await rows(profile, "SELECT * FROM auto") == expected
        assert profile.txid == before + 1


async def test_what_is_explained_or_changes_nothing_does_neither(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        await run(profile, *SCHEMA)
        before = profile.txid
        for text in (
            "EXPLAIN INSERT INTO auto(v) VALUES (1)",
            "EXPLAIN QUERY PLAN DELETE FROM auto",
            "EXPLAIN DROP TABLE auto",
            "UPDATE auto SET v = 1 WHERE 0",
            "CREATE TABLE IF NOT EXISTS auto(x)",
            "DROP TABLE IF EXISTS missing",
        ):
            await run(profile, text)
            assert await rows(profile, "SELECT count(*) FROM auto") == [[1]]
        assert isinstance(await run(profile, "EXPLAIN SELECT 1"), Seen)
        assert profile.txid == before


async def test_users_tables_survive_restores_forks_and_rewinds(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        made = await run(profile, *SCHEMA)
        await holds_its_tables(profile, 3)

        assert await node.tiers.evict(profile)
        await holds_its_tables(profile, 4)

        await node.branches.create("a", "f")
        await holds_its_tables(await node.profile("a", "f"), 5)
        await node.branches.create("a", "old", at=str(made.txid))
        await holds_its_tables(await node.profile("a", "old"), 3)

        dropped = await run(profile, "DROP TABLE words", "DROP TABLE places", "DROP TABLE auto")
        await node.branches.rewind("a", "main", str(made.txid))
        await holds_its_tables(profile, 3)
        await node.branches.rewind("a", "main", str(dropped.txid))
        with pytest.raises(MemoturnError, match="no such table"):
            await rows(profile, "SELECT * FROM words")


async def test_a_statement_beyond_the_heap_fails_alone(tmp_path):
    greedy = "WITH RECURSIVE n(i, b) AS (SELECT 1, randomblob(9000000) UNION ALL SELECT i + 1, randomblob(9000000) FROM n LIMIT 60) "
    async with node_on(tmp_path, MemoryStore()) as node:
        profile = await profile_on(node)
        await run(profile, *SCHEMA)
        assert apsw.hard_heap_limit(-1) > 2**30
        before = apsw.hard_heap_limit(apsw.memory_used() + 64 * 2**20)
        try:
            with pytest.raises(RetryableError):
                await run(profile, greedy + "SELECT count(*) FROM (SELECT i, b FROM n ORDER BY b, i)")
            with pytest.raises(RetryableError):
                await run(
                    profile,
                    "CREATE TABLE big(b)",
                    greedy + "INSERT INTO big SELECT b FROM (SELECT b FROM n ORDER BY b)",
                )
        finally:
            apsw.hard_heap_limit(before)

        await holds_its_tables(profile, 3)
        with pytest.raises(MemoturnError, match="no such table"):
            await rows(profile, "SELECT * FROM big")
