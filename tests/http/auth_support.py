"""A node with authentication, and senders with every kind of credential."""

import contextlib

from http_support import client_of, limits, running_node

from memoturnd.http.app import create_app

PLATFORM_KEY = "platform-key-of-the-tests"
CLUSTER_KEY = "cluster-key-of-the-tests"


@contextlib.asynccontextmanager
async def guarded_node(folder, *, store=None, **env):
    """A node that asks everybody for a credential."""
    settings = {"AUTH": "on", "PLATFORM_KEY": PLATFORM_KEY, "CLUSTER_KEY": CLUSTER_KEY, **env}
    async with running_node(folder, store=store, **settings) as node:
        yield node


@contextlib.asynccontextmanager
async def sender(node, credential=None, **headers):
    """A client that sends a bearer credential with everything."""
    async with client_of(create_app(node, limits(loopback_only=False))) as client:
        if credential is not None:
            client.headers["Authorization"] = f"Bearer {credential}"
        client.headers.update(headers)
        yield client


async def mint(client, path, scope="write", **asked):
    """Mint a token for `databases/NAME` or `namespaces/NAME`; return the answer's body."""
    answer = await client.post(f"/v1/{path}/tokens", json={"scope": scope, **asked})
    assert answer.status_code == 201, answer.text
    return answer.json()
