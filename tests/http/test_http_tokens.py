"""Tokens over HTTP: minted, shown, narrowed, revoked; and what is no token."""

import asyncio
import base64
import copy
import hashlib
import hmac
import json
import time

import jwt
import pytest
from auth_support import CLUSTER_KEY, PLATFORM_KEY, guarded_node, mint, sender
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_calls import FACT, failure, ingest
from http_support import client_of, limits, running_node

from memoturnd.auth.keys import new_key, raw_of, written
from memoturnd.core import tokens
from memoturnd.errors import ConfigurationError, RetryableError, StoreUnavailableError
from memoturnd.http.app import create_app
from memoturnd.seams.credentials import Revocation
from memoturnd.stores.memory import MemoryStore

RECALL = ("POST", "/v1/memory/app/ann/recall", {"json": {"query": "x"}})


@pytest.fixture
async def node(tmp_path):
    async with guarded_node(tmp_path) as node:
        yield node


@pytest.fixture
async def platform(node):
    async with sender(node, PLATFORM_KEY) as client:
        yield client


@pytest.fixture
async def app(node, platform):
    """A write token of the namespace `app`, whose profile `ann` has a memory."""
    async with sender(node, (await mint(platform, "namespaces/app"))["token"]) as client:
        await ingest(client, FACT)
        yield client


async def asked(node, credential, call=RECALL, **headers):
    method, path, more = call
    async with sender(node, credential, **headers) as client:
        return await client.request(method, path, **more)


def signer(node):
    return node.authority.keyring.signer


def signed(node, key=None, headers=None, **claims):
    now = int(time.time())
    payload = {"db": "app--ann", "scope": "read", "iat": now, "exp": now + 60, **claims}
    return jwt.encode(
        {name: value for name, value in payload.items() if value is not None},
        (key or signer(node)).private,
        algorithm="EdDSA",
        headers=headers,
    )


# ---- minting


async def test_a_token_is_minted_as_the_contract_says(node, platform, app):
    minted = await mint(platform, "databases/app--ann", scope="read")
    assert minted["expires_in"] == 3600
    header, claims = jwt.get_unverified_header(minted["token"]), decoded(minted["token"])
    assert (header["alg"], header["kid"]) == ("EdDSA", signer(node).kid)
    assert (claims["db"], claims["scope"], claims["exp"] - claims["iat"]) == ("app--ann", "read", 3600)
    assert claims["jti"] == minted["id"]
    assert (await asked(node, minted["token"])).status_code == 200


async def test_a_namespace_token_covers_its_profiles_by_both_prefixes_and_their_list(node, platform, app):
    minted = await mint(platform, "namespaces/app", scope="read")
    claims = decoded(minted["token"])
    assert (claims["db"], claims["ns"]) == ("", "app")
    for call in (RECALL, ("GET", "/v1/db/app--ann/kv/n", {}), ("GET", "/v1/memory/app", {})):
        assert (await asked(node, minted["token"], call)).status_code == 200
    for path in ("/v1/db/app/kv/n", "/v1/db/web--ann/kv/n", "/v1/memory/web"):
        assert (await asked(node, minted["token"], ("GET", path, {}))).status_code == 403


def decoded(token):
    return jwt.decode(token, options={"verify_signature": False})


async def test_a_database_has_to_exist_and_a_namespace_has_not(platform):
    answer = await platform.post("/v1/databases/nothing/tokens", json={"scope": "read"})
    assert failure(answer) == (404, "database_not_found")
    await mint(platform, "namespaces/new")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scope": "root"},
        {"scope": "read", "expires_in": 0},
        {"scope": "read", "expires_in": 401 * 86400},
        {"scope": "read", "surfaces": []},
        {"scope": "read", "surfaces": ["all"]},
        {"scope": "read", "branches": ["../x"]},
        {"scope": "read", "profiles": ["A"]},
        {"scope": "read", "limits": {"bytes": 1}},
        {"scope": "read", "subject": "a\nb"},
        {"scope": "read", "subject": "x" * 129},
        {"scope": "read", "branch": ["main"]},
        {
            "scope": "read",
            "branches": [f"{n:064d}" for n in range(100)],
            "profiles": [f"{n:064d}" for n in range(100)],
        },
    ],
)
async def test_a_request_for_a_token_that_makes_no_sense_is_refused_and_leaves_none(platform, body):
    answer = await platform.post("/v1/namespaces/app/tokens", json=body)
    assert failure(answer) == (400, "invalid_request")
    assert (await platform.get("/v1/namespaces/app/tokens")).json()["tokens"] == []


