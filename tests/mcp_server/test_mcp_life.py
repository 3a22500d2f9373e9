"""How the server lives: positions of sessions, a node that dies, calls that are called off, garbage, signals, logs."""

import asyncio
import json
import os
import re
import signal
import sys
import time

import httpx
import pytest
import uvicorn
from mcp_support import INITIALIZE, answer_of, environment_of, error_of, serving
from memoturn.mcp.settings import Settings
from processes import free_port

FACT = {"type": "fact", "topic_key": "user.diet", "summary": "Alice is vegan"}
TOKEN = "eyJhbGciOiJFZERTQSJ9.c2VjcmV0LXRva2Vu.AAAA"  # pragma: allowlist secret
DONE_S = 30


class Floors:
    """A node that notes which floor each request asks for."""

    def __init__(self):
        self.seen = []
        self.cookies = []
        self.hold = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope, receive, send):
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        while (await receive()).get("more_body"):
            pass
        self.seen.append((headers.get("authorization"), headers.get("memoturn-min-txid")))
        self.cookies.append(headers.get("cookie"))
        if scope["path"].endswith("/recall") and not self.hold.is_set():
            await self._wait(receive)
        body = b'{"memories": [], "results": [], "txid": 7}'
        status = 201 if scope["path"].endswith("/memories") else 200
        answer = [
            (b"content-type", b"application/json"),
            (b"memoturn-txid", b"7"),
            (b"memoturn-durable-txid", b"7"),
            (b"set-cookie", f"who={headers.get('authorization')}".encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": body})

    async def _wait(self, receive):
        async def leaves():
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()

        task = asyncio.create_task(leaves())
        held = asyncio.create_task(self.hold.wait())
        await asyncio.wait({task, held}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        held.cancel()


@pytest.fixture
async def floors():
    app = Floors()
    config = uvicorn.Config(
        app, port=free_port(), log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    app.url = f"http://127.0.0.1:{config.port}"
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    yield app
    server.should_exit = True
    await task


async def ingest(client):
    return answer_of(await client.call_tool("memory_ingest", {"memories": [FACT]}))


async def test_what_a_session_wrote_its_other_tools_see_and_another_session_has_no_position(floors):
    floors.hold.set()
    async with (
        serving(Settings(url=floors.url)) as served,
        served.client("one") as first,
        served.client("one") as second,
        served.client("two") as third,
    ):
        await ingest(first)
        for client in (first, second, third):
            await client.call_tool("memory_recall", {"query": "x"})
    assert floors.seen == [
        ("Bearer one", None),
        ("Bearer one", "7"),
        ("Bearer one", None),
        ("Bearer two", None),
    ]


async def test_what_a_proxy_tells_one_credential_goes_with_no_request_of_another(floors):
    floors.hold.set()
    async with serving(Settings(url=floors.url)) as served:
        for token in ("one", "two"):
            async with served.client(token) as client:
                await client.call_tool("memory_recall", {"query": "x"})
    assert floors.cookies == [None, None]


async def test_without_sessions_positions_belong_to_a_token(floors):
    floors.hold.set()
    async with serving(Settings(url=floors.url)) as served:
        for token in ("one", "one", "two"):
            async with served.client(token, mode="2026-07-28") as client:
                await client.call_tool("memory_recall", {"query": "x"})
    assert floors.seen == [("Bearer one", None), ("Bearer one", "7"), ("Bearer two", None)]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_call_that_is_called_off_is_called_off_at_the_node(floors, mode):
    async with serving(Settings(url=floors.url)) as served, served.client("one", mode=mode) as client:
        call = asyncio.create_task(client.call_tool("memory_recall", {"query": "x"}))
        while not floors.seen:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        await asyncio.wait_for(floors.left.wait(), DONE_S)
        text = served.server.metrics.text().decode()
        assert 'mcp_calls_total{outcome="cancelled",tool="memory_recall"} 1.0' in text
        floors.hold.set()
        answer_of(await client.call_tool("memory_recall", {"query": "x"}))


async def test_a_call_that_takes_too_long_is_an_error(floors):
    async with (
        serving(Settings(url=floors.url, call_timeout_s=0.2)) as served,
        served.client("one") as client,
    ):
        assert error_of(await client.call_tool("memory_recall", {"query": "x"})).startswith(
            "request_timeout:"
        )
        assert served.server.metrics.running == 0


async def test_a_node_that_is_killed_is_an_error_and_serves_again_when_it_is_back(node):
    token, port = node.token("killed"), int(node.url.rpartition(":")[2])
    async with serving(node.settings(call_timeout_s=10)) as served, served.client(token) as client:
        await ingest(client)
        node.running.kill()
        try:
            text = error_of(await client.call_tool("memory_recall", {"query": "vegan"}))
        finally:
            node.running = node.home.start(port=port)
        assert text.startswith(("unreachable:", "unavailable:"))
        assert "Next:" in text
        found = answer_of(await client.call_tool("memory_recall", {"query": "vegan"}))
        assert [memory["summary"] for memory in found["memories"]] == ["Alice is vegan"]


async def test_the_source_of_what_is_ingested_can_be_set(node):
    token = node.token("sourced")
    async with serving(node.settings(source="desk")) as served, served.client(token) as client:
        await ingest(client)
        listed = answer_of(await client.call_tool("memory_list", {}))
        assert [memory["source"] for memory in listed["memories"]] == ["desk"]


# ---- the process


class Child:
    """`memoturn mcp` as a child."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, url, *arguments, **env):
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "memoturn", "--url", url, "mcp", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment_of(**env)
        )
        return cls(process)

    async def say(self, *lines):
        for line in lines:
            self.process.stdin.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        await self.process.stdin.drain()

    async def answer(self):
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), DONE_S))

    async def log(self, event):
        while True:
            line = json.loads(await asyncio.wait_for(self.process.stderr.readline(), DONE_S))
            if line["event"] == event:
                return line

    async def ended(self):
        self.process.stdin.close()
        out, err = await asyncio.wait_for(self.process.communicate(), DONE_S)
        return self.process.returncode, out.decode(), err.decode()


async def test_garbage_on_stdin_is_answered_or_dropped_and_the_rest_served(floors):
    floors.hold.set()
    child = await Child.start(floors.url, MEMOTURN_TOKEN=TOKEN)
    await child.say(
        b"not json", b"\xff\xfe\x00", b"[]", b"{}", b'{"jsonrpc": "2.0"}', b"[" * 5000, b"", b'{"id": 1}'
    )
    await child.say(INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    answers = [await child.answer()]
    while answers[-1].get("id") != 1:
        answers.append(await child.answer())
    assert answers[-1]["result"]["serverInfo"]["name"] == "memoturn"
    arguments = {"query": TOKEN, "k": 5}
    await child.say(
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "memory_recall", "arguments": arguments},
        }
    )
    assert (await child.answer())["result"]["structuredContent"] == {"memories": [], "txid": 7}
    await child.say(
        {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": "memory_recall", "arguments": [1]},
        }
    )
    assert (await child.answer())["error"]["code"] == -32602
    await child.say({"jsonrpc": "2.0", "id": 4, "method": "no/such"})
    assert (await child.answer())["error"]["code"] == -32601

    code, out, err = await child.ended()
    assert code == 0
    assert out == ""
    assert TOKEN not in err
    assert "not json" not in err
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[0] == "serving"
    assert events[-1] == "stopped"
    assert "tool_call" in events


async def test_a_call_over_stdio_that_is_called_off_is_called_off_at_the_node_and_others_go_on(floors):
    child = await Child.start(floors.url)
    await child.say(INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    await child.answer()
    call = {"name": "memory_recall", "arguments": {"query": "x"}}
    await child.say({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
    while not floors.seen:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await child.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
    await asyncio.wait_for(floors.left.wait(), DONE_S)
    floors.hold.set()
    await child.say({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call})
    while (answer := await child.answer())["id"] != 3:
        assert "error" in answer
    assert answer["result"]["structuredContent"]["memories"] == []
    code, _, err = await child.ended()
    assert code == 0
    assert [json.loads(line).get("outcome") for line in err.splitlines() if "tool_call" in line] == [
        "cancelled",
        "ok",
    ]


async def test_a_client_that_reads_no_more_ends_the_server_though_it_holds_stdin_open():
    pipe = asyncio.subprocess.PIPE
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "memoturn", "mcp", stdin=pipe, stdout=write, stderr=pipe, env=environment_of()
    )
    os.close(write)
    os.close(read)
    process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
    err = await asyncio.wait_for(process.stderr.read(), DONE_S)

    assert await process.wait() == 0
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["serving", "stopped"]


async def test_a_signal_lets_calls_under_way_end_and_then_the_process(floors):
    child = await Child.start(floors.url)
    await child.say(INITIALIZE)
    await child.answer()
    await child.say(
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "memory_recall", "arguments": {"query": "x"}},
        }
    )
    while not floors.seen:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    child.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    floors.hold.set()
    assert (await child.answer())["id"] == 2
    started = time.monotonic()
    assert await asyncio.wait_for(child.process.wait(), DONE_S) == 0
    assert time.monotonic() - started < DONE_S / 2
    child.process._transport.close()


async def test_the_http_server_says_where_it_is_and_stops_well(floors):
    floors.hold.set()
    child = await Child.start(floors.url, "--http", "0", MEMOTURN_TOKEN=TOKEN)
    assert (await child.log("token_not_used"))["level"] == "warning"
    url = (await child.log("serving"))["url"]
    base = url.removesuffix("/mcp")
    async with httpx.AsyncClient(timeout=5) as http:
        assert (await http.get(f"{base}/health")).text == "ok"
        await asyncio.sleep(0.3)
        shown = (await http.get(f"{base}/metrics")).text
        assert "memoturn_mcp_sessions 0.0" in shown
        assert "memoturn_mcp_sessions_limit 1000.0" in shown
        assert 'memoturn_build_info{process="mcp"' in shown
        assert float(re.search(r"^process_resident_memory_bytes (\S+)$", shown, re.MULTILINE)[1]) > 10 << 20
        assert float(re.search(r"^memoturn_event_loop_lag_seconds_count (\S+)$", shown, re.MULTILINE)[1]) > 0
        headers = {"Accept": "application/json, text/event-stream", "Authorization": "Bearer mine"}
        answer = await http.post(url, json=INITIALIZE, headers=headers)
        assert answer.status_code == 200
        headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        call = {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "memory_recall", "arguments": {"query": "x"}},
        }
        assert '"isError":false' in (await http.post(url, json=call, headers=headers)).text
    assert floors.seen == [("Bearer mine", None)]
    child.process.send_signal(signal.SIGTERM)
    code, out, err = await child.ended()
    assert (code, out) == (0, "")
    assert TOKEN not in err
    assert "mine" not in err


@pytest.mark.parametrize("arguments", [("--http", "0"), ()], ids=["http", "stdio"])
async def test_a_signal_as_soon_as_it_serves_ends_it_well(floors, arguments):
    child = await Child.start(floors.url, *arguments)
    await child.log("serving")
    child.process.send_signal(signal.SIGINT)
    code, out, err = await asyncio.wait_for(child.ended(), DONE_S)
    assert (code, out) == (0, "")
    assert "Traceback" not in err
