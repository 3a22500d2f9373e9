"""Every route against every kind of credential, every scope and every limit: what opens, and that nothing else does.

A route has to be entered in OPENS by hand, from the contract and not from the code, or this fails.
"""

import json
import time
from dataclasses import replace

import jwt
import pytest
from auth_support import CLUSTER_KEY, PLATFORM_KEY, guarded_node, mint, sender
from http_calls import FACT, OLD_FACT, READS, WRITES, append, documented, ingest
from http_support import client_of, limits, running_node

from memoturnd.core.principal import SCOPES, SURFACES
from memoturnd.http.app import create_app
from memoturnd.http.envelope import Answer
from memoturnd.http.route import Body, Kind, Route, Scope
from memoturnd.http.routes import ROUTES

OPENS = {
    "GET /health": "open",
    "GET /ready": "open",
    "GET /metrics": "open",
    "GET /openapi.json": "open",
    "POST /v1/databases": "platform",
    "GET /v1/databases": "platform",
    "DELETE /v1/databases/{db}": "platform",
    "POST /v1/databases/{db}/undelete": "platform",
    "GET /v1/namespaces": "platform",
    "POST /v1/tenants": "platform",
    "GET /v1/tenants": "platform",
    "GET /v1/tenants/{tenant}": "platform",
    "DELETE /v1/tenants/{tenant}": "platform",
    "GET /v1/memory/{ns}": "namespace",
    "POST /v1/databases/{db}/tokens": "administration",
    "GET /v1/databases/{db}/tokens": "administration",
    "POST /v1/databases/{db}/tokens/revoke": "administration",
    "DELETE /v1/databases/{db}/tokens/{id}": "administration",
    "POST /v1/namespaces/{ns}/tokens": "administration",
    "GET /v1/namespaces/{ns}/tokens": "administration",
    "POST /v1/namespaces/{ns}/tokens/revoke": "administration",
    "DELETE /v1/namespaces/{ns}/tokens/{id}": "administration",
    "POST /v1/tokens/revoke": "platform",
    "GET /v1/keys": "platform",
    "POST /v1/keys/rotate": "platform",
    "GET /.well-known/jwks.json": "open",
    "PUT /v1/databases/{db}/import": "platform",
    "DELETE /internal/databases/{db}/{uuid}": "internal",
    "GET /v1/db/{db}/settings": "read everything whole",
    "PUT /v1/db/{db}/settings": "admin everything whole",
    "GET /v1/cluster": "platform",
    "GET /v1/db/{db}/placement": "platform",
    "POST /internal/cluster/status": "internal",
    "POST /internal/replica/tail": "internal",
    "POST /internal/replica/tail/read": "internal",
    "POST /internal/replica/tail/forget": "internal",
    "POST /internal/replica/subscribe": "internal",
    "POST /internal/replica/confirm": "internal",
    "POST /internal/replica/changed": "internal",
    "POST /internal/replica/ingest": "internal",
    "POST /internal/branches/{uuid}/{branch_id}/release": "internal",
    "POST /internal/branches/{uuid}/{branch_id}/ship": "internal",
    "POST /internal/branches/{uuid}/{branch_id}/chore": "internal",
    "POST /v1/memory/{ns}/{profile}/memories": "write memory",
    "POST /v1/memory/{ns}/{profile}/recall": "read memory",
    "POST /v1/memory/{ns}/{profile}/ask": "read memory",
    "POST /v1/memory/{ns}/{profile}/extract": "write memory",
    "GET /v1/memory/{ns}/{profile}/memories/{id}": "read memory",
    "DELETE /v1/memory/{ns}/{profile}/memories/{id}": "write memory",
    "GET /v1/memory/{ns}/{profile}/memories": "read memory",
    "PATCH /v1/memory/{ns}/{profile}/memories/{id}": "write memory",
    "GET /v1/memory/{ns}/{profile}/memories/{id}/history": "read memory",
    "POST /v1/memory/{ns}/{profile}/memories/{id}/undo": "write memory",
    "POST /v1/memory/{ns}/{profile}/memories/forget": "write memory",
    "GET /v1/memory/{ns}/{profile}/export": "read memory turns",
    "POST /v1/memory/{ns}/{profile}/import": "write memory turns",
    "GET /v1/memory/{ns}/{profile}/topics": "read memory",
    "GET /v1/memory/{ns}/{profile}/topics/{topic_key}": "read memory",
    "GET /v1/memory/{ns}/{profile}/models": "read memory turns",
    "DELETE /v1/memory/{ns}/{profile}/models/{name}": "admin memory turns",
    "POST /v1/memory/{ns}/{profile}/reembed": "write memory turns",
    "GET /v1/memory/{ns}/{profile}/reembed": "read memory turns",
    "DELETE /v1/memory/{ns}/{profile}/reembed": "write memory turns",
    "GET /v1/memory/{ns}/{profile}/sessions": "read memory",
    "DELETE /v1/memory/{ns}/{profile}/sessions/{sid}": "write memory",
    "POST /v1/db/{db}/sql": "read sql",
    "POST /v1/db/{db}/sync": "write",
    "GET /v1/db/{db}/export": "admin everything",
    "POST /v1/db/{db}/verify": "admin everything whole",
    "POST /v1/db/{db}/branches": "admin branches whole",
    "GET /v1/db/{db}/branches": "admin branches whole",
    "GET /v1/db/{db}/changes": "read",
    "GET /v1/memory/{ns}/{profile}/changes": "read",
    "GET /v1/db/{db}/restore-points": "read branches",
    "DELETE /v1/db/{db}/branches/{branch}": "admin branches",
    "POST /v1/db/{db}/branches/{branch}/undelete": "admin branches",
    "POST /v1/db/{db}/branches/{branch}/checkpoint": "admin branches",
    "GET /v1/db/{db}/branches/{branch}/checkpoints": "admin branches",
    "DELETE /v1/db/{db}/branches/{branch}/checkpoints/{name}": "admin branches",
    "POST /v1/db/{db}/branches/{branch}/rewind": "admin branches",
    "POST /v1/db/{db}/branches/{branch}/rewind/undo": "admin branches",
    "GET /v1/db/{db}/kv/{ns}": "read kv",
    "POST /v1/db/{db}/kv/{ns}": "write kv",
    "GET /v1/db/{db}/kv/{ns}/{key}": "read kv",
    "PUT /v1/db/{db}/kv/{ns}/{key}": "write kv",
    "DELETE /v1/db/{db}/kv/{ns}/{key}": "write kv",
    "POST /v1/db/{db}/kv/{ns}/{key}/increment": "write kv",
    "GET /v1/db/{db}/docs": "read documents",
    "DELETE /v1/db/{db}/docs/{coll}": "write documents",
    "POST /v1/db/{db}/docs/{coll}/insert": "write documents",
    "POST /v1/db/{db}/docs/{coll}/find": "read documents",
    "POST /v1/db/{db}/docs/{coll}/count": "read documents",
    "POST /v1/db/{db}/docs/{coll}/distinct": "read documents",
    "POST /v1/db/{db}/docs/{coll}/update": "write documents",
    "POST /v1/db/{db}/docs/{coll}/delete": "write documents",
    "POST /v1/db/{db}/docs/{coll}/indexes": "write documents",
    "GET /v1/db/{db}/docs/{coll}/indexes": "read documents",
    "DELETE /v1/db/{db}/docs/{coll}/indexes/{path}": "write documents",
    "GET /v1/db/{db}/vectors": "read vectors",
    "POST /v1/db/{db}/vectors/{coll}": "write vectors",
    "GET /v1/db/{db}/vectors/{coll}": "read vectors",
    "DELETE /v1/db/{db}/vectors/{coll}": "write vectors",
    "POST /v1/db/{db}/vectors/{coll}/search": "read vectors",
    "POST /v1/db/{db}/vectors/{coll}/delete": "write vectors",
    "GET /v1/db/{db}/vectors/{coll}/{id}": "read vectors",
    "DELETE /v1/db/{db}/vectors/{coll}/{id}": "write vectors",
    "POST /v1/db/{db}/memory/{session}/turns": "write turns",
    "GET /v1/db/{db}/memory/{session}/turns": "read turns",
    "DELETE /v1/db/{db}/memory/{session}/turns": "write turns",
    "GET /v1/db/{db}/memory/{session}/turns/{seq}": "read turns",
    "DELETE /v1/db/{db}/memory/{session}/turns/{seq}": "write turns",
    "POST /v1/db/{db}/memory/{session}/search": "read turns",
    "POST /v1/db/{db}/memory/search": "read turns",
    "GET /v1/db/{db}/timelines": "read timelines",
    "POST /v1/db/{db}/timelines/{timeline}/rows": "write timelines",
    "POST /v1/db/{db}/timelines/{timeline}/query": "read timelines",
    "GET /v1/db/{db}/timelines/{timeline}": "read timelines",
    "PUT /v1/db/{db}/timelines/{timeline}": "write timelines",
    "DELETE /v1/db/{db}/timelines/{timeline}": "write timelines",
    "GET /v1/namespaces/{ns}/policy": "platform",
    "PUT /v1/namespaces/{ns}/policy": "platform",
    "GET /v1/memory/{ns}/{profile}/policy": "read everything whole",
    "PUT /v1/memory/{ns}/{profile}/policy": "admin everything whole",
    "POST /v1/memory/{ns}/{profile}/erasures": "write everything whole",
    "GET /v1/memory/{ns}/{profile}/erasures": "read everything whole",
    "GET /v1/memory/{ns}/{profile}/erasures/{id}": "read everything whole",
    "POST /v1/db/{db}/erasures": "write everything whole",
    "GET /v1/db/{db}/erasures": "read everything whole",
    "GET /v1/db/{db}/erasures/{id}": "read everything whole",
    "GET /v1/databases/{db}/usage": "platform",
    "GET /v1/namespaces/{ns}/usage": "platform",
    "GET /v1/namespaces/{ns}/quotas": "platform",
    "PUT /v1/namespaces/{ns}/quotas": "platform",
    "GET /v1/tenants/{tenant}/quotas": "platform",
    "PUT /v1/tenants/{tenant}/quotas": "platform",
    "GET /v1/namespaces/{ns}/audit": "administration whole",
    "GET /v1/namespaces/{ns}/audit/export": "administration whole",
}
"""What opens a route: nothing (`open`), a key, or a token of at least that scope, for all of those surfaces; with `whole`
one that is not limited to branches.
"""
RIGHT = {"db": "app--ann", "profile": "ann", "branch": "main"}
VALUES = {"id": "x", "seq": "1", "key": "k", "coll": "c", "session": "s", "timeline": "t"}