async def test_a_token_may_not_live_longer_than_the_node_allows(tmp_path):
    async with (
        guarded_node(tmp_path, TOKEN_MAX_LIFETIME_S="100") as node,
        sender(node, PLATFORM_KEY) as platform,
    ):
        answer = await platform.post("/v1/namespaces/app/tokens", json={"scope": "read", "expires_in": 101})
        assert failure(answer) == (400, "invalid_request")
        now = int(time.time())
        for life, status in ((100, 404), (101, 401)):
            assert (
                await asked(node, signed(node, exp=now + life), ("GET", "/v1/db/app--ann/kv/n", {}))
            ).status_code == status


async def test_tokens_carry_the_audience_and_others_are_refused(tmp_path):
    async with guarded_node(tmp_path, TOKEN_AUDIENCE="here") as node, sender(node, PLATFORM_KEY) as platform:
        minted = await mint(platform, "namespaces/app")
        assert decoded(minted["token"])["aud"] == "here"
        listing = ("GET", "/v1/memory/app", {})
        for aud, status in (
            (None, 200),
            ("here", 200),
            (["there", "here"], 200),
            ("there", 401),
            (["there"], 401),
        ):
            token = signed(node, db="", ns="app", aud=aud)
            assert (await asked(node, token, listing)).status_code == status, aud


async def test_without_authentication_there_are_no_tokens(tmp_path):
    async with running_node(tmp_path) as node, sender(node, "http://127.0.0.1") as client:
        for path in ("/v1/namespaces/app/tokens", "/v1/keys"):
            assert failure(await client.get(path)) == (400, "invalid_request")
        answer = await client.post("/v1/namespaces/app/tokens", json={"scope": "read"})
        assert failure(answer) == (400, "invalid_request")
        assert (await client.get("/.well-known/jwks.json")).json() == {"keys": []}


# ---- what is no token


async def test_a_token_of_the_original_is_good(node, app):
    assert (await asked(node, signed(node))).status_code == 200
    assert (await asked(node, signed(node, ns="app", db=""))).status_code == 200


def forged(node):
    """Tokens that must open nothing, by what is wrong with them."""
    now = int(time.time())
    key = signer(node)
    good = signed(node)
    head, body, signature = good.split(".")
    public = raw_of(key.public)

    def hs256(header, secret):
        head = part({"alg": "HS256", "typ": "JWT", **header})
        digest = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
        return f"{head}.{body}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    pem = Ed25519PrivateKey.generate()
    return {
        "no signature": f"{head}.{body}.",
        "alg none": f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "alg None": f"{part({'alg': 'None'})}.{body}.{signature}",
        "HS256 with the public key": hs256({}, public),
        "HS256 with the public key and its id": hs256({"kid": key.kid}, public),
        "HS256 with the JWK": hs256({}, json.dumps(node.authority.keyring.jwks()[0]).encode()),
        "another alg over the good signature": f"{part({'alg': 'ES256'})}.{body}.{signature}",
        "another key": signed(node, new_key()),
        "another key with our id": signed(node, new_key(), {"kid": key.kid}),
        "an unknown kid": signed(node, headers={"kid": "0" * 16}),
        "a kid that is no text": signed(node, headers={"kid": "x"}).replace(part({"alg": "EdDSA"}), "e30"),
        "crit": signed(node, headers={"crit": ["exp"]}),
        "b64 false": f"{part({'alg': 'EdDSA', 'b64': False, 'crit': ['b64']})}.{body}.{signature}",
        "a jwk in the header": signed(node, headers={"jwk": {"kty": "OKP"}}),
        "jku": signed(node, headers={"jku": "https://example.org"}),
        "changed claims": f"{head}.{part({'db': 'app--bob', 'scope': 'admin', 'iat': now, 'exp': now + 60})}.{signature}",
        "a cut signature": good[:-8],
        "expired": signed(node, exp=now - 6, iat=now - 60),
        "of the future": signed(node, iat=now + 20),
        "no exp": signed(node, exp=None),
        "no iat": signed(node, iat=None),
        "no scope": signed(node, scope=None),
        "an unknown scope": signed(node, scope="root"),
        "neither db nor ns": signed(node, db=""),
        "both db and ns": signed(node, ns="app"),
        "a db that is a path": signed(node, db="../app"),
        "a tenant in the db": signed(node, db="acme/app--ann"),
        "exp as text": signed(node, exp="9999999999"),
        "branches as text": signed(node, branches="main"),
        "too long": signed(node, sub="x" * 20_000),
        "pem": pem.__class__.__name__,
        "dots": "..",
        "one part": "abc",
        "nothing": " ",
        "a header nested deeply": base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.e30",
        "a header that is a list": f"{part(['EdDSA'])}.{body}.{signature}",
        "an alg that is a list": f"{part({'alg': ['EdDSA']})}.{body}.{signature}",
        "claims nested deeply": f"{head}." + base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30",
        "not ascii": "\xe9.\xe9.\xe9",
    }


