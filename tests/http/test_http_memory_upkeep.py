"""Lists, history, topics, patches and forgetting many, over a whole node."""

import asyncio

from http_calls import FACT, FACT_ID, MEMORY, OLD_FACT, failure, ingest, stamps


def event(word, **more):
    return {"type": "event", "summary": word, "content": word, **more}


async def listed(client, query="", path=MEMORY):
    answer = await client.get(f"{path}/memories{query}")
    assert answer.status_code == 200, answer.text
    return [memory["summary"] for memory in answer.json()["memories"]]


async def test_memories_are_listed_filtered_and_paged(client):
    await ingest(client, event("a", source="x&y", session_id="s/1"), event("b", pinned=True), FACT)
    stored = await ingest(client, {"type": "task", "summary": "c"})

    first = await client.get(f"{MEMORY}/memories?limit=3&order=oldest")
    second = await client.get(
        f"{MEMORY}/memories", params={"limit": 3, "order": "oldest", "cursor": first.json()["next_cursor"]}
    )

    assert [memory["summary"] for memory in first.json()["memories"]] == ["a", "b", "likes dark"]
    assert [memory["summary"] for memory in second.json()["memories"]] == ["c"]
    assert (second.json()["next_cursor"], second.json()["txid"]) == (None, stamps(stored)[0])
    assert first.json()["memories"][2] == {
        "id": FACT_ID, "type": "fact", "topic_key": "user.theme", "summary": "likes dark", "content": {"v": "dark"},
        "keywords": "", "session_id": None, "source": None, "created_at": first.json()["memories"][0]["created_at"],
        "expires_at": None, "superseded_by": None, "superseded_at": None, "pinned": False, "importance": None,
        "version": 1, "reason": None, "updated_at": first.json()["memories"][2]["created_at"], "undone_at": None, "source_turns": None,
    }  # fmt: skip
    assert await listed(client, "?types=event,task") == ["c", "b", "a"]
    assert await listed(client, "?types=") == []
    assert await listed(client, "?pinned=true") == ["b"]
    assert await listed(client, "?pinned=0&types=event") == ["a"]
    assert await listed(client, "?source=x%26y&session_id=s%2F1") == ["a"]
    assert await listed(client, "?topic_prefix=user.") == ["likes dark"]
    assert await listed(client, "?since=2020-01-01T00:00:00Z&until=9007199254740") == [
        "c",
        "likes dark",
        "b",
        "a",
    ]
    assert await listed(client, "?until=5") == []
    for bad in ("types=x", "pinned=yes", "order=best", "since=x", "limit=-1", "cursor=x", "until=-1"):
        assert failure(await client.get(f"{MEMORY}/memories?{bad}")) == (400, "invalid_request"), bad


async def test_a_profile_that_nobody_made_lists_nothing(client):
    for path, body in (("memories", {"memories": []}), ("topics", {"topics": []})):
        answer = await client.get(f"{MEMORY}/{path}")
        assert (answer.json(), stamps(answer)) == ({**body, "next_cursor": None, "txid": 0}, (0, 0))
        floor = await client.get(f"{MEMORY}/{path}", headers={"memoturn-min-txid": "1"})
        assert failure(floor) == (404, "not_found")
    for method, path, body in (
        ("GET", "topics/t", None),
        ("GET", "memories/mem_0/history", None),
        ("POST", "memories/mem_0/undo", None),
        ("PATCH", "memories/mem_0", {"pinned": True}),
        ("POST", "memories/forget", {"all": True}),
    ):
        answer = await client.request(method, f"{MEMORY}/{path}", json=body)
        assert failure(answer) == (404, "database_not_found")
    assert (await client.get("/v1/databases")).json()["databases"] == []


async def test_a_correction_is_shown_undone_and_brought_back(client):
    await ingest(client, OLD_FACT)
    await ingest(client, {**FACT, "reason": "said so"})
    history = (await client.get(f"{MEMORY}/memories/{FACT_ID}/history")).json()
    (topic,) = (await client.get(f"{MEMORY}/topics/user.theme?type=fact")).json()["chains"]

    assert [(v["summary"], v["version"], v["reason"], v["active"]) for v in history["versions"]] == [
        ("likes dark", 2, "said so", True),
        ("likes light", 1, None, False),
    ]
    assert topic == {name: value for name, value in history.items() if name != "txid"}
    listed_topics = (await client.get(f"{MEMORY}/topics?prefix=user.")).json()["topics"]
    assert [(t["topic_key"], t["active"], t["count"]) for t in listed_topics] == [("user.theme", FACT_ID, 2)]

    undone = await client.post(f"{MEMORY}/memories/{FACT_ID}/undo", json={"reason": "it was not so"})
    old_id = undone.json()["active"]
    assert undone.json() == {"undone": FACT_ID, "active": old_id, "version": 3, "txid": stamps(undone)[0]}
    assert await listed(client) == ["likes light"]
    assert failure(await client.post(f"{MEMORY}/memories/{FACT_ID}/undo")) == (409, "conflict")
    assert failure(await client.post(f"{MEMORY}/memories/mem_0/undo")) == (404, "not_found")
    assert (await client.post(f"{MEMORY}/memories/{old_id}/undo")).status_code == 200
    assert await listed(client) == ["likes dark"]
    assert failure(await client.get(f"{MEMORY}/topics/none")) == (404, "not_found")
    assert failure(await client.get(f"{MEMORY}/topics?type=event")) == (400, "invalid_request")