def path_of(route):
    """A path of the route, about the database app--ann, its branch main or the namespace app."""
    path = route.template
    for name in route.parameters:
        value = RIGHT.get(name) or VALUES.get(name, "x")
        if name == "ns":
            value = "n" if "/kv/" in route.template else "app"
        path = path.replace(f"{{{name}}}", value)
    return path


class Credential:
    """How a request is sent, and what that should open: `kind` of the sender, and the limits of a token."""

    def __init__(self, kind, headers=None, **grant):
        self.kind, self.headers, self.grant = kind, headers or {}, grant

    def opens(self, entry):
        """Whether the contract lets this credential pass a route of that entry, about what RIGHT names."""
        need, _, rest = entry.partition(" ")
        if need == "open":
            return True
        if self.kind in ("none", "bad"):
            return False
        if need == "internal":
            return self.kind == "cluster"
        if need == "platform":
            return self.kind == "platform"
        if need == "administration":
            limited = {"profiles", "surfaces", "branches"} & self.grant.keys()
            return self.kind == "platform" or (
                self.of_namespace() and self.grant["scope"] == "admin" and not (rest == "whole" and limited)
            )
        if self.kind == "cluster":
            return True
        if self.kind != "token":
            return False
        if need == "namespace":
            return self.of_namespace() and "profiles" not in self.grant
        surfaces = set(rest.replace("everything", " ".join(SURFACES)).split()) - {"whole"}
        return (
            (self.of_namespace() or self.grant.get("db") == "app--ann")
            and SCOPES.index(self.grant["scope"]) >= SCOPES.index(need)
            and surfaces <= set(self.grant.get("surfaces", SURFACES))
            and ("branches" not in self.grant or ("main" in self.grant["branches"] and "whole" not in rest))
        )

    def of_namespace(self):
        return (
            self.kind == "token"
            and self.grant.get("ns") == "app"
            and self.grant.get("tenant", "default") == "default"
            and "ann" in self.grant.get("profiles", ["ann"])
        )

    def asked_of(self, route):
        """Like `opens`, of a route: one about a namespace as such names no profile."""
        entry = OPENS.get(route.operation, "internal")
        if entry == "administration" and "{ns}" in route.template and self.grant.get("ns") == "app":
            return replace_profiles(self).opens(entry)
        return self.opens(entry)


