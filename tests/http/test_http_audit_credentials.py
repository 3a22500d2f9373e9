"""The audit stream of a node with authentication: who is named, who may read it, and whose signature it has."""

import base64
import json

import pytest
from auth_support import PLATFORM_KEY, guarded_node, mint
from http_calls import FACT, MEMORY
from http_support import client_of, limits
from memoturn.audit import StreamVerifier

from memoturnd.core import audit
from memoturnd.http.app import create_app
from memoturnd.http.auditing import Auditor
from memoturnd.seams.clock import SystemClock


def bearer(credential):
    return {"authorization": f"Bearer {credential}"}


@pytest.fixture
async def guarded(tmp_path):
    """(client, node) of a node that asks for credentials and audits acts on data."""
    async with guarded_node(tmp_path, AUDIT="on") as node:
        auditor = Auditor(node.audit, node.audit_rules, SystemClock())
        async with client_of(create_app(node, limits(loopback_only=False), auditor=auditor)) as client:
            client.headers.update(bearer(PLATFORM_KEY))
            yield client, node


async def exported(client, namespace):
    answer = await client.get(f"/v1/namespaces/{namespace}/audit/export")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def report_of(lines, keys=None):
    verifier = StreamVerifier(lines[0]["stream"], {"keys": lines[0]["keys"]} if keys is None else keys)
    for line in lines:
        if line["kind"] == "object":
            verifier.add_object(line["key"], base64.b64decode(line["data"]))
        elif line["kind"] == "head":
            verifier.add_head(line["key"], base64.b64decode(line["data"]), when=line["when"])
    return verifier.report()


async def test_heads_are_signed_by_a_published_key(guarded):
    client, _ = guarded
    await client.post("/v1/databases", json={"name": "notes"})
    await client.post("/v1/tenants", json={"name": "acme"})
    await client.delete("/v1/tenants/acme")
    told = (await client.get("/v1/namespaces/_platform/audit", params={"action": "tenant."})).json()["events"]
    assert [(e["action"], e["resource"]) for e in told] == [
        ("tenant.create", "tenants/acme"),
        ("tenant.delete", "tenants/acme"),
    ]

    lines = await exported(client, audit.PLATFORM)

    report = report_of(lines)
    assert (report["outcome"], report["signatures"]) == ("sound", "checked")
    assert all(row["signed"] for row in report["chains"])
    published = (await client.get("/.well-known/jwks.json")).json()
    assert report_of(lines, published)["outcome"] == "sound"


async def test_events_name_tokens_by_id_and_hash_and_never_themselves(guarded):
    client, _ = guarded
    minted = await mint(client, "namespaces/app", "admin")
    token = minted["token"]
    made = await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=bearer(token))
    assert made.status_code == 201, made.text

    answer = await client.get("/v1/namespaces/app/audit", headers=bearer(token))

    assert answer.status_code == 200
    [mint_event, ingest_event] = answer.json()["events"]
    assert (mint_event["action"], mint_event["actor"]["kind"]) == ("token.mint", "platform")
    assert mint_event["resource"] == f"tokens/{minted['id']}"
    actor = ingest_event["actor"]
    assert (actor["kind"], actor["scope"], actor["claim_ns"]) == ("token", "admin", "app")
    assert actor["token_hash"] == audit.token_hash(token.encode())
    assert actor["token_id"]
    assert token not in answer.text
    assert PLATFORM_KEY not in answer.text


async def test_a_namespace_admin_reads_his_own_stream_alone(guarded):
    client, _ = guarded
    token = (await mint(client, "namespaces/app", "admin"))["token"]
    weak = (await mint(client, "namespaces/app", "write"))["token"]
    other = (await mint(client, "namespaces/other", "admin"))["token"]

    assert (await client.get("/v1/namespaces/app/audit", headers=bearer(token))).status_code == 200
    for credential in (weak, other):
        for path in ("audit", "audit/export"):
            denied = await client.get(f"/v1/namespaces/app/{path}", headers=bearer(credential))
            assert denied.status_code == 403
    assert (await client.get("/v1/namespaces/_platform/audit", headers=bearer(token))).status_code in {
        400,
        403,
    }
    assert (await client.get("/v1/namespaces/_platform/audit")).status_code == 200


async def test_denials_name_who_was_turned_away(guarded):
    client, _ = guarded
    weak = (await mint(client, "namespaces/app", "read"))["token"]
    await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=bearer(weak))
    await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=bearer("made-up"))

    denied = (await client.get("/v1/namespaces/app/audit", params={"outcome": "denied"})).json()["events"]

    assert [(e["error"], e["actor"]["kind"]) for e in denied] == [
        ("forbidden", "token"),
        ("unauthorized", "token"),
    ]
    assert denied[0]["actor"]["token_hash"] == audit.token_hash(weak.encode())
    assert denied[1]["actor"] == {"kind": "token", "token_hash": audit.token_hash(b"made-up")}


async def test_tokens_can_neither_fill_the_stream_nor_start_others_by_being_turned_away(guarded):
    client, node = guarded
    token = (await mint(client, "namespaces/app", "read"))["token"]
    for n in range(200):
        answer = await client.post(f"/v1/namespaces/other{n}/tokens", json={}, headers=bearer(token))
        assert answer.status_code == 403
    assert len(list(node.audit._waiting)) <= 2
    node.audit._tell_denied()

    events = (await client.get("/v1/namespaces/_platform/audit", params={"limit": 1000})).json()["events"]
    denied = [e for e in events if e["outcome"] == "denied"]
    assert sum(e.get("count", 1) for e in denied) == 200
    assert len(denied) < 100
    assert denied[0]["db"] == "other0"
    assert denied[0]["actor"]["claim_ns"] == "app"
    assert [i.key async for i in node._services.store.list(audit.heads_prefix("other0"))] == []


async def test_who_is_turned_away_from_what_is_no_database_is_told_with_none(guarded):
    client, _ = guarded
    assert (await client.get("/v1/tenants", headers=bearer("x"))).status_code == 401
    assert (await client.post("/v1/tenants", json={"name": "a"}, headers=bearer("x"))).status_code == 401
    events = (await client.get("/v1/namespaces/_platform/audit")).json()["events"]
    assert events
    assert all("db" not in event for event in events)


async def test_a_read_that_is_turned_away_for_its_body_is_written_down_where_reads_are_not(guarded):
    client, _ = guarded
    token = (await mint(client, "namespaces/app", "read", surfaces=["memory"]))["token"]
    await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}, headers=bearer(token))
    asked = {"query": "x", "embedding": [1.0, 0.0], "include_turns": True}
    answer = await client.post(f"{MEMORY}/recall", json=asked, headers=bearer(token))
    assert answer.status_code == 403, answer.text
    await client.post(f"{MEMORY}/recall", json={"query": "x"}, headers=bearer(token))

    told = (await client.get("/v1/namespaces/app/audit", params={"action": "memory.recall"})).json()["events"]
    assert [(e["outcome"], e["error"]) for e in told] == [("denied", "forbidden")]
