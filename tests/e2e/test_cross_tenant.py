"""One tenant against another on one node, with credentials of its own for the same names: everything that it tries fails.

`acme` has a namespace, profiles, databases, branches, checkpoints, sessions, keys and a policy, which hold a secret. `evil` has
the same names, admin tokens for them, and knows acme's ids, txids, cursors and idempotency keys. No answer that it gets holds
the secret, and nothing of acme's changes.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from calls import assert_refused, ok
from processes import NodeHome

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.http.route import Body, Kind, Route
from memoturnd.http.routes import ROUTES

PLATFORM_KEY = "platform-key-of-the-tests"
CLUSTER_KEY = "cluster-key-of-the-tests"
WORD = "tulip"
"""What acme calls things that evil knows of, and asks for."""
HIDDEN = "onyx-77f3"
"""What acme's things hold, and what it calls others that evil has never heard of."""
MEMORY = "/v1/memory/app/ann"
DB = "/v1/db/app--ann"
TENANTS = ("acme", "evil")


@dataclass
class Sender:
    """A client with one credential, and what it learned that others should not be able to use."""

    client: httpx.Client
    known: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.client.request(method, path, **request)


async def register(home: NodeHome) -> None:
    home.data_dir.mkdir(parents=True)
    catalog = SqliteCatalog(home.data_dir / "registry.db")
    for tenant in TENANTS:
        await catalog.create_tenant(tenant, 1)
    await catalog.close()


