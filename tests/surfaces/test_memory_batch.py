"""Batches whose bad items are skipped."""

import pytest

from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import memories, memory_batch


def event(word, **more):
    return {"type": "event", "summary": word, "content": word, **more}


async def ingest(profile, *items, on_error="skip"):
    batch = memory_batch.parse_batch({"memories": list(items), "on_error": on_error})
    written = await memories.ingest(profile, batch.items, places=batch.places)
    return batch.results(written.value)


def statuses(results):
    return [result["status"] for result in results]


async def test_good_items_are_stored_and_bad_ones_named(profile):
    results = await ingest(
        profile,
        event("a"),
        {"type": "thought"},
        5,
        event("b", importance=7),
        event("a"),
        event("c", embedding=[1, 2]),
        event("d", embedding=[1, 2, 3]),
        event(" "),
    )

    assert statuses(results) == [
        "created",
        "error",
        "error",
        "error",
        "duplicate",
        "created",
        "error",
        "error",
    ]
    assert [result["error"].split(" ")[0] for result in results if result["status"] == "error"] == [
        "memories[1].type",
        "memories[2]",
        "memories[3].importance",
        "memories[6].embedding",
        "memories[7].summary",
    ]
    assert results[1] == {"id": None, "status": "error", "superseded": [], "error": results[1]["error"]}
    assert profile.count("__memoturn_memories") == 2


async def test_an_embedding_that_the_profile_cannot_take_skips_its_item_alone(profile):
    await ingest(profile, event("old", embedding=[1, 2]))

    results = await ingest(
        profile, {}, event("a", embedding=[1, 2, 3]), event("b"), event("c", embedding=[3, 2, 1]),
        event("d", embedding=[1], embedding_model="other"),
    )  # fmt: skip

    assert statuses(results) == ["error", "error", "created", "error", "created"]
    assert "memories[1].embedding has 3 dimensions" in results[1]["error"]


async def test_all_or_nothing_unless_said(profile):
    for on_error in (None, "fail"):
        with pytest.raises(InvalidRequestError, match=r"memories\[1\]"):
            await ingest(profile, event("a"), {}, on_error=on_error)
        with pytest.raises(InvalidRequestError, match="dimensions"):
            await ingest(profile, event("a", embedding=[1]), event("b", embedding=[1, 2]), on_error=on_error)
    assert profile.count("__memoturn_memories") == 0
    assert statuses(await ingest(profile, event("a"), on_error=None)) == ["created"]


async def test_a_batch_without_one_good_item_stores_nothing_and_says_so(profile):
    assert statuses(await ingest(profile, {}, [], None)) == ["error"] * 3
    assert await ingest(profile) == []
    assert profile.txid == 0


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {"on_error": "skip"},
        {"memories": {}, "on_error": "skip"},
        {"memories": [], "on_error": "ignore"},
        {"memories": [], "on_error": True},
        {"memories": [{}] * 1001, "on_error": "skip"},
    ],
)
def test_a_body_of_another_shape_is_refused_all_the_same(payload):
    with pytest.raises(InvalidRequestError):
        memory_batch.parse_batch(payload)
