"""Documents over a whole node: the wire contract, many clients at once, branches and the past."""

import asyncio
import json
import random

import pytest
from http_calls import created, failure, stamps


@pytest.fixture
async def coll(client):
    return f"{await created(client)}/docs/c"


async def insert(client, coll, *docs):
    answer = await client.post(f"{coll}/insert", json={"docs": list(docs)})
    assert answer.status_code == 201, answer.text
    return answer


async def found(client, coll, **body):
    answer = await client.post(f"{coll}/find", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_documents_are_inserted_found_updated_and_deleted(client, coll):
    stored = await insert(client, coll, {"kind": "fact", "n": 1}, {"_id": "b", "kind": "fact", "n": 2.0})
    key = stored.json()["ids"][0]
    assert stored.json() == {"ids": [key, "b"], "txid": stamps(stored)[0]}
    assert len(key) == 26

    listed = await client.post(f"{coll}/find", json={"filter": {"kind": "fact"}, "sort": {"n": -1}})
    assert listed.json() == {
        "docs": [{"_id": "b", "kind": "fact", "n": 2.0}, {"_id": key, "kind": "fact", "n": 1}],
        "next_cursor": None,
        "txid": stamps(listed)[0],
    }
    assert '"n":2.0}' in listed.text

    body = {"filter": {"kind": "fact"}, "update": {"$inc": {"n": 1}}, "multi": True}
    updated = await client.post(f"{coll}/update", json=body)
    assert (updated.status_code, updated.json()) == (200, {"modified": 2, "txid": stamps(updated)[0]})
    upserted = await client.post(
        f"{coll}/update", json={"filter": {"_id": "u"}, "update": {"$set": {"n": 0}}, "upsert": True}
    )
    assert upserted.json() == {"modified": 0, "upserted_id": "u", "txid": stamps(upserted)[0]}

    counted = await client.post(f"{coll}/count", json={"filter": {"n": {"$gte": 1}}})
    assert counted.json() == {"count": 2, "txid": stamps(counted)[0]}
    values = await client.post(f"{coll}/distinct", json={"path": "n"})
    assert values.json() == {"values": [0, 2, 3.0], "more": False, "txid": stamps(values)[0]}

    deleted = await client.post(f"{coll}/delete", json={"filter": {"n": {"$lt": 3}}, "multi": True})
    assert (deleted.status_code, deleted.json()) == (200, {"deleted": 2, "txid": stamps(deleted)[0]})
    assert (await found(client, coll))["docs"] == [{"_id": "b", "kind": "fact", "n": 3.0}]


async def test_collections_and_indexes_are_made_listed_and_dropped(client, coll):
    db = coll.removesuffix("/docs/c")
    await insert(client, coll, {"a": {"b": 1}})

    made = await client.post(f"{coll}/indexes", json={"path": "a.b", "unique": True})
    assert (made.status_code, made.json()) == (
        201,
        {"indexed": "a.b", "unique": True, "txid": stamps(made)[0]},
    )
    indexes = await client.get(f"{coll}/indexes")
    assert indexes.json() == {"indexes": [{"path": "a.b", "unique": True}], "txid": stamps(made)[0]}
    listed = await client.get(f"{db}/docs")
    assert listed.json() == {
        "collections": [{"name": "c", "count": 1, "indexes": 1}],
        "txid": stamps(made)[0],
    }

    twice = await client.post(f"{coll}/insert", json={"docs": [{"a": {"b": 1}}]})
    assert failure(twice) == (409, "conflict")
    assert (await client.delete(f"{coll}/indexes/a.b")).status_code == 204
    await insert(client, coll, {"a": {"b": 1}})
    gone = await client.delete(coll)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.get(f"{db}/docs")).json()["collections"] == []
    again = await client.delete(coll)
    assert (again.status_code, stamps(again)) == (204, stamps(gone))


