"""Web pages do not get to the node, neither by its address nor by a name of their own that leads to it."""

import pytest
from http_support import client_of, limits

from memoturnd.errors import ForbiddenError
from memoturnd.http.app import create_app
from memoturnd.http.browsers import Browsers
from memoturnd.http.cors import Cors

MEMORY = "/v1/memory/app/ann/memories"
ITEM = b'{"memories": [{"type": "event", "summary": "x"}]}'


def check(host, origin=None, *, loopback_only=True, any_host=False):
    headers = {b"host": host} if host is not None else {}
    if origin is not None:
        headers[b"origin"] = origin
    Browsers(loopback_only=loopback_only, cors=Cors((), ())).check(
        headers, "/v1/databases", any_host=any_host
    )


LOOPBACK = [
    b"localhost",
    b"LocalHost:8080",
    b"127.0.0.1",
    b"127.0.0.1:8080",
    b"127.12.0.255:1",
    b"[::1]",
    b"[::1]:65535",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_names_of_this_machine_are_served(host):
    check(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"evil.example",
        b"evil.example:8080",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"127.evil.example",
        b"evil-localhost",
        b"127.0.0.1@evil.example",
        b"localhost:8080.evil.example",
        b"localhost:",
        b"localhost\n",
        b"128.0.0.1",
        b"0.0.0.0:8080",
        b"10.127.0.0.1",
        b"[::1].evil.example",
        b"[::2]",
        b"::1",
        b"\xff",
    ],
)
def test_other_names_are_refused_while_the_node_serves_only_its_own_machine(host):
    with pytest.raises(ForbiddenError, match=r"only its own machine.*localhost"):
        check(host)

    check(host, loopback_only=False)
    check(host, any_host=True)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (b"localhost:8080", b"http://localhost:8080"),
        (b"LOCALHOST:8080", b"HTTP://localhost:8080"),
        (b"[::1]:8080", b"http://[::1]:8080"),
        (b"127.0.0.1", b"http://127.0.0.1"),
        (b"127.0.0.1:80", b"http://127.0.0.1"),
        (b"127.0.0.1:443", b"https://127.0.0.1"),
        (b"localhost", b"https://localhost"),
    ],
)
def test_the_nodes_own_origin_is_allowed(host, origin):
    check(host, origin)


@pytest.mark.parametrize("any_host", [False, True])
@pytest.mark.parametrize("loopback_only", [False, True])
@pytest.mark.parametrize(
    "origin",
    [
        b"https://evil.example",
        b"http://localhost",
        b"http://localhost:3000",
        b"https://localhost:80",
        b"http://127.0.0.1:8080",
        b"http://localhost:8080.evil.example",
        b"http://evil.example/http://localhost:8080",
        b"http://localhost:8080 http://evil.example",
        b"chrome-extension://localhost:8080",
        b"localhost:8080",
        b"http://",
        b"null",
        b"",
        b"\xff",
    ],
)
def test_pages_of_other_origins_are_refused_everywhere(origin, loopback_only, any_host):
    with pytest.raises(ForbiddenError, match="origin"):
        check(b"localhost:8080", origin, loopback_only=loopback_only, any_host=any_host)


@pytest.mark.parametrize("host", [b"", None])
def test_an_origin_does_not_match_a_host_that_is_missing(host):
    for origin in (b"http://", b"", b"http://:80"):
        with pytest.raises(ForbiddenError, match="origin"):
            check(host, origin, loopback_only=False)


@pytest.mark.parametrize("kind", [{}, {"content-type": "text/plain"}, {"content-type": "application/json"}])
async def test_blind_post_of_a_web_page_changes_nothing(client, kind):
    origin = {"origin": "https://evil.example"}

    posted = await client.post(MEMORY, content=ITEM, headers={**kind, **origin})
    profiles = await client.get("/v1/memory/app")

    assert (posted.status_code, posted.json()["code"]) == (403, "forbidden")
    assert "https://evil.example" in posted.json()["error"]
    assert profiles.json()["profiles"] == []


async def test_preflight_of_a_web_page_allows_it_nothing(client):
    asks = {"origin": "https://evil.example", "access-control-request-method": "DELETE"}

    answer = await client.options(MEMORY, headers=asks)

    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/memory/app", "/nowhere", "/v1/databases"])
async def test_page_whose_own_name_leads_to_this_machine_reads_nothing(client, path):
    named = {"host": "evil.example:8080", "origin": "http://evil.example:8080"}

    answers = [await client.get(path, headers=named), await client.get(path, headers={"host": named["host"]})]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "forbidden")] * 2


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_probes_reach_the_node_by_any_name_and_web_pages_do_not(client, path):
    named = {"host": "node-7.cluster:8080"}

    assert (await client.get(path, headers=named)).status_code == 200
    assert (await client.head(path, headers=named)).status_code == 200
    assert (await client.post(path, headers=named)).status_code == 403
    assert (await client.get(path, headers={"origin": "https://evil.example"})).status_code == 403


async def test_node_that_serves_others_takes_any_host_and_still_no_foreign_page(node):
    async with client_of(create_app(node, limits(loopback_only=False))) as client:
        named = {"host": "memory.example"}
        assert (await client.get("/v1/databases", headers=named)).status_code == 200
        answer = await client.get("/v1/databases", headers={**named, "origin": "https://evil.example"})

    assert answer.status_code == 403
