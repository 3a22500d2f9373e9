"""Every tool, resource and prompt, by the official client against a node with authentication on, over both transports."""

import itertools
import json
from contextlib import asynccontextmanager

import pytest
from mcp import MCPError
from mcp.client import Client
from mcp_support import answer_of, error_of, serving, stdio
from memoturn.mcp.settings import Pin
from memoturn.mcp.tools import TOOLS

_NUMBERS = itertools.count(1)
TRANSPORTS = ["stdio", "legacy", "2026-07-28"]


@asynccontextmanager
async def connected(node, transport, owner, scope="admin", **settings):
    token = node.token(owner, scope)
    if transport == "stdio":
        (node.folder / owner).write_text(token + "\n")
        async with Client(stdio(node, MEMOTURN_TOKEN_FILE=str(node.folder / owner))) as client:
            yield client
    else:
        async with (
            serving(node.settings(**settings)) as served,
            served.client(token, mode=transport) as client,
        ):
            yield client


async def ingest(client, *memories, **where):
    return answer_of(await client.call_tool("memory_ingest", {"memories": list(memories), **where}))


async def resources_and_prompts(client, place):
    """Look at every resource and prompt of a profile that is empty, and leave it so."""

    async def read(uri):
        (content,) = (await client.read_resource(uri)).contents
        return json.loads(content.text)

    uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
    assert uris == ["memoturn://profile", "memoturn://recent"]
    assert (await read("memoturn://recent"))["memories"] == []
    fact = {
        "type": "fact",
        "topic_key": "user.diet",
        "summary": "Alice is vegan",
        "pinned": True,
        "session_id": "s1",
    }
    (result,) = (await ingest(client, fact))["results"]

    shown = await read("memoturn://profile")
    assert (shown["profile"], shown["memories"], shown["turns"]) == (place, 1, 0)
    assert shown["topics"] == ["fact user.diet"]
    assert [memory["id"] for memory in shown["pinned"]] == [result["id"]]
    assert (await read("memoturn://recent"))["memories"][0]["id"] == result["id"]
    (template,) = (await client.list_resource_templates()).resource_templates
    assert (await read(template.uri_template.replace("{id}", result["id"])))["memory"][
        "summary"
    ] == "Alice is vegan"
    for unknown in (
        "memoturn://memories/mem_0",
        "memoturn://other",
        "memoturn://memories/",
        "file:///etc/passwd",
    ):
        with pytest.raises(MCPError, match="not_found"):
            await client.read_resource(unknown)

    prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
    assert set(prompts) == {"use_memory", "recall_before_answer", "summarise_session"}
    for prompt in prompts.values():
        arguments = {argument.name: "x {question} y" for argument in prompt.arguments or []}
        (message,) = (await client.get_prompt(prompt.name, arguments)).messages
        assert "memory_recall" in message.content.text
        assert all(value in message.content.text for value in arguments.values())
    with pytest.raises(MCPError, match="needs question"):
        await client.get_prompt("recall_before_answer", {})
    with pytest.raises(MCPError, match="there is no prompt"):
        await client.get_prompt("other")
    answer_of(await client.call_tool("memory_forget", {"ids": [result["id"]]}))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_tool_resource_and_prompt_does_what_it_says(node, transport):
    profile = f"tools{next(_NUMBERS)}"
    called = set()
    async with connected(node, transport, profile) as client:
        await resources_and_prompts(client, f"app/{profile}")
        assert {tool.name for tool in (await client.list_tools()).tools} == {tool.name for tool in TOOLS}

        async def call(tool, **arguments):
            called.add(tool)
            answer = answer_of(await client.call_tool(tool, arguments))
            assert answer["txid"] >= 0
            return answer

        old = await call(
            "memory_ingest",
            memories=[
                {"type": "fact", "topic_key": "user.diet", "summary": "Alice eats everything"},
                {"type": "event", "summary": "Alice flew to Oslo", "session_id": "s1", "content": {"day": 3}},
            ],
        )
        fact = {
            "type": "fact",
            "topic_key": "user.diet",
            "summary": "Alice is vegan",
            "reason": "she said so",
            "pinned": True,
        }
        new = await call("memory_ingest", memories=[fact])
        assert new["results"][0]["superseded"] == [old["results"][0]["id"]]
        new_id = new["results"][0]["id"]

        found = await call("memory_recall", query="what does Alice eat, and where did she fly")
        assert {memory["summary"] for memory in found["memories"]} == {"Alice is vegan", "Alice flew to Oslo"}
        assert found["memories"][0]["created_at"].endswith("Z")
        past = await call("memory_recall", topic_key="user.diet", at=str(old["txid"]))
        assert [memory["summary"] for memory in past["memories"]] == ["Alice eats everything"]

        asked = await call("memory_ask", question="What does Alice eat?")
        assert asked["answer"]
        assert [memory["id"] for memory in asked["memories"]] == asked["sources"]

        one = await call("memory_get", id=new_id, history=True)
        assert one["memory"]["topic_key"] == "user.diet"
        assert [version["summary"] for version in one["versions"]] == [
            "Alice is vegan",
            "Alice eats everything",
        ]
        assert one["versions"][0]["reason"] == "she said so"

        page = await call("memory_list", limit=1)
        rest = await call("memory_list", limit=1, cursor=page["next_cursor"])
        assert "next_cursor" not in rest
        assert len({memory["id"] for memory in page["memories"] + rest["memories"]}) == 2
        assert len((await call("memory_list", pinned=True, types=["fact"]))["memories"]) == 1

        turns = [{"role": "user", "content": "I moved to Bergen"}, {"role": "assistant", "content": "Noted"}]
        assert (await call("turns_append", session_id="s1", turns=turns))["seqs"] == [1, 2]
        assert (await call("turns_search", query="Bergen"))["turns"][0]["seq"] == 1
        assert (await call("turns_search", query="Bergen", session_id="other"))["turns"] == []
        assert [turn["seq"] for turn in (await call("turns_search", session_id="s1", k=1))["turns"]] == [2]
        assert [turn["seq"] for turn in (await call("turns_search", session_id="s1", before=2))["turns"]] == [
            1
        ]
        assert [session["id"] for session in (await call("sessions_list"))["sessions"]] == ["s1"]

        inserted = await call("docs_insert", collection="tickets", docs=[{"_id": "a", "n": 1}, {"n": 5}])
        assert inserted["ids"][0] == "a"
        docs = (
            await call("docs_find", collection="tickets", filter={"n": {"$gt": 0}}, sort={"n": -1}, limit=1)
        )["docs"]
        assert docs == [{"_id": inserted["ids"][1], "n": 5}]

        put = await call("kv_put", key="a/b", value="räksmörgås")
        got = await call("kv_get", key="a/b")
        assert (got["value"], got["etag"]) == ("räksmörgås", put["etag"])
        await call("kv_put", key="a/b", value="2", if_match=put["etag"])
        stale = await client.call_tool("kv_put", {"key": "a/b", "value": "3", "if_match": put["etag"]})
        assert error_of(stale).startswith("precondition_failed")

        marked = await call("branch_checkpoint", name="before")
        fork = await call("branch_create", name="what-if")
        assert fork["branch"] == "what-if"
        await call(
            "memory_ingest",
            memories=[{"type": "fact", "topic_key": "user.diet", "summary": "Alice loves steak"}],
            branch="what-if",
        )
        here = await call("memory_recall", topic_key="user.diet")
        there = await call("memory_recall", topic_key="user.diet", branch="what-if")
        assert [here["memories"][0]["summary"], there["memories"][0]["summary"]] == [
            "Alice is vegan",
            "Alice loves steak",
        ]

        gone = await call("memory_forget", ids=[new_id, "mem_unknown"])
        assert gone["forgotten"] == 1
        assert (await call("memory_recall", topic_key="user.diet"))["memories"] == []
        rewound = await call("branch_rewind", to="before")
        assert rewound["rewound_to"] == marked["txid"]
        assert (await call("memory_recall", topic_key="user.diet"))["memories"][0]["id"] == new_id
        await call("branch_rewind", to=str(rewound["undo_txid"]))
        assert (await call("memory_recall", topic_key="user.diet"))["memories"] == []
    assert called == {tool.name for tool in TOOLS}


