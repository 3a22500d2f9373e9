"""Web pages behind a gateway, and at a node that does not own the branch: each answer says once who may read it."""

import httpx
import pytest
from gateway_support import behind_gateway, gateway
from node_support import cluster, gateway_of

PAGE = "https://app.example"
HERE = {"origin": PAGE}
EVIL = {"origin": "https://evil.example"}
PREFLIGHT = {**HERE, "access-control-request-method": "PUT"}
KEY = "/v1/db/app--ann/kv/ns/k"


async def created(made):
    await made.nodes["a"].node.databases.ensure_profile("app--ann")


def said(answer):
    return [answer.headers.get_list(name) for name in ("access-control-allow-origin", "vary")]


@pytest.mark.parametrize("nodes", ["", PAGE])
async def test_answers_through_a_gateway_and_another_node_say_it_once(tmp_path, nodes):
    async with (
        cluster(tmp_path, "a", "b", CORS_ORIGINS=nodes) as made,
        gateway_of(made, cors_origins=(PAGE,)) as parts,
        httpx.AsyncClient() as client,
    ):
        await created(made)
        written = await client.put(parts.url + KEY, content=b"x", headers=HERE)
        asked = [await client.get(parts.url + path, headers=HERE) for path in (KEY, "/nowhere", "/ready")]
        preflight = await client.options(parts.url + KEY, headers=PREFLIGHT)
        internal = await client.post(f"{parts.url}/internal/cluster/status", headers=HERE)
        evil = await client.put(parts.url + KEY, content=b"y", headers=EVIL)

    assert written.status_code == 200
    assert [answer.status_code for answer in asked] == [200, 404, 200]
    for answer in (written, *asked, preflight):
        assert said(answer) == [[PAGE], ["Origin"]]
        assert len(answer.headers.get_list("access-control-expose-headers")) == 1
    assert (preflight.status_code, "PUT" in preflight.headers["access-control-allow-methods"]) == (204, True)
    assert (internal.status_code, said(internal)[0]) == (404, [])
    assert (evil.status_code, said(evil)) == (403, [[], ["Origin"]])


async def test_a_node_that_forwards_lets_its_pages_through_and_says_it_once(tmp_path):
    async with cluster(tmp_path, "a", "b", CORS_ORIGINS=PAGE) as made, httpx.AsyncClient() as client:
        await created(made)
        urls = [node.url for node in made.nodes.values()]
        await client.put(urls[0] + KEY, content=b"x")
        answers = [await client.get(url + KEY, headers=HERE) for url in urls]

    assert [(answer.content, said(answer)) for answer in answers] == [(b"x", [[PAGE], ["Origin"]])] * 2


async def test_what_the_nodes_alone_allow_is_left_to_them(tmp_path):
    async with (
        cluster(tmp_path, "a", CORS_ORIGINS=PAGE) as made,
        gateway_of(made) as parts,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"{parts.url}/v1/databases", headers=HERE)
        preflight = await client.options(parts.url + KEY, headers=PREFLIGHT)

    assert [(one.status_code, said(one)) for one in (answer, preflight)] == [
        (200, [[PAGE], ["Origin"]]),
        (204, [[PAGE], ["Origin"]]),
    ]


async def test_the_gateways_own_refusals_say_so_too():
    async with gateway(cors_origins=(PAGE,)) as parts, httpx.AsyncClient() as client:
        parts.app._timeout_s = 0.05
        nobody = await client.get(parts.url + KEY, headers=HERE)
        ready = await client.get(f"{parts.url}/ready", headers=HERE)
        evil = await client.get(f"{parts.url}/ready", headers=EVIL)

    assert [(one.status_code, said(one)) for one in (nobody, ready)] == [(503, [[PAGE], ["Origin"]])] * 2
    assert said(evil) == [[], ["Origin"]]


async def test_nodes_are_not_told_of_a_page_that_the_gateway_has_let_in():
    async with behind_gateway(cors_origins=(PAGE,)) as (parts, [echo]), httpx.AsyncClient() as client:
        for headers in (HERE, EVIL):
            await client.get(parts.url + KEY, headers=headers)

    origins = [dict(headers).get(b"origin") for _, _, _, headers, _ in echo.seen]
    assert origins == [None, EVIL["origin"].encode()]
