"""`Idempotency-Key` on the directory and on branches: sent again after a lost answer, or after a crash half way."""

import pytest
from http_calls import FACT, failure, ingest

KEY = {"idempotency-key": "1b2c"}
DB = "/v1/db/app--ann"
OPERATIONS = {
    "create": ("POST", "/v1/databases", {"name": "new"}),
    "delete": ("DELETE", "/v1/databases/old", None),
    "undelete database": ("POST", "/v1/databases/lost/undelete", None),
    "create tenant": ("POST", "/v1/tenants", {"name": "new"}),
    "delete tenant": ("DELETE", "/v1/tenants/old", None),
    "fork": ("POST", f"{DB}/branches", {"name": "new", "ttl": 1000}),
    "delete branch": ("DELETE", f"{DB}/branches/side", None),
    "undelete": ("POST", f"{DB}/branches/gone/undelete", None),
    "checkpoint": ("POST", f"{DB}/branches/main/checkpoint", {"name": "new"}),
    "delete checkpoint": ("DELETE", f"{DB}/branches/main/checkpoints/old", None),
    "rewind": ("POST", f"{DB}/branches/main/rewind", {"to": "old"}),
    "undo": ("POST", f"{DB}/branches/main/rewind/undo", None),
}
UNDO_FIRST = {
    "create": ("DELETE", "/v1/databases/new", None),
    "delete": ("POST", "/v1/databases", {"name": "old"}),
    "undelete database": ("DELETE", "/v1/databases/lost", None),
    "create tenant": ("DELETE", "/v1/tenants/new", None),
    "delete tenant": ("POST", "/v1/tenants", {"name": "old"}),
    "fork": ("DELETE", f"{DB}/branches/new", None),
    "delete branch": ("POST", f"{DB}/branches", {"name": "side"}),
    "undelete": ("DELETE", f"{DB}/branches/gone", None),
    "checkpoint": ("DELETE", f"{DB}/branches/main/checkpoints/new", None),
    "delete checkpoint": ("POST", f"{DB}/branches/main/checkpoint", {"name": "old"}),
}


async def send(client, operation, **headers):
    method, path, body = operation
    return await client.request(method, path, json=body, headers=headers)


@pytest.fixture
async def prepared(client):
    """A profile with branches, checkpoints and a rewind, and another database."""
    await ingest(client, FACT)
    for name in ("old", "lost"):
        await client.post("/v1/databases", json={"name": name})
    assert (await client.delete("/v1/databases/lost")).status_code == 204
    await client.post("/v1/tenants", json={"name": "old"})
    for name in ("side", "gone"):
        assert (await client.post(f"{DB}/branches", json={"name": name})).status_code == 201
    assert (await client.delete(f"{DB}/branches/gone")).status_code == 204
    assert (await client.post(f"{DB}/branches/main/checkpoint", json={"name": "old"})).status_code == 200
    await client.put(f"{DB}/kv/ns/k", content=b"1")
    assert (await client.post(f"{DB}/branches/main/rewind", json={"to": "old"})).status_code == 200


async def shape(client):
    """Everything that these operations change, as clients see it."""
    return {
        path: (await client.get(path)).json()
        for path in ("/v1/databases", "/v1/tenants", f"{DB}/branches", f"{DB}/branches/main/checkpoints")
    } | {"k": (await client.get(f"{DB}/kv/ns/k")).content}


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_request_that_is_sent_again_answers_as_it_did_and_changes_nothing(client, name):
    first = await send(client, OPERATIONS[name], **KEY)
    assert first.is_success, first.text
    after = await shape(client)

    again = await send(client, OPERATIONS[name], **KEY)

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await shape(client) == after


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("name", UNDO_FIRST)
async def test_what_somebody_undid_meanwhile_stays_undone(client, name):
    first = await send(client, OPERATIONS[name], **KEY)
    assert (await send(client, UNDO_FIRST[name])).is_success
    after = await shape(client)

    again = await send(client, OPERATIONS[name], **KEY)

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert await shape(client) == after


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_node_that_died_before_it_kept_the_answer_does_it_once_all_the_same(
    client, node, name, monkeypatch
):
    async def dies(_key, _answer):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(node.journal._catalog, "finish_request", dies)
        first = await send(client, OPERATIONS[name], **KEY)
    assert first.is_success, first.text
    await client.put(f"{DB}/kv/ns/later", content=b"2")
    after = await shape(client)

    again = await send(client, OPERATIONS[name], **KEY)

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert await shape(client) == after
    assert (await client.get(f"{DB}/kv/ns/later")).content == b"2"


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("name", ["delete", "delete branch", "delete checkpoint"])
async def test_what_was_made_anew_after_a_lost_answer_is_not_deleted(client, node, name, monkeypatch):
    async def dies(_key, _answer):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(node.journal._catalog, "finish_request", dies)
        await send(client, OPERATIONS[name], **KEY)
    assert (await send(client, UNDO_FIRST[name])).is_success
    after = await shape(client)

    assert (await send(client, OPERATIONS[name], **KEY)).status_code == 204
    assert await shape(client) == after


@pytest.mark.usefixtures("prepared")
async def test_a_request_that_died_before_it_did_anything_is_done_by_the_next(client, node, monkeypatch):
    async def dies(*_args, **_more):
        raise RuntimeError

    for name, owner, method in (
        ("create", node.databases, "create"),
        ("fork", node.branches, "create"),
        ("delete branch", node.branches, "delete"),
        ("delete checkpoint", node.branches, "delete_checkpoint"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, dies)
            assert (await send(client, OPERATIONS[name], **KEY)).status_code == 500
        done = await send(client, OPERATIONS[name], **KEY)
        assert done.is_success, (name, done.text)


@pytest.mark.usefixtures("prepared")
async def test_another_request_under_the_same_key_is_refused_and_a_failed_one_leaves_it_free(client):
    taken = ("POST", f"{DB}/branches", {"name": "side"})
    assert failure(await send(client, taken, **KEY)) == (409, "already_exists")
    assert (await send(client, OPERATIONS["fork"], **KEY)).status_code == 201

    assert failure(await send(client, taken, **KEY)) == (422, "idempotency_key_reused")
    rewound = await send(client, OPERATIONS["rewind"], **KEY)
    assert rewound.status_code == 200
    other = ("POST", f"{DB}/branches/main/rewind", {"to": "head"})
    assert failure(await send(client, other, **KEY)) == (422, "idempotency_key_reused")
    assert (await send(client, OPERATIONS["create"], **KEY)).status_code == 201
    other = ("POST", "/v1/databases", {"name": "other"})
    assert failure(await send(client, other, **KEY)) == (422, "idempotency_key_reused")


async def test_the_number_of_requests_that_are_kept_is_bounded(client, monkeypatch):
    monkeypatch.setattr("memoturnd.engine.journal.KEPT_ENTRIES", 2)
    for name in ("a", "b", "c"):
        created = await client.post("/v1/databases", json={"name": name}, headers={"idempotency-key": name})
        assert created.status_code == 201

    statuses = [
        (
            await client.post("/v1/databases", json={"name": name}, headers={"idempotency-key": name})
        ).status_code
        for name in ("a", "c")
    ]

    assert statuses == [409, 201]
