"""Documents and their indexes through both clients, with a token for documents alone."""

import pytest
from memoturn import ConflictError, ForbiddenError, InvalidRequestError

PEOPLE = [
    {"_id": "ann", "age": 41, "tags": ["a", "b"], "home": {"city": "Bern"}},
    {"_id": "bob", "age": 17, "tags": ["b"], "home": {"city": "Basel"}},
    {"_id": "cyd", "age": 33, "tags": [], "home": {"city": "Bern"}},
]


@pytest.fixture
async def people(api):
    db = await api.of_database("write", "documents")
    await db.collection("people").insert(PEOPLE)
    return db.collection("people")


async def test_documents_come_back_as_they_were_inserted(people):
    inserted = await people.insert([{"age": 1.0}, {"n": 2**64 - 1}])

    assert len(inserted["ids"]) == 2
    assert inserted["txid"] > 0
    assert await people.get("ann") == PEOPLE[0]
    assert await people.get(inserted["ids"][1]) == {"_id": inserted["ids"][1], "n": 2**64 - 1}
    assert await people.get("nobody") is None
    with pytest.raises(InvalidRequestError, match="ann"):
        await people.insert([{"_id": "ann"}])


async def test_find_filters_sorts_skips_and_projects(people):
    async def ids(*args, **options):
        return [doc["_id"] for doc in await people.find(*args, **options)]

    assert await ids() == ["ann", "bob", "cyd"]
    assert await ids({"age": {"$gte": 18}}, sort={"age": 1}) == ["cyd", "ann"]
    assert await ids({"tags": {"$all": ["b"]}}, sort={"_id": -1}) == ["bob", "ann"]
    assert await ids(limit=1, skip=1) == ["bob"]
    assert await people.find({"_id": "bob"}, projection={"age": True}) == [{"_id": "bob", "age": 17}]
    assert (await people.find_one({"home.city": "Bern"}, sort={"age": 1}))["_id"] == "cyd"
    assert await people.find_one({"age": 99}) is None
    assert await people.count() == 3
    assert await people.count({"home.city": "Bern"}) == 2
    assert (await people.distinct("home.city"))["values"] == ["Basel", "Bern"]
    some = await people.distinct("age", {"age": {"$gt": 20}}, limit=1)
    assert (some["values"], some["more"]) == ([33], True)


async def test_an_iterator_goes_through_all_pages(people):
    await people.insert([{"_id": f"p{number:04}", "n": number} for number in range(1005)])

    found = [doc["n"] async for doc in people.iter_find({"n": {"$gte": 0}}, sort={"n": -1})]
    some = [doc["n"] async for doc in people.iter_find({"n": {"$gte": 0}}, sort={"n": 1}, limit=3)]

    assert found == list(range(1004, -1, -1))
    assert some == [0, 1, 2]


async def test_updates_and_deletions(people):
    assert (await people.update({"_id": "ann"}, {"$inc": {"age": 1}}))["modified"] == 1
    assert (await people.update({}, {"$set": {"seen": True}}, multi=True))["modified"] == 3
    youngest = await people.update({}, {"$push": {"tags": "young"}}, sort={"age": 1})
    made = await people.update({"_id": "dan"}, {"$set": {"age": 5}}, upsert=True)

    assert (await people.get("ann"))["age"] == 42
    assert (await people.get("bob"))["tags"] == ["b", "young"]
    assert youngest["durable_txid"] <= youngest["txid"] < made["txid"]
    assert made["upserted_id"] == "dan"
    assert (await people.delete({"seen": True}, sort={"age": -1}))["deleted"] == 1
    assert await people.get("ann") is None
    assert (await people.delete({}, multi=True))["deleted"] == 3


async def test_indexes_and_dropping(people, api):
    created = await people.create_index("home.city")
    await people.create_index("age", unique=True)

    assert (created["indexed"], created["unique"]) == ("home.city", False)
    assert await people.indexes() == [
        {"path": "age", "unique": True},
        {"path": "home.city", "unique": False},
    ]
    with pytest.raises(ConflictError):
        await people.insert([{"age": 17}])
    await people.drop_index("age")
    assert [index["path"] for index in await people.indexes()] == ["home.city"]
    await people.drop()
    await people.drop()
    assert await people.find() == []


async def test_collections_are_listed_and_the_token_opens_nothing_else(api):
    db = await api.of_database("write", "documents")
    for name in ("a", "b"):
        await db.collection(name).insert([{}])

    assert [row async for row in db.iter_collections()] == [
        {"name": "a", "count": 1, "indexes": 0},
        {"name": "b", "count": 1, "indexes": 0},
    ]
    assert [row["name"] async for row in db.iter_collections(limit=1)] == ["a"]
    with pytest.raises(ForbiddenError):
        await db.kv.get("n", "k")


async def test_options_are_honoured(people):
    inserted = await people.insert([{"_id": "old", "v": 1}], idempotency_key="one", durability="durable")
    again = await people.insert([{"_id": "old", "v": 1}], idempotency_key="one")
    await people.update({"_id": "old"}, {"$set": {"v": 2}})

    assert (again["ids"], again["txid"]) == (inserted["ids"], inserted["txid"])
    assert inserted["durability"] == "durable"
    assert inserted["durable_txid"] >= inserted["txid"]
    assert (await people.get("old", at=inserted["txid"]))["v"] == 1
    assert (await people.get("old", consistency="primary", min_txid=inserted["txid"] + 1))["v"] == 2
