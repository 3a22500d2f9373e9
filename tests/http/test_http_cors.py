"""Pages of the origins that are set may use the API: browsers are told so, with every answer, and of nothing else."""

import ast
import re
from pathlib import Path

import httpx
import pytest
from auth_support import PLATFORM_KEY, guarded_node
from http_support import client_of, limits

import memoturnd
from control_plane.http.alone import SERVED_ALONE
from memoturnd.http.app import create_app
from memoturnd.http.cors import SHOWN, taken_headers
from memoturnd.http.route import Scope
from memoturnd.http.routes import ROUTES

PAGE = "https://app.example"
EVIL = {"origin": "https://evil.example"}
KEY = "/v1/db/app--ann/kv/ns/k"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "PUT"}
BETWEEN_NODES = {
    "memoturn-branch-id",
    "memoturn-db-uuid",
    "memoturn-epoch",
    "memoturn-forwarded",
    "memoturn-kind",
    "memoturn-tail-begins",
    "x-memoturn-internal",
}
NO_HEADERS = {
    "memoturn-audit",
    "memoturn-control",
    "memoturn-gateway",
    "memoturn-memory",
    "memoturn-node",
    "memoturn-pages",
    "x-memoturn-scope",
}


def cors_headers(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def names(value):
    return {name.strip().lower() for name in value.split(",")}


def served(node, *origins, **changes):
    return client_of(create_app(node, limits(cors_origins=origins, **changes)))


@pytest.fixture
async def pages(node):
    await node.databases.ensure_profile("app--ann")
    async with served(node, PAGE, "http://localhost:5173") as client:
        yield client


# ---- preflights


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.scope is not Scope.INTERNAL], ids=lambda r: r.operation
)
async def test_a_preflight_is_told_the_method_and_headers_of_every_route(pages, route):
    path = re.sub(r"{\w+}", "x", route.template)

    answer = await pages.options(path, headers={**PREFLIGHT, "access-control-request-method": route.method})

    assert (answer.status_code, answer.content) == (204, b"")
    told = cors_headers(answer)
    assert told["access-control-allow-origin"] == PAGE
    assert route.method.lower() in names(told["access-control-allow-methods"])
    assert names(told["access-control-allow-headers"]) == {name.lower() for name in taken_headers(ROUTES)}
    assert told["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in told
    assert answer.headers["vary"] == "Origin"


async def test_a_preflight_needs_no_credential_and_says_nothing_of_what_is_there(tmp_path):
    async with guarded_node(tmp_path) as node, served(node, PAGE, loopback_only=False) as client:
        asks = {**PREFLIGHT, "memoturn-request-id": "r"}
        here, nowhere = [await client.options(path, headers=asks) for path in ("/v1/databases", "/nowhere")]

    assert (here.status_code, here.headers) == (204, nowhere.headers)


def test_the_headers_that_pages_may_set_are_those_that_the_api_reads():
    assert taken_headers(ROUTES) == [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "Memoturn-At",
        "Memoturn-Branch",
        "Memoturn-Consistency",
        "Memoturn-Durability",
        "Memoturn-Meta",
        "Memoturn-Min-Txid",
        "Memoturn-Request-Id",
        "Memoturn-Tenant",
    ]
    assert "Authorization" in taken_headers(SERVED_ALONE)


def test_no_header_of_the_program_is_forgotten():
    """Whoever adds a header says whether pages may set it (its description), read it (SHOWN), or have nothing to do with it."""
    root = Path(memoturnd.__file__).parent.parent
    known = {name.lower() for name in (*taken_headers(ROUTES), *SHOWN)} | BETWEEN_NODES | NO_HEADERS
    found = {
        text.lower()
        for package in ("memoturnd", "control_plane", "gateway")
        for path in (root / package).rglob("*.py")
        for text in literals(path)
        if re.fullmatch(r"(x-)?(memoturn|idempotent)-[a-z-]+", text, re.IGNORECASE)
    }

    assert found - known == set()
    assert len(found) > 25


def literals(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")


# ---- requests


async def test_pages_of_the_origins_may_read_and_write_and_see_every_header(pages):
    put = await pages.put(KEY, content=b"x", headers={"origin": PAGE, "memoturn-meta": '{"a":1}'})
    got = await pages.get(KEY, headers={"origin": "http://localhost:5173"})

    assert (put.status_code, got.content) == (200, b"x")
    assert put.headers["access-control-allow-origin"] == PAGE
    assert got.headers["access-control-allow-origin"] == "http://localhost:5173"
    for answer in (put, got):
        assert names(answer.headers["access-control-expose-headers"]) == {name.lower() for name in SHOWN}
        assert answer.headers.get_list("vary") == ["Origin"]


async def test_errors_say_so_too(tmp_path):
    async with (
        guarded_node(tmp_path) as node,
        served(node, PAGE, loopback_only=False, control_rate=1) as client,
    ):
        client.headers["origin"] = PAGE
        unauthorized = await client.get("/v1/databases")
        client.headers["authorization"] = f"Bearer {PLATFORM_KEY}"
        answers = [
            unauthorized,
            await client.get("/v1/databases/none/usage"),
            await client.get("/nowhere"),
            await client.patch("/v1/databases"),
            await client.post("/v1/databases", content=b"x", headers={"content-type": "text/plain"}),
            *[await client.get("/v1/databases") for _ in range(3)],
        ]

    assert [answer.status_code for answer in answers] == [401, 404, 404, 405, 415, 429, 429, 429]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {PAGE}
    assert {"access-control-expose-headers" in answer.headers for answer in answers} == {True}


async def test_streams_say_so_too(pages):
    await pages.put(KEY, content=b"x")
    lines = await pages.get("/v1/memory/app/ann/export", headers={"origin": PAGE})

    assert lines.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("path", ["/v1/databases", "/health", "/nowhere"])
async def test_other_pages_are_turned_away_as_ever(pages, path):
    for method in ("GET", "OPTIONS"):
        answer = await pages.request(method, path, headers={**PREFLIGHT, **EVIL})

        assert answer.status_code == 403
        assert "MEMOTURN_CORS_ORIGINS" in answer.json()["error"]
        assert cors_headers(answer) == {}
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["null", "http://app.example", "https://app.example:8443", "https://app.example.evil.example", ""],
)
async def test_an_origin_is_the_whole_of_it(pages, origin):
    answer = await pages.get("/v1/databases", headers={"origin": origin})

    assert (answer.status_code, cors_headers(answer)) == (403, {})


@pytest.mark.parametrize(
    "path", ["/internal/cluster/status", "/internal/nothing", "/%69nternal/cluster/status"]
)
async def test_what_nodes_tell_one_another_is_for_no_page(node, path):
    async with served(node, "*") as client:
        posted = await client.post(path, headers={"origin": PAGE})
        asked = await client.options(path, headers=PREFLIGHT)

    assert [posted.status_code, asked.status_code] == [403, 403]
    assert [cors_headers(posted), cors_headers(asked)] == [{}, {}]


async def test_a_name_that_leads_to_this_machine_is_none_of_it(pages):
    """The page's origin is allowed, but the request came by another name of this machine than its own (DNS rebinding)."""
    answer = await pages.get("/v1/databases", headers={"origin": PAGE, "host": "app.example"})

    assert answer.status_code == 403


async def test_programs_see_only_that_answers_vary(pages, client):
    asked, plain = await pages.get("/v1/databases"), await client.get("/v1/databases")

    assert (cors_headers(asked), asked.headers["vary"]) == ({}, "Origin")
    assert "vary" not in plain.headers
    assert (await pages.options("/v1/databases")).status_code == 405  # not asked by a browser


async def test_every_page_may_where_that_is_set(node):
    async with served(node, "*") as client:
        answer = await client.get("/v1/databases", headers=EVIL)

    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_control_plane_alone_says_what_it_serves(node):
    app = create_app(node, limits(cors_origins=(PAGE,)), routes=SERVED_ALONE)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080"
    ) as client:
        answer = await client.options("/v1/databases", headers=PREFLIGHT)

    assert answer.status_code == 204
    assert "patch" not in names(answer.headers["access-control-allow-methods"])
