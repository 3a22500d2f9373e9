"""What leaves the node for a provider of models, and what it does by itself, as the audit stream tells it."""

import asyncio

import pytest
from fake_embedder import fake_endpoint
from fake_embedder import settings_of as embedder_settings
from fake_model import serving_model
from fake_model import settings_of as model_settings
from http_calls import FACT, MEMORY, ingest
from http_support import client_of, limits, running_node

from memoturnd.audit.open import _MODELS
from memoturnd.http.app import create_app
from memoturnd.http.auditing import Auditor
from memoturnd.language_models import anthropic
from memoturnd.seams.clock import SystemClock

SECRET = "the-secret-of-ann"


def app_of(node):
    return create_app(node, limits(), auditor=Auditor(node.audit, node.audit_rules, SystemClock()))


@pytest.fixture
async def audited(tmp_path):
    """(client, node, model) of a node with models whose acts, but not whose reads, are audited."""
    async with (
        serving_model() as model,
        fake_endpoint() as fake,
        running_node(tmp_path, AUDIT="on", **model_settings(model), **embedder_settings(fake)) as node,
        client_of(app_of(node)) as client,
    ):
        yield client, node, model


async def events_of(client, action):
    answer = await client.get("/v1/namespaces/app/audit", params={"limit": 1000, "action": action})
    assert SECRET not in answer.text
    return answer.json()["events"]


async def test_texts_that_are_embedded_are_told_in_sizes(audited):
    client, _, _ = audited

    await ingest(client, {**FACT, "summary": SECRET})

    [left] = await events_of(client, "ai.embed")
    egress = left["egress"]
    assert (left["outcome"], left["profile"], left["actor"]) == ("ok", "ann", {"kind": "anonymous"})
    assert (egress["provider"], egress["endpoint_host"], egress["self_hosted"]) == (
        "openai",
        "127.0.0.1",
        True,
    )
    assert (egress["input_items"], egress["output_items"]) == (1, 1)
    assert egress["input_bytes"] >= len(SECRET)
    assert egress["duration_ms"] >= 0


async def test_what_is_embedded_for_a_read_is_told_though_the_read_is_not(audited):
    client, _, _ = audited
    await ingest(client, FACT)

    await client.post(f"{MEMORY}/recall", json={"query": SECRET})

    assert [e["egress"]["input_items"] for e in await events_of(client, "ai.embed")] == [1, 1]
    assert await events_of(client, "memory.recall") == []


@pytest.mark.parametrize("stream", [False, True])
async def test_questions_to_a_language_model_are_told(audited, stream):
    client, _, _ = audited
    await ingest(client, FACT)

    answer = await client.post(f"{MEMORY}/ask", json={"question": f"is it {SECRET}?", "stream": stream, "topic_key": "user.theme"})  # fmt: skip
    assert answer.status_code == 200, answer.text

    asked = await events_of(client, "ai.ask")
    assert [e["egress"]["provider"] for e in asked] == ["anthropic"]
    assert asked[0]["egress"]["input_bytes"] > len(SECRET)


async def test_transcripts_that_are_read_are_told_also_where_the_model_fails(audited):
    client, _, model = audited
    body = {"turns": [{"role": "user", "content": SECRET}]}

    await client.post(f"{MEMORY}/extract", json=body)
    model.script = None
    [done] = await events_of(client, "ai.extract")

    assert (done["outcome"], done["egress"]["output_items"]) == ("ok", 1)
    assert [e["action"] for e in await events_of(client, "memory.extract")] == ["memory.extract"]


async def test_nothing_is_told_of_what_is_not_audited(tmp_path):
    async with (
        fake_endpoint() as fake,
        running_node(tmp_path, **embedder_settings(fake)) as node,
        client_of(app_of(node)) as client,
    ):
        await ingest(client, FACT)

        assert await events_of(client, "ai.") == []


async def test_texts_that_are_embedded_again_are_told_of_the_node(audited):
    client, _, _ = audited
    await client.post("/v1/db/app--ann/kv/n/k", json={"puts": []})
    await ingest(client, FACT)
    assert (await client.post(f"{MEMORY}/reembed", json={})).status_code < 300
    for _ in range(100):
        if (await client.get(f"{MEMORY}/reembed")).json().get("status") in {"done", "completed", None}:
            break
        await asyncio.sleep(0.05)

    by_node = [e for e in await events_of(client, "ai.embed") if e["actor"] == {"kind": "internal"}]
    assert all(e["egress"]["input_items"] >= 1 for e in by_node)


async def test_what_the_clock_takes_is_told_by_number(audited):
    client, node, _ = audited
    await ingest(client, *({"type": "task", "summary": f"t{n}", "ttl": 1} for n in range(3)))
    await client.post("/v1/db/app--ann/branches", json={"name": "burner", "ttl": 0})
    await asyncio.sleep(1.1)

    await node.housekeeping.sweep_rows()
    await node.housekeeping.delete_burners()

    [swept] = await events_of(client, "rows.expired")
    assert (swept["count"], swept["profile"], swept["actor"]) == (3, "ann", {"kind": "internal"})
    [expired] = await events_of(client, "branch.expired")
    assert expired["branch"] == "burner"


def test_the_model_that_is_named_is_the_one_that_is_asked():
    assert _MODELS == {"anthropic": anthropic.MODEL}