async def test_errors_have_their_statuses_and_change_nothing(client, coll):
    txid, _ = stamps(await insert(client, coll, {"_id": "a", "s": "x"}))
    large = '{"docs": [{"t": "%s"}]}' % ("x" * (4 * 1024 * 1024 + 1))

    for route, body, expected in (
        ("insert", {"docs": [{"_id": "a"}]}, (400, "invalid_request")),
        ("insert", {"docs": [{"_id": "b"}, {"_id": 5}]}, (400, "invalid_request")),
        ("find", {"filter": {"a": {"$near": 1}}}, (400, "invalid_request")),
        ("find", {"filter": {"$and": []}}, (400, "invalid_request")),
        ("find", {"filter": {"a": {"$regex": "(?=x)"}}}, (400, "invalid_request")),
        ("find", {"cursor": "nonsense"}, (400, "invalid_request")),
        ("update", {"filter": {}, "update": {"a": 1}}, (400, "invalid_request")),
        ("update", {"filter": {}, "update": {"$inc": {"s": 1}}}, (400, "invalid_request")),
        ("delete", {}, (400, "invalid_request")),
        ("indexes", {"path": "a b"}, (400, "invalid_request")),
    ):
        assert failure(await client.post(f"{coll}/{route}", json=body)) == expected, route
    sent = await client.post(f"{coll}/insert", content=large, headers={"content-type": "application/json"})
    assert failure(sent) == (413, "payload_too_large")
    deep = '{"docs": [{"a": %s}]}' % ("[" * 500 + "]" * 500)
    assert failure(await client.post(f"{coll}/insert", content=deep)) == (400, "invalid_request")

    read = await client.post(f"{coll}/find", json={})
    assert (read.json()["docs"], stamps(read)[0]) == ([{"_id": "a", "s": "x"}], txid)


async def test_numbers_text_and_order_come_back_as_they_were_sent(client, coll):
    doc = '{"_id":"x","z":18446744073709551615,"a":1.0,"f":1e16,"é":"\\u0000\U0001f600","":[],"nested":{"b":1,"a":-0.0}}'

    await client.post(f"{coll}/insert", content=f'{{"docs": [{doc}]}}')
    answer = await client.post(f"{coll}/find", json={})

    assert answer.text.startswith(f'{{"docs":[{doc}]')


async def test_pages_go_through_everything_once(client, coll):
    await insert(client, coll, *({"n": n % 7, "m": n} for n in range(100)))
    await client.post(f"{coll}/indexes", json={"path": "n"})

    seen, body = [], {"sort": {"n": -1, "m": 1}, "limit": 9, "projection": {"m": 1, "_id": 0}}
    while True:
        page = await found(client, coll, **body)
        seen += [doc["m"] for doc in page["docs"]]
        if page["next_cursor"] is None:
            break
        body["cursor"] = page["next_cursor"]

    assert seen == sorted(range(100), key=lambda n: (-(n % 7), n))


async def test_of_many_clients_no_increment_is_lost_and_one_takes_a_unique_value(client, coll):
    await insert(client, coll, {"_id": "n", "n": 0})
    await client.post(f"{coll}/indexes", json={"path": "name", "unique": True})
    add = {"filter": {"kind": None}, "update": {"$inc": {"n": 1}}}
    by_key = {"filter": {"_id": "n"}, "update": {"$inc": {"n": 1}, "$push": {"seen": 1}}}

    added = await asyncio.gather(
        *(client.post(f"{coll}/update", json=body) for _ in range(30) for body in (add, by_key))
    )
    taken = await asyncio.gather(
        *(client.post(f"{coll}/insert", json={"docs": [{"kind": 1, "name": "x"}]}) for _ in range(20))
    )
    claims = await asyncio.gather(
        *(
            client.post(
                f"{coll}/update",
                json={"filter": {"kind": 1, "owner": None}, "update": {"$set": {"owner": who}}},
            )
            for who in range(10)
        )
    )

    assert all(answer.json()["modified"] == 1 for answer in added)
    (doc,) = (await found(client, coll, filter={"_id": "n"}))["docs"]
    assert (doc["n"], len(doc["seen"])) == (60, 30)
    assert sorted(answer.status_code for answer in taken) == [201] + [409] * 19
    assert sorted(answer.json()["modified"] for answer in claims) == [0] * 9 + [1]


async def test_ids_made_at_once_are_different(client, coll):
    answers = await asyncio.gather(*(insert(client, coll, {}, {}, {}) for _ in range(50)))

    ids = [key for answer in answers for key in answer.json()["ids"]]
    assert len(set(ids)) == 150
    assert [doc["_id"] for doc in (await found(client, coll, limit=1000))["docs"]] == sorted(ids)


async def test_branches_the_past_and_a_rewind_have_their_own_collections_and_indexes(client, coll):
    db = coll.removesuffix("/docs/c")
    txid, _ = stamps(await insert(client, coll, {"_id": "a", "n": 1}))
    assert (await client.post(f"{db}/branches", json={"name": "try"})).status_code == 201
    fork = f"{db}@try/docs/c"
    await client.post(f"{fork}/indexes", json={"path": "n", "unique": True})
    await client.post(f"{fork}/update", json={"filter": {}, "update": {"$set": {"n": 2}}})
    await insert(client, f"{db}/docs/later", {"x": 1})
    await client.delete(coll)

    assert (await found(client, fork, filter={"n": 2}))["docs"] == [{"_id": "a", "n": 2}]
    assert (await found(client, coll))["docs"] == []
    past = await client.post(f"{coll}/find?at={txid}", json={"filter": {"n": 1}})
    assert past.json()["docs"] == [{"_id": "a", "n": 1}]
    assert (await client.post(f"{db}/docs/later/count?at={txid}", json={})).json()["count"] == 0
    assert (await client.get(f"{db}/docs?at={txid}")).json()["collections"] == [
        {"name": "c", "count": 1, "indexes": 0}
    ]

    assert (await client.post(f"{db}/branches/main/rewind", json={"to": str(txid)})).status_code == 200
    assert (await found(client, coll))["docs"] == [{"_id": "a", "n": 1}]
    assert (await found(client, f"{db}/docs/later"))["docs"] == []
    await insert(client, f"{db}/docs/later", {"_id": "y"})
    assert (await found(client, f"{db}/docs/later"))["docs"] == [{"_id": "y"}]


