"""Vector collections over HTTP."""

import asyncio

import pytest
from http_calls import created, failure, stamps


@pytest.fixture
async def db(client):
    return await created(client)


@pytest.fixture
async def coll(db):
    return f"{db}/vectors/notes"


async def test_a_vector_is_stored_and_found_as_clients_of_the_original_do(client, coll):
    stored = await client.post(coll, json={"id": "a", "embedding": [1, 0]})
    await client.post(coll, json={"id": "b", "embedding": [1, 1]})

    found = await client.post(f"{coll}/search", json={"vector": [2, 0]})

    assert (stored.status_code, stored.json()) == (200, {"status": "created", "txid": stamps(stored)[0]})
    assert set(found.json()) == {"hits"}
    assert [set(hit) for hit in found.json()["hits"]] == [{"id", "distance"}] * 2
    assert [hit["id"] for hit in found.json()["hits"]] == ["a", "b"]
    assert found.json()["hits"][1]["distance"] == pytest.approx(1 - 0.5**0.5, abs=1e-6)


async def test_unknown_collections_are_empty(client, coll):
    answers = [
        (await client.post(f"{coll}/search", json={"vector": [1]})).json(),
        (await client.get(coll)).json(),
        (await client.get(coll.rpartition("/")[0])).json(),
        (await client.post(f"{coll}/delete", json={"filter": {}})).json()["deleted"],
    ]

    assert answers == [
        {"hits": []},
        {"ids": [], "next_cursor": None},
        {"collections": []},
        0,
    ]
    assert (await client.delete(coll)).status_code == 204
    assert (await client.delete(f"{coll}/a")).status_code == 204
    assert failure(await client.get(f"{coll}/a")) == (404, "not_found")


async def test_a_batch_is_stored_with_metadata_filtered_and_deleted(client, coll):
    batch = [{"id": f"v/{n}", "embedding": [1, n], "metadata": {"n": n}} for n in range(5)]
    stored = await client.post(coll, json={"vectors": batch})
    found = await client.post(
        f"{coll}/search",
        json={"vector": [1, 0], "filter": {"n": {"$gt": 1}}, "k": 2, "include_metadata": True},
    )
    one = await client.get(f"{coll}/v%2F3")
    removed = await client.post(f"{coll}/delete", json={"ids": ["v/0", "none"]})
    matching = await client.post(f"{coll}/delete", json={"filter": {"n": {"$lt": 3}}})
    single = await client.delete(f"{coll}/v%2F3")

    assert stored.json()["results"] == [{"id": f"v/{n}", "status": "created"} for n in range(5)]
    assert [(hit["id"], hit["metadata"]) for hit in found.json()["hits"]] == [
        ("v/2", {"n": 2}),
        ("v/3", {"n": 3}),
    ]
    assert one.json() == batch[3]
    assert removed.json() == {
        "deleted": 1,
        "results": [{"id": "v/0", "status": "deleted"}, {"id": "none", "status": "absent"}],
        "txid": stamps(removed)[0],
    }
    assert matching.json() == {"deleted": 2, "txid": stamps(matching)[0]}
    assert single.status_code == 204
    assert (await client.get(coll)).json() == {"ids": ["v/4"], "next_cursor": None}


async def test_ids_that_are_words_of_other_routes_are_ids(client, coll):
    for id_ in ("search", "delete"):
        await client.post(coll, json={"id": id_, "embedding": [1]})
        assert (await client.get(f"{coll}/{id_}")).json()["id"] == id_
    assert (await client.delete(f"{coll}/search")).status_code == 204
    assert (await client.get(coll)).json()["ids"] == ["delete"]


async def test_collections_are_listed_and_dropped(client, db):
    for name, embedding in (("a_b", [1]), ("a-b", [1, 2]), ("A-B", [1, 2, 3])):
        await client.post(f"{db}/vectors/{name}", json={"id": name, "embedding": embedding})

    listed = (await client.get(f"{db}/vectors")).json()["collections"]
    assert [(c["name"], c["dimensions"], c["count"]) for c in listed] == [
        ("A-B", 3, 1),
        ("a-b", 2, 1),
        ("a_b", 1, 1),
    ]
    assert (await client.delete(f"{db}/vectors/a-b")).status_code == 204
    assert [c["name"] for c in (await client.get(f"{db}/vectors")).json()["collections"]] == ["A-B", "a_b"]
    other = await client.post(f"{db}/vectors/a_b", json={"id": "x", "embedding": [1, 2]})
    assert failure(other) == (400, "invalid_request")
    assert "2 dimensions" in other.json()["error"]


