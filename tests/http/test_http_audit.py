"""What the audit stream says of requests: of every route, by whom, to what, how it ended, and never what was in it."""

import asyncio
import json

import httpx
import pytest
from fake_model import serving_model, settings_of
from http_calls import EMBEDDING_WRITES, FACT, MEMORY, READS, REFUSING_AT, WRITES, created, ingest
from http_support import client_of, limits, running_node

from memoturnd.core import audit
from memoturnd.core.principal import Principal
from memoturnd.errors import ForbiddenError, StoreUnavailableError, UnauthorizedError
from memoturnd.http.actions import ACTIONS, Weight, act_of
from memoturnd.http.app import create_app
from memoturnd.http.auditing import Auditor
from memoturnd.http.route import Kind
from memoturnd.http.routes import ROUTES
from memoturnd.seams.clock import SystemClock

UNAUDITED = {Kind.OPEN, Kind.PEER}


class Doorman:
    """Lets in whoever says who they are, as tests want it."""

    async def admit(self, route, call):
        said = call.header("authorization")
        if route.kind is Kind.OPEN:
            return Principal("anonymous")
        if said is None or said == "Bearer bad":
            raise UnauthorizedError("no credential")
        if said == "Bearer weak":
            raise ForbiddenError("not with this one")
        return Principal("platform", call.header("memoturn-tenant") or "default")


KEY = {"authorization": "Bearer key"}


@pytest.fixture
async def audited(tmp_path):
    """(client, node) of a node that audits everything, reads too."""
    async with (
        serving_model() as model,
        running_node(tmp_path, AUDIT="reads", **settings_of(model)) as node,
        client_of(app_of(node)) as client,
    ):
        yield client, node


