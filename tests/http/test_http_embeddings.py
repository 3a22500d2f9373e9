"""Ingest and recall on a node that embeds, over a whole node and an endpoint that may fail."""

import pytest
from fake_embedder import KEY, fake_endpoint, settings_of, vector_of
from http_calls import FACT, MEMORY, failure, ingest
from http_support import client_of, limits, running_node

from memoturnd.http.app import create_app

MODEL = "openai/words"


@pytest.fixture
async def fake():
    async with fake_endpoint() as fake:
        yield fake


@pytest.fixture
async def node(tmp_path, fake):
    async with running_node(tmp_path, **settings_of(fake, EMBED_TIMEOUT_S="0.3")) as node:
        yield node


async def recall(client, **body):
    answer = await client.post(f"{MEMORY}/recall", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stored(node, table="__memoturn_models"):
    profile = await node.profile("app--ann")
    return (await profile.read(lambda conn, _: conn.execute(f"SELECT * FROM {table}").fetchall())).value


async def metric(client, name):
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"memoturn_{name}"))


async def test_memories_without_a_vector_get_one_of_summary_and_keywords(client, node, fake):
    answer = await ingest(
        client,
        FACT,
        {"type": "event", "summary": "went home", "keywords": "train evening"},
        {"type": "task", "summary": "call bob"},
        {"type": "event", "summary": "has its own", "embedding": [1, 2, 3]},
    )

    assert answer.json()["embedded"] == 2
    assert "degraded" not in answer.json()
    assert fake.texts == ["likes dark", "went home train evening"]
    assert [(name, size) for _, name, size, _ in await stored(node)] == [(MODEL, 32), ("", 3)]
    assert [rid for rid, _ in await stored(node, "__memoturn_memory_vectors_1")] == [1, 2]


async def test_recall_embeds_its_query(client, fake):
    await ingest(client, {"type": "event", "summary": "the zebra eats grass"}, FACT)

    answer = await recall(client, query="zebra")

    assert answer["memories"][0]["channels"] == ["keyword", "vector"]
    assert len(answer["memories"]) == 2, "the vector channel finds the other one too"
    assert "degraded" not in answer


async def test_what_a_client_sends_wins(client, fake):
    await ingest(client, {**FACT, "embedding": [1, 0]})

    answer = await recall(client, query="dark", embedding=[1, 0])

    assert fake.requests == []
    assert answer["memories"][0]["channels"] == ["keyword", "vector"]


@pytest.mark.parametrize("fault", [500, 401, "slow", "drop", "nan"])
async def test_a_failing_embedder_degrades_both_visibly_and_fails_no_write(client, node, fake, fault):
    fake.fault = fault

    ingested = (await ingest(client, FACT)).json()
    found = await recall(client, query="dark")

    assert (ingested["embedded"], ingested["degraded"]) == (0, ["vector"])
    assert found["degraded"] == ["vector"]
    assert [hit["channels"] for hit in found["memories"]] == [["keyword"]]
    assert await metric(client, 'embed_degraded_total{surface="ingest"}') == 1
    assert await metric(client, 'embed_degraded_total{surface="recall"}') == 1
    assert KEY not in str(ingested) + str(found)


async def test_part_of_a_batch_may_be_without_vectors(client, fake):
    fake.refused_text = "poison"

    answer = (await ingest(client, FACT, {"type": "event", "summary": "poison"})).json()

    assert (answer["embedded"], answer["degraded"]) == (1, ["vector"])


async def test_a_recall_over_another_models_vectors_says_so(client, fake):
    await ingest(client, {**FACT, "embedding": [1, 0], "embedding_model": "acme/one"})

    answer = await recall(client, query="dark")

    assert answer["degraded"] == ["vector"]
    assert [hit["channels"] for hit in answer["memories"]] == [["keyword"]]


async def test_a_recall_of_an_empty_profile_is_not_degraded(client, fake):
    await client.put("/v1/db/app--ann/kv/ns/k", content=b"x")
    assert await recall(client, query="dark") == {"memories": [], "txid": 0}

    await ingest(client, {"type": "task", "summary": "dark"})

    assert "degraded" not in await recall(client, query="dark")


