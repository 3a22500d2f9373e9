"""Pages of listings, and cursors that are taken only by the listing that gave them."""

from itertools import product

import pytest
from http_calls import FACT, ingest
from http_support import client_of, limits
from test_http_routes import created, failure

from memoturnd.http.app import create_app

LISTINGS = {
    "databases": ("/v1/databases", "databases"),
    "deleted databases": ("/v1/databases?deleted=true", "databases"),
    "namespaces": ("/v1/namespaces", "namespaces"),
    "tenants": ("/v1/tenants", "tenants"),
    "profiles": ("/v1/memory/app", "profiles"),
    "branches": ("/v1/db/app--ann/branches", "branches"),
    "checkpoints": ("/v1/db/app--ann/branches/main/checkpoints", "checkpoints"),
    "restore points": ("/v1/db/app--ann/restore-points", "restore_points"),
    "sessions": ("/v1/memory/app/ann/sessions", "sessions"),
    "collections of documents": ("/v1/db/app--ann/docs", "collections"),
    "collections of vectors": ("/v1/db/app--ann/vectors", "collections"),
    "timelines": ("/v1/db/app--ann/timelines", "timelines"),
}
ALL_AT_ONCE = {"branches", "checkpoints", "collections of documents", "collections of vectors"}
"""Listings that had no pages once: who asks for none gets everything."""


async def fill(client):
    """Put three rows into every listing."""
    for n in range(3):
        await ingest(client, FACT, path=f"/v1/memory/app/{('ann', 'bob', 'cyd')[n]}")
        await ingest(client, {"type": "task", "content": n, "summary": "x", "session_id": f"s{n}"})
        await client.post("/v1/databases", json={"name": "lost"})
        await client.delete("/v1/databases/lost")
        await ingest(client, FACT, path=f"/v1/memory/n{n}/ann")
        await client.post("/v1/tenants", json={"name": f"t{n}"})
    db = "/v1/db/app--ann"
    for n in range(3):
        await client.post(f"{db}/branches", json={"name": f"f{n}"})
        await client.post(f"{db}/branches/main/checkpoint", json={"name": f"c{n}"})
        await client.post(f"{db}/docs/d{n}/insert", json={"docs": [{"a": 1}]})
        await client.post(f"{db}/vectors/v{n}", json={"id": "i", "embedding": [1.0, 2.0]})
        await client.post(f"{db}/timelines/t{n}/rows", json={"rows": [{"key": "k", "data": 1}]})
    await client.post(f"{db}/sync")


async def listed(client, path, **query):
    path, _, fixed = path.partition("?")
    return await client.get(path, params={**dict(p.split("=") for p in fixed.split("&") if p), **query})


async def pages(client, path, name, limit=1):
    found, query = [], {"limit": limit}
    while query:
        answer = (await listed(client, path, **query)).json()
        assert len(answer[name]) <= limit
        found += answer[name]
        cursor = answer["next_cursor"]
        query = cursor and {"limit": limit, "cursor": cursor}
    return found


@pytest.fixture
async def filled(client):
    await fill(client)
    return client


@pytest.mark.parametrize("listing", LISTINGS)
async def test_pages_joined_are_the_listing(filled, listing):
    path, name = LISTINGS[listing]
    whole = (await filled.get(path)).json()
    assert len(whole[name]) >= 3
    assert ("next_cursor" in whole) is (listing not in ALL_AT_ONCE)
    for limit in (1, 2):
        assert await pages(filled, path, name, limit) == whole[name]


async def test_cursor_of_one_listing_is_refused_by_every_other(filled):
    cursors = {}
    for listing, (path, _) in LISTINGS.items():
        cursors[listing] = (await listed(filled, path, limit=1)).json()["next_cursor"]
    for (giver, cursor), (taker, (path, _)) in product(cursors.items(), LISTINGS.items()):
        answer = await listed(filled, path, cursor=cursor)
        assert answer.status_code == (200 if giver == taker else 400), (giver, taker)


@pytest.mark.parametrize("listing", LISTINGS)
async def test_cursor_is_refused_in_another_tenant_database_and_filter(filled, node, listing):
    path, _ = LISTINGS[listing]
    cursor = (await listed(filled, path, limit=1)).json()["next_cursor"]
    async with client_of(create_app(node, limits())) as other:
        other.headers["Memoturn-Tenant"] = "acme"
        await filled.post("/v1/tenants", json={"name": "acme"})
        await fill(other)
        assert failure(await listed(other, path, cursor=cursor)) == (400, "invalid_request")
    for elsewhere in (path.replace("ann", "bob"), path.replace("/app/ann", "/app/bob")):
        if elsewhere != path:
            answer = await listed(filled, elsewhere, cursor=cursor)
            assert failure(answer) == (400, "invalid_request")


async def test_cursor_is_refused_under_other_filters(filled):
    given = (await filled.get("/v1/databases", params={"prefix": "app", "limit": 1})).json()["next_cursor"]
    assert failure(await filled.get("/v1/databases", params={"cursor": given}))[0] == 400
    path = "/v1/db/app--ann/restore-points"
    given = (await filled.get(path, params={"order": "oldest", "limit": 1})).json()["next_cursor"]
    assert failure(await filled.get(path, params={"cursor": given}))[0] == 400


async def test_sessions_of_the_same_moment_are_told_apart_by_their_names(client):
    await created(client)
    batch = [{"type": "task", "content": n, "summary": "x", "session_id": f"s{n}"} for n in range(5)]
    await client.post("/v1/memory/app/ann/memories", json={"memories": batch})
    found = await pages(client, "/v1/memory/app/ann/sessions", "sessions", 2)
    assert [row["id"] for row in found] == [f"s{n}" for n in range(5)]
    assert len({row["last_active_at"] for row in found}) == 1


@pytest.mark.parametrize("cursor", ["", "x", "A" * 20_000, "AAAAAAAA", "%F0%9F%98%80"])
@pytest.mark.parametrize("listing", LISTINGS)
async def test_what_is_no_cursor_is_refused(filled, listing, cursor):
    path, _ = LISTINGS[listing]
    separator = "&" if "?" in path else "?"
    assert failure(await filled.get(f"{path}{separator}cursor={cursor}")) == (400, "invalid_request")