async def test_a_topic_may_be_called_anything(client):
    for key in ("a/b c", "é", "%", "forget", "..", "x" * 1024, "?&=", "\n"):
        await ingest(client, {**FACT, "topic_key": key})
        path = key.encode().hex("%", 1)
        answer = await client.get(f"{MEMORY}/topics/%{path}")
        assert answer.json()["topic_key"] == key, answer.text


async def test_undo_by_two_at_once_happens_once(client):
    await ingest(client, OLD_FACT, FACT)

    answers = await asyncio.gather(*(client.post(f"{MEMORY}/memories/{FACT_ID}/undo") for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert await listed(client) == ["likes light"]


async def test_a_memory_is_patched(client):
    await ingest(client, FACT)
    path = f"{MEMORY}/memories/{FACT_ID}"
    change = {"pinned": True, "importance": 1, "keywords": "zebra", "expires_at": "2100-01-01T00:00:00Z"}

    answer = await client.patch(path, json=change)

    assert {k: v for k, v in answer.json().items() if k not in {"updated_at", "txid"}} == {
        "id": FACT_ID, "pinned": True, "importance": 1.0, "keywords": "zebra", "expires_at": 4_102_444_800_000,
    }  # fmt: skip
    assert (await client.get(path)).json()["importance"] == 1.0
    found = await client.post(f"{MEMORY}/recall", json={"query": "zebra"})
    assert [hit["id"] for hit in found.json()["memories"]] == [FACT_ID]
    for bad in ({}, {"summary": "x"}, {"importance": 2}, {"ttl": 1, "expires_at": 1}):
        assert failure(await client.patch(path, json=bad)) == (400, "invalid_request")
    assert failure(await client.patch(f"{MEMORY}/memories/mem_0", json={"pinned": True})) == (
        404,
        "not_found",
    )


async def test_forgetting_many_is_tried_first_and_then_done(client):
    stored = await ingest(client, *(event(str(n), source="chat") for n in range(5)), event("stays"))
    txid = stamps(stored)[0]

    would = await client.post(
        f"{MEMORY}/memories/forget", json={"source": "chat", "limit": 3, "dry_run": True}
    )
    done = await client.post(f"{MEMORY}/memories/forget", json={"source": "chat", "limit": 3})

    assert (would.json()["matched"], would.json()["more"], stamps(would)[0]) == (5, True, txid)
    assert "memoturn-durability" not in would.headers
    assert done.json()["forgotten"] == len(done.json()["results"]) == 3
    assert (stamps(done)[0], done.json()["txid"], done.json()["more"]) == (txid + 1, txid + 1, True)
    ids = [result["id"] for result in done.json()["results"]]
    again = await client.post(f"{MEMORY}/memories/forget", json={"ids": ids})
    assert {result["status"] for result in again.json()["results"]} == {"not_found"}
    assert stamps(again)[0] == txid + 1
    assert await listed(client) == ["stays", "4", "3"]
    assert failure(await client.post(f"{MEMORY}/memories/forget", json={})) == (400, "invalid_request")


async def test_a_fork_and_the_past_keep_what_was_forgotten(client):
    stored = await ingest(client, OLD_FACT, {**FACT, "pinned": True})
    assert (await client.post("/v1/db/app--ann/branches", json={"name": "kept"})).status_code == 201

    await client.post(f"{MEMORY}/memories/forget", json={"all": True})

    assert await listed(client) == []
    assert await listed(client, "?branch=kept&include_superseded=true") == ["likes dark", "likes light"]
    assert await listed(client, f"?at={stamps(stored)[0]}&pinned=true") == ["likes dark"]
    rewound = await client.post("/v1/db/app--ann/branches/main/rewind", json={"to": str(stamps(stored)[0])})
    assert rewound.status_code == 200
    assert (await client.post(f"{MEMORY}/memories/{FACT_ID}/undo")).json()["version"] == 3
    assert await listed(client) == ["likes light"]
    assert await listed(client, "?branch=kept") == ["likes dark"]


async def test_bad_items_are_skipped_where_that_is_said_and_again_on_a_repeat(client):
    good = [event(str(n)) for n in range(3)]
    for pad in ("", "x" * 200_000):  # a large body is decoded another way
        bad = {"type": "event", "summary": " ", "content": pad}
        items = [good[0], bad, {**good[1], "content": pad}, 7, good[2]]
        json = {"memories": items, "on_error": "skip"}
        key = {"idempotency-key": f"k{len(pad)}"}

        answer = await client.post(f"{MEMORY}/memories", json=json, headers=key)
        again = await client.post(f"{MEMORY}/memories", json=json, headers=key)

        assert answer.status_code == 201, answer.text
        failed = [result.get("error", "").split(" ")[0] for result in answer.json()["results"]]
        assert failed == ["", "memories[1].summary", "", "memories[3]", ""]
        assert again.content == answer.content
    assert failure(await client.post(f"{MEMORY}/memories", json={**json, "on_error": "x"})) == (
        400,
        "invalid_request",
    )
