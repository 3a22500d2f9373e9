"""Vectors through both clients, with a token for vectors alone."""

import pytest
from memoturn import InvalidRequestError


@pytest.fixture
async def vectors(api):
    db = await api.of_database("write", "vectors")
    stored = await db.vectors.upsert_many(
        "v",
        [
            {"id": "east", "embedding": [1, 0], "metadata": {"warm": True}},
            {"id": "north/1", "embedding": [0, 1]},
            {"id": "west", "embedding": [-1, 0], "metadata": {"warm": True}},
        ],
    )
    assert [row["status"] for row in stored["results"]] == ["created"] * 3
    return db.vectors


async def test_one_vector(vectors):
    assert (await vectors.upsert("v", "east", [1, 0], {"warm": True}))["status"] == "unchanged"
    assert (await vectors.upsert("v", "east", [1, 0.5]))["status"] == "updated"

    assert await vectors.get("v", "east") == {"id": "east", "embedding": [1.0, 0.5], "metadata": {}}
    assert await vectors.get("v", "nowhere") is None
    assert await vectors.delete("v", "north/1") > 0
    assert await vectors.get("v", "north/1") is None
    with pytest.raises(InvalidRequestError):
        await vectors.upsert("v", "x", [1, 2, 3])


async def test_search(vectors):
    hits = await vectors.search("v", [1, 0.1])
    near = await vectors.search(
        "v", [1, 0.1], k=2, filter={"warm": True}, include_metadata=True, include_embedding=True
    )

    assert [hit["id"] for hit in hits] == ["east", "north/1", "west"]
    assert set(hits[0]) == {"id", "distance"}
    assert [hit["id"] for hit in near] == ["east", "west"]
    assert (near[0]["metadata"], near[0]["embedding"]) == ({"warm": True}, [1.0, 0.0])
    assert [hit["id"] for hit in await vectors.search("v", [1, 0.1], max_distance=1)] == ["east", "north/1"]
    assert [hit["id"] for hit in await vectors.search("v", [1, 0.1], min_score=0.5, k=1)] == ["east"]


async def test_listing_deleting_many_and_dropping(vectors):
    assert [id_ async for id_ in vectors.iter_ids("v")] == ["east", "north/1", "west"]
    assert [id_ async for id_ in vectors.iter_ids("v", limit=1)] == ["east"]
    assert [row async for row in vectors.iter_metadata("v")][:2] == [
        {"id": "east", "metadata": {"warm": True}},
        {"id": "north/1", "metadata": {}},
    ]
    (collection,) = [row async for row in vectors.iter_collections()]
    assert (collection["name"], collection["dimensions"], collection["count"]) == ("v", 2, 3)

    gone = await vectors.delete_many("v", ids=["east", "nowhere"])

    assert gone["deleted"] == 1
    assert [row["status"] for row in gone["results"]] == ["deleted", "absent"]
    assert (await vectors.delete_many("v", filter={"warm": True}))["deleted"] == 1
    await vectors.drop("v")
    await vectors.upsert("v", "three", [1, 2, 3])
    assert [id_ async for id_ in vectors.iter_ids("v")] == ["three"]
