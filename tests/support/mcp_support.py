"""Servers of MCP for tests, over both transports, and the official client before them."""

import asyncio
import os
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from memoturn.mcp import connections
from memoturn.mcp.http import HttpServer
from memoturn.mcp.settings import HttpSettings, Settings
from processes import NodeHome, RunningNode

PLATFORM_KEY = "platform-key-of-the-mcp-tests-0123456789"
LEGACY = "legacy"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
"""How a client of the older era of the protocol begins."""


@dataclass
class Node:
    """The node, and whoever mints its tokens."""

    home: NodeHome
    running: RunningNode

    @property
    def url(self):
        """Where it is."""
        return self.running.url

    @property
    def folder(self):
        """A folder for files of tests."""
        return self.home.folder

    def token(self, profile, scope="admin"):
        """A token of the profile `app/{profile}`, which is made, empty."""
        made = httpx.post(
            f"{self.url}/v1/memory/app/{profile}/memories",
            json={"memories": []},
            headers={"Authorization": f"Bearer {self.namespace_token('app', 'write')}"},
        )
        assert made.status_code == 201, made.text
        return self._mint(f"databases/app--{profile}/tokens", scope)

    def namespace_token(self, namespace, scope="admin"):
        """A token of a namespace."""
        return self._mint(f"namespaces/{namespace}/tokens", scope)

    def _mint(self, path, scope):
        operator = {"Authorization": f"Bearer {PLATFORM_KEY}"}
        answer = httpx.post(f"{self.url}/v1/{path}", json={"scope": scope}, headers=operator)
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]

    def settings(self, **more):
        return Settings(url=self.url, **more)


@dataclass(frozen=True)
class Served:
    """The server over HTTP, in this process."""

    url: str
    server: HttpServer

    @asynccontextmanager
    async def client(self, token=None, *, mode=LEGACY):
        """The official client, with that token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            create_mcp_http_client(headers=headers) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode) as client,
        ):
            yield client


@asynccontextmanager
async def serving(settings, clock=None, **http):
    """Serve HTTP on a free port of this process' loop, until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    more = {} if clock is None else {"clock": clock}
    http_settings = HttpSettings(**http)
    server = HttpServer(settings, http_settings, **more)
    web = uvicorn.Server(
        uvicorn.Config(
            server.app,
            log_config=None,
            lifespan="on",
            ws="none",
            http=connections.Connection,
            limit_concurrency=http_settings.connections_max,
            timeout_keep_alive=connections.KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
    )
    web.capture_signals = _no_signals
    task = asyncio.create_task(web.serve(sockets=[listening]))
    try:
        while not web.started:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.005)
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", server)
    finally:
        web.should_exit = True
        await task


class _no_signals:  # noqa: N801
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def stdio(node, *arguments, **env):
    """How the official client starts the server over stdio."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "memoturn", "--url", node.url, "mcp", *arguments],
        env=environment_of(**env),
    )


def environment_of(**env):
    """This environment without settings of ours, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    return kept | env


def line_of(result):
    """Whose memory a call meant."""
    return result.meta["memoturn/profile"]


def answer_of(result):
    """The structured answer of a call that went well."""
    assert not result.is_error, result.content[0].text
    assert result.structured_content is not None
    return result.structured_content


def error_of(result):
    """The text of a tool error."""
    assert result.is_error
    (content,) = result.content
    assert "Traceback" not in content.text
    return content.text