async def test_several_models_coexist(client, node):
    await ingest(client, FACT)
    await ingest(
        client,
        {"type": "event", "summary": "a", "embedding": [1, 0, 0], "embedding_model": "acme/one"},
        {"type": "event", "summary": "b", "embedding": [1, 0], "embedding_model": "acme/two@2"},
        {"type": "event", "summary": "c", "embedding": [0, 1], "embedding_model": "acme/two@2"},
        {"type": "event", "summary": "d", "embedding": [1, 0, 0, 0]},
    )

    two = await recall(client, embedding=[0, 1], embedding_model="acme/two@2")
    unnamed = await recall(client, embedding=[1, 1, 0, 0])
    none = await recall(client, embedding=[1, 1], embedding_model="acme/none")

    assert [hit["summary"] for hit in two["memories"]] == ["c", "b"]
    assert [hit["summary"] for hit in unnamed["memories"]] == ["d"]
    assert none["memories"] == []
    answer = await client.post(f"{MEMORY}/recall", json={"embedding": [1, 1], "embedding_model": "acme/one"})
    assert failure(answer) == (400, "invalid_request")


async def test_a_client_may_embed_with_the_nodes_model_itself(client, fake):
    await ingest(
        client,
        {"type": "event", "summary": "x", "embedding": vector_of("zebra"), "embedding_model": MODEL},
    )

    answer = await recall(client, query="zebra", embedding_model=MODEL)

    assert answer["memories"][0]["channels"] == ["vector"]


async def test_vectors_that_do_not_fit_the_profile_fail_no_write(client, node, fake):
    await ingest(client, {"type": "event", "summary": "x", "embedding": [1, 0], "embedding_model": MODEL})

    answer = (await ingest(client, FACT)).json()
    found = await recall(client, query="dark")

    assert (answer["embedded"], answer["degraded"]) == (0, ["vector"])
    assert found["degraded"] == ["vector"]
    assert [name for _, name, *_ in await stored(node)] == [MODEL]


async def test_turns_are_searched_by_the_vector_of_a_query(client, fake):
    await ingest(client, FACT)
    turn = {"role": "user", "content": "x", "embedding": vector_of("zebra"), "embedding_model": MODEL}
    await client.post("/v1/db/app--ann/memory/s/turns", json=turn)

    answer = await recall(client, query="zebra", include_turns=True)
    fake.fault = 500
    without = await recall(client, query="zebra crossing", include_turns=True)

    assert answer["turns"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert (without["turns"], without["degraded"]) == ([], ["vector"])
    answer = await client.post(f"{MEMORY}/recall", json={"topic_key": "t", "include_turns": True})
    assert failure(answer) == (400, "invalid_request")


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "-", "_x", "é", "a\n", "x" * 129, 5, [], "a;drop", "../x", True]
)
async def test_names_of_models_are_checked_everywhere(client, fake, name):
    item = {"type": "event", "summary": "x", "embedding": [1], "embedding_model": name}

    for path, body in (
        ("memories", {"memories": [item]}),
        ("recall", {"embedding": [1], "embedding_model": name}),
    ):
        answer = await client.post(f"{MEMORY}/{path}", json=body)
        assert failure(answer) == (400, "invalid_request")
    assert failure(await client.get(f"{MEMORY}/sessions", headers={"Memoturn-Min-Txid": "1"}))[0] == 404


async def test_a_model_without_an_embedding_is_refused(client, fake):
    item = {"type": "event", "summary": "x", "embedding_model": MODEL}

    assert failure(await client.post(f"{MEMORY}/memories", json={"memories": [item]}))[0] == 400
    answer = await client.post(f"{MEMORY}/recall", json={"query": "x", "embedding_model": "acme/one"})
    assert failure(answer) == (400, "invalid_request")
    assert f"embeds with {MODEL}" in answer.json()["error"]


async def test_a_repeated_write_with_a_key_answers_the_same(client, fake):
    first = await ingest(client, FACT, **{"Idempotency-Key": "k"})
    fake.fault = 500

    again = await ingest(client, FACT, **{"Idempotency-Key": "k"})

    assert again.json() == first.json()
    assert again.json()["embedded"] == 1


async def test_more_memories_than_a_call_takes_go_in_several(client, fake):
    items = [{"type": "event", "summary": f"event {n}"} for n in range(150)]

    answer = await ingest(client, *items)

    assert answer.json()["embedded"] == 150
    assert max(len(request["input"]) for request in fake.requests) == 64