async def test_errors_say_what_failed_and_what_to_do(node):
    async with connected(node, "legacy", "errors", scope="write") as client:

        async def failed(tool, **arguments):
            return error_of(await client.call_tool(tool, arguments))

        assert "query: Input should be a valid string" in await failed("memory_recall", query=5)
        assert "qery: is not an argument" in await failed("memory_recall", qery="x")
        assert "memories.0.type" in await failed("memory_ingest", memories=[{"type": "wish", "summary": "x"}])
        assert "5000" not in await failed(
            "memory_ingest", memories=[{"type": "fact", "summary": "5000" * 2000}]
        )
        assert (await failed("memory_recall")).startswith("invalid_request:")
        assert "Next: Look for the id" in await failed("memory_get", id="mem_none")
        assert "there is no key" in await failed("kv_get", key="none")
        assert "do not retry" in await failed("branch_checkpoint", name="x")
        assert "is no profile" in await failed("memory_recall", query="x", profile="/x")
        assert "profile is not a string" in await failed("memory_recall", query="x", profile=["x"])
        assert (await failed("memory_recall", query="x", profile="app/other")).startswith("forbidden:")
        assert "listed" in await failed("memory_erase", id="x")
        answer_of(await client.call_tool("memory_recall", {"query": "x"}))


