"""Routes between nodes and a control plane: the cluster key opens them, and nothing else does."""

import pytest
from http_calls import failure
from http_support import client_of, limits

from memoturnd.http.admission import OpenAdmission
from memoturnd.http.app import create_app

KEY = {"X-Memoturn-Internal": "right"}


@pytest.fixture
async def peer(node):
    """A sender of internal requests to a node without authentication."""
    admission = OpenAdmission(lambda key: key == b"right")
    async with client_of(create_app(node, limits(), admission=admission)) as client:
        yield client


async def made(client):
    answer = await client.post("/v1/databases", json={"name": "notes"})
    return answer.json()["uuid"]


async def test_deletion_takes_the_cluster_key(peer):
    uuid = await made(peer)

    for headers in ({}, {"X-Memoturn-Internal": "wrong"}, {"Authorization": "Bearer right"}):
        answer = await peer.delete(f"/internal/databases/notes/{uuid}", headers=headers)
        assert failure(answer) == (401, "unauthorized")
    assert len((await peer.get("/v1/databases")).json()["databases"]) == 1

    answer = await peer.delete(f"/internal/databases/notes/{uuid}", headers=KEY)
    assert answer.status_code == 204
    assert (await peer.get("/v1/databases")).json()["databases"] == []


async def test_node_without_a_cluster_key_has_no_internal_routes(client):
    uuid = await made(client)

    answer = await client.delete(f"/internal/databases/notes/{uuid}", headers=KEY)

    assert failure(answer) == (401, "unauthorized")


async def test_another_database_of_that_name_is_not_deleted(peer):
    first = await made(peer)
    await peer.delete("/v1/databases/notes")
    await made(peer)

    answer = await peer.delete(f"/internal/databases/notes/{first}", headers=KEY)

    assert failure(answer) == (404, "database_not_found")
    assert len((await peer.get("/v1/databases")).json()["databases"]) == 1


async def test_deletion_is_of_the_tenant_that_is_named(node, peer):
    await node._services.catalog.create_tenant("acme", 0)
    uuid = await made(peer)

    answer = await peer.delete(
        f"/internal/databases/notes/{uuid}", headers={**KEY, "Memoturn-Tenant": "acme"}
    )

    assert failure(answer) == (404, "database_not_found")


@pytest.mark.parametrize("name", ["A", "a--b--c", "a@main", "acme%2Fnotes", "x" * 65])
async def test_what_is_no_name_is_refused(peer, name):
    answer = await peer.delete(f"/internal/databases/{name}/{'1' * 32}", headers=KEY)

    assert failure(answer) == (400, "invalid_request")


async def test_a_past_state_is_not_what_nodes_speak_of(peer):
    uuid = await made(peer)

    answer = await peer.delete(f"/internal/databases/notes/{uuid}", headers={**KEY, "Memoturn-At": "txid:1"})

    assert failure(answer) == (400, "invalid_request")
    assert len((await peer.get("/v1/databases")).json()["databases"]) == 1