def stranger_of(app):
    """A client of those who are turned away, whose answers the API describes once it asks for credentials."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")


def app_of(node, admission=None):
    auditor = Auditor(node.audit, node.audit_rules, SystemClock())
    return create_app(node, limits(), auditor=auditor, admission=admission)


async def events_of(client, namespace="app", **query):
    answer = await client.get(
        f"/v1/namespaces/{namespace}/audit", params={"limit": 1000, **query}, headers=KEY
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["complete"] is True
    return [e for e in answer.json()["events"] if e["action"] != "audit.read"]


def test_every_route_has_an_action_and_no_action_is_left_over():
    assert {route.operation for route in ROUTES if route.kind not in UNAUDITED} == set(ACTIONS)
    assert all((act_of(route) is None) == (route.kind in UNAUDITED) for route in ROUTES)


def test_what_changes_something_is_never_taken_for_a_read():
    weights = {route.operation: act_of(route).weight for route in ROUTES if route.kind not in UNAUDITED}

    reads = {operation for operation, weight in weights.items() if weight is Weight.READ}
    assert {route.operation for route in ROUTES if route.kind is Kind.WRITE}.isdisjoint(reads)
    assert {operation for operation in reads if operation.startswith(("PUT", "DELETE", "PATCH"))} == set()


ALL = {f"{name} {n}": call for n, calls in enumerate((WRITES, READS, EMBEDDING_WRITES, REFUSING_AT)) for name, call in calls.items()}  # fmt: skip


async def test_every_request_to_every_route_leaves_an_event(audited):
    client, node = audited
    await ingest(client, FACT)
    seen = set()
    for method, path, body in ALL.values():
        before = node.audit.taken
        await client.request(method, path, **body)
        assert node.audit.taken > before, (method, path)
        seen.add((method, path))

    assert len(seen) > 60
    found = await events_of(client) + await events_of(client, audit.PLATFORM)
    assert {e["action"] for e in found} >= set(ACTIONS.values()) - {"audit.read", "node.delete_database"}


async def test_an_event_says_who_did_what_to_what_and_how_it_ended(audited):
    client, _ = audited
    await client.put("/v1/db/app--ann/kv/prefs/secret-name", content=b"secret-value")
    await ingest(client, {**FACT, "summary": "secret-summary"})
    put = await client.put("/v1/db/app--ann/kv/prefs/secret-name", content=b"secret-value", headers={"memoturn-request-id": "r1"})  # fmt: skip

    found = await events_of(client)
    [failed, _, done] = found
    assert (failed["outcome"], failed["error"]) == ("error", "database_not_found")
    assert done == {
        "seq": 3,
        "prev": done["prev"],
        "v": 1,
        "id": done["id"],
        "ts": done["ts"],
        "node": done["node"],
        "ns": "app",
        "profile": "ann",
        "action": "kv.put",
        "resource": f"kv/prefs/{audit.hidden('secret-name')}",
        "outcome": "ok",
        "txid": int(put.headers["memoturn-txid"]),
        "actor": {"kind": "anonymous"},
        "request_id": "r1",
    }
    assert "secret" not in json.dumps(found)


async def test_branch_and_named_things_of_the_system_are_shown(audited):
    client, _ = audited
    await ingest(client, FACT)
    await client.post("/v1/db/app--ann/branches", json={"name": "side"})
    await client.put("/v1/db/app--ann@side/kv/ns/k", content=b"x")
    await client.post("/v1/db/app--ann/branches/side/rewind", json={"to": "2"})
    await client.delete(f"{MEMORY}/memories/mem_5758fd9d59dc40b7225a7ebf08fa0f22")

    found = {e["action"]: e for e in await events_of(client)}
    assert found["kv.put"]["branch"] == "side"
    assert (found["branch.rewind"]["branch"], found["branch.rewind"]["outcome"]) == ("side", "ok")
    assert found["memory.forget"]["resource"] == "memories/mem_5758fd9d59dc40b7225a7ebf08fa0f22"


async def test_databases_without_a_namespace_go_to_the_platforms_stream(audited):
    client, _ = audited
    path = await created(client)
    await client.put(f"{path}/kv/ns/k", content=b"x")
    await client.delete("/v1/databases/notes")

    found = await events_of(client, audit.PLATFORM)
    assert [(e["action"], e.get("db")) for e in found] == [
        ("db.create", "notes"),
        ("kv.put", "notes"),
        ("db.delete", "notes"),
    ]


async def test_administrative_acts_are_audited_always_and_data_is_not_unless_asked_for(tmp_path):
    async with running_node(tmp_path) as node, client_of(app_of(node)) as client:
        path = await created(client)
        await client.put(f"{path}/kv/ns/k", content=b"x")
        await ingest(client, FACT)
        await client.delete("/v1/databases/app--ann")

        assert [e["action"] for e in await events_of(client, audit.PLATFORM)] == ["db.create"]
        assert [e["action"] for e in await events_of(client)] == ["db.delete"]


@pytest.mark.parametrize(("reads", "wanted"), [(False, ["kv.put"]), (True, ["kv.put", "kv.get"])])
async def test_a_policy_turns_the_stream_of_its_namespace_on(tmp_path, reads, wanted):
    document = {
        "schema_version": 1, "namespace": "app", "revision": 1, "updated_at": 0, "profiles": {},
        "policy": {"audit": {"enabled": True, "include_reads": reads}},
    }  # fmt: skip
    async with running_node(tmp_path) as node, client_of(app_of(node)) as client:
        await node._services.store.put("v1/_policy/app.json", json.dumps(document).encode())
        await client.post("/v1/memory/b/x/memories", json={"memories": [FACT]})
        await ingest(client, FACT)
        await client.put("/v1/db/app--ann/kv/ns/k", content=b"x")
        await client.get("/v1/db/app--ann/kv/ns/k")
        await client.put("/v1/db/b--x/kv/ns/k", content=b"x")

        assert [e["action"] for e in await events_of(client)] == ["memory.ingest", *wanted]
        assert await events_of(client, "b") == []


async def test_who_is_not_let_in_is_written_down(tmp_path):
    async with (
        running_node(tmp_path, AUDIT="on") as node,
        stranger_of(app_of(node, Doorman())) as client,
    ):
        await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=KEY)
        await client.get("/v1/db/app--ann/kv/ns/k", headers={"authorization": "Bearer weak"})
        await client.get("/v1/db/app--ann/kv/ns/k", headers={"authorization": "Bearer bad"})
        await client.get("/v1/db/other--x/kv/ns/k")

        found = await events_of(client)
        assert [(e["outcome"], e.get("error")) for e in found] == [
            ("ok", None), ("denied", "forbidden"), ("denied", "unauthorized"),
        ]  # fmt: skip
        assert found[2]["actor"] == {"kind": "token", "token_hash": audit.token_hash(b"bad")}
        [stranger] = await events_of(client, audit.PLATFORM)
        assert (stranger["db"], stranger["outcome"], stranger["actor"]) == (
            "other--x", "denied", {"kind": "anonymous"},
        )  # fmt: skip


async def test_a_flood_of_strangers_is_counted_and_starts_no_streams(tmp_path):
    async with (
        running_node(tmp_path, AUDIT="on") as node,
        stranger_of(app_of(node, Doorman())) as client,
    ):
        for n in range(300):
            await client.get(f"/v1/db/ns{n}--x/kv/ns/k")
        node.audit._tell_denied()
        found = await events_of(client, audit.PLATFORM)

        told = sum(e.get("count", 1) for e in found)
        assert told == 300
        assert len(found) < 200
        assert [i.key async for i in node._services.store.list(audit.heads_prefix("ns0"))] == []


async def test_tenants_have_streams_of_their_own(tmp_path):
    async with (
        running_node(tmp_path, AUDIT="on") as node,
        stranger_of(app_of(node, Doorman())) as client,
    ):
        for tenant in ("default", "acme"):
            headers = {**KEY, "memoturn-tenant": tenant}
            await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=headers)

        [plain] = await events_of(client)
        answer = await client.get("/v1/namespaces/app/audit", headers={**KEY, "memoturn-tenant": "acme"})
        [theirs] = answer.json()["events"]
        assert "tenant" not in plain
        assert theirs["tenant"] == "acme"


async def test_a_page_ends_with_a_cursor_that_goes_on(audited):
    client, node = audited
    await ingest(client, FACT)
    for n in range(7):
        await client.put(f"/v1/db/app--ann/kv/ns/{n}", content=b"x")
        if n == 3:
            await node.audit.flush()

    seen, cursor, pages = [], None, 0
    while True:
        query = {"limit": 3, "action": "kv.", **({} if cursor is None else {"cursor": cursor})}
        page = (await client.get("/v1/namespaces/app/audit", params=query)).json()
        seen += [e["resource"] for e in page["events"]]
        cursor, pages = page["next_cursor"], pages + 1
        assert page["complete"] is (cursor is None)
        if cursor is None:
            break

    assert seen == [f"kv/ns/{audit.hidden(str(n))}" for n in range(7)]
    assert pages == 3


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "x"},
        {"cursor": "djEvX2F1ZGl0L290aGVyLzIwMjYvMDEvMDEvMTcwMDAwMDAwMDEyMwow"},
        {"outcome": "maybe"},
        {"from": "yesterday"},
        {"profile": "A/../B"},
        {"limit": "-1"},
        {"action": ""},
    ],
)
async def test_what_is_asked_wrongly_is_refused(audited, query):
    client, _ = audited

    answer = await client.get("/v1/namespaces/app/audit", params=query)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_events_are_filtered(audited):
    client, _ = audited
    await ingest(client, FACT)
    await ingest(client, FACT, path="/v1/memory/app/bob")
    await client.get(f"{MEMORY}/memories/mem_0")

    assert [e["profile"] for e in await events_of(client, profile="bob")] == ["bob"]
    assert [e["action"] for e in await events_of(client, outcome="error")] == ["memory.get"]
    assert [e["action"] for e in await events_of(client, action="memory.ingest")] == ["memory.ingest"] * 2
    assert await events_of(client, action="memory") == []
    first = (await events_of(client))[0]["ts"]
    assert await events_of(client, to=first) == []
    assert await events_of(client, **{"from": 10**12, "to": 10**12 + 1}) == []


async def test_an_old_empty_window_ends_after_bounded_work_with_a_cursor(audited):
    client, _ = audited

    page = (await client.get("/v1/namespaces/app/audit", params={"from": 0})).json()

    assert page["events"] == []
    assert page["next_cursor"] is not None
    assert page["complete"] is False


async def test_what_cannot_be_written_down_is_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.audit.log.EVENTS_LIMIT", 3)
    async with (
        running_node(tmp_path, AUDIT="on", REQUEST_TIMEOUT="0.2", AUDIT_FLUSH_MS="100") as node,
        client_of(app_of(node)) as client,
    ):
        await ingest(client, FACT)
        await node.audit.flush()
        store = node.audit._store

        async def down(key, data):
            raise StoreUnavailableError("down")

        monkeypatch.setattr(store, "put_if_absent", down, raising=False)
        monkeypatch.setattr(type(store), "put_if_absent", lambda self, key, data: down(key, data))
        statuses = [
            (await client.put(f"/v1/db/app--ann/kv/ns/{n}", content=b"x")).status_code for n in range(5)
        ]
        refused = await client.put("/v1/db/app--ann/kv/ns/9", content=b"x")
        monkeypatch.undo()

        assert statuses == [200, 200, 200, 503, 503]
        assert refused.json()["code"] == "unavailable"
        assert refused.headers["retry-after"] == "1"
        keys = (await client.get("/v1/db/app--ann/kv/ns")).json()["keys"]
        assert keys == ["0", "1", "2"]
        await asyncio.sleep(0.3)
        assert (await client.put("/v1/db/app--ann/kv/ns/9", content=b"x")).status_code == 200


async def test_an_export_has_every_object_and_head(audited):
    client, _ = audited
    await ingest(client, FACT)

    answer = await client.get("/v1/namespaces/app/audit/export")

    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["kind"] for line in lines] == ["header", "head", "object", "head", "end"]
    assert lines[0]["stream"] == "app"


async def test_events_say_how_much_was_changed(audited):
    client, _ = audited
    await ingest(client, FACT, {"type": "event", "summary": "x"})
    await client.post("/v1/db/app--ann/docs/c/insert", json={"docs": [{"n": 1}, {"n": 2}, {"n": 3}]})
    await client.post("/v1/db/app--ann/docs/c/update", json={"filter": {}, "update": {"$set": {"n": 4}}, "multi": True})  # fmt: skip
    await client.post("/v1/db/app--ann/docs/c/delete", json={"filter": {}, "multi": True})
    await client.post(
        "/v1/db/app--ann/memory/s/turns", json={"turns": [{"role": "user", "content": "x"}] * 2}
    )
    await client.delete("/v1/db/app--ann/memory/s/turns?all=true")
    await client.post("/v1/db/app--ann/vectors/v", json={"id": "a", "embedding": [1]})
    await client.post("/v1/db/app--ann/vectors/v/delete", json={"ids": ["a", "b"]})
    await client.post("/v1/db/app--ann/timelines/t/rows", json={"rows": [{"key": "k"}, {"key": "k"}]})
    await client.post(f"{MEMORY}/memories/forget", json={"all": True})

    assert [(e["action"], e["count"]) for e in await events_of(client) if "count" in e] == [
        ("memory.ingest", 2),
        ("documents.insert", 3),
        ("documents.update", 3),
        ("documents.delete", 3),
        ("turns.append", 2),
        ("turns.delete", 2),
        ("vectors.upsert", 1),
        ("vectors.delete", 1),
        ("timelines.append", 2),
        ("memory.forget", 2),
    ]
