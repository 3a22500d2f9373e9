"""The routes between nodes about replicas: what they take, and that with authentication on they take the cluster key alone."""

import asyncio

import pytest
from auth_support import CLUSTER_KEY, PLATFORM_KEY, guarded_node, mint, sender
from http_calls import failure
from http_support import client_of, limits

from memoturnd.http.admission import OpenAdmission
from memoturnd.http.app import create_app

KEY = {"X-Memoturn-Internal": "right"}
INGEST = "/internal/replica/ingest"


@pytest.fixture
async def peer(node):
    """A sender of internal requests to a node without authentication."""
    admission = OpenAdmission(lambda key: key == b"right")
    async with client_of(create_app(node, limits(), admission=admission)) as client:
        client.headers.update(KEY)
        yield client


@pytest.fixture
async def owned(node, peer):
    """The uuid and the id of a branch that the node owns."""
    await peer.post("/v1/databases", json={"name": "notes"})
    await peer.put("/v1/db/notes/kv/ns/k", content=b"v")
    branch = await node.profile("notes")
    return branch.ref.database.uuid, branch.branch_id


async def test_subscription_is_taken_by_the_owner_alone(node, peer, owned):
    uuid, branch_id = owned
    asked = {"uuid": uuid, "branch": "main", "addr": "http://b:1"}

    assert (await peer.post("/internal/replica/subscribe", json=asked)).status_code == 204
    assert (
        await peer.post("/internal/replica/subscribe", json={**asked, "branch_id": branch_id})
    ).status_code == 204
    assert len(node._services.subscribers) == 1
    for changed in ({"uuid": "0" * 32}, {"branch": "other"}, {"branch_id": "f" * 16}):
        answer = await peer.post("/internal/replica/subscribe", json={**asked, **changed})
        assert answer.status_code in {409, 421}, answer.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"uuid": "x", "branch": "main", "addr": "http://b"}']
)
async def test_subscription_that_is_none_is_refused(peer, body):
    answer = await peer.post("/internal/replica/subscribe", content=body)

    assert failure(answer) == (400, "invalid_request")


@pytest.mark.parametrize("addr", ["b:1", "file:///etc/passwd", "http://b c", "http://b\n", ""])
async def test_address_that_is_none_is_refused(peer, owned, addr):
    answer = await peer.post(
        "/internal/replica/subscribe", json={"uuid": owned[0], "branch": "main", "addr": addr}
    )

    assert failure(answer) == (400, "invalid_request")


async def test_owner_says_where_it_stands_and_nothing_of_what_it_does_not_own(node, peer, owned):
    uuid, branch_id = owned
    await peer.post("/v1/db/notes/sync", json={})
    followed = {"uuid": uuid, "branch": "main", "branch_id": branch_id}
    body = {"addr": "http://b:1", "branches": [followed, {**followed, "branch_id": "f" * 16}]}

    answer = await peer.post("/internal/replica/confirm", json=body)

    (standing,) = answer.json()["branches"]
    branch = await node.profile("notes")
    assert standing == {
        "branch_id": branch_id,
        "txid": branch.txid,
        "checksum": f"{branch.owned.capture.hashes.checksum:016x}",
        "epoch": branch.owned.epoch,
        "unshipped_ms": 0,
    }


async def test_push_without_what_it_needs_is_refused(peer, owned):
    headers = {
        "Memoturn-Db-Uuid": "0" * 32,
        "Memoturn-Branch": "main",
        "Memoturn-Kind": "segment",
    }
    for missing in headers:
        rest = {name: value for name, value in headers.items() if name != missing}
        answer = await peer.post(INGEST, content=b"x", headers=rest)
        assert failure(answer) == (400, "invalid_request")
        assert missing in answer.json()["error"]
    answer = await peer.post(INGEST, content=b"x", headers={**headers, "Memoturn-Kind": "file"})
    assert failure(answer) == (400, "invalid_request")
    assert failure(await peer.post(INGEST, headers=headers)) == (400, "invalid_request")
    assert failure(await peer.post(INGEST, content=b"x", headers=headers)) == (404, "not_found")
    answer = await peer.post(INGEST, content=b"x", headers={**headers, "Memoturn-Db-Uuid": owned[0]})
    assert failure(answer) == (409, "conflict")


async def test_change_of_a_branch_that_is_not_followed_is_taken_and_does_nothing(peer):
    answer = await peer.post("/internal/replica/changed", json={"branches": ["f" * 16]})

    assert answer.status_code == 204


@pytest.mark.parametrize("route", ["subscribe", "confirm", "changed", "ingest"])
async def test_with_authentication_on_they_take_the_cluster_key_alone(tmp_path, route):
    """The original's pushes carried no key, so that with authentication on every replica went stale for good."""
    path = f"/internal/replica/{route}"
    async with guarded_node(tmp_path) as node:
        async with sender(node, PLATFORM_KEY) as platform:
            await platform.post("/v1/databases", json={"name": "notes"})
            token = (await mint(platform, "databases/notes", scope="admin"))["token"]
            assert (await platform.post(path, json={})).status_code == 403
        async with sender(node, token) as bearer:
            assert (await bearer.post(path, json={})).status_code == 403
        async with sender(node, **{"X-Memoturn-Internal": "guess"}) as stranger:
            assert (await stranger.post(path, json={})).status_code == 401
        async with sender(node, **{"X-Memoturn-Internal": CLUSTER_KEY}) as other:
            assert (await other.post(path, json={})).status_code == 400


async def test_they_pass_a_node_that_takes_nobody_else(node):
    """Guard: Kind.PEER takes no slot. Else a busy node's replicas would be the first to go stale."""
    admission = OpenAdmission(lambda key: key == b"right")
    app = create_app(node, limits(max_concurrency=1, queue_depth=0), admission=admission)
    async with client_of(app) as client:
        answers = await asyncio.gather(
            *(client.post("/internal/replica/changed", json={"branches": []}, headers=KEY) for _ in range(20))
        )
    assert {answer.status_code for answer in answers} == {204}
