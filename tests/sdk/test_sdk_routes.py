"""Every public route of the API is reached by a method of the client, and everything that it takes can be sent."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from memoturn import AsyncMemoturn

from memoturnd.http.openapi import document
from memoturnd.http.routes import ROUTES

PUBLIC = [route for route in ROUTES if not route.template.startswith("/internal/")]
API = document(PUBLIC)

Told = Awaitable[Any] | AsyncIterator[Any]
READ: dict[str, Any] = {"at": "head", "min_txid": 1, "consistency": "cached"}
READ_NOW: dict[str, Any] = {"min_txid": 1, "consistency": "cached"}
WRITE: dict[str, Any] = {"durability": "durable", "idempotency_key": "k"}
ONCE: dict[str, Any] = {"idempotency_key": "k"}
FILTERS: dict[str, Any] = {
    "types": ["fact"],
    "topic_key": "t",
    "topic_prefix": "t",
    "session_id": "s",
    "source": "c",
    "pinned": False,
    "since": 1,
    "until": 2,
}
VECTOR = [1.0]
DAYS: dict[str, Any] = {"from_day": "2026-11-01", "to_day": "2026-11-02"}
TURNS_FOUND: dict[str, Any] = {
    "vector": VECTOR,
    "embedding_model": "m",
    "mode": "hybrid",
    "k": 1,
    "role": "user",
    "since": 1,
    "until": 2,
}
ROWS: dict[str, Any] = {
    "key": "k",
    "keys": ["k"],
    "since": 1,
    "until": 2,
    "filter": {"a": 1},
    "order": "asc",
}
NARROW: dict[str, Any] = {
    "expires_in": 1,
    "branches": ["b"],
    "surfaces": ["kv"],
    "limits": {"writes_per_s": 1},
    "subject": "x",
}


class Parts:
    """A client, and its objects on a branch that is not main."""

    def __init__(self, client: AsyncMemoturn, folder: Path) -> None:
        self.client = client
        self.profile = client.memory("n", "p").on_branch("b")
        self.db = client.db("d@b")
        self.documents = self.db.collection("c")
        self.timeline = self.db.timeline("t")
        self.session = self.profile.session("s")
        self.file = folder / "file"
        self.file.write_bytes(b"{}\n")
        self.target = folder / "target"


CALLS: dict[str, Callable[[Parts], Told]] = {
    # operators
    "GET /health": lambda p: p.client.health(),
    "GET /ready": lambda p: p.client.readiness(),
    "GET /metrics": lambda p: p.client.metrics(),
    "GET /openapi.json": lambda p: p.client.openapi(),
    "GET /v1/cluster": lambda p: p.client.cluster(limit=1, cursor="c"),
    "GET /v1/db/{db}/placement": lambda p: p.client.placement("d"),
    # databases
    "POST /v1/databases": lambda p: p.client.create_database("d", **ONCE),
    "GET /v1/databases": lambda p: p.client.iter_databases(prefix="d", deleted=True),
    "DELETE /v1/databases/{db}": lambda p: p.client.delete_database("d", **ONCE),
    "POST /v1/databases/{db}/undelete": lambda p: p.client.undelete_database("d", uuid="0" * 32, **ONCE),
    "PUT /v1/databases/{db}/import": lambda p: p.client.import_database(p.file, "d", branch="b", ttl=1),
    "GET /v1/namespaces": lambda p: p.client.iter_namespaces(),
    "GET /v1/memory/{ns}": lambda p: p.client.iter_profiles("n"),
    # tenants, quotas, usage, policies
    "POST /v1/tenants": lambda p: p.client.create_tenant("t", **ONCE),
    "GET /v1/tenants": lambda p: p.client.iter_tenants(),
    "GET /v1/tenants/{tenant}": lambda p: p.client.get_tenant("t"),
    "DELETE /v1/tenants/{tenant}": lambda p: p.client.delete_tenant("t", **ONCE),
    "GET /v1/databases/{db}/usage": lambda p: p.client.iter_usage("d", **DAYS),
    "GET /v1/namespaces/{ns}/usage": lambda p: p.client.iter_namespace_usage("n", **DAYS),
    "GET /v1/namespaces/{ns}/quotas": lambda p: p.client.get_quotas("n"),
    "PUT /v1/namespaces/{ns}/quotas": lambda p: p.client.set_quotas("n", quotas()),
    "GET /v1/tenants/{tenant}/quotas": lambda p: p.client.get_tenant_quotas("t"),
    "PUT /v1/tenants/{tenant}/quotas": lambda p: p.client.set_tenant_quotas("t", quotas()),
    "GET /v1/namespaces/{ns}/policy": lambda p: p.client.get_policy("n"),
    "PUT /v1/namespaces/{ns}/policy": lambda p: p.client.set_policy("n", {}, if_revision=1),
    "GET /v1/memory/{ns}/{profile}/policy": lambda p: p.client.get_policy("n", profile="p"),
    "PUT /v1/memory/{ns}/{profile}/policy": lambda p: p.client.set_policy(
        "n", None, profile="p", if_revision=1
    ),
    "GET /v1/namespaces/{ns}/audit": lambda p: p.client.audit_events(
        "n", from_ms=1, to_ms=2, action="a", profile="p", outcome="ok"
    ),
    "GET /v1/namespaces/{ns}/audit/export": lambda p: p.client.audit_export("n"),
    # credentials
    "POST /v1/databases/{db}/tokens": lambda p: p.client.create_token("d", "read", **NARROW),
    "GET /v1/databases/{db}/tokens": lambda p: p.client.iter_tokens("d"),
    "POST /v1/databases/{db}/tokens/revoke": lambda p: p.client.revoke_tokens("d", token="t"),
    "DELETE /v1/databases/{db}/tokens/{id}": lambda p: p.client.revoke_token("d", "i"),
    "POST /v1/namespaces/{ns}/tokens": lambda p: p.client.create_namespace_token(
        "n", "read", profiles=["p"], **NARROW
    ),
    "GET /v1/namespaces/{ns}/tokens": lambda p: p.client.iter_namespace_tokens("n"),
    "POST /v1/namespaces/{ns}/tokens/revoke": lambda p: p.client.revoke_namespace_tokens("n", token="t"),
    "DELETE /v1/namespaces/{ns}/tokens/{id}": lambda p: p.client.revoke_namespace_token("n", "i"),
    "POST /v1/tokens/revoke": lambda p: p.client.revoke_tenant_tokens(token="t"),
    "GET /v1/keys": lambda p: p.client.signing_keys(),
    "POST /v1/keys/rotate": lambda p: p.client.rotate_keys(),
    "GET /.well-known/jwks.json": lambda p: p.client.published_keys(),
    # memories
    "POST /v1/memory/{ns}/{profile}/memories": lambda p: p.profile.ingest([], on_error="skip", **WRITE),
    "POST /v1/memory/{ns}/{profile}/recall": lambda p: p.profile.recall(
        "q",
        embedding=VECTOR,
        embedding_model="m",
        topic_key="t",
        types=["fact"],
        session_id="s",
        source="c",
        since=1,
        until=2,
        include_superseded=True,
        include_turns=True,
        include_context=True,
        weights={"topic": 1},
        decay={"half_life_s": 1},
        min_score=0.0,
        pinned_first=True,
        fusion="relevance",
        explain=True,
        **READ,
    ),
    "POST /v1/memory/{ns}/{profile}/ask": lambda p: p.profile.ask(
        "q", types=["fact"], session_id="s", source="c", k=1, include_superseded=True, **READ
    ),
    "POST /v1/memory/{ns}/{profile}/extract": lambda p: p.profile.extract(
        [], session_id="s", source="c", dry_run=True, from_seq=1, to_seq=2, **WRITE
    ),
    "GET /v1/memory/{ns}/{profile}/memories/{id}": lambda p: p.profile.get("i", **READ),
    "DELETE /v1/memory/{ns}/{profile}/memories/{id}": lambda p: p.profile.forget("i", **WRITE),
    "GET /v1/memory/{ns}/{profile}/memories": lambda p: p.profile.list_memories(
        include_superseded=True, order="oldest", limit=1, cursor="c", **FILTERS, **READ
    ),
    "PATCH /v1/memory/{ns}/{profile}/memories/{id}": lambda p: p.profile.patch(
        "i", pinned=True, importance=None, keywords="k", ttl=None, expires_at=None, **WRITE
    ),
    "GET /v1/memory/{ns}/{profile}/memories/{id}/history": lambda p: p.profile.history(
        "i", limit=1, cursor="c", **READ
    ),
    "POST /v1/memory/{ns}/{profile}/memories/{id}/undo": lambda p: p.profile.undo("i", reason="r", **WRITE),
    "POST /v1/memory/{ns}/{profile}/memories/forget": lambda p: p.profile.forget_many(
        all=True, include_superseded=False, limit=1, **FILTERS, **WRITE
    ),
    "GET /v1/memory/{ns}/{profile}/export": lambda p: p.profile.export_memory(p.target, **READ),
    "POST /v1/memory/{ns}/{profile}/import": lambda p: p.profile.import_memory(p.file, replace=True, **WRITE),
    "GET /v1/memory/{ns}/{profile}/topics": lambda p: p.profile.iter_topics(prefix="p", type="fact", **READ),
    "GET /v1/memory/{ns}/{profile}/topics/{topic_key}": lambda p: p.profile.topic(
        "t", type="fact", limit=1, cursor="c", **READ
    ),
    "GET /v1/memory/{ns}/{profile}/models": lambda p: p.profile.models(**READ),
    "DELETE /v1/memory/{ns}/{profile}/models/{name}": lambda p: p.profile.drop_model("m", **WRITE),
    "POST /v1/memory/{ns}/{profile}/reembed": lambda p: p.profile.reembed(
        model="m", scope="turns", only_missing=True, **WRITE
    ),
    "GET /v1/memory/{ns}/{profile}/reembed": lambda p: p.profile.reembed_progress(**READ),
    "DELETE /v1/memory/{ns}/{profile}/reembed": lambda p: p.profile.cancel_reembed(**WRITE),
    "GET /v1/memory/{ns}/{profile}/sessions": lambda p: p.profile.iter_sessions(**READ),
    "DELETE /v1/memory/{ns}/{profile}/sessions/{sid}": lambda p: p.profile.end_session(
        "s", turns=True, **WRITE
    ),
    "POST /v1/memory/{ns}/{profile}/erasures": lambda p: p.profile.erase(
        memory_id="m",
        topic_key="t",
        type="fact",
        session_id="s",
        turns=True,
        memories=True,
        grace_secs=1,
        **WRITE,
    ),
    "GET /v1/memory/{ns}/{profile}/erasures": lambda p: p.profile.iter_erasures(),
    "GET /v1/memory/{ns}/{profile}/erasures/{id}": lambda p: p.profile.erasure("e"),
    "GET /v1/memory/{ns}/{profile}/changes": lambda p: p.profile.changes(
        1, limit=1, surfaces=["memory"], durable=True, wait_s=1, **READ_NOW
    ),
    # a database
    "POST /v1/db/{db}/erasures": lambda p: p.db.erase(
        {"memory_id": "m"}, {"topic_key": "t", "type": "fact"}, grace_secs=1, **WRITE
    ),
    "GET /v1/db/{db}/erasures": lambda p: p.db.iter_erasures(),
    "GET /v1/db/{db}/erasures/{id}": lambda p: p.db.erasure("e"),
    "POST /v1/db/{db}/sql": lambda p: p.db.sql("select ?", [1], at="head", **WRITE),
    "POST /v1/db/{db}/sync": lambda p: p.db.sync(1),
    "GET /v1/db/{db}/export": lambda p: p.db.export(p.target, at="head"),
    "POST /v1/db/{db}/verify": lambda p: p.db.verify(deep=True, seed="s"),
    "GET /v1/db/{db}/settings": lambda p: p.db.get_settings(),
    "PUT /v1/db/{db}/settings": lambda p: p.db.set_settings({"durability": {"default": "durable"}}),
    "GET /v1/db/{db}/changes": lambda p: p.db.changes(
        1, limit=1, surfaces=["kv", "sql"], durable=True, wait_s=1, **READ_NOW
    ),
    # branches
    "POST /v1/db/{db}/branches": lambda p: p.db.branch.create(
        "b", from_branch="m", at="head", ttl=1, **WRITE
    ),
    "GET /v1/db/{db}/branches": lambda p: p.db.branch.iter_deleted(),
    "GET /v1/db/{db}/restore-points": lambda p: p.db.branch.restore_points(
        "b", since=1, until=2, oldest_first=True
    ),
    "DELETE /v1/db/{db}/branches/{branch}": lambda p: p.db.branch.delete("b", **WRITE),
    "POST /v1/db/{db}/branches/{branch}/undelete": lambda p: p.db.branch.undelete("b", **WRITE),
    "POST /v1/db/{db}/branches/{branch}/checkpoint": lambda p: p.db.branch.checkpoint("b", "c", **WRITE),
    "GET /v1/db/{db}/branches/{branch}/checkpoints": lambda p: p.db.branch.iter_checkpoints("b"),
    "DELETE /v1/db/{db}/branches/{branch}/checkpoints/{name}": lambda p: p.db.branch.delete_checkpoint(
        "b", "c", **WRITE
    ),
    "POST /v1/db/{db}/branches/{branch}/rewind": lambda p: p.db.branch.rewind("b", "c", **WRITE),
    "POST /v1/db/{db}/branches/{branch}/rewind/undo": lambda p: p.db.branch.undo("b", **WRITE),
    # key-values
    "GET /v1/db/{db}/kv/{ns}": lambda p: p.db.kv.iter_entries("n", prefix="p", **READ),
    "POST /v1/db/{db}/kv/{ns}": lambda p: p.db.kv.batch(
        "n", gets=["a"], puts=[{"key": "b", "value": b"x"}], deletes=["c"], partial=True, **WRITE
    ),
    "GET /v1/db/{db}/kv/{ns}/{key}": lambda p: p.db.kv.get_entry(
        "n", "k", if_match="e", if_none_match="f", **READ
    ),
    "PUT /v1/db/{db}/kv/{ns}/{key}": lambda p: p.db.kv.put(
        "n", "k", "v", ttl=1, metadata={"a": "ä"}, if_match="e", if_none_match="*", **WRITE
    ),
    "DELETE /v1/db/{db}/kv/{ns}/{key}": lambda p: p.db.kv.delete(
        "n", "k", if_match="e", if_none_match="f", **WRITE
    ),
    "POST /v1/db/{db}/kv/{ns}/{key}/increment": lambda p: p.db.kv.increment("n", "k", -2, ttl=1, **WRITE),
    # documents
    "GET /v1/db/{db}/docs": lambda p: p.db.iter_collections(**READ),
    "DELETE /v1/db/{db}/docs/{coll}": lambda p: p.documents.drop(**WRITE),
    "POST /v1/db/{db}/docs/{coll}/insert": lambda p: p.documents.insert([{}], **WRITE),
    "POST /v1/db/{db}/docs/{coll}/find": lambda p: p.documents.find(
        {}, sort={"a": 1}, limit=1, skip=1, projection={"a": True}, **READ
    ),
    "POST /v1/db/{db}/docs/{coll}/count": lambda p: p.documents.count({}, **READ),
    "POST /v1/db/{db}/docs/{coll}/distinct": lambda p: p.documents.distinct("a", {}, limit=1, **READ),
    "POST /v1/db/{db}/docs/{coll}/update": lambda p: p.documents.update(
        {}, {"$set": {"a": 1}}, multi=True, sort={"a": 1}, upsert=True, **WRITE
    ),
    "POST /v1/db/{db}/docs/{coll}/delete": lambda p: p.documents.delete(
        {}, multi=True, sort={"a": 1}, **WRITE
    ),
    "POST /v1/db/{db}/docs/{coll}/indexes": lambda p: p.documents.create_index("a", unique=True, **WRITE),
    "GET /v1/db/{db}/docs/{coll}/indexes": lambda p: p.documents.indexes(**READ),
    "DELETE /v1/db/{db}/docs/{coll}/indexes/{path}": lambda p: p.documents.drop_index("a.b", **WRITE),
    # vectors
    "GET /v1/db/{db}/vectors": lambda p: p.db.vectors.iter_collections(**READ),
    "POST /v1/db/{db}/vectors/{coll}": lambda p: p.db.vectors.upsert("c", "i", VECTOR, {"a": 1}, **WRITE),
    "GET /v1/db/{db}/vectors/{coll}": lambda p: p.db.vectors.iter_metadata("c", **READ),
    "DELETE /v1/db/{db}/vectors/{coll}": lambda p: p.db.vectors.drop("c", **WRITE),
    "POST /v1/db/{db}/vectors/{coll}/search": lambda p: p.db.vectors.search(
        "c",
        VECTOR,
        k=1,
        filter={},
        max_distance=1,
        min_score=0,
        include_metadata=True,
        include_embedding=True,
        **READ,
    ),
    "POST /v1/db/{db}/vectors/{coll}/delete": lambda p: p.db.vectors.delete_many(
        "c", ids=["i"], filter={}, **WRITE
    ),
    "GET /v1/db/{db}/vectors/{coll}/{id}": lambda p: p.db.vectors.get("c", "i", **READ),
    "DELETE /v1/db/{db}/vectors/{coll}/{id}": lambda p: p.db.vectors.delete("c", "i", **WRITE),
    # turns
    "POST /v1/db/{db}/memory/{session}/turns": lambda p: p.session.append_turn(
        "user", "x", VECTOR, embedding_model="m", at=1, **WRITE
    ),
    "GET /v1/db/{db}/memory/{session}/turns": lambda p: p.session.get_page(before=2, limit=1, **READ),
    "DELETE /v1/db/{db}/memory/{session}/turns": lambda p: p.session.delete_turns(
        from_seq=1, to_seq=2, all=True, **WRITE
    ),
    "GET /v1/db/{db}/memory/{session}/turns/{seq}": lambda p: p.session.get(1, **READ),
    "DELETE /v1/db/{db}/memory/{session}/turns/{seq}": lambda p: p.session.delete(1, **WRITE),
    "POST /v1/db/{db}/memory/{session}/search": lambda p: p.session.search("q", **TURNS_FOUND, **READ),
    "POST /v1/db/{db}/memory/search": lambda p: p.profile.search_turns("q", **TURNS_FOUND, **READ),
    # timelines
    "GET /v1/db/{db}/timelines": lambda p: p.db.iter_timelines(**READ),
    "POST /v1/db/{db}/timelines/{timeline}/rows": lambda p: p.timeline.append("k", {}, at=1, **WRITE),
    "POST /v1/db/{db}/timelines/{timeline}/query": lambda p: p.timeline.aggregate(
        "a", window_ms=1, by_key=True, **ROWS, **READ
    ),
    "GET /v1/db/{db}/timelines/{timeline}": lambda p: p.timeline.info(**READ),
    "PUT /v1/db/{db}/timelines/{timeline}": lambda p: p.timeline.set_retention(
        retention_s=1, retention_rows=1, **WRITE
    ),
    "DELETE /v1/db/{db}/timelines/{timeline}": lambda p: p.timeline.delete(**WRITE),
}
"""A call of each route, with everything that it can be told."""

FLOOR = {"Memoturn-Min-Txid", "Memoturn-Consistency"}
ELSEWHERE: dict[str, set[str]] = {
    "POST /v1/memory/{ns}/{profile}/ask": {"stream"},  # ask_stream
    "POST /v1/memory/{ns}/{profile}/memories/forget": {
        "ids",
        "dry_run",
    },  # in place of the filters; that is a read
    "POST /v1/memory/{ns}/{profile}/erasures": {
        *("turn", "document", "kv", "vector", "timeline"),  # in `targets`
        "targets",
    },
    "POST /v1/db/{db}/erasures": {
        *("memory_id", "topic_key", "type", "session_id", "turns", "memories"),  # in `targets`
        *("turn", "document", "kv", "vector", "timeline"),
    },
    "POST /v1/databases/{db}/tokens": {"profiles"},  # a database is one
    "POST /v1/db/{db}/branches": {"checkpoint"},  # `at` takes its name
    "POST /v1/db/{db}/vectors/{coll}": {"vectors"},  # upsert_many
    "POST /v1/db/{db}/memory/{session}/turns": {"turns"},  # append_turns
    "POST /v1/db/{db}/timelines/{timeline}/rows": {"rows"},  # append_many
    "GET /v1/db/{db}/memory/{session}/turns": {"last", "after"},  # get_window, and in place of `before`
    "GET /v1/memory/{ns}": FLOOR,  # not of a branch
    "PUT /v1/namespaces/{ns}/policy": {"If-None-Match"},  # revision 0
    "PUT /v1/memory/{ns}/{profile}/policy": {"If-None-Match"},
    "GET /v1/memory/{ns}/{profile}/erasures": FLOOR,  # not of a state
    "GET /v1/memory/{ns}/{profile}/erasures/{id}": FLOOR,
    "GET /v1/db/{db}/erasures": FLOOR,
    "GET /v1/db/{db}/erasures/{id}": FLOOR,
    "GET /v1/db/{db}/branches": FLOOR,
    "GET /v1/db/{db}/restore-points": FLOOR,
    "GET /v1/db/{db}/branches/{branch}/checkpoints": FLOOR,
    "GET /v1/db/{db}/export": FLOOR,  # what is committed is shipped first
    "POST /v1/db/{db}/sync": {"Memoturn-Durability", "Idempotency-Key"},  # it is that
    "POST /v1/db/{db}/sql": {"Memoturn-Durability", "Idempotency-Key"},  # where `at` is not given
}
"""What a call above does not send, and why."""

SAME = {"Memoturn-At", "Memoturn-Branch", "Last-Event-ID"}
"""Headers that say what a value of the query says."""
PAGED = {"cursor"}
"""What iterators send from the second page on."""


def quotas() -> Any:
    return {"requests_per_s": 1.0, "writes_per_s": 1.0, "bytes": 1, "databases": 1, "memories": 1}


def operation_of(route: str) -> dict[str, Any]:
    method, template = route.split()
    found: dict[str, Any] = API["paths"][template][method.lower()]
    return found


def fields_of(schema: dict[str, Any]) -> set[str]:
    return set(API["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"])


def takes(route: str) -> set[str]:
    """Return what the description says that a route takes: query values, headers, fields of the body."""
    operation = operation_of(route)
    named = {value["name"] for value in operation["parameters"] if value["in"] != "path"}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return named | (fields_of(body["schema"]) if body else set())


async def send(call: Callable[[Parts], Told], folder: Path) -> httpx.Request:
    """Make a call, and return the first request that it sends."""
    requests: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        requests.append(request)
        rows: dict[str, list[Any]] = {name: [] for name in row_names()}
        return httpx.Response(200, json={**rows, "count": 0, "txid": 1})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = AsyncMemoturn("http://node", token="t", http_client=http)
        try:
            told = call(Parts(client, folder))
            if isinstance(told, AsyncIterator):
                async for _ in told:
                    break
            else:
                await told
        except Exception:
            if not requests:
                raise
    return requests[0]


def row_names() -> list[str]:
    """Return every name under which an answer may have a list."""
    names = set()
    for schema in API["components"]["schemas"].values():
        names |= {
            name
            for name, value in schema.get("properties", {}).items()
            if isinstance(value, dict) and value.get("type") == "array"
        }
    return sorted(names)


def sent_by(request: httpx.Request) -> set[str]:
    body = request.headers.get("content-type") == "application/json" and json.loads(request.content)
    headers = {name.decode() for name, _ in request.headers.raw}
    return {*request.url.params, *headers, *(body or {})}


def test_every_public_route_is_called():
    assert set(CALLS) == {f"{route.method} {route.template}" for route in PUBLIC}


@pytest.mark.parametrize("route", CALLS)
async def test_a_method_reaches_the_route_and_can_say_all_that_it_takes(route: str, tmp_path: Path):
    request = await send(CALLS[route], tmp_path)

    method, template = route.split()
    assert request.method == method
    assert re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), request.url.path), request.url.path
    sent = {name.lower() for name in sent_by(request)}
    elsewhere = ELSEWHERE.get(route, set())
    missing = {name for name in takes(route) - elsewhere - SAME - PAGED if name.lower() not in sent}
    assert missing == set()
    assert elsewhere <= takes(route), "what is not taken any more"
    assert template.startswith("/v1/memory") or "branch" not in takes(route) or "import" in template
    if "branch" in takes(route) and template.startswith("/v1/memory"):
        assert request.url.params["branch"] == "b"