async def test_an_export_brings_documents_and_indexes_along(client, coll):
    db = coll.removesuffix("/docs/c")
    await insert(client, coll, {"_id": "a", "n": [1.0, 18446744073709551615]})
    await client.post(f"{coll}/indexes", json={"path": "n", "unique": True})
    await client.post(f"{coll}/indexes", json={"path": "m.o-p"})
    file = (await client.get(f"{db}/export")).content

    taken = await client.put("/v1/databases/copy/import", content=file)

    assert taken.status_code == 201, taken.text
    copy = "/v1/db/copy/docs/c"
    assert (await client.post(f"{copy}/find", json={})).text == (
        await client.post(f"{coll}/find", json={})
    ).text
    assert (await client.get(f"{copy}/indexes")).json()["indexes"] == [
        {"path": "m.o-p", "unique": False},
        {"path": "n", "unique": True},
    ]


async def test_users_sql_reaches_neither_documents_nor_their_functions(client, coll):
    db = coll.removesuffix("/docs/c")
    await insert(client, coll, {"a": 1})

    for q in (
        "SELECT * FROM __memoturn_docs_c",
        "DROP INDEX __memoturn_docix_c__a",
        "SELECT __memoturn_matches('a', 'a')",
        "CREATE TABLE __memoturn_docs_x(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL)",
    ):
        answer = await client.post(f"{db}/sql", json={"stmts": [{"q": q}]})
        assert failure(answer)[0] in {400, 403}, q


async def test_readers_in_the_pool_see_collections_and_indexes_that_were_made_after_they_were_opened(
    client, coll
):
    pattern = {"filter": {"t": {"$regex": "x"}}}
    await client.put(f"{coll.removesuffix('/docs/c')}/kv/n/k", content=b"x")
    assert (await found(client, coll, **pattern))["docs"] == []

    await insert(client, coll, {"_id": "a", "t": "x"})
    assert (await found(client, coll, **pattern))["docs"] == [{"_id": "a", "t": "x"}]
    await client.post(f"{coll}/indexes", json={"path": "t"})
    assert (await found(client, coll, **pattern, sort={"t": 1}))["docs"] == [{"_id": "a", "t": "x"}]
    await client.delete(coll)
    assert (await found(client, coll, **pattern))["docs"] == []


async def test_the_node_answers_others_while_a_pattern_goes_through_long_texts(client, coll):
    letters = "".join(random.Random(1).choices("abcfoxr", k=400_000))
    for _ in range(6):
        await insert(client, coll, {"t": letters})
    slow = {"filter": {"t": {"$regex": "[a-q][^u-z]{100}x"}}}

    counting = asyncio.create_task(client.post(f"{coll}/count", json=slow))
    others = 0
    while not counting.done():
        await asyncio.sleep(0.001)
        assert (await client.get("/health")).status_code == 200
        others += 1

    assert counting.result().json()["count"] == 0
    assert others > 5


async def test_a_scan_of_a_large_collection_ends_in_the_pool_with_the_same_answer(client, coll):
    docs = [{"n": n, "text": f"bench {n}"} for n in range(5000)]
    for at in range(0, 5000, 1000):
        await insert(client, coll, *docs[at : at + 1000])

    assert (await found(client, coll, filter={"text": "bench 4999"}))["docs"][0]["n"] == 4999
    body = {"filter": {"n": {"$gte": 10}}, "update": {"$set": {"seen": True}}, "multi": True}
    assert (await client.post(f"{coll}/update", json=body)).json()["modified"] == 4990
    counted = await client.post(f"{coll}/count", json={"filter": {"seen": True}})
    assert counted.json()["count"] == 4990
    gone = await client.post(f"{coll}/delete", json={"filter": {"seen": True}, "multi": True})
    assert gone.json()["deleted"] == 4990
    assert json.loads((await client.post(f"{coll}/count", json={})).text)["count"] == 10