class World:
    """A node with two tenants that call everything the same."""

    def __init__(self, home: NodeHome) -> None:
        self.home = home
        asyncio.run(register(home))
        self.url = home.start().url
        self._clients: list[httpx.Client] = []
        self.operators = {
            tenant: self.sender(PLATFORM_KEY, **{"Memoturn-Tenant": tenant}) for tenant in TENANTS
        }
        self.tenants = {tenant: self._settle(tenant) for tenant in TENANTS}
        self.acme, self.evil = (self.tenants[tenant] for tenant in TENANTS)
        self.evil_db = self.sender(self.mint("evil", "databases/app--ann"))
        """The other kind of token that evil has: for its database of acme's name."""

    def sender(self, credential: str, **headers: str) -> Sender:
        client = httpx.Client(
            base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {credential}", **headers}
        )
        self._clients.append(client)
        return Sender(client)

    def mint(self, tenant: str, path: str, scope: str = "admin") -> str:
        answer = ok(self.operators[tenant]("POST", f"/v1/{path}/tokens", json={"scope": scope}))
        return str(answer.json()["token"])

    def _settle(self, tenant: str) -> Sender:
        """Give a tenant its data; acme's holds the secret, evil's is about as much."""
        word, secret = (WORD, HIDDEN) if tenant == "acme" else ("weed", "moss")
        operator = self.operators[tenant]
        one = self.sender(self.mint(tenant, "namespaces/app"))
        policy = {"audit": {"enabled": True, "include_reads": True}, "note": secret}
        ok(operator("PUT", "/v1/namespaces/app/policy", json={"policy": policy}))
        for profile in ("ann", "hers", f"p-{secret}") if tenant == "acme" else ("ann", "mine"):
            memory, db = f"/v1/memory/app/{profile}", f"/v1/db/app--{profile}"
            fact = {"type": "fact", "topic_key": word, "session_id": word}
            items = [
                {**fact, "summary": f"{secret} old", "content": 1},
                {**fact, "summary": f"{secret} new {word}", "content": 2},
                {"type": "event", "summary": f"saw {secret}", "embedding": [1, 0], "source": secret},
                {**fact, "topic_key": secret, "session_id": secret, "summary": secret, "content": 3},
            ]
            once = {"Idempotency-Key": "k1"}
            made = ok(one("POST", f"{memory}/memories", json={"memories": items}, headers=once))
            for name in (word, secret):
                ok(one("POST", f"{db}/branches/main/checkpoint", json={"name": f"at-{name}"}))
                ok(one("PUT", f"{db}/kv/n/{name}", content=secret.encode()))
                ok(one("POST", f"{db}/docs/c/insert", json={"docs": [{"_id": name, "w": secret}]}))
                vector = {"id": name, "embedding": [1, 0], "metadata": {"w": secret}}
                ok(one("POST", f"{db}/vectors/c", json=vector))
                ok(one("POST", f"{db}/timelines/t/rows", json={"key": name, "data": {"w": secret}}))
                ok(one("POST", f"{db}/memory/{name}/turns", json={"role": "user", "content": secret}))
                ok(one("POST", f"{db}/branches", json={"name": f"b-{name}"}))
            stmts = [{"q": "CREATE TABLE own (w)"}, {"q": "INSERT INTO own VALUES (?)", "params": [secret]}]
            ok(one("POST", f"{db}/sql", json={"stmts": stmts}))
            ok(one("POST", f"{db}/sync"))
            one.known[f"{profile} memory"] = made.json()["results"][1]["id"]
            one.known[f"{profile} txid"] = made.headers["memoturn-txid"]
        ok(operator("POST", "/v1/databases", json={"name": "notes"}, headers={"Idempotency-Key": "k2"}))
        listed = ok(operator("GET", "/v1/databases")).json()["databases"]
        one.known |= {f"{row['name']} uuid": row["uuid"] for row in listed}
        return one

    def state(self, tenant: str) -> str:
        """Return a digest of all that a tenant has, as it sees it itself."""
        one, operator = self.tenants[tenant], self.operators[tenant]
        seen = hashlib.sha256()
        for path in ("/v1/databases", "/v1/namespaces/app/policy"):
            seen.update(ok(operator("GET", path)).content)
        for profile in ("ann", "hers"):
            db = f"/v1/db/app--{profile}"
            for path in (
                f"/v1/memory/app/{profile}/export",
                f"/v1/memory/app/{profile}/policy",
                f"/v1/memory/app/{profile}/erasures",
                f"{db}/branches",
                f"{db}/branches/main/checkpoints",
                f"{db}/restore-points",
                f"{db}/kv/n",
                f"{db}@b-{WORD}/kv/n",
                f"{db}/docs",
                f"{db}/vectors/c",
                f"{db}/timelines",
            ):
                seen.update(ok(one("GET", path)).content)
            seen.update(ok(one("POST", f"{db}/sql", json={"stmts": [{"q": "SELECT * FROM own"}]})).content)
        return seen.hexdigest()

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    env = {"AUTH": "on", "PLATFORM_KEY": PLATFORM_KEY, "CLUSTER_KEY": CLUSTER_KEY}
    with NodeHome(tmp_path_factory.mktemp("tenants"), **env) as home:
        world = World(home)
        yield world
        world.close()
        assert "Traceback" not in home.log()


@pytest.fixture(autouse=True)
def untouched(world: World) -> Iterator[None]:
    """Whatever a test tries, acme has and sees afterwards what it did before."""
    before = world.state("acme")
    yield
    assert world.state("acme") == before


def nothing_hidden(answer: httpx.Response) -> httpx.Response:
    shown = answer.content + repr(sorted(answer.headers.items())).encode()
    assert HIDDEN.encode() not in shown, f"{answer.request.method} {answer.request.url}: {answer.text[:400]}"
    return answer


# ---- every route