async def test_without_an_embedder_nothing_changes(tmp_path):
    async with (
        running_node(tmp_path) as node,
        client_of(create_app(node, limits())) as client,
    ):
        assert set((await ingest(client, FACT)).json()) == {"results", "txid"}
        assert set(await recall(client, query="dark")) == {"memories", "txid"}
        for body in ({"query": "x", "include_turns": True}, {"query": "x", "embedding_model": MODEL}):
            answer = await client.post(f"{MEMORY}/recall", json=body)
            assert failure(answer) == (400, "invalid_request")


# ---- turns


TURNS = "/v1/db/app--ann/memory/s/turns"


async def test_turns_get_vectors_of_their_words(client, node, fake):
    await ingest(client, {"type": "task", "summary": "makes the profile"})
    one = await client.post(
        TURNS, json={"role": "user", "content": {"type": "text", "text": "the zebra eats"}}
    )
    many = await client.post(
        TURNS,
        json={
            "turns": [
                {"role": "user", "content": "a horse drinks"},
                {"role": "tool", "content": 7},
                {"role": "user", "content": "mine", "embedding": [1, 0]},
                {"role": "user", "content": "theirs", "embedding": [1, 0], "embedding_model": "acme/one"},
            ]
        },
    )

    assert (one.json()["seq"], one.json()["embedded"]) == (1, 1)
    assert (many.json()["seqs"], many.json()["embedded"]) == ([2, 3, 4, 5], 1)
    assert "degraded" not in one.json() | many.json()
    assert fake.texts == ["the zebra eats", "a horse drinks"]
    listed = (await client.get(f"{MEMORY}/models")).json()["models"]
    assert {m["name"]: m["turns"] for m in listed} == {MODEL: 2, "acme/one": 1, None: 1}


async def test_turns_are_found_by_the_meaning_of_words(client, fake):
    await ingest(client, {"type": "task", "summary": "makes the profile"})
    for content in ("the zebra eats", "zebra", "a horse"):
        await client.post(TURNS, json={"role": "user", "content": content})

    for path in ("/v1/db/app--ann/memory/s/search", "/v1/db/app--ann/memory/search"):
        answer = (await client.post(path, json={"query": "zebra"})).json()
        assert answer["turns"][0]["content"] == "zebra"
        assert answer["turns"][0]["channels"] == ["keyword", "vector"]
        assert answer["turns"][0]["distance"] == pytest.approx(0, abs=1e-6)
        assert len(answer["turns"]) == 3
    named = {"vector": vector_of("zebra"), "embedding_model": MODEL}
    assert (await client.post(path, json=named)).json()["turns"][0]["content"] == "zebra"
    assert (await client.post(path, json={"vector": vector_of("zebra")})).json()["turns"] == []
    for body in ({"query": "x", "embedding_model": "acme/one"}, {"vector": [1], "embedding_model": ""}):
        assert failure(await client.post(path, json=body)) == (400, "invalid_request")


async def test_turns_are_stored_and_found_by_words_while_the_embedder_fails(client, fake):
    await ingest(client, {"type": "task", "summary": "makes the profile"})
    fake.fault = 500

    stored = (await client.post(TURNS, json={"role": "user", "content": "the zebra"})).json()
    found = (await client.post("/v1/db/app--ann/memory/s/search", json={"query": "zebra"})).json()

    assert (stored["seq"], stored["embedded"], stored["degraded"]) == (1, 0, ["vector"])
    assert found["degraded"] == ["vector"]
    assert found["turns"][0]["channels"] == ["keyword"]


async def test_vectors_of_turns_that_do_not_fit_fail_no_write(client, fake):
    await ingest(client, {"type": "event", "summary": "x", "embedding": [1, 0], "embedding_model": MODEL})

    answer = (await client.post(TURNS, json={"role": "user", "content": "zebra"})).json()

    assert (answer["embedded"], answer["degraded"]) == (0, ["vector"])


