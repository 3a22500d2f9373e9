"""The matrix of routes and credentials once more, on real nodes: through a gateway, at a node that does not own the profile,
and as reads that a replica may answer.
"""

import asyncio
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from cluster.harness import CLUSTER_KEY, PLATFORM_KEY, Cluster

sys.path.append(str(Path(__file__).parents[1] / "http"))

import test_http_matrix as matrix

from memoturnd.http.route import Scope
from memoturnd.http.routes import ROUTES

NOT_DONE = {"DELETE /v1/databases/{db}", "DELETE /v1/tenants/{tenant}", "POST /v1/keys/rotate"}
"""What would change what the other requests find: of these only refusals are looked at."""
SHARE = 0.15
"""Part of the pairs that every run of the tests looks at; `make soak` looks at all."""
AT_ONCE = 24


def left_out(route) -> bool:
    return (
        route.operation in NOT_DONE
        or route.template.endswith("/tokens/revoke")
        or route.scope is Scope.INTERNAL
    )


class Ways:
    """How a request gets to its profile."""

    def __init__(self, cluster: Cluster, owner: str) -> None:
        other = next(node for node in cluster.nodes if node.name != owner)
        self.ways = {
            "gateway": (cluster.gateways[0].url, {}),
            "another node": (other.url, {}),
            "replica": (other.url, {"Memoturn-Consistency": "cached"}),
        }

    def __iter__(self):
        return iter(self.ways.items())


async def ask(session, way: str, url: str, route, credential, headers) -> str | None:
    """Send one request, and return what is wrong with the answer."""
    sent = {**credential.headers, **headers}
    async with session.request(route.method, url + matrix.path_of(route), headers=sent) as answer:
        status = answer.status
        body = await answer.read() if answer.status >= 400 else b""  # a feed that is open has no end
    if credential.asked_of(route):
        return None if status not in (401, 403) else f"{way} refuses {route.operation}: {status} {body!r}"
    wanted = 401 if credential.kind in ("none", "bad") else 403
    if way == "gateway" and route.scope is Scope.INTERNAL:
        wanted = 404  # a gateway has no routes between nodes
    return (
        None if status == wanted else f"{way} answers {route.operation} with {status}, not {wanted}: {body!r}"
    )


@pytest.mark.parametrize("share", [SHARE, pytest.param(1.0, marks=pytest.mark.soak)])
async def test_each_credential_opens_the_same_through_gateway_other_nodes_and_replicas(cluster, share):
    assert (PLATFORM_KEY, CLUSTER_KEY) == (matrix.PLATFORM_KEY, matrix.CLUSTER_KEY)
    signer = SimpleNamespace(private=cluster.key)
    issuer = SimpleNamespace(authority=SimpleNamespace(keyring=SimpleNamespace(signer=signer)))
    credentials = matrix.credentials(issuer)
    rng = random.Random(7)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        bearer = {"Authorization": f"Bearer {cluster.token(ns='app')}"}
        memory = {"memories": [{"type": "fact", "topic_key": "t", "summary": "s"}]}
        path = "/v1/memory/app/ann/memories"
        async with session.post(cluster.nodes[0].url + path, json=memory, headers=bearer) as made:
            assert made.status == 201, await made.text()
        owner = cluster.owner_node("app--ann").name
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(*arguments) -> str | None:
            async with gate:
                return await ask(session, *arguments)

        asked = []
        opened = 0
        for credential in credentials.values():
            for route in ROUTES:
                right = credential.asked_of(route)
                if right and left_out(route):
                    continue
                for way, (url, headers) in Ways(cluster, owner):
                    if rng.random() < share and (way != "replica" or route.method == "GET"):
                        opened += right
                        asked.append(one(way, url, route, credential, headers))
        wrong = [found for found in await asyncio.gather(*asked) if found]
    assert wrong == []
    assert opened > 50
    assert len(asked) > 1000
