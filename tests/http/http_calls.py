"""Requests of the HTTP tests: one of every kind that writes, that reads, and that shows no past."""

FACT = {"type": "fact", "topic_key": "user.theme", "summary": "likes dark", "content": {"v": "dark"}}
OLD_FACT = {**FACT, "summary": "likes light", "content": {"v": "light"}}
"""What FACT supersedes where it was stored before."""
FACT_ID = "mem_5758fd9d59dc40b7225a7ebf08fa0f22"
MEMORY = "/v1/memory/app/ann"


async def ingest(client, *items, path=MEMORY, **headers):
    answer = await client.post(f"{path}/memories", json={"memories": list(items)}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer


async def created(client, name="notes"):
    answer = await client.post("/v1/databases", json={"name": name})
    assert answer.status_code == 201, answer.text
    return f"/v1/db/{name}"


async def documented(client):
    """Give app--ann the documents that WRITES change and READS show, in two commits; return the txid of the second."""
    path = "/v1/db/app--ann/docs/c"
    docs = [{"_id": "a", "n": 1}, {"_id": "b", "n": 2}]
    assert (await client.post(f"{path}/insert", json={"docs": docs})).status_code == 201
    answer = await client.post(f"{path}/indexes", json={"path": "n"})
    assert answer.status_code == 201, answer.text
    return stamps(answer)[0]


def stamps(answer):
    return int(answer.headers["memoturn-txid"]), int(answer.headers["memoturn-durable-txid"])


def failure(answer):
    assert set(answer.json()) == {"error", "code"}
    return answer.status_code, answer.json()["code"]


async def append(client, content="x", session="old", **turn):
    body = {"role": "user", "content": content, **turn}
    answer = await client.post(f"/v1/db/app--ann/memory/{session}/turns", json=body)
    assert answer.status_code == 201, answer.text
    return answer


NO_MEMORY = (
    b'{"kind":"header","format":"memoturn-memory","version":1,"txid":0}\n'
    b'{"kind":"end","model":0,"session":0,"transcript":0,"memory":0,"turn":0}\n'
)
"""The export of a profile that has none."""
WRITES = {
    "ingest": (
        "POST",
        "/v1/memory/app/ann/memories",
        {"json": {"memories": [{"type": "event", "summary": "x"}]}},
    ),
    "extract": (
        "POST",
        "/v1/memory/app/ann/extract",
        {"json": {"turns": [{"role": "user", "content": "went hiking"}]}},
    ),
    "forget": ("DELETE", f"/v1/memory/app/ann/memories/{FACT_ID}", {}),
    "patch": ("PATCH", f"/v1/memory/app/ann/memories/{FACT_ID}", {"json": {"pinned": True}}),
    "undo": ("POST", f"/v1/memory/app/ann/memories/{FACT_ID}/undo", {}),
    "forget many": ("POST", "/v1/memory/app/ann/memories/forget", {"json": {"all": True}}),
    "import lines": (
        "POST",
        "/v1/memory/app/ann/import",
        {"content": NO_MEMORY, "params": {"replace": "true"}},
    ),
    "end session": ("DELETE", "/v1/memory/app/ann/sessions/s", {}),
    "sql": ("POST", "/v1/db/app--ann/sql", {"json": {"stmts": [{"q": "CREATE TABLE t (a)"}]}}),
    "put": ("PUT", "/v1/db/app--ann/kv/ns/k", {"content": b"x"}),
    "delete": ("DELETE", "/v1/db/app--ann/kv/ns/old", {}),
    "batch": ("POST", "/v1/db/app--ann/kv/ns", {"json": {"puts": [{"key": "k", "value": "x"}]}}),
    "increment": ("POST", "/v1/db/app--ann/kv/ns/n/increment", {}),
    "upsert vectors": ("POST", "/v1/db/app--ann/vectors/c", {"json": {"id": "new", "embedding": [1]}}),
    "delete vector": ("DELETE", "/v1/db/app--ann/vectors/c/old", {}),
    "delete vectors": ("POST", "/v1/db/app--ann/vectors/c/delete", {"json": {"filter": {}}}),
    "drop collection": ("DELETE", "/v1/db/app--ann/vectors/c", {}),
    "insert": ("POST", "/v1/db/app--ann/docs/c/insert", {"json": {"docs": [{"n": 3}]}}),
    "update": (
        "POST",
        "/v1/db/app--ann/docs/c/update",
        {"json": {"filter": {"n": 1}, "update": {"$inc": {"n": 1}}}},
    ),
    "delete documents": ("POST", "/v1/db/app--ann/docs/c/delete", {"json": {"filter": {"n": 1}}}),
    "create index": ("POST", "/v1/db/app--ann/docs/c/indexes", {"json": {"path": "m"}}),
    "drop index": ("DELETE", "/v1/db/app--ann/docs/c/indexes/n", {}),
    "drop": ("DELETE", "/v1/db/app--ann/docs/c", {}),
    "append": ("POST", "/v1/db/app--ann/memory/s/turns", {"json": {"role": "user", "content": "x"}}),
    "append many": (
        "POST",
        "/v1/db/app--ann/memory/s/turns",
        {"json": {"turns": [{"role": "user", "content": n} for n in range(3)]}},
    ),
    "delete turn": ("DELETE", "/v1/db/app--ann/memory/old/turns/1", {}),
    "delete turns": ("DELETE", "/v1/db/app--ann/memory/old/turns?from=1&to=9", {}),
    "append rows": ("POST", "/v1/db/app--ann/timelines/t/rows", {"json": {"key": "k"}}),
    "set retention": ("PUT", "/v1/db/app--ann/timelines/t", {"json": {"retention_s": 60}}),
    "delete timeline": ("DELETE", "/v1/db/app--ann/timelines/t", {}),
}
EMBEDDING_WRITES = {
    "reembed": ("POST", "/v1/memory/app/ann/reembed", {"json": {}}),
    "cancel reembed": ("DELETE", "/v1/memory/app/ann/reembed", {}),
    "drop model": ("DELETE", "/v1/memory/app/ann/models/openai%2Fwords", {}),
}
"""Writes that take a node with an embedder."""
READS = {
    "models": ("GET", "/v1/memory/app/ann/models", {}),
    "reembed": ("GET", "/v1/memory/app/ann/reembed", {}),
    "recall": ("POST", "/v1/memory/app/ann/recall", {"json": {"query": "x"}}),
    "ask": ("POST", "/v1/memory/app/ann/ask", {"json": {"question": "is it dark?"}}),
    "get": ("GET", f"/v1/memory/app/ann/memories/{FACT_ID}", {}),
    "memories": ("GET", "/v1/memory/app/ann/memories", {}),
    "history": ("GET", f"/v1/memory/app/ann/memories/{FACT_ID}/history", {}),
    "export lines": ("GET", "/v1/memory/app/ann/export", {}),
    "topics": ("GET", "/v1/memory/app/ann/topics", {}),
    "topic": ("GET", "/v1/memory/app/ann/topics/user.theme", {}),
    "sessions": ("GET", "/v1/memory/app/ann/sessions", {}),
    "sql": ("POST", "/v1/db/app--ann/sql", {"json": {"stmts": [{"q": "SELECT 1"}]}}),
    "keys": ("GET", "/v1/db/app--ann/kv/ns", {}),
    "key": ("GET", "/v1/db/app--ann/kv/ns/old", {}),
    "find": (
        "POST",
        "/v1/db/app--ann/docs/c/find",
        {"json": {"filter": {"n": {"$gte": 1}}, "sort": {"n": -1}}},
    ),
    "count": ("POST", "/v1/db/app--ann/docs/c/count", {"json": {}}),
    "distinct": ("POST", "/v1/db/app--ann/docs/c/distinct", {"json": {"path": "n"}}),
    "document collections": ("GET", "/v1/db/app--ann/docs", {}),
    "indexes": ("GET", "/v1/db/app--ann/docs/c/indexes", {}),
    "window": ("GET", "/v1/db/app--ann/memory/s/turns", {}),
    "turn": ("GET", "/v1/db/app--ann/memory/old/turns/1", {}),
    "search": ("POST", "/v1/db/app--ann/memory/s/search", {"json": {"vector": [1]}}),
    "search all": ("POST", "/v1/db/app--ann/memory/search", {"json": {"query": "x"}}),
    "collections": ("GET", "/v1/db/app--ann/vectors", {}),
    "vectors": ("GET", "/v1/db/app--ann/vectors/c", {}),
    "vector": ("GET", "/v1/db/app--ann/vectors/c/old", {}),
    "search vectors": ("POST", "/v1/db/app--ann/vectors/c/search", {"json": {"vector": [1]}}),
    "timelines": ("GET", "/v1/db/app--ann/timelines", {}),
    "timeline": ("GET", "/v1/db/app--ann/timelines/t", {}),
    "query rows": ("POST", "/v1/db/app--ann/timelines/t/query", {"json": {}}),
    "branches": ("GET", "/v1/db/app--ann/branches", {}),
    "checkpoints": ("GET", "/v1/db/app--ann/branches/main/checkpoints", {}),
    "restore points": ("GET", "/v1/db/app--ann/restore-points", {}),
    "changes": ("GET", "/v1/db/app--ann/changes", {}),
    "changes of a profile": ("GET", "/v1/memory/app/ann/changes", {}),
    "export": ("GET", "/v1/db/app--ann/export", {}),
}
NOW = {"branches", "checkpoints", "restore points", "changes", "changes of a profile"}
PAST = {name: call for name, call in READS.items() if name not in NOW}
REFUSING_AT = {
    **EMBEDDING_WRITES,
    **{name: call for name, call in WRITES.items() if name not in {"sql", "import lines"}},
    "import lines": ("POST", "/v1/memory/app/ann/import", {"content": NO_MEMORY}),
    "sql": ("POST", "/v1/db/app--ann/sql", {"json": {"stmts": [{"q": "CREATE TABLE t (a)"}]}}),
    "profiles": ("GET", "/v1/memory/app", {}),
    **{name: READS[name] for name in sorted(NOW)},
    "sync": ("POST", "/v1/db/app--ann/sync", {}),
    "fork": ("POST", "/v1/db/app--ann/branches", {"json": {"name": "f"}}),
    "delete branch": ("DELETE", "/v1/db/app--ann/branches/other", {}),
    "undelete branch": ("POST", "/v1/db/app--ann/branches/other/undelete", {}),
    "checkpoint": ("POST", "/v1/db/app--ann/branches/main/checkpoint", {"json": {"name": "c"}}),
    "delete checkpoint": ("DELETE", "/v1/db/app--ann/branches/main/checkpoints/c", {}),
    "rewind": ("POST", "/v1/db/app--ann/branches/main/rewind", {"json": {"to": "1"}}),
    "undo rewind": ("POST", "/v1/db/app--ann/branches/main/rewind/undo", {}),
    "erase": ("POST", "/v1/memory/app/ann/erasures", {"json": {"memory_id": FACT_ID}}),
    "erasures": ("GET", "/v1/memory/app/ann/erasures", {}),
    "erasure": ("GET", "/v1/memory/app/ann/erasures/ers_0123456789abcdef", {}),
    "erase in a database": ("POST", "/v1/db/app--ann/erasures", {"json": {"kv": {"ns": "n", "key": "k"}}}),
    "erasures of a database": ("GET", "/v1/db/app--ann/erasures", {}),
    "erasure of a database": ("GET", "/v1/db/app--ann/erasures/ers_0123456789abcdef", {}),
    "create": ("POST", "/v1/databases", {"json": {"name": "new"}}),
    "list": ("GET", "/v1/databases", {}),
    "delete database": ("DELETE", "/v1/databases/other", {}),
    "undelete database": ("POST", "/v1/databases/other/undelete", {}),
    "namespaces": ("GET", "/v1/namespaces", {}),
    "cluster": ("GET", "/v1/cluster", {}),
    "placement": ("GET", "/v1/db/app--ann/placement", {}),
    "create tenant": ("POST", "/v1/tenants", {"json": {"name": "new"}}),
    "tenants": ("GET", "/v1/tenants", {}),
    "tenant": ("GET", "/v1/tenants/default", {}),
    "delete tenant": ("DELETE", "/v1/tenants/other", {}),
    "import": ("PUT", "/v1/databases/new/import", {"content": b"x"}),
    "verify": ("POST", "/v1/db/app--ann/verify", {}),
    "settings": ("GET", "/v1/db/app--ann/settings", {}),
    "set settings": ("PUT", "/v1/db/app--ann/settings", {"json": {"durability": {"docs": "durable"}}}),
    "policy": ("GET", "/v1/namespaces/app/policy", {}),
    "set policy": ("PUT", "/v1/namespaces/app/policy", {"json": {"policy": {}}}),
    "profile's policy": ("GET", "/v1/memory/app/ann/policy", {}),
    "set profile's policy": ("PUT", "/v1/memory/app/ann/policy", {"json": {"policy": {}}}),
    "read audit": ("GET", "/v1/namespaces/app/audit", {}),
    "export audit": ("GET", "/v1/namespaces/app/audit/export", {}),
    "usage": ("GET", "/v1/databases/app--ann/usage", {}),
    "usage of a namespace": ("GET", "/v1/namespaces/app/usage", {}),
    "quotas": ("GET", "/v1/namespaces/app/quotas", {}),
    "set quotas": ("PUT", "/v1/namespaces/app/quotas", {"json": {"databases": 9}}),
    "quotas of a tenant": ("GET", "/v1/tenants/default/quotas", {}),
    "set quotas of a tenant": ("PUT", "/v1/tenants/default/quotas", {"json": {"databases": 9}}),
    "mint": ("POST", "/v1/namespaces/app/tokens", {"json": {"scope": "read"}}),
    "mint for one": ("POST", "/v1/databases/app--ann/tokens", {"json": {"scope": "read"}}),
    "tokens": ("GET", "/v1/namespaces/app/tokens", {}),
    "tokens of one": ("GET", "/v1/databases/app--ann/tokens", {}),
    "revoke": ("DELETE", "/v1/namespaces/app/tokens/tok_0", {}),
    "revoke of one": ("DELETE", "/v1/databases/app--ann/tokens/tok_0", {}),
    "revoke all": ("POST", "/v1/namespaces/app/tokens/revoke", {}),
    "revoke all of one": ("POST", "/v1/databases/app--ann/tokens/revoke", {}),
    "revoke everything": ("POST", "/v1/tokens/revoke", {}),
    "keys": ("GET", "/v1/keys", {}),
    "rotate keys": ("POST", "/v1/keys/rotate", {}),
}