def replace_profiles(credential):
    grant = {name: value for name, value in credential.grant.items() if name != "profiles"}
    return Credential(credential.kind, **grant)


def token_of(node, **claims):
    now = int(time.time())
    payload = {"db": "", "iat": now, "exp": now + 600, **claims}
    return jwt.encode(payload, node.authority.keyring.signer.private, algorithm="EdDSA")


def bearing(credential):
    return {"Authorization": f"Bearer {credential}"}


def credentials(node):
    """Everything that a sender may show, by name."""
    found = {
        "nothing": Credential("none"),
        "garbage": Credential("bad", bearing("garbage")),
        "basic": Credential("bad", {"Authorization": f"Basic {PLATFORM_KEY}"}),
        "an expired token": Credential("bad", bearing(token_of(node, ns="app", scope="admin", exp=1, iat=0))),
        "a wrong cluster key": Credential("bad", {**bearing(PLATFORM_KEY), "X-Memoturn-Internal": "x"}),
        "the platform key as cluster key": Credential("bad", {"X-Memoturn-Internal": PLATFORM_KEY}),
        "the cluster key as bearer": Credential("bad", bearing(CLUSTER_KEY)),
        "the platform key": Credential("platform", bearing(PLATFORM_KEY)),
        "the cluster key": Credential("cluster", {"X-Memoturn-Internal": CLUSTER_KEY}),
    }

    def add(name, **claims):
        # Whose names are meant is said by the token; whoever says another tenant is refused.
        headers = bearing(token_of(node, **claims)) | {"Memoturn-Tenant": "default"}
        found[name] = Credential("token", headers, **claims)

    for scope in SCOPES:
        add(f"{scope} of the database", db="app--ann", scope=scope)
        add(f"{scope} of the namespace", ns="app", scope=scope)
        add(f"{scope} of the namespace, another profile", ns="app", scope=scope, profiles=["bob"])
        add(f"{scope} of the namespace, its profile", ns="app", scope=scope, profiles=["ann", "bob"])
        add(f"{scope} of another tenant", ns="app", scope=scope, tenant="acme")
        add(f"{scope} of its branch", ns="app", scope=scope, branches=["main"])
        for db in ("app", "app--bob", "web--ann", "app--an", "app--annx"):
            add(f"{scope} of {db}", db=db, scope=scope)
        for ns in ("web", "ap", "app2"):
            add(f"{scope} of {ns}", ns=ns, scope=scope)
        add(f"{scope} of another branch", ns="app", scope=scope, branches=["dev"])
        for surface in SURFACES:
            add(f"{scope} for {surface}", ns="app", scope=scope, surfaces=[surface])
    add("admin for memory and turns", db="app--ann", scope="admin", surfaces=["memory", "turns"])
    return found