async def test_a_search_for_turns_is_by_words_by_vector_or_by_both(client, fake, tmp_path):
    await ingest(client, {"type": "task", "summary": "makes the profile"})
    for content in ("the zebra eats", "zebra", "a horse"):
        await client.post(TURNS, json={"role": "user", "content": content})
    asked = len(fake.requests)

    async def channels(**body):
        answer = await client.post("/v1/db/app--ann/memory/search", json={"query": "zebra", **body})
        assert answer.status_code == 200, answer.text
        return [(turn["seq"], turn["channels"]) for turn in answer.json()["turns"]]

    assert await channels(mode="keyword") == [(2, ["keyword"]), (1, ["keyword"])]
    assert len(fake.requests) == asked
    assert [found for _, found in await channels(mode="vector")] == [["vector"]] * 3
    assert await channels(mode="hybrid") == await channels()
    for body in ({"mode": "best"}, {"mode": 1}, {"mode": "keyword", "vector": [1]}):
        answer = await client.post("/v1/db/app--ann/memory/search", json={"query": "zebra", **body})
        assert failure(answer) == (400, "invalid_request")
    answer = await client.post("/v1/db/app--ann/memory/search", json={"mode": "keyword", "vector": [1]})
    assert failure(answer) == (400, "invalid_request")
    (tmp_path / "other").mkdir()
    async with running_node(tmp_path / "other") as node, client_of(create_app(node, limits())) as other:
        await ingest(other, FACT)
        answer = await other.post("/v1/db/app--ann/memory/search", json={"query": "x", "mode": "vector"})
        assert failure(answer) == (400, "invalid_request")


async def test_vectors_of_turns_hold_a_model_to_its_dimension_as_those_of_memories_do(client, fake):
    await ingest(client, {"type": "task", "summary": "makes the profile"})

    async def say(*numbers):
        turn = {"role": "user", "content": 1, "embedding": numbers, "embedding_model": "acme/one"}
        return await client.post(TURNS, json=turn)

    assert (await say(1, 0)).status_code == 201
    assert failure(await say(1, 0, 0)) == (400, "invalid_request")
    item = {"type": "event", "summary": "x", "embedding": [1], "embedding_model": "acme/one"}
    assert failure(await client.post(f"{MEMORY}/memories", json={"memories": [item]}))[0] == 400
    assert (await client.delete(f"{TURNS}/1")).status_code == 204
    assert (await say(1, 0, 0)).status_code == 201
    listed = (await client.get(f"{MEMORY}/models")).json()["models"]
    assert [(m["name"], m["dimensions"], m["turns"]) for m in listed] == [("acme/one", 3, 1)]


async def test_a_repeated_append_with_a_key_answers_the_same(client, fake):
    await ingest(client, {"type": "task", "summary": "makes the profile"})
    turn = {"role": "user", "content": "zebra"}
    first = await client.post(TURNS, json=turn, headers={"Idempotency-Key": "k"})
    again = await client.post(TURNS, json=turn, headers={"Idempotency-Key": "k"})

    assert again.json() == first.json() == {"seq": 1, "embedded": 1, "txid": first.json()["txid"]}


# ---- patches


async def test_a_patch_of_keywords_makes_the_vector_anew(client, fake):
    id_ = (await ingest(client, {"type": "event", "summary": "went home"})).json()["results"][0]["id"]
    before = (await recall(client, query="zebra", explain=True))["memories"][0]["explain"]["vector"]

    answer = await client.patch(f"{MEMORY}/memories/{id_}", json={"keywords": "zebra"})

    after = (await recall(client, query="zebra", explain=True))["memories"][0]["explain"]["vector"]
    assert answer.status_code == 200
    assert "degraded" not in answer.json()
    assert after["distance"] < before["distance"]
    assert fake.texts[-1] == "went home zebra"
    fake.requests.clear()
    await client.patch(f"{MEMORY}/memories/{id_}", json={"pinned": True})
    await client.patch(f"{MEMORY}/memories/{id_}", json={"keywords": "zebra"})
    assert fake.requests == []


async def test_a_vector_of_other_words_is_removed_where_none_can_be_made(client, fake):
    id_ = (await ingest(client, {"type": "event", "summary": "went home"})).json()["results"][0]["id"]
    fake.fault = 500

    answer = await client.patch(f"{MEMORY}/memories/{id_}", json={"keywords": "zebra"})

    assert answer.json()["degraded"] == ["vector"]
    assert (await client.get(f"{MEMORY}/models")).json()["models"][0]["memories"] == 0
    missing = await client.patch(f"{MEMORY}/memories/mem_0", json={"keywords": "zebra"})
    assert failure(missing) == (404, "not_found")


async def test_a_patch_of_a_task_takes_no_vector(client, fake):
    id_ = (await ingest(client, {"type": "task", "summary": "call"})).json()["results"][0]["id"]

    answer = await client.patch(f"{MEMORY}/memories/{id_}", json={"keywords": "zebra"})

    assert answer.status_code == 200
    assert (await client.get(f"{MEMORY}/models")).json()["models"] == []
