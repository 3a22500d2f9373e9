"""What is set for a database about the durability of its writes, over HTTP."""

import pytest
from http_calls import failure

SET = {"durability": {"default": "local", "docs/orders": "durable", "kv": "durable", "kv/fast": "local"}}


async def reached(client, path, body):
    answer = await client.post(path, json=body)
    assert answer.status_code < 300, answer.text
    return answer.headers["memoturn-durability"]


@pytest.fixture
async def database(client):
    assert (await client.post("/v1/databases", json={"name": "notes"})).status_code == 201


async def test_writes_wait_for_what_is_set_for_their_surface(client, database):
    answer = await client.put("/v1/db/notes/settings", json=SET)
    assert (answer.status_code, answer.json()) == (200, SET)
    assert (await client.get("/v1/db/notes/settings")).json() == SET
    (shown,) = (await client.get("/v1/databases")).json()["databases"]
    assert shown["durability"] == SET["durability"]

    docs = {"docs": [{"a": 1}]}
    assert await reached(client, "/v1/db/notes/docs/orders/insert", docs) == "durable"
    assert await reached(client, "/v1/db/notes/docs/others/insert", docs) == "local"
    assert (await client.put("/v1/db/notes/kv/n/k", content=b"1")).headers["memoturn-durability"] == "durable"
    assert (await client.put("/v1/db/notes/kv/fast/k", content=b"1")).headers[
        "memoturn-durability"
    ] == "local"
    raised = await client.put(
        "/v1/db/notes/kv/fast/k",
        content=b"2",
        headers={"memoturn-durability": "durable", "idempotency-key": "x"},
    )
    assert raised.headers["memoturn-durability"] == "durable"
    lowered = await client.put("/v1/db/notes/kv/n/k", content=b"2", headers={"memoturn-durability": "local"})
    assert lowered.headers["memoturn-durability"] == "durable"


async def test_settings_can_be_taken_back(client, database):
    await client.put("/v1/db/notes/settings", json=SET)
    assert (await client.put("/v1/db/notes/settings", json={})).json() == {"durability": {}}
    docs = {"docs": [{"a": 1}]}
    assert await reached(client, "/v1/db/notes/docs/orders/insert", docs) == "local"
    assert "durability" not in (await client.get("/v1/databases")).json()["databases"][0]


@pytest.mark.parametrize(
    "body", [{"durability": {"docs/orders": "fast"}}, {"durability": {"x": "local"}}, {"x": 1}, []]
)
async def test_odd_settings_change_nothing(client, database, body):
    await client.put("/v1/db/notes/settings", json=SET)
    assert failure(await client.put("/v1/db/notes/settings", json=body)) == (400, "invalid_request")
    assert (await client.get("/v1/db/notes/settings")).json() == SET


async def test_settings_are_of_a_database_that_exists_and_of_no_branch(client, database):
    assert failure(await client.get("/v1/db/none/settings")) == (404, "database_not_found")
    assert failure(await client.put("/v1/db/none/settings", json=SET)) == (404, "database_not_found")
    assert failure(await client.put("/v1/db/notes@x/settings", json=SET)) == (400, "invalid_request")