async def test_what_is_no_token_of_ours_is_refused(node, app):
    assert (await asked(node, signed(node))).status_code == 200
    for what, token in forged(node).items():
        async with sender(node) as client:
            header = {"Authorization": f"Bearer {token}".encode("latin-1")}
            answer = await client.post("/v1/memory/app/ann/recall", json={"query": "x"}, headers=header)
        assert failure(answer) == (401, "unauthorized"), (what, answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_leeway_is_five_seconds(node, app):
    now = int(time.time())
    assert (await asked(node, signed(node, exp=now - 2, iat=now - 60))).status_code == 200
    assert (await asked(node, signed(node, iat=now + 3))).status_code == 200


async def test_a_verified_token_is_refused_once_it_has_expired(node, app):
    clock_ms = node.authority.verifier._clock.now_ms
    token = signed(node, exp=int(time.time()) + 60)
    assert (await asked(node, token)).status_code == 200
    later = type("Later", (), {"now_ms": lambda _: clock_ms() + 70_000})()
    node.authority.verifier._clock = later
    assert (await asked(node, token)).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic {key}",
        "bearer",
        "Bearer",
        "{key}",
        "Bearer {key}x",
        "Bearer {shorter}",
        "Bearer {key} {key}",
    ],
)
async def test_a_header_that_is_no_bearer_of_the_platform_key_is_refused(node, header):
    text = header.format(key=PLATFORM_KEY, shorter=PLATFORM_KEY[:-1])
    async with sender(node) as client:
        answer = await client.get("/v1/databases", headers={"Authorization": text} if header else {})
    assert failure(answer) == (401, "unauthorized")


async def test_the_scheme_is_read_in_any_case(node):
    async with sender(node) as client:
        answer = await client.get("/v1/databases", headers={"Authorization": f"bEaReR {PLATFORM_KEY}"})
    assert answer.status_code == 200


async def test_two_authorization_headers_are_none(node):
    async with sender(node) as client:
        both = [("Authorization", f"Bearer {PLATFORM_KEY}"), ("Authorization", "Bearer x")]
        assert (await client.get("/v1/databases", headers=both)).status_code == 400


async def test_what_is_not_there_is_only_told_to_whom_it_may_be(node, platform, app):
    write = app.headers["Authorization"].removeprefix("Bearer ")
    admin = (await mint(platform, "namespaces/app", "admin"))["token"]
    for method, path, known in (("GET", "/v1/nothing", 404), ("PUT", "/v1/databases", 405)):
        for credential, status in (
            (None, 401),
            ("x", 401),
            (write, 403),
            (admin, known),
            (PLATFORM_KEY, known),
        ):
            assert (await asked(node, credential, (method, path, {}))).status_code == status


async def test_the_operators_own_routes_are_open(node):
    for path in ("/health", "/ready", "/metrics", "/openapi.json", "/.well-known/jwks.json"):
        for credential in (None, "x"):
            assert (await asked(node, credential, ("GET", path, {}))).status_code == 200


# ---- the cluster key


