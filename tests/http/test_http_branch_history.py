"""What the listings tell of a branch's past: rewinds beside restore points, and deleted branches that can come back."""

import pytest
from test_http_routes import created, failure


@pytest.fixture
async def db(client):
    """A database with three commits."""
    path = await created(client)
    for value in "abc":
        await client.put(f"{path}/kv/ns/k", content=value.encode())
    return path


async def test_rewinds_stand_beside_the_restore_points_whatever_was_asked_for(client, db):
    rewind = (await client.post(f"{db}/branches/main/rewind", json={"to": "head~2"})).json()
    undone = (await client.post(f"{db}/branches/main/rewind/undo")).json()

    told = (await client.get(f"{db}/restore-points?limit=1")).json()

    assert len(told["restore_points"]) == 1
    expected = [{name: one[name] for name in ("txid", "rewound_to", "undo_txid")} for one in (rewind, undone)]
    assert [{name: row[name] for name in expected[0]} for row in told["rewinds"]] == expected
    assert told["rewinds"][1]["rewound_to"] == told["rewinds"][0]["undo_txid"], "that is how an undo is known"
    assert all(row["created_at"] > 0 for row in told["rewinds"])


async def test_a_branch_without_rewinds_has_none_and_neither_has_a_fork_of_one_that_has(client, db):
    assert (await client.get(f"{db}/restore-points")).json()["rewinds"] == []
    await client.post(f"{db}/branches/main/rewind", json={"to": "head~1"})
    await client.post(f"{db}/branches", json={"name": "fork"})

    assert (await client.get(f"{db}@fork/restore-points")).json()["rewinds"] == []


async def test_deleted_branches_are_listed_until_they_come_back(client, db):
    for name in ("b", "a", "kept"):
        await client.post(f"{db}/branches", json={"name": name, "at": "head~1"})
    for name in ("b", "a"):
        await client.delete(f"{db}/branches/{name}")

    gone = (await client.get(f"{db}/branches?deleted=true")).json()["branches"]

    assert [row["branch"] for row in gone] == ["a", "b"]
    assert all(row["undelete_until"] - row["deleted_at"] == 24 * 3600 * 1000 for row in gone)
    assert all(row["parent"] == "main" and row["fork_txid"] > 0 for row in gone)
    there = (await client.get(f"{db}/branches")).json()["branches"]
    assert [row["branch"] for row in there] == ["kept"]
    assert "deleted_at" not in there[0]

    await client.post(f"{db}/branches/a/undelete")
    assert [r["branch"] for r in (await client.get(f"{db}/branches?deleted=true")).json()["branches"]] == [
        "b"
    ]


async def test_deleted_branches_come_in_pages_also_where_two_had_one_name(client, db):
    for name in ("x", "x", "y"):
        await client.post(f"{db}/branches", json={"name": name})
        await client.delete(f"{db}/branches/{name}")
    whole = (await client.get(f"{db}/branches?deleted=true")).json()["branches"]

    pages, query = [], "limit=1"
    while query:
        page = (await client.get(f"{db}/branches?deleted=true&{query}")).json()
        pages += page["branches"]
        query = page["next_cursor"] and f"limit=1&cursor={page['next_cursor']}"

    assert [row["branch"] for row in whole] == ["x", "x", "y"]
    assert pages == whole


async def test_a_cursor_of_the_other_listing_is_refused(client, db):
    await client.post(f"{db}/branches", json={"name": "a"})
    await client.post(f"{db}/branches", json={"name": "b"})
    cursor = (await client.get(f"{db}/branches?limit=1")).json()["next_cursor"]

    assert failure(await client.get(f"{db}/branches?deleted=true&cursor={cursor}")) == (
        400,
        "invalid_request",
    )


async def test_a_burner_whose_time_has_passed_is_no_more_listed(client, db):
    await client.post(f"{db}/branches", json={"name": "burner", "ttl": 0})
    await client.delete(f"{db}/branches/burner")

    assert (await client.get(f"{db}/branches?deleted=true")).json()["branches"] == []
