"""Nodes that ask one another: the key is shown, and a refusal comes back as the error that was raised there."""

import socket

import pytest
from aiohttp import web

from memoturnd.errors import (
    ConflictError,
    DatabaseNotFoundError,
    FencedError,
    MemoturnError,
    OverloadedError,
    RequestTimeoutError,
    RetryableError,
    UpstreamError,
)
from memoturnd.http.envelope import error_reply
from memoturnd.peers import HttpPeers


class Other:
    """A node that answers as it is told, and keeps what it was asked."""

    def __init__(self):
        self.answer = web.Response()
        self.asked = None

    async def serve(self, request):
        self.asked = request.method, request.path, dict(request.headers), await request.read()
        return self.answer


@pytest.fixture
async def other():
    other = Other()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", other.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    other.address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield other
    finally:
        await runner.cleanup()


@pytest.fixture
async def peers():
    peers = HttpPeers(lambda: "the-key")
    try:
        yield peers
    finally:
        await peers.close()


async def test_what_is_asked_arrives_with_the_key_and_what_is_answered_comes_back(other, peers):
    other.answer = web.Response(body=b"\x00told")

    told = await peers.ask(
        other.address,
        "/internal/x",
        body=b"\x01asked",
        headers={"X-Memoturn-Internal": "no", "A": "b"},
        timeout_s=5,
    )

    method, path, headers, body = other.asked
    assert (method, path, body, told) == ("POST", "/internal/x", b"\x01asked", b"\x00told")
    assert (headers["X-Memoturn-Internal"], headers["A"]) == ("the-key", "b")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (DatabaseNotFoundError("gone"), DatabaseNotFoundError),
        (ConflictError("no"), ConflictError),
        (FencedError("lost"), ConflictError),
        (RetryableError("later", retry_after_s=7), RetryableError),
        (OverloadedError("full", retry_after_s=7, limit="rate"), OverloadedError),
        (RequestTimeoutError("slow"), RequestTimeoutError),
        (MemoturnError("bug"), UpstreamError),
    ],
)
async def test_a_refusal_is_raised_as_the_error_that_it_was(other, peers, error, raised):
    reply = error_reply(error)
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    other.answer = web.Response(status=reply.status, body=reply.body, headers=headers)

    with pytest.raises(MemoturnError, match=str(error)) as told:
        await peers.ask(other.address, "/internal/x", timeout_s=5)

    assert type(told.value) is raised
    assert getattr(told.value, "limit", "") == getattr(error, "limit", "")
    if type(error) in {RetryableError, OverloadedError}:
        assert told.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b'{"error": "who?", "code": "unauthorized"}', "does not take our cluster key"),
        (502, b"<html>", "answered 502"),
        (418, b'{"error": "a teapot", "code": "teapot"}', "a teapot"),
        (307, b"", "answered 307"),
    ],
)
async def test_what_no_node_says_is_a_failure_of_that_node(other, peers, status, body, says):
    other.answer = web.Response(status=status, body=body, headers={"Location": f"{other.address}/elsewhere"})

    with pytest.raises(UpstreamError, match=says):
        await peers.ask(other.address, "/internal/x", timeout_s=5)

    assert other.asked[1] == "/internal/x"


async def test_a_node_that_is_not_there_can_be_asked_again(peers):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RetryableError, match="does not answer"):
            await peers.ask(f"http://127.0.0.1:{taken.getsockname()[1]}", "/internal/x", timeout_s=1)