NAMES = {
    "ns": "app", "profile": "hers", "db": "app--hers", "branch": f"b-{WORD}", "sid": WORD, "session": WORD,
    "topic_key": WORD, "seq": "1", "timeline": "t", "key": WORD, "name": f"at-{WORD}", "coll": "c", "path": "w",
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/recall": {"query": WORD},
    "/sql": {"stmts": [{"q": "SELECT * FROM own"}]},
    "/find": {"filter": {}},
    "/count": {"filter": {}},
    "/distinct": {"path": "w"},
    "/vectors/{coll}/search": {"vector": [1, 0]},
    "/search": {"query": WORD},
    "/query": {},
    "/rewind": {"to": f"at-{WORD}"},
    "/branches": {"name": "stolen", "from": f"b-{WORD}"},
    "/checkpoint": {"name": "mine"},
    "/memories": {"memories": [{"type": "event", "summary": "planted"}]},
    "/forget": {"all": True},
    "/policy": {"policy": {"memory": {"event_max_age_secs": 60}}},
    "/erasures": {"session_id": WORD, "turns": True},
    "/tokens": {"scope": "admin"},
    "/turns": {"role": "user", "content": "planted"},
    "/rows": {"key": "planted", "data": {}},
    "/insert": {"docs": [{"_id": "planted"}]},
    "/update": {"filter": {}, "update": {"$set": {"w": "planted"}}, "multi": True},
    "/delete": {"filter": {}, "multi": True},
    "/increment": {},
}
GUARDED = [route for route in ROUTES if route.kind is not Kind.OPEN]
ENDING = [route for route in GUARDED if route.template.endswith("/tokens/revoke")]
"""What would end evil's own tokens: test_revoking_all_that_is_ones_own_ends_nothing_elses does that."""


def body_of(route: Route) -> dict[str, Any]:
    if route.body in {Body.RAW, Body.FILE}:
        return {"content": b"planted"}
    if route.body is Body.NONE:
        return {}
    for ending, body in BODIES.items():
        if route.template.endswith(ending):
            return {"json": body}
    return {"json": {}}


@pytest.mark.parametrize("way", ["of the namespace", "of the database", "with acme's tenant", "for a node"])
def test_no_route_shows_or_changes_what_is_acmes(world: World, way: str) -> None:
    headers = {
        "with acme's tenant": {"Memoturn-Tenant": "acme"},
        "for a node": {"X-Memoturn-Internal": "guess", "Memoturn-Tenant": "acme"},
    }.get(way, {})
    evil = world.evil_db if way == "of the database" else world.evil
    tried = 0
    for route in GUARDED:
        if route in ENDING and not headers:
            continue
        is_read = route.method == "GET" or route.kind is Kind.READ
        for profile in ("hers", "ann") if is_read else ("hers",):  # its own `ann` evil may change as it likes
            ids = {"id": world.acme.known[f"{profile} memory"], "tenant": "acme"}
            parts = {**NAMES, **ids, "profile": profile, "db": f"app--{profile}"}
            path = route.template.format(**{name: parts.get(name, "x") for name in route.parameters})

            answer = nothing_hidden(evil(route.method, path, headers=headers, **body_of(route)))

            tried += 1
            if headers:
                assert answer.status_code in {401, 403}, (path, answer.text)
            elif evil is world.evil_db and profile == "hers":
                assert answer.status_code in {400, 403}, (path, answer.text)
    assert tried > len(GUARDED)


def test_the_same_requests_show_acme_what_it_has(world: World) -> None:
    """The attacks above ask for what is there: with acme's own token they find it."""
    found = 0
    for route in GUARDED:
        if route.method == "GET" or route.kind is Kind.READ:
            parts = {**NAMES, "id": world.acme.known["hers memory"]}
            path = route.template.format(**{name: parts.get(name, "x") for name in route.parameters})
            answer = world.acme(route.method, path, **body_of(route))
            found += answer.is_success and HIDDEN in answer.text
    assert found >= 15


# ---- names


@pytest.mark.parametrize(
    "path",
    [
        "/v1/db/acme%2Fapp--hers/kv/n",
        "/v1/db/acme/app--hers/kv/n",
        "/v1/memory/acme%2Fapp/hers/memories",
        "/v1/memory/acme/app--hers/memories",
        "/v1/memory/..%2Facme%2Fapp/hers/memories",
        "/v1/namespaces/acme%2Fapp/policy",
        "/v1/databases/acme%2Fapp--hers/usage",
        "/v1/db/app--hers@..%2f..%2facme/kv/n",
        "/v1/db/{uuid}/kv/n",
        "/v1/db/app--{uuid}/kv/n",
    ],
)
def test_no_name_reaches_into_another_tenant(world: World, path: str) -> None:
    path = path.replace("{uuid}", world.acme.known["app--hers uuid"])
    for sender in (world.evil, world.evil_db, world.operators["evil"]):
        answer = nothing_hidden(sender("GET", path))
        assert answer.status_code in {400, 403, 404}, answer.text