async def test_the_cluster_key_opens_data_and_not_the_control_plane(node, app):
    key = {"X-Memoturn-Internal": CLUSTER_KEY}
    assert (await asked(node, None, **key)).status_code == 200
    for path in ("/v1/databases", "/v1/namespaces/app/tokens", "/v1/keys"):
        assert (await asked(node, None, ("GET", path, {}), **key)).status_code == 403
    for wrong in (CLUSTER_KEY[:-1], "", PLATFORM_KEY):
        assert (await asked(node, PLATFORM_KEY, **{"X-Memoturn-Internal": wrong})).status_code == 401


# ---- limits of tokens


async def test_a_read_token_reads_with_sql_and_does_not_write(node, platform, app):
    read = (await mint(platform, "databases/app--ann", "read"))["token"]

    def sql(text):
        return ("POST", "/v1/db/app--ann/sql", {"json": {"stmts": [{"q": text}]}})

    assert (await asked(node, read, sql("SELECT 1"))).status_code == 200
    for text in (
        "CREATE TABLE t(a)",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "PRAGMA user_version = 3",
    ):
        assert (await asked(node, read, sql(text))).status_code in (400, 403), text
    assert failure(await asked(node, read, sql("CREATE TABLE t(a)"))) == (403, "forbidden")


async def test_a_token_for_memories_alone_sees_no_turns(node, platform, app):
    token = (await mint(platform, "namespaces/app", "admin", surfaces=["memory"]))["token"]
    recall = {"query": "x", "include_turns": True, "embedding": [1]}
    for call in (
        ("POST", "/v1/memory/app/ann/recall", {"json": recall}),
        ("GET", "/v1/memory/app/ann/export", {}),
        ("DELETE", "/v1/memory/app/ann/sessions/s?turns=true", {}),
        ("GET", "/v1/db/app--ann/memory/s/turns", {}),
        ("GET", "/v1/db/app--ann/export", {}),
        ("POST", "/v1/db/app--ann/sql", {"json": {"stmts": [{"q": "SELECT 1"}]}}),
    ):
        assert failure(await asked(node, token, call)) == (403, "forbidden"), call
    assert (await asked(node, token)).status_code == 200
    assert (await asked(node, token, ("DELETE", "/v1/memory/app/ann/sessions/s", {}))).status_code == 204


async def test_a_token_for_one_branch_does_not_reach_another(node, platform, app):
    admin = (await mint(platform, "namespaces/app", "admin"))["token"]
    made = await asked(node, admin, ("POST", "/v1/db/app--ann/branches", {"json": {"name": "dev"}}))
    assert made.status_code == 201
    dev = (await mint(platform, "namespaces/app", "admin", branches=["dev"]))["token"]
    for call, status in (
        (("GET", "/v1/db/app--ann@dev/kv/n", {}), 200),
        (("GET", "/v1/db/app--ann/kv/n", {}), 403),
        (("GET", "/v1/db/app--ann@main/kv/n", {}), 403),
        (("GET", "/v1/memory/app/ann/memories", {"params": {"branch": "dev"}}), 200),
        (("GET", "/v1/memory/app/ann/memories", {"headers": {"Memoturn-Branch": "dev"}}), 200),
        (
            (
                "GET",
                "/v1/memory/app/ann/memories",
                {"params": {"branch": "main"}, "headers": {"Memoturn-Branch": "dev"}},
            ),
            403,
        ),
        (("GET", "/v1/memory/app/ann/memories", {}), 403),
        (("GET", "/v1/db/app--ann@dev/branches", {}), 403),
        (("POST", "/v1/db/app--ann@dev/branches", {"json": {"name": "x", "from": "main"}}), 403),
        (("POST", "/v1/db/app--ann@dev/branches/main/checkpoint", {"json": {"name": "c"}}), 403),
        (("POST", "/v1/db/app--ann/branches/dev/checkpoint", {"json": {"name": "c"}}), 403),
        (("POST", "/v1/db/app--ann@dev/branches/dev/checkpoint", {"json": {"name": "c"}}), 200),
        (("POST", "/v1/db/app--ann@dev/verify", {}), 403),
    ):
        answer = await asked(node, dev, call)
        assert answer.status_code == status, (call, answer.text)


