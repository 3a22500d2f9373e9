"""Names are a tenant's own: what one calls `app--ann` is not what another calls so."""

import pytest
from http_calls import FACT, ingest
from http_support import client_of, limits

from memoturnd.http.app import create_app

OTHER = {"Memoturn-Tenant": "acme"}


@pytest.fixture
async def other(node):
    await node._services.catalog.create_tenant("acme", 0)
    async with client_of(create_app(node, limits())) as client:
        client.headers.update(OTHER)
        yield client


async def test_databases_of_two_tenants_share_a_name_and_nothing_else(client, other):
    for sender in (client, other):
        assert (await sender.post("/v1/databases", json={"name": "notes"})).status_code == 201
    await client.put("/v1/db/notes/kv/n/k", content=b"ours")
    assert (await other.get("/v1/db/notes/kv/n/k")).status_code == 404
    await other.put("/v1/db/notes/kv/n/k", content=b"theirs")
    assert (await client.get("/v1/db/notes/kv/n/k")).content == b"ours"
    assert (await other.delete("/v1/databases/notes")).status_code == 204
    assert (await client.get("/v1/db/notes/kv/n/k")).content == b"ours"


async def test_a_listing_shows_the_databases_of_its_tenant(client, other):
    await client.post("/v1/databases", json={"name": "notes"})
    await other.post("/v1/databases", json={"name": "zeta"})
    await ingest(other, FACT)
    for sender, names in ((client, ["notes"]), (other, ["app--ann", "zeta"])):
        listed = (await sender.get("/v1/databases")).json()["databases"]
        assert [row["name"] for row in listed] == names
    assert (await client.get("/v1/memory/app")).json()["profiles"] == []
    assert [row["profile"] for row in (await other.get("/v1/memory/app")).json()["profiles"]] == ["ann"]


async def test_a_fork_of_a_tenants_database_shows_its_plain_name(other):
    await other.post("/v1/databases", json={"name": "notes"})
    await other.put("/v1/db/notes/kv/n/k", content=b"v")
    made = await other.post("/v1/db/notes/branches", json={"name": "try"})
    assert made.json()["spec"] == "notes@try"
    assert (await other.get("/v1/db/notes/branches")).json()["branches"][0]["db_name"] == "notes"
    assert (await other.get("/v1/db/notes@try/kv/n/k")).content == b"v"


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "a--b", "a" * 65])
async def test_what_is_no_name_of_a_tenant_is_refused(client, name):
    answer = await client.get("/v1/databases", headers={"Memoturn-Tenant": name})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_no_path_leads_to_another_tenants_database(client, other):
    await other.post("/v1/databases", json={"name": "notes"})
    for path in ("/v1/db/acme%2Fnotes/kv/n/k", "/v1/db/acme%2Fnotes/branches"):
        assert (await client.get(path)).status_code == 400
    assert (await client.post("/v1/databases", json={"name": "acme/notes"})).status_code == 400
    assert (await client.get("/v1/databases", params={"prefix": "acme/"})).json()["databases"] == []
