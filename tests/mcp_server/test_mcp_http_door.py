"""The HTTP door: who gets in, whose session is whose, and which bounds hold."""

import asyncio
import json

import httpx
import pytest
from mcp_support import INITIALIZE, serving
from memoturn.mcp import connections
from memoturn.mcp.settings import Settings

ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
NOWHERE = Settings(url="http://127.0.0.1:9")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
async def http():
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


def bearer(token):
    return {**ACCEPT, "Authorization": f"Bearer {token}"}


async def opened(http, served, token):
    """Open a session; return the headers of its later requests."""
    answer = await http.post(f"{served.url}/mcp", json=INITIALIZE, headers=bearer(token))
    assert answer.status_code == 200, answer.text
    headers = {**bearer(token), "Mcp-Session-Id": answer.headers["mcp-session-id"]}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await http.post(f"{served.url}/mcp", json=ready, headers=headers)).status_code == 202
    return headers


async def status_of(http, served, headers, message=PING):
    return (await http.post(f"{served.url}/mcp", json=message, headers=headers)).status_code


async def test_a_session_is_its_tokens_alone(http):
    async with serving(NOWHERE) as served:
        headers = await opened(http, served, "one")

        assert await status_of(http, served, headers) == 200
        wrong = await http.post(
            f"{served.url}/mcp", json=PING, headers={**headers, "Authorization": "Bearer two"}
        )
        assert wrong.status_code == 401
        assert wrong.headers["www-authenticate"] == "Bearer"
        none = {name: value for name, value in headers.items() if name != "Authorization"}
        assert await status_of(http, served, none) == 401
        assert (
            await http.delete(f"{served.url}/mcp", headers={**headers, "Authorization": "Bearer two"})
        ).status_code == 401
        assert await status_of(http, served, headers) == 200


@pytest.mark.parametrize("token", ["caf\xe9", "a\tb", "\xa0"])
async def test_a_token_that_cannot_be_passed_on_is_none(http, token):
    async with serving(NOWHERE) as served:
        headers = {**ACCEPT, "Authorization": f"Bearer {token}".encode("latin-1")}

        assert await status_of(http, served, headers, INITIALIZE) == 401
        assert await status_of(http, served, headers) == 401


async def test_what_names_no_session_and_an_unknown_one_is_refused(http):
    async with serving(NOWHERE) as served:
        assert await status_of(http, served, bearer("one")) == 400
        assert await status_of(http, served, {**bearer("one"), "Mcp-Session-Id": "0" * 32}) == 404
        headers = await opened(http, served, "one")
        assert (await http.delete(f"{served.url}/mcp", headers=headers)).status_code == 200
        assert await status_of(http, served, headers) == 404
        assert len(served.server.sessions) == 0


async def test_a_session_ends_when_it_was_idle_for_too_long(http):
    clock = Clock()
    async with serving(NOWHERE, clock, session_idle_s=60) as served:
        used, idle = await opened(http, served, "one"), await opened(http, served, "two")
        clock.now += 59
        assert await status_of(http, served, used) == 200
        clock.now += 1
        await served.server.sweep()

        assert await status_of(http, served, idle) == 404
        assert await status_of(http, served, used) == 200
        text = (await http.get(f"{served.url}/metrics")).text
        assert 'memoturn_mcp_sessions_ended_total{reason="idle"} 1.0' in text
        assert "memoturn_mcp_sessions 1.0" in text


async def test_one_token_displaces_its_own_oldest_session_and_nobody_elses(http):
    async with serving(NOWHERE, sessions_per_token=2) as served:
        other = await opened(http, served, "other")
        first, second = await opened(http, served, "one"), await opened(http, served, "one")
        assert await status_of(http, served, first) == 200  # now the second is the oldest
        third = await opened(http, served, "one")

        assert [await status_of(http, served, headers) for headers in (other, first, second, third)] == [
            200,
            200,
            404,
            200,
        ]


async def test_a_server_that_has_all_its_connections_is_not_taken_for_a_dead_one(http):
    """Its probes would have it restarted, and all sessions with it."""
    async with serving(NOWHERE, connections_max=3) as served:
        port = int(served.url.rpartition(":")[2])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]

        assert await status_of(http, served, bearer("one")) == 503
        for path in ("health", "metrics"):
            assert (await http.get(f"{served.url}/{path}")).status_code == 200
        assert await status_of(http, served, bearer("one")) == 503
        for _, writer in held:
            writer.close()


async def test_all_sessions_together_have_a_bound(http):
    async with serving(NOWHERE, sessions_max=3) as served:
        sessions = [await opened(http, served, f"token-{index}") for index in range(5)]

        assert len(served.server.sessions) == 3
        assert [await status_of(http, served, headers) for headers in sessions] == [404, 404, 200, 200, 200]