async def test_a_token_of_another_tenant_opens_nothing_here(node, platform, app):
    theirs = {"Memoturn-Tenant": "acme"}
    await node_tenant(node, "acme")
    minted = (
        await platform.post("/v1/namespaces/app/tokens", json={"scope": "admin"}, headers=theirs)
    ).json()
    assert decoded(minted["token"])["tenant"] == "acme"
    listed = await asked(node, minted["token"], ("GET", "/v1/memory/app", {}))
    assert listed.json()["profiles"] == []
    for tenant, status in (("acme", 200), ("default", 403), ("other", 403)):
        call = ("GET", "/v1/memory/app", {"headers": {"Memoturn-Tenant": tenant}})
        assert (await asked(node, minted["token"], call)).status_code == status
    assert (await platform.delete(f"/v1/namespaces/app/tokens/{minted['id']}")).status_code == 404
    assert (await asked(node, minted["token"], ("GET", "/v1/namespaces/app/tokens", {}))).json()["tokens"][0][
        "id"
    ] == minted["id"]
    assert minted["id"] not in (await platform.get("/v1/namespaces/app/tokens")).text


async def node_tenant(node, name):
    await node._services.catalog.create_tenant(name, 0)


# ---- narrower ones


async def test_an_admin_of_a_namespace_mints_narrower_tokens_and_sees_and_revokes_those(node, platform, app):
    admin = (await mint(platform, "namespaces/app", "admin", profiles=["ann"], surfaces=["memory", "kv"]))[
        "token"
    ]
    wide = await mint(platform, "namespaces/app", "read")
    async with sender(node, admin) as client:
        narrow = await mint(client, "namespaces/app", "write")
        of_one = await mint(client, "databases/app--ann", "read", surfaces=["kv"])
        for path, body in (
            ("namespaces/app", {"scope": "read", "profiles": ["bob"]}),
            ("namespaces/app", {"scope": "read", "surfaces": ["sql"]}),
            ("namespaces/app", {"scope": "read", "expires_in": 4000}),
            ("namespaces/web", {"scope": "read"}),
            ("databases/app--bob", {"scope": "read"}),
        ):
            answer = await client.post(f"/v1/{path}/tokens", json=body)
            assert failure(answer) == (403, "forbidden"), (path, body)
        listed = {row["id"]: row for row in (await client.get("/v1/namespaces/app/tokens")).json()["tokens"]}
        assert wide["id"] not in listed
        assert listed[narrow["id"]]["profiles"] == ["ann"]
        assert (await client.delete(f"/v1/namespaces/app/tokens/{wide['id']}")).status_code == 403
        assert (await client.post("/v1/namespaces/app/tokens/revoke")).status_code == 403
        assert (await client.delete(f"/v1/databases/app--ann/tokens/{of_one['id']}")).status_code == 204
    kv = ("GET", "/v1/db/app--ann/kv/n", {})
    assert (await asked(node, narrow["token"], kv)).status_code == 200
    assert (await asked(node, of_one["token"], kv)).status_code == 403
    for scope in ("read", "write"):
        less = (await mint(platform, "namespaces/app", scope))["token"]
        answer = await asked(node, less, ("POST", "/v1/namespaces/app/tokens", {"json": {"scope": "read"}}))
        assert failure(answer) == (403, "forbidden")


async def test_with_a_token_go_all_that_were_minted_with_it(node, platform, app):
    first = await mint(platform, "namespaces/app", "admin")
    async with sender(node, first["token"]) as client:
        second = await mint(client, "namespaces/app", "admin", expires_in=1000)
    async with sender(node, second["token"]) as client:
        third = await mint(client, "databases/app--ann", "read", expires_in=100)
    assert (await asked(node, third["token"])).status_code == 200
    assert (await platform.delete(f"/v1/namespaces/app/tokens/{first['id']}")).status_code == 204
    for minted in (first, second, third):
        assert failure(await asked(node, minted["token"])) == (403, "forbidden")


# ---- revocation