async def test_a_bad_token_is_an_error_of_each_call_that_says_so(node):
    async with serving(node.settings()) as served, served.client("not.a.token") as client:
        assert len((await client.list_tools()).tools) == len(TOOLS)
        text = error_of(await client.call_tool("memory_recall", {"query": "x"}))
        assert text.startswith("unauthorized:")
        with pytest.raises(MCPError, match="unauthorized"):
            await client.read_resource("memoturn://profile")


async def test_a_server_that_only_reads_offers_and_does_nothing_else(node):
    async with connected(node, "legacy", "reading", read_only=True) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {tool.name for tool in TOOLS if tool.read_only}
        assert all(tool.annotations.read_only_hint for tool in tools)
        for tool in TOOLS:
            if not tool.read_only:
                assert "only reads" in error_of(await client.call_tool(tool.name, {}))


async def test_destructive_tools_can_be_left_out(node):
    async with connected(node, "legacy", "gentle", destructive=False) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {tool.name for tool in TOOLS} - names == {"memory_forget", "kv_put", "branch_rewind"}
        assert "leaves such tools out" in error_of(await client.call_tool("memory_forget", {"ids": ["x"]}))


@pytest.mark.parametrize(
    ("pin", "hidden", "refused"),
    [
        (Pin.NAMESPACE, set(), {"profile": "other/x"}),
        (Pin.PROFILE, {"profile"}, {"profile": "app/other"}),
        (Pin.PROFILE, {"profile"}, {"profile": "other"}),
        (Pin.BRANCH, {"profile", "branch"}, {"branch": "main"}),
    ],
)
async def test_what_is_pinned_cannot_be_named_otherwise(node, pin, hidden, refused):
    settings = {
        "namespace": "app",
        "profile": "pinned",
        "branch": "b" if pin == Pin.BRANCH else "main",
        "pin": pin,
    }
    async with connected(node, "legacy", "pinned", **settings) as client:
        for tool in (await client.list_tools()).tools:
            assert {"profile", "branch"} - set(tool.input_schema["properties"]) == hidden
            assert (tool.name == "branch_create") is False or pin < Pin.BRANCH
        assert "fixed to" in error_of(await client.call_tool("memory_recall", {"query": "x", **refused}))


async def test_the_profile_of_a_token_needs_no_naming(node):
    async with connected(node, "legacy", "by-token") as client:
        await ingest(client, {"type": "event", "summary": "Here"})
        result = await client.call_tool("memory_recall", {"query": "here"})
        assert result.meta == {"memoturn/profile": "app/by-token"}
        assert len(answer_of(result)["memories"]) == 1


async def test_an_answer_that_is_too_large_is_cut_and_says_so(node):
    async with connected(node, "legacy", "large", answer_bytes=4000) as client:
        for index in range(12):
            await ingest(
                client,
                {"type": "event", "summary": f"Parcel number {index}", "content": {"text": "x" * 3000}},
            )
        result = await client.call_tool("memory_list", {"limit": 12})
        answer = answer_of(result)
        assert len(result.content[0].text.encode()) <= 4000
        assert 1 <= len(answer["memories"]) < 12
        assert "left out" in answer["truncated"]
        assert "more characters" in answer["memories"][0]["content"]["text"]
        answer_of(await client.call_tool("kv_put", {"key": "k", "value": "y" * 100_000}))
        got = await client.call_tool("kv_get", {"key": "k"})
        assert len(got.content[0].text.encode()) <= 4000
