"""`Idempotency-Key` over a whole node: a write that is sent again answers as it did, and changes nothing."""

import asyncio

import pytest
from http_calls import FACT, FACT_ID, MEMORY, OLD_FACT, WRITES, append, documented, failure, ingest, stamps

KEY = {"idempotency-key": "7d1c-1"}


async def call(client, name, **headers):
    method, path, more = WRITES[name]
    return await client.request(method, path, headers=headers, **more)


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_that_is_sent_again_answers_as_it_did_and_changes_nothing(client, name):
    await ingest(client, OLD_FACT, FACT)
    await append(client)
    await documented(client)
    await client.put("/v1/db/app--ann/kv/ns/old", content=b"x")
    first = await call(client, name, **KEY)
    assert first.is_success, first.text

    again = await call(client, name, **KEY)
    other = await client.put("/v1/db/app--ann/kv/ns/other", content=b"x")

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert stamps(again)[0] == stamps(first)[0] == stamps(other)[0] - 1
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


async def test_the_same_key_with_another_body_query_or_path_is_refused(client):
    await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=KEY)

    for item in ({**FACT, "summary": "likes light"}, {"type": "event", "summary": "x"}):
        answer = await client.post(f"{MEMORY}/memories", json={"memories": [item]}, headers=KEY)
        assert failure(answer) == (422, "idempotency_key_reused")
    await client.put("/v1/db/app--ann/kv/ns/k", content=b"x", headers=KEY)
    for path in ("/v1/db/app--ann/kv/ns/k?ttl=5", "/v1/db/app--ann/kv/ns/other"):
        answer = await client.put(path, content=b"x", headers=KEY)
        assert failure(answer) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä"])
async def test_a_key_that_is_none_is_refused(client, key):
    await ingest(client, FACT)
    answer = await client.put(
        "/v1/db/app--ann/kv/ns/k", content=b"x", headers={b"idempotency-key": key.encode()}
    )

    assert failure(answer) == (400, "invalid_request")


async def test_a_write_that_failed_may_be_sent_again(client):
    await ingest(client, FACT)
    gone = f"{MEMORY}/memories/mem_0"
    assert failure(await client.delete(gone, headers=KEY)) == (404, "not_found")
    bad = {"stmts": [{"q": "INSERT INTO t VALUES (1)"}]}
    assert failure(await client.post("/v1/db/app--ann/sql", json=bad, headers=KEY))[0] == 400
    await client.post("/v1/db/app--ann/sql", json={"stmts": [{"q": "CREATE TABLE t (a)"}]})

    answer = await client.post("/v1/db/app--ann/sql", json=bad, headers=KEY)

    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers


async def test_a_write_that_is_sent_many_times_at_once_is_applied_once(client):
    await ingest(client, FACT)
    body = {"role": "user", "content": "x"}
    answers = await asyncio.gather(
        *(client.post("/v1/db/app--ann/memory/s/turns", json=body, headers=KEY) for _ in range(20))
    )

    assert {answer.json()["seq"] for answer in answers} == {1}
    assert len((await client.get("/v1/db/app--ann/memory/s/turns")).json()["turns"]) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19


async def test_a_key_that_a_write_without_effect_came_with_is_kept(client):
    await ingest(client, FACT)
    first = await client.delete("/v1/db/app--ann/kv/ns/k", headers=KEY)
    await client.put("/v1/db/app--ann/kv/ns/k", content=b"x")

    again = await client.delete("/v1/db/app--ann/kv/ns/k", headers=KEY)

    assert (again.status_code, stamps(again)[0]) == (204, stamps(first)[0])
    assert (await client.get("/v1/db/app--ann/kv/ns/k")).content == b"x"


async def test_a_fork_starts_without_keys_and_a_rewind_keeps_them(client):
    await ingest(client, FACT)
    await client.post("/v1/db/app--ann/branches/main/checkpoint", json={"name": "before"})
    put = ("PUT", "/v1/db/app--ann/kv/ns/k")
    first = await client.request(*put, content=b"1", headers=KEY)
    await client.post("/v1/db/app--ann/branches", json={"name": "fork"})

    there = await client.put("/v1/db/app--ann@fork/kv/ns/k", content=b"2", headers=KEY)
    assert there.status_code == 200
    assert "idempotent-replayed" not in there.headers

    rewound = await client.post("/v1/db/app--ann/branches/main/rewind", json={"to": "before"})
    assert rewound.status_code == 200
    again = await client.request(*put, content=b"1", headers=KEY)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert failure(await client.get("/v1/db/app--ann/kv/ns/k")) == (404, "not_found")


async def test_durable_may_be_asked_of_a_write_that_was_only_local(client):
    await ingest(client, FACT)
    first = await client.delete(f"{MEMORY}/memories/{FACT_ID}", headers=KEY)

    again = await client.delete(
        f"{MEMORY}/memories/{FACT_ID}", headers={**KEY, "memoturn-durability": "durable"}
    )

    assert again.headers["memoturn-durability"] == "durable"
    assert stamps(again)[0] == stamps(first)[0] <= stamps(again)[1]