async def test_a_revoked_token_opens_nothing_more_reads_included(node, platform, app):
    one, other = [await mint(platform, "databases/app--ann", "read") for _ in range(2)]
    assert (await asked(node, one["token"])).status_code == 200
    assert (await platform.delete(f"/v1/databases/app--ann/tokens/{one['id']}")).status_code == 204
    assert failure(await asked(node, one["token"])) == (403, "forbidden")
    assert (await asked(node, other["token"])).status_code == 200
    listed = {
        row["id"]: row["revoked"]
        for row in (await platform.get("/v1/databases/app--ann/tokens")).json()["tokens"]
    }
    assert listed == {one["id"]: True, other["id"]: False}
    assert (await platform.delete("/v1/databases/app--ann/tokens/tok_none")).status_code == 404
    assert (await platform.delete(f"/v1/namespaces/app/tokens/{other['id']}")).status_code == 404


async def test_a_leaked_token_is_revoked_by_itself_even_one_that_has_no_id(node, platform, app):
    old = signed(node, jti=None)
    assert (await asked(node, old)).status_code == 200
    # The last character of a signature has bits without a meaning: the same token, written down in another way.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    variants = [old[:-1] + alphabet[alphabet.index(old[-1]) ^ bits] for bits in range(1, 16)] + [f"{old}=="]
    answer = await platform.post("/v1/databases/app--ann/tokens/revoke", json={"token": old})
    assert answer.status_code == 200
    assert answer.json()["id"].startswith("tok_")
    assert failure(await asked(node, old)) == (403, "forbidden")
    for same in variants:
        assert (await asked(node, same)).status_code in {401, 403}
    assert (await asked(node, app.headers["Authorization"].removeprefix("Bearer "))).status_code == 200
    for body, path, status in (
        ({"token": "x"}, "databases/app--ann", 400),
        ({"token": None}, "databases/app--ann", 400),
        ({"id": "tok_1"}, "databases/app--ann", 400),
        ({"token": signed(node, db="web--ann")}, "databases/app--ann", 404),
    ):
        assert (await platform.post(f"/v1/{path}/tokens/revoke", json=body)).status_code == status
    assert (await asked(node, app.headers["Authorization"].removeprefix("Bearer "))).status_code == 200


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        ("/v1/databases/app--ann/tokens/revoke", {"app--ann"}),
        ("/v1/namespaces/app/tokens/revoke", {"app--ann", "app"}),
        ("/v1/tokens/revoke", {"app--ann", "app", "notes"}),
    ],
)
async def test_every_token_up_to_now_is_revoked_and_new_ones_are_good(node, platform, app, path, gone):
    assert (await platform.post("/v1/databases", json={"name": "notes"})).status_code == 201
    paths = {"app--ann": "databases/app--ann", "app": "namespaces/app", "notes": "databases/notes"}
    reads = {name: ("GET", f"/v1/db/{'notes' if name == 'notes' else 'app--ann'}/kv/n", {}) for name in paths}
    before = {name: await mint(platform, p) for name, p in paths.items()}
    assert (await platform.post(path)).status_code == 200
    after = {name: await mint(platform, p) for name, p in paths.items()}
    for name, read in reads.items():
        assert (await asked(node, before[name]["token"], read)).status_code == (403 if name in gone else 200)
        assert (await asked(node, after[name]["token"], read)).status_code == 200


async def test_tokens_from_before_a_deletion_do_not_open_the_name_again_and_new_ones_do_at_once(
    node, platform, app
):
    old = await mint(platform, "databases/app--ann", "read")
    assert (await platform.delete("/v1/databases/app--ann")).status_code == 204
    await node.authority.revocations.refresh()
    minted = await mint(platform, "namespaces/app")
    async with sender(node, minted["token"]) as client:
        await ingest(client, FACT)
    new = await mint(platform, "databases/app--ann", "read")
    assert (await asked(node, new["token"])).status_code == 200
    assert failure(await asked(node, old["token"])) == (403, "forbidden")
    assert failure(await app.post("/v1/memory/app/ann/recall", json={"query": "x"})) == (403, "forbidden")
    app_list = await app.get("/v1/memory/app")
    assert app_list.status_code == 200  # the namespace's token is good for all that was not deleted