async def test_many_clients_at_once_leave_no_more_sessions_than_there_may_be(http):
    async with serving(NOWHERE, sessions_max=10, sessions_per_token=4) as served:

        async def client(number):
            headers = await opened(http, served, f"token-{number % 4}")
            seen.append(len(served.server.sessions))
            statuses = {await status_of(http, served, headers) for _ in range(2)}
            if number % 3 == 0:
                await http.delete(f"{served.url}/mcp", headers=headers)
            return statuses

        seen = []
        results = await asyncio.gather(*(client(number) for number in range(40)), return_exceptions=True)
        opened_well = [result for result in results if isinstance(result, set)]
        assert set().union(*opened_well) <= {200, 404}
        assert len(opened_well) >= 10
        assert max(seen) <= 10
        registry, manager = served.server.sessions, served.server._manager._server_instances
        assert set(manager) == {session.id for session in registry._open.values()}
        assert not registry._opening
        assert all(not session.busy for session in registry._open.values())


async def test_a_client_that_leaves_in_the_midst_of_its_body_is_no_error(http, caplog):
    async with serving(NOWHERE) as served:
        host, port = served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await http.get(f"{served.url}/health")).text == "ok"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_opens_no_session_leaves_none_behind(http):
    async with serving(NOWHERE) as served:
        url = f"{served.url}/mcp"
        for body in (
            b"",
            b"{",
            b"[]",
            b'{"method": "initialize"}',
            b"[" * 100_000,
            json.dumps([INITIALIZE]).encode(),
        ):
            answer = await http.post(url, content=body, headers=bearer("one"))
            assert 400 <= answer.status_code < 500, body[:30]
        assert (await http.get(url, headers=bearer("one"))).status_code == 405
        assert (await http.put(url, headers=bearer("one"))).status_code == 405
        assert (await http.post(url, content=b"x", headers={"Content-Type": "text/plain"})).status_code == 415

        assert len(served.server.sessions) == 0
        assert served.server._manager._server_instances == {}


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused_before_it_is_kept(http, declared):
    async with serving(NOWHERE, body_bytes=10_000) as served:
        headers = await opened(http, served, "one")
        large = json.dumps({**PING, "params": {"_meta": {"x": "x" * 20_000}}}).encode()

        async def chunks():
            for start in range(0, len(large), 1000):
                yield large[start : start + 1000]

        answer = await http.post(
            f"{served.url}/mcp", content=large if declared else chunks(), headers=headers
        )
        assert answer.status_code == 413
        assert "10000" in answer.text
        assert await status_of(http, served, headers) == 200


async def test_a_body_that_does_not_come_is_not_waited_for(http):
    async with serving(NOWHERE, body_timeout_s=0.2) as served:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        line = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()
        assert b" 408 " in line


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("said", [b"", b"POST /mcp HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch, before, said):
    monkeypatch.setattr(connections, "HEADERS_S", 0.2)
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", 1)
    async with serving(NOWHERE) as served:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(before)
        if before:
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await writer.wait_closed()


async def test_web_pages_are_kept_out(http):
    async with serving(NOWHERE) as served:
        url = f"{served.url}/mcp"
        evil = await http.post(url, json=INITIALIZE, headers={**ACCEPT, "Origin": "https://evil.example"})
        rebound = await http.post(url, json=INITIALIZE, headers={**ACCEPT, "Host": "evil.example:8765"})
        port = served.url.rpartition(":")[2]
        other_page = await http.post(
            url, json=INITIALIZE, headers={**ACCEPT, "Origin": "http://localhost:3000"}
        )
        own = await http.post(
            url,
            json=INITIALIZE,
            headers={**ACCEPT, "Host": f"LocalHost:{port}", "Origin": f"http://localhost:{port}"},
        )

        assert (evil.status_code, rebound.status_code, other_page.status_code) == (403, 421, 403)
        assert own.status_code == 200


async def test_a_page_that_is_named_is_let_in_and_told_so(http):
    page = "https://chat.example"
    async with serving(NOWHERE, origins=(page,), hosts=("mcp.example",)) as served:
        headers = {**ACCEPT, "Origin": page, "Host": "mcp.example"}
        answer = await http.post(f"{served.url}/mcp", json=INITIALIZE, headers=headers)
        asked = {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        preflight = await http.options(f"{served.url}/mcp", headers=asked)

        assert answer.status_code == preflight.status_code == 200
        assert answer.headers["access-control-allow-origin"] == page
        assert "mcp-session-id" in answer.headers["access-control-expose-headers"].lower()


async def test_beyond_this_machine_every_request_needs_a_token(http):
    async with serving(NOWHERE, host="0.0.0.0") as served:
        url = f"{served.url}/mcp"
        none = await http.post(url, json=INITIALIZE, headers=ACCEPT)
        basic = await http.post(url, json=INITIALIZE, headers={**ACCEPT, "Authorization": "Basic eDp5"})
        long = await http.post(url, json=INITIALIZE, headers=bearer("x" * 9000))
        good = await http.post(url, json=INITIALIZE, headers={**bearer("one"), "Host": "any.example"})

        assert [answer.status_code for answer in (none, basic, long, good)] == [401, 401, 401, 200]
        assert (await http.get(f"{served.url}/health")).text == "ok"


async def test_a_stop_ends_every_session(http):
    async with serving(NOWHERE) as served:
        await opened(http, served, "one")
        server = served.server
    assert len(server.sessions) == 0
    assert b'sessions_ended_total{reason="stopped"} 1.0' in server.metrics.text()
