"""The directory over HTTP: deleted databases that come back, tenants, namespaces."""

import pytest
from http_calls import FACT, created, failure, ingest

PROFILE = "/v1/databases/app--ann"


async def test_deleted_profile_is_listed_until_it_is_undeleted(client):
    await ingest(client, FACT)
    (before,) = (await client.get("/v1/databases")).json()["databases"]
    assert (await client.delete(PROFILE)).status_code == 204

    (gone,) = (await client.get("/v1/databases?deleted=true")).json()["databases"]
    assert {key: gone[key] for key in before} == before
    assert gone["undelete_until"] - gone["deleted_at"] == 24 * 3600 * 1000
    assert (await client.get("/v1/databases")).json()["databases"] == []
    back = await client.post(f"{PROFILE}/undelete")

    assert (back.status_code, back.json()) == (200, before)
    assert (await client.get("/v1/databases?deleted=true")).json()["databases"] == []
    found = (await client.post("/v1/memory/app/ann/recall", json={"query": "dark"})).json()["memories"]
    assert [memory["summary"] for memory in found] == ["likes dark"]


async def test_undeletion_tells_what_stands_against_it(client):
    assert failure(await client.post("/v1/databases/notes/undelete")) == (404, "database_not_found")
    await created(client)
    first = (await client.get("/v1/databases")).json()["databases"][0]["uuid"]
    assert failure(await client.post("/v1/databases/notes/undelete")) == (409, "already_exists")
    await client.delete("/v1/databases/notes")
    await created(client)
    second = (await client.get("/v1/databases")).json()["databases"][0]["uuid"]
    for body in (None, {"uuid": first}):
        answer = await client.post("/v1/databases/notes/undelete", json=body)
        assert failure(answer) == (409, "already_exists")
    assert (await client.post("/v1/databases/notes/undelete", json={"uuid": second})).status_code == 200
    await client.delete("/v1/databases/notes")
    answer = await client.post("/v1/databases/notes/undelete", json={"uuid": "0" * 32})
    assert failure(answer) == (404, "database_not_found")
    assert (await client.post("/v1/databases/notes/undelete", json={"uuid": first})).json()["uuid"] == first


@pytest.mark.parametrize("uuid", ["", "x", "A" * 32, "0" * 31, "0" * 33, 5, ["0" * 32]])
async def test_undeletion_refuses_what_is_no_id(client, uuid):
    answer = await client.post("/v1/databases/notes/undelete", json={"uuid": uuid})
    assert failure(answer) == (400, "invalid_request")


async def test_deleted_database_is_another_tenants_business_only(client):
    await client.post("/v1/tenants", json={"name": "acme"})
    await created(client)
    uuid = (await client.get("/v1/databases")).json()["databases"][0]["uuid"]
    await client.delete("/v1/databases/notes")
    acme = {"Memoturn-Tenant": "acme"}
    assert (await client.get("/v1/databases?deleted=true", headers=acme)).json()["databases"] == []
    answer = await client.post("/v1/databases/notes/undelete", json={"uuid": uuid}, headers=acme)
    assert failure(answer) == (404, "database_not_found")


async def test_namespaces_are_those_that_have_profiles(client):
    await created(client, "zeta")
    for path in ("app/ann", "app/bob", "app2/x", "b-b/x"):
        await ingest(client, FACT, path=f"/v1/memory/{path}")
    await client.delete("/v1/databases/b-b--x")
    listed = (await client.get("/v1/namespaces")).json()
    assert listed == {"namespaces": [{"namespace": "app"}, {"namespace": "app2"}], "next_cursor": None}


async def test_tenant_is_made_shown_listed_and_deleted_when_nothing_is_left_in_it(client):
    acme = {"Memoturn-Tenant": "acme"}
    made = await client.post("/v1/tenants", json={"name": "acme"})
    assert (made.status_code, set(made.json())) == (201, {"name", "created_at"})
    assert failure(await client.post("/v1/tenants", json={"name": "acme"})) == (409, "already_exists")
    assert (await client.get("/v1/tenants/acme")).json() == made.json()
    listed = (await client.get("/v1/tenants")).json()["tenants"]
    assert [row["name"] for row in listed] == ["acme", "default"]
    (await client.post("/v1/databases", json={"name": "notes"}, headers=acme)).raise_for_status()

    assert failure(await client.delete("/v1/tenants/acme")) == (409, "conflict")
    await client.delete("/v1/databases/notes", headers=acme)
    assert failure(await client.delete("/v1/tenants/acme")) == (409, "conflict"), "one can still come back"
    assert failure(await client.delete("/v1/tenants/default")) == (409, "conflict")
    await client.post("/v1/tenants", json={"name": "beta"})
    assert (await client.delete("/v1/tenants/beta")).status_code == 204
    for answer in (await client.delete("/v1/tenants/beta"), await client.get("/v1/tenants/beta")):
        assert failure(answer) == (404, "not_found")


async def test_nothing_is_made_in_a_tenant_that_is_not_there(client):
    nobody = {"Memoturn-Tenant": "nobody"}
    assert failure(await client.post("/v1/databases", json={"name": "a"}, headers=nobody)) == (
        404,
        "not_found",
    )
    answer = await client.post("/v1/memory/app/ann/memories", json={"memories": [FACT]}, headers=nobody)
    assert failure(answer) == (404, "not_found")
    for path in ("/v1/databases", "/v1/databases?deleted=true", "/v1/namespaces", "/v1/memory/app"):
        assert (await client.get(path, headers=nobody)).json()["next_cursor"] is None


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "a--b", "a" * 65, "\u0000", "ä"])
async def test_what_is_no_name_of_a_tenant_makes_none(client, name):
    assert failure(await client.post("/v1/tenants", json={"name": name})) == (400, "invalid_request")


async def test_undeletion_counts_against_the_quota_of_databases(client):
    await created(client, "a")
    await client.delete("/v1/databases/a")
    (await client.put("/v1/tenants/default/quotas", json={"databases": 1})).raise_for_status()
    await created(client, "b")
    refused = await client.post("/v1/databases/a/undelete")
    assert failure(refused) == (429, "overloaded")
    await client.delete("/v1/databases/b")
    assert (await client.post("/v1/databases/a/undelete")).status_code == 200


async def test_first_turn_registers_a_profile_and_no_other_database(client):
    turn = {"role": "user", "content": "hello"}
    made = await client.post("/v1/db/app--ann/memory/s/turns", json=turn)
    assert (made.status_code, made.json()["seq"]) == (201, 1)
    assert [row["name"] for row in (await client.get("/v1/databases")).json()["databases"]] == ["app--ann"]
    for spec in ("notes", "app--bob@trial", "app--ann@trial", "app--Bob", "--ann"):
        answer = await client.post(f"/v1/db/{spec}/memory/s/turns", json=turn)
        assert answer.status_code in {400, 404}, spec
    assert len((await client.get("/v1/databases")).json()["databases"]) == 1