def test_a_database_cannot_be_called_as_another_tenants_is(world: World) -> None:
    for name in ("acme/notes", "acme/app--hers", "../acme/notes", "acme%2Fnotes", "Acme"):
        assert_refused(world.operators["evil"]("POST", "/v1/databases", json={"name": name}), 400)


@pytest.mark.parametrize("name", ["Acme", "acme/", "ac\u043ce", "acme/app", "", "../acme"])
def test_a_tenant_has_one_spelling(world: World, name: str) -> None:
    headers = [(b"authorization", f"Bearer {PLATFORM_KEY}".encode()), (b"memoturn-tenant", name.encode())]
    answer = httpx.get(f"{world.url}/v1/databases", headers=headers)
    assert_refused(answer, 400)


def test_the_header_of_a_tenant_comes_once(world: World) -> None:
    for names in (("evil", "acme"), ("acme", "evil")):
        headers = [("Authorization", f"Bearer {PLATFORM_KEY}"), *(("Memoturn-Tenant", n) for n in names)]
        assert_refused(httpx.get(f"{world.url}/v1/databases", headers=headers), 400)


def test_a_token_is_of_its_tenant_whatever_the_header_says(world: World) -> None:
    for tenant in ("acme", "default"):
        answer = world.evil("GET", f"{MEMORY}/memories", headers={"Memoturn-Tenant": tenant})
        assert_refused(nothing_hidden(answer), 403)
    assert ok(world.evil("GET", f"{MEMORY}/memories", headers={"Memoturn-Tenant": "evil"}))


def test_a_token_of_no_tenant_is_of_the_default_one(world: World) -> None:
    operator = world.sender(PLATFORM_KEY)
    token = ok(operator("POST", "/v1/namespaces/app/tokens", json={"scope": "admin"})).json()["token"]
    one = world.sender(token)
    assert ok(one("GET", "/v1/memory/app")).json()["profiles"] == []
    assert nothing_hidden(one("GET", f"{MEMORY}/memories")).json()["memories"] == []


def test_listings_show_what_is_of_the_tenant(world: World) -> None:
    assert f"p-{HIDDEN}" in ok(world.acme("GET", "/v1/memory/app")).text
    nothing_hidden(ok(world.evil("GET", "/v1/memory/app")))
    rows = ok(world.operators["evil"]("GET", "/v1/databases")).json()["databases"]
    assert {row["uuid"] for row in rows}.isdisjoint(set(world.acme.known.values()))


# ---- branches, and the past


@pytest.mark.parametrize("branch", [f"b-{WORD}", "../main", "%2e%2e"])
def test_branches_of_the_other_are_no_branches(world: World, branch: str) -> None:
    answers = [
        world.evil("GET", f"{DB}@{branch}/kv/n"),
        world.evil("GET", f"{MEMORY}/memories", params={"branch": branch}),
        world.evil("GET", f"{MEMORY}/memories", headers={"Memoturn-Branch": branch}),
        world.evil("POST", f"{DB}/branches", json={"name": "stolen", "from": branch}),
        world.evil("POST", f"{DB}@{branch}/sql", json={"stmts": [{"q": "SELECT * FROM own"}]}),
    ]
    for answer in answers:
        assert_refused(nothing_hidden(answer), 400, 404)