async def test_forks_rewinds_and_the_past_have_their_own_collections(client, db, coll):
    first = await client.post(coll, json={"id": "a", "embedding": [1, 0]})
    await client.post(f"{db}/branches", json={"name": "f"})
    on_fork = coll.replace("notes/", "notes@f/", 1)
    await client.post(on_fork, json={"id": "b", "embedding": [1, 0]})
    await client.delete(coll)
    await client.post(coll, json={"id": "c", "embedding": [1]})

    async def found(collection, vector, **params):
        answer = await client.post(f"{collection}/search", json={"vector": vector}, params=params)
        assert answer.status_code == 200, answer.text
        return [hit["id"] for hit in answer.json()["hits"]]

    assert await found(coll, [1]) == ["c"]
    assert await found(on_fork, [1, 0]) == ["a", "b"]
    txid = stamps(first)[0]
    assert await found(coll, [1, 0], at=txid) == ["a"]
    assert await found(coll, [1, 0], at=txid - 1) == []
    await client.post(f"{db}/branches/main/rewind", json={"to": str(txid)})
    assert await found(coll, [1, 0]) == ["a"]
    assert (await client.post(coll, json={"id": "d", "embedding": [0, 1]})).status_code == 200
    await client.post(f"{db}/branches/main/rewind", json={"to": str(txid - 1)})
    assert await found(coll, [1, 2, 3]) == []
    assert (await client.get(f"{db}/vectors")).json() == {"collections": []}


async def test_upserts_at_once_are_all_there(client, coll):
    await asyncio.gather(
        *(client.post(coll, json={"id": f"{n % 7}-{n}", "embedding": [1, n]}) for n in range(30)),
        *(client.post(f"{coll}-{n}", json={"id": "x", "embedding": [1] * (n + 1)}) for n in range(10)),
    )

    listed = (await client.get(coll.rpartition("/")[0])).json()["collections"]
    assert {c["name"]: (c["dimensions"], c["count"]) for c in listed} == {
        "notes": (2, 30),
        **{f"notes-{n}": (n + 1, 1) for n in range(10)},
    }
    assert len((await client.get(coll)).json()["ids"]) == 30


async def test_a_repeated_upsert_answers_as_it_did(client, coll):
    body = {"vectors": [{"id": "a", "embedding": [1]}]}
    answers = [await client.post(coll, json=body, headers={"Idempotency-Key": "1"}) for _ in range(2)]

    assert answers[0].json() == answers[1].json()
    assert answers[1].json()["results"] == [{"id": "a", "status": "created"}]


async def test_an_export_brings_collections_along(client, db, coll):
    batch = {"vectors": [{"id": "a", "embedding": [0.1, 3e30], "metadata": {"x": "é"}}]}
    await client.post(coll, json=batch)
    exported = await client.get(f"{db}/export")

    imported = await client.put("/v1/databases/copy/import", content=exported.content)

    assert imported.status_code == 201, imported.text
    assert (await client.get("/v1/db/copy/vectors/notes/a")).json() == batch["vectors"][0]
    assert (await client.post("/v1/db/copy/vectors/more", json=batch)).status_code == 200


async def test_what_is_kept_in_memory_of_a_collection_is_not_believed_after_a_rewind(client, db, coll):
    same = [{"id": f"same{n}", "embedding": [1, 1]} for n in range(150)]
    away, near = [
        [{"id": f"other{n}", "embedding": embedding} for n in range(150)] for embedding in ([0, 1], [1, 0])
    ]
    stored = await client.post(coll, json={"vectors": same})

    async def found(**params):
        answer = await client.post(f"{coll}/search", json={"vector": [1, 0], "k": 2}, params=params)
        return [hit["id"] for hit in answer.json()["hits"]]

    later = await client.post(coll, json={"vectors": away})
    assert [await found() for _ in range(3)] == [["same0", "same1"]] * 3
    await client.post(f"{db}/branches/main/rewind", json={"to": str(stamps(stored)[0])})
    await client.post(coll, json={"vectors": near})

    assert [await found() for _ in range(4)] == [["other0", "other1"]] * 4
    assert await found(at=stamps(later)[0]) == ["same0", "same1"]
    await client.delete(coll)
    await client.post(coll, json={"vectors": [*same, *away]})
    assert [await found() for _ in range(4)] == [["same0", "same1"]] * 4