async def test_a_token_of_the_very_second_of_a_deletion_without_milliseconds_is_from_before(
    node, platform, app
):
    assert (await platform.delete("/v1/databases/app--ann")).status_code == 204
    await node.authority.revocations.refresh()
    at = node.authority.revocations._kept["tombstone", "default", "app--ann"].at
    await platform.post("/v1/databases", json={"name": "other"})
    for more, status in (({}, 403), ({"iat_ms": at}, 403), ({"iat_ms": at + 1}, 404)):
        token = signed(node, iat=at // 1000, **more)
        assert (await asked(node, token, ("GET", "/v1/db/app--ann/kv/n", {}))).status_code == status, more


async def test_what_another_node_revokes_is_known_here_within_seconds(node, platform, app):
    minted = await mint(platform, "databases/app--ann", "read")
    row = await node._services.catalog.get_token("default", minted["id"])
    await node._services.catalog.revoke(Revocation("token", "default", row.id, 1, row.expires_at))
    deadline = time.monotonic() + 3
    while (answer := await asked(node, minted["token"])).status_code == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert failure(answer) == (403, "forbidden")


class Overtaken:
    """A catalog in which a namespace is cut off by another node just before a token is recorded."""

    def __init__(self, catalog):
        self._catalog = catalog

    async def put_token(self, row):
        await self._catalog.revoke(Revocation("namespace", "default", "app", 1, row.expires_at))
        await self._catalog.put_token(row)


async def test_a_token_that_is_cut_off_while_it_mints_mints_nothing(node, platform):
    minter = await mint(platform, "namespaces/app", "admin")
    node.authority.records = Overtaken(node._services.catalog)
    async with sender(node, minter["token"]) as client:
        answer = await client.post("/v1/namespaces/app/tokens", json={"scope": "read"})
    assert failure(answer) == (403, "forbidden")


class DownCatalog:
    """A catalog that does not answer."""

    async def revocations_since(self, change, *, limit):
        raise RetryableError("the catalog does not answer")


async def test_while_the_catalog_does_not_answer_what_was_revoked_is_read_from_its_export(
    node, platform, app
):
    one, other = [await mint(platform, "databases/app--ann", "read") for _ in range(2)]
    expires_at = one["expires_at"]
    await node._services.catalog.revoke(Revocation("token", "default", one["id"], 1, expires_at))
    known = node.authority.revocations
    known._records = DownCatalog()
    known._fresh_at_s = None  # as if it had been silent for long
    await node.catalog_export.now()
    assert failure(await asked(node, one["token"])) == (403, "forbidden")
    assert (await asked(node, other["token"])).status_code == 200

    async def damaged(_kind):
        raise StoreUnavailableError("the bucket does not answer")

    node.catalog_export.read = damaged
    known._fresh_at_s = None
    assert failure(await asked(node, other["token"])) == (503, "unavailable")
    assert (await platform.get("/v1/databases")).status_code == 200


async def test_a_node_on_an_empty_disk_knows_what_was_revoked_and_what_was_not(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(written([new_key()]))
    store, listing = MemoryStore(), ("GET", "/v1/memory/app", {})
    async with (
        guarded_node(tmp_path / "one", store=store, AUTH_KEY_FILE=str(keys)) as node,
        sender(node, PLATFORM_KEY) as platform,
    ):
        leaked, good = [await mint(platform, "namespaces/app") for _ in range(2)]
        assert (await platform.delete(f"/v1/namespaces/app/tokens/{leaked['id']}")).status_code == 204
        left = copy.deepcopy(store)  # all that there is, should the node die now
    async with (
        guarded_node(tmp_path / "other", store=left, AUTH_KEY_FILE=str(keys)) as node,
        sender(node, PLATFORM_KEY) as platform,
    ):
        assert failure(await asked(node, leaked["token"], listing)) == (403, "forbidden")
        assert (await asked(node, good["token"], listing)).status_code == 200
        listed = (await platform.get("/v1/namespaces/app/tokens")).json()["tokens"]
        assert {row["id"]: row["revoked"] for row in listed} == {leaked["id"]: True, good["id"]: False}


# ---- keys


async def test_public_keys_are_published_to_everybody(node):
    answer = await asked(node, None, ("GET", "/.well-known/jwks.json", {}))
    (key,) = answer.json()["keys"]
    assert key["kid"] == signer(node).kid
    token = signed(node)
    assert jwt.decode(token, jwt.PyJWK(key).key, algorithms=["EdDSA"])["db"] == "app--ann"


async def test_keys_are_rotated_and_no_token_breaks(node, platform, app):
    old = await mint(platform, "databases/app--ann", "read")
    rotated = await platform.post("/v1/keys/rotate")
    assert rotated.status_code == 201
    kid = rotated.json()["kid"]
    statuses = {row["kid"]: row["status"] for row in (await platform.get("/v1/keys")).json()["keys"]}
    assert statuses[kid] == "verifying"
    node.authority.keyring._signs_from_ms[kid] = 0  # as if it had been published long enough
    new = await mint(platform, "databases/app--ann", "read")
    assert jwt.get_unverified_header(new["token"])["kid"] == kid
    for minted in (old, new):
        assert (await asked(node, minted["token"])).status_code == 200


async def test_a_key_that_the_operator_takes_out_of_the_file_verifies_no_more(tmp_path):
    path = tmp_path / "keys"
    first, second = new_key(), new_key()
    path.write_text(written([first]))
    async with (
        guarded_node(tmp_path, AUTH_KEY_FILE=str(path)) as node,
        sender(node, PLATFORM_KEY) as platform,
    ):
        token = (await mint(platform, "namespaces/app"))["token"]
        listing = ("GET", "/v1/memory/app", {})
        assert (await asked(node, token, listing)).status_code == 200
        path.write_text(written([second]))
        await node.authority.keyring.refresh()
        assert (await asked(node, token, listing)).status_code == 401
        assert failure(await platform.post("/v1/keys/rotate")) == (409, "conflict")


async def test_the_platform_key_is_changed_in_its_file_without_a_restart(tmp_path):
    path = tmp_path / "platform"
    path.write_text("first-key\n")
    async with guarded_node(tmp_path, PLATFORM_KEY="", PLATFORM_KEY_FILE=str(path)) as node:
        for text, good in (
            ("first-key\n", {"first-key"}),
            ("second-key\nfirst-key\n", {"first-key", "second-key"}),
            ("second-key", {"second-key"}),
        ):
            path.write_text(text)
            await node.authority._read_secrets()
            for key in ("first-key", "second-key"):
                status = 200 if key in good else 401
                assert (await asked(node, key, ("GET", "/v1/databases", {}))).status_code == status


def test_the_ids_of_two_tokens_that_have_none_differ():
    assert tokens.token_hash(b"a") != tokens.token_hash(b"b")


async def test_tokens_do_not_use_up_the_rate_of_the_operators_requests(tmp_path):
    async with guarded_node(tmp_path) as node:
        app = create_app(node, limits(loopback_only=False, control_rate=2))
        async with client_of(app) as client:
            client.headers["Authorization"] = f"Bearer {PLATFORM_KEY}"
            tokens_of = {}
            for ns in ("app", "other"):
                tokens_of[ns] = await mint(client, f"namespaces/{ns}", "admin")
            own = {"Authorization": f"Bearer {tokens_of['app']['token']}"}
            codes = [
                (await client.get("/v1/memory/app/ann/policy", headers=own)).status_code for _ in range(10)
            ]
            assert codes.count(429) >= 5
            other = {"Authorization": f"Bearer {tokens_of['other']['token']}"}
            assert (await client.get("/v1/namespaces/other/tokens", headers=other)).status_code == 200
            revoked = await client.delete(f"/v1/namespaces/app/tokens/{tokens_of['app']['id']}")
            assert revoked.status_code == 204


async def test_one_key_cannot_be_the_operators_and_the_nodes(tmp_path):
    with pytest.raises(ConfigurationError, match="CLUSTER_KEY is MEMOTURN_PLATFORM_KEY"):
        async with guarded_node(tmp_path, CLUSTER_KEY=f"another-one,{PLATFORM_KEY}"):
            pass


async def test_a_file_that_makes_one_key_of_the_two_while_the_node_runs_does_not_count(tmp_path):
    file = tmp_path / "cluster.key"
    file.write_text("the-nodes-own")
    async with guarded_node(tmp_path, CLUSTER_KEY="", CLUSTER_KEY_FILE=str(file)) as node:
        file.write_text(PLATFORM_KEY)
        with pytest.raises(ConfigurationError, match="CLUSTER_KEY is MEMOTURN_PLATFORM_KEY"):
            await node.authority._read_secrets()
        assert not node.authority.cluster.matches(PLATFORM_KEY.encode())
        assert node.authority.cluster.matches(b"the-nodes-own")