def test_the_past_is_the_tenants_own(world: World) -> None:
    checkpoint = f"at-{WORD}"
    for at in (checkpoint, "head", "head~1", world.acme.known["hers txid"], "2099-01-01T00:00:00Z"):
        for path in (f"{MEMORY}/memories", f"{DB}/kv/n", f"{DB}/export", f"{MEMORY}/export"):
            answer = nothing_hidden(world.evil("GET", path, headers={"Memoturn-At": at}))
            if at == checkpoint:
                assert_refused(answer, 404)
        nothing_hidden(world.evil("GET", "/v1/db/app--hers/kv/n", params={"at": at}))
    for request in (
        ("POST", f"{DB}/branches/main/rewind", {"to": checkpoint}),
        ("POST", f"{DB}/branches", {"name": "stolen", "checkpoint": checkpoint}),
        ("POST", f"{DB}/branches", {"name": "stolen", "at": checkpoint}),
    ):
        method, path, body = request
        assert_refused(nothing_hidden(world.evil(method, path, json=body)), 404)
    assert checkpoint in ok(world.acme("GET", f"{DB}/restore-points")).text
    assert checkpoint not in ok(world.evil("GET", f"{DB}/restore-points")).text


def test_what_leaves_and_comes_as_a_file_is_the_tenants_own(world: World) -> None:
    lines = ok(world.acme("GET", f"{MEMORY}/export")).content
    state = ok(world.acme("GET", f"{DB}/export")).content
    assert HIDDEN.encode() in lines
    assert HIDDEN.encode() in state

    assert_refused(world.evil("PUT", "/v1/databases/app--hers/import", content=state), 403)
    assert_refused(world.evil("PUT", "/v1/databases/app--ann/import?branch=stolen", content=state), 403)
    mine = ok(world.evil("GET", "/v1/memory/app/mine/export")).content
    replacing = {"replace": "true"}
    ok(
        world.evil("POST", "/v1/memory/app/hers/import", content=mine, params=replacing)
    )  # its own by that name
    nothing_hidden(ok(world.evil("GET", "/v1/memory/app/hers/memories")))


# ---- cursors and ids


LISTINGS = {
    "memories": f"{MEMORY}/memories?limit=1",
    "topics": f"{MEMORY}/topics?limit=1",
    "history": f"{MEMORY}/topics/{{word}}?limit=1&type=fact",
    "sessions": f"{MEMORY}/sessions?limit=1",
    "keys": f"{DB}/kv/n?limit=1",
    "restore points": f"{DB}/restore-points?limit=1",
    "vectors": f"{DB}/vectors/c?limit=1",
    "audit": "/v1/namespaces/app/audit?limit=1",
    "profiles": "/v1/memory/app?limit=1",
}


