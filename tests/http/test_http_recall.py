"""Recall with everything that may be asked for, over a whole node: kept arrays, forks, rewinds, the past."""

import pytest
from http_calls import MEMORY, failure, ingest

FORKED = "/v1/db/app--ann"


def event(n, **more):
    vector = [1.0, n / 100, 0.5]
    return {"type": "event", "summary": f"refund number {n}", "content": n, "embedding": vector, **more}


async def recalled(client, path=MEMORY, headers=None, **body):
    answer = await client.post(f"{path}/recall", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["memories"]


async def numbers(client, path=MEMORY, headers=None, **body):
    return [hit["content"] for hit in await recalled(client, path, headers, **body)]


async def test_every_field_reaches_recall(client):
    stored = await ingest(client, event(1, session_id="s"), event(2, pinned=True, session_id="s"), event(3))
    await client.post("/v1/db/app--ann/memory/s/turns", json={"role": "user", "content": "hello"})
    now = (await recalled(client, query="refund"))[0]["created_at"]
    asked = {
        "query": "refund",
        "embedding": [1, 0, 0.5],
        "since": now,
        "until": "2100-01-01T00:00:00Z",
        "weights": {"keyword": 2, "recency": 1},
        "decay": {"half_life_s": 3600.5},
        "min_score": 0.001,
        "pinned_first": True,
        "include_context": True,
        "explain": True,
        "fusion": "relevance",
    }

    hits = await recalled(client, **asked)

    assert [hit["content"] for hit in hits] == [2, 1, 3]
    assert set(hits[0]["explain"]) == {"keyword", "vector", "recency"}
    assert [memory["summary"] for memory in hits[0]["context"]["memories"]] == ["refund number 1"]
    assert [turn["content"] for turn in hits[0]["context"]["turns"]] == ["hello"]
    assert hits[2]["context"] == {"turns": [], "memories": []}
    assert stored.status_code == 201
    reference = await recalled(
        client, query="refund", embedding=[1, 0, 0.5], fusion="reference", explain=True
    )
    assert reference[0]["score"] == pytest.approx(1 / 61 + 1 / 63, abs=1e-3)
    answer = await client.post(f"{MEMORY}/recall", json={"query": "q", "weights": {"keyword": -1}})
    assert failure(answer) == (400, "invalid_request")


async def test_recall_sees_each_write_at_once_and_forks_rewinds_and_the_past_as_they_are(client):
    txids = []
    for n in range(1, 6):
        txids.append((await ingest(client, event(n))).json()["txid"])
        assert await numbers(client, query="refund", embedding=[1, 0, 0.5]) == list(range(1, n + 1))
    assert (
        await client.post(f"{FORKED}/branches", json={"name": "b", "at": str(txids[2])})
    ).status_code == 201

    async def on_fork(**body):
        answer = await client.post(f"{MEMORY}/recall?branch=b", json=body)
        return [hit["content"] for hit in answer.json()["memories"]]

    assert await on_fork(query="refund", embedding=[1, 0, 0.5]) == [1, 2, 3]
    past = {"memoturn-at": str(txids[1])}
    assert await numbers(client, headers=past, query="refund", embedding=[1, 0, 0.5]) == [1, 2]
    rewound = await client.post(f"{FORKED}/branches/main/rewind", json={"to": str(txids[3])})
    assert rewound.status_code == 200, rewound.text
    assert await numbers(client, query="refund", embedding=[1, 0, 0.5]) == [1, 2, 3, 4]
    await ingest(client, event(9))
    assert await numbers(client, query="refund", embedding=[1, 0, 0.5]) == [1, 2, 3, 4, 9]
    assert await on_fork(query="refund", embedding=[1, 0, 0.5]) == [1, 2, 3]