@pytest.fixture
async def node(tmp_path):
    async with guarded_node(tmp_path) as node:
        yield node


async def answered(app, route, headers):
    """Status and body of a request; without a client in between, since there are thousands."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    path = path_of(route)
    scope = {
        "type": "http",
        "method": route.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def nothing_done(call):
    return Answer(204)


INTERNAL = Route("POST", "/internal/x", nothing_done, Kind.WRITE, Body.NONE, Scope.INTERNAL)


def test_every_route_is_entered():
    assert {route.operation for route in ROUTES} == OPENS.keys()


async def test_each_credential_opens_what_the_table_says_and_nothing_else(node):
    routes = [replace(route, handler=nothing_done, body=Body.NONE) for route in [*ROUTES, INTERNAL]]
    opened = refused = 0
    app = create_app(node, limits(loopback_only=False, control_rate=1e6), routes=routes)
    for name, credential in credentials(node).items():
        for route in routes:
            found, body = await answered(app, route, credential.headers)
            right = credential.asked_of(route)
            status = 204 if right else 401 if credential.kind in ("none", "bad") else 403
            assert found == status, (name, route.operation, body)
            if not right:
                assert json.loads(body)["code"] == ("unauthorized" if status == 401 else "forbidden")
            opened, refused = opened + right, refused + (not right)
    assert opened > 500
    assert refused > 3000


async def test_routes_between_nodes_take_the_cluster_key_where_authentication_is_off_too(tmp_path):
    for env, given, status in (
        ({"CLUSTER_KEY": CLUSTER_KEY}, CLUSTER_KEY, 204),
        ({"CLUSTER_KEY": CLUSTER_KEY}, "x", 401),
        ({"CLUSTER_KEY": CLUSTER_KEY}, None, 401),
        ({}, "", 401),
        ({}, None, 401),
    ):
        headers = {} if given is None else {"X-Memoturn-Internal": given}
        async with (
            running_node(tmp_path, **env) as node,
            client_of(create_app(node, limits(), routes=[INTERNAL])) as client,
        ):
            client.event_hooks = {}
            assert (await client.post("/internal/x", headers=headers)).status_code == status


@pytest.fixture
async def app(node):
    """An admin token of the namespace `app`, whose profile has what READS show."""
    async with sender(node, PLATFORM_KEY) as platform:
        token = (await mint(platform, "namespaces/app", "admin"))["token"]
    async with sender(node, token) as client:
        await ingest(client, OLD_FACT, {**FACT, "session_id": "s"})
        await documented(client)
        await append(client)
        await client.post("/v1/db/app--ann/timelines/t/rows", json={"key": "k", "data": {"n": 1}})
        await client.post("/v1/db/app--ann/vectors/c", json={"id": "old", "embedding": [1]})
        await client.put("/v1/db/app--ann/kv/ns/old", content=b"x")
        yield client


async def test_whoever_has_the_right_token_gets_what_was_asked_for(app):
    for name, (method, path, more) in {**READS, **WRITES}.items():
        answer = await app.request(method, path, **more)
        # Some undo what others need, and this node has no language model.
        assert answer.is_success or answer.status_code in {404, 409, 503}, (name, answer.text)


async def test_a_key_of_one_sender_is_not_the_key_of_another(node, app):
    async with sender(node, PLATFORM_KEY) as platform:
        ann, again, bob = [
            (await mint(platform, "namespaces/app", subject=who))["token"] for who in ("ann", "ann", "bob")
        ]
    path, key = "/v1/db/app--ann/kv/ns/n/increment", {"Idempotency-Key": "one"}
    values = []
    for token in (ann, again, bob):
        async with sender(node, token) as client:
            answer = await client.post(path, headers=key)
            assert answer.status_code == 200, answer.text
            values.append(answer.json()["value"])
    assert values == [1, 1, 2]


async def test_a_key_of_one_tenant_is_not_the_key_of_another(node):
    await node._services.catalog.create_tenant("acme", 0)
    uuids = []
    for tenant in ("default", "acme"):
        async with sender(
            node, PLATFORM_KEY, **{"Memoturn-Tenant": tenant, "Idempotency-Key": "k"}
        ) as platform:
            answer = await platform.post("/v1/databases", json={"name": "notes"})
            assert answer.status_code == 201, answer.text
            assert "idempotent-replayed" not in answer.headers
            uuids.append(answer.json()["uuid"])
    assert len(set(uuids)) == 2