def cursors_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inside in value.items():
            if name == "next_cursor" and isinstance(inside, str):
                yield inside
            else:
                yield from cursors_in(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from cursors_in(inside)


@pytest.mark.parametrize("name", LISTINGS)
def test_a_cursor_of_the_other_is_refused_or_leads_on_in_ones_own(world: World, name: str) -> None:
    first = ok(world.acme("GET", LISTINGS[name].format(word=WORD)))
    found = list(cursors_in(first.json()))
    if not found:
        assert name in {"sessions", "vectors", "topics"}, f"{name} has no second page to try"
        return

    for cursor in found:
        answer = world.evil("GET", LISTINGS[name].format(word="weed"), params={"cursor": cursor})
        # A cursor says from where on, not whose: where it is taken, it leads on in evil's own.
        nothing_hidden(answer)
        assert answer.status_code in {200, 400}, answer.text


def test_ids_of_the_other_are_of_nothing(world: World) -> None:
    id_ = world.acme.known["ann memory"]
    for method, path, body in (
        ("GET", f"{MEMORY}/memories/{id_}", None),
        ("GET", f"{MEMORY}/memories/{id_}/history", None),
        ("PATCH", f"{MEMORY}/memories/{id_}", {"pinned": True}),
        ("DELETE", f"{MEMORY}/memories/{id_}", None),
        ("POST", f"{MEMORY}/memories/{id_}/undo", None),
        ("POST", f"{MEMORY}/erasures", {"memory_id": id_}),
        ("GET", f"{DB}/memory/{WORD}/turns/1", None),
        ("GET", f"{DB}/vectors/c/{WORD}", None),
        ("GET", f"{DB}/kv/n/{WORD}", None),
    ):
        answer = world.evil(method, path, **({} if body is None else {"json": body}))
        assert_refused(nothing_hidden(answer), 404)


# ---- SQL


def test_sql_reaches_no_file_but_its_own(world: World) -> None:
    uuid = world.acme.known["app--ann uuid"]
    files = [str(path) for path in (world.home.data_dir / "dbs").rglob("*.db") if uuid in str(path)]
    assert files, "acme's file is on the disk, where an attack would find it"
    evil_files = [
        *files,
        *(f"file:{path}?mode=ro" for path in files),
        str(world.home.data_dir / "registry.db"),
    ]
    statements = [
        *(f"ATTACH DATABASE '{path}' AS other" for path in evil_files),
        *(f"VACUUM INTO '{path}.stolen'" for path in files),
        *(f"SELECT * FROM '{path}'.own" for path in files),
        *(f"SELECT readfile('{path}')" for path in files),
        *(f"CREATE VIRTUAL TABLE stolen USING csv(filename='{path}')" for path in files),
        *(f"SELECT load_extension('{path}')" for path in files),
        "SELECT * FROM other.own",
        "PRAGMA database_list",
        "SELECT file FROM pragma_database_list",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM __memoturn_memories",
        "PRAGMA temp_store_directory = '/'",
        "DETACH DATABASE main",
    ]
    for statement in statements:
        answer = world.evil("POST", f"{DB}/sql", json={"stmts": [{"q": statement}]})
        assert_refused(nothing_hidden(answer), 400, 403)
    assert not list(world.home.data_dir.rglob("*.stolen"))


# ---- requests that are sent again


def test_an_idempotency_key_of_the_other_is_another_key(world: World) -> None:
    mine = {"memories": [{"type": "event", "summary": "again"}]}
    answer = ok(world.evil("POST", f"{MEMORY}/memories", json=mine, headers={"Idempotency-Key": "k3"}))
    for sender in (world.acme, world.evil):
        same = {"memories": [{"type": "fact", "topic_key": "probe", "summary": "probe", "content": 0}]}
        path = "/v1/memory/app/probe/memories"
        probed = ok(sender("POST", path, json=same, headers={"Idempotency-Key": "shared"}))
        assert "idempotent-replayed" not in probed.headers
        assert probed.json()["results"][0]["status"] == "created"
    assert "idempotent-replayed" not in answer.headers
    for tenant in TENANTS:
        world.operators[tenant]("DELETE", "/v1/databases/app--probe")


def test_a_directory_request_of_the_other_is_not_answered_again(world: World) -> None:
    made = world.operators["evil"](
        "POST", "/v1/databases", json={"name": "fresh"}, headers={"Idempotency-Key": "k9"}
    )
    other = world.operators["acme"](
        "POST", "/v1/databases", json={"name": "fresh"}, headers={"Idempotency-Key": "k9"}
    )
    assert ok(made).json()["uuid"] != ok(other).json()["uuid"]
    assert "idempotent-replayed" not in other.headers
    for tenant in TENANTS:
        ok(world.operators[tenant]("DELETE", "/v1/databases/fresh"))


# ---- who governs what


def test_policies_of_one_namespace_name_are_of_two_tenants(world: World) -> None:
    strict = {"policy": {"memory": {"event_max_age_secs": 60}, "ai_egress": {"embed": "deny"}}}
    ok(world.evil("PUT", f"{MEMORY}/policy", json=strict))
    ok(world.evil("PUT", "/v1/memory/app/hers/policy", json=strict))
    for profile in ("ann", "hers"):
        shown = ok(world.acme("GET", f"/v1/memory/app/{profile}/policy")).json()
        assert (shown["override"], shown["effective"]["event_max_age_secs"]) == (None, None)
    assert_refused(world.evil("PUT", "/v1/namespaces/app/policy", json=strict), 403)
    for name in ("ann", "hers"):
        ok(world.evil("PUT", f"/v1/memory/app/{name}/policy", json={"policy": None}))


def test_erasures_audit_and_usage_are_the_tenants_own(world: World) -> None:
    ok(
        world.acme(
            "POST",
            "/v1/memory/app/coupons/memories",
            json={"memories": [{"type": "event", "summary": HIDDEN}]},
        )
    )
    asked = ok(
        world.acme("POST", "/v1/memory/app/coupons/erasures", json={"session_id": "none", "turns": True})
    )
    coupon = asked.json()["erasure_id"]

    for profile in ("coupons", "ann"):
        answer = world.evil("GET", f"/v1/memory/app/{profile}/erasures/{coupon}")
        assert_refused(nothing_hidden(answer), 404)
    assert coupon not in world.evil("GET", f"{MEMORY}/erasures").text
    senders = []
    for one in (world.acme, world.evil):
        events = ok(one("GET", "/v1/namespaces/app/audit?limit=1000")).json()["events"]
        senders.append({e["actor"].get("token_hash") for e in events if e["actor"]["kind"] == "token"})
    assert all(senders)
    assert senders[0].isdisjoint(senders[1])
    usage = ok(world.operators["evil"]("GET", "/v1/namespaces/app/usage"))
    assert usage.status_code == 200
    assert_refused(world.operators["evil"]("GET", "/v1/databases/app--coupons/usage"), 404)
    ok(world.operators["acme"]("DELETE", "/v1/databases/app--coupons"))


# ---- credentials that end


def test_deleting_ones_database_ends_nobody_elses_tokens(world: World) -> None:
    for tenant in TENANTS:
        ok(world.operators[tenant]("POST", "/v1/databases", json={"name": "twin"}))
        ok(world.operators[tenant]("POST", "/v1/databases", json={"name": "spare"}))
    acme = world.sender(world.mint("acme", "databases/twin"))
    evil = world.sender(world.mint("evil", "databases/twin"))
    for one in (acme, evil):
        ok(one("PUT", "/v1/db/twin/kv/n/k", content=b"x"))

    ok(world.operators["evil"]("DELETE", "/v1/databases/twin"))

    assert ok(acme("GET", "/v1/db/twin/kv/n/k")).content == b"x"
    assert evil("GET", "/v1/db/twin/kv/n/k").status_code in {403, 404}
    ok(world.operators["acme"]("DELETE", "/v1/databases/twin"))
    for tenant in TENANTS:
        ok(world.operators[tenant]("DELETE", "/v1/databases/spare"))


def test_tokens_of_the_other_are_not_listed_and_not_revoked(world: World) -> None:
    listed = ok(world.operators["acme"]("GET", "/v1/namespaces/app/tokens")).json()["tokens"]
    ids = [row["id"] for row in listed]
    assert ids
    shown = ok(world.operators["evil"]("GET", "/v1/namespaces/app/tokens")).text
    for id_ in ids:
        assert id_ not in shown
        for sender in (world.evil, world.operators["evil"]):
            answer = sender("DELETE", f"/v1/namespaces/app/tokens/{id_}")
            assert answer.status_code in {204, 403, 404}, answer.text
    ok(world.acme("GET", f"{MEMORY}/memories"))  # they open what they opened


def test_secret_is_where_the_tests_think_it_is(world: World) -> None:
    text = ok(world.acme("GET", f"{MEMORY}/export")).text
    assert len(re.findall(HIDDEN, text)) >= 5


def test_revoking_all_that_is_ones_own_ends_nothing_elses(world: World) -> None:
    for path in (
        "/v1/namespaces/app/tokens/revoke",
        "/v1/databases/app--ann/tokens/revoke",
        "/v1/tokens/revoke",
    ):
        ok(world.operators["evil"]("POST", path, json={}))
    assert_refused(world.evil("GET", f"{MEMORY}/memories"), 401, 403)
    ok(world.acme("GET", f"{MEMORY}/memories"))
