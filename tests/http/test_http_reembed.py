"""Embedding again, and the models of a profile, over a whole node."""

import asyncio
import json

import pytest
from fake_embedder import fake_endpoint, settings_of, vector_of
from harness import node_on
from http_calls import EMBEDDING_WRITES, FACT, MEMORY, failure, ingest, stamps
from http_support import client_of, limits, running_node
from profiles import killed

from memoturnd.http.app import create_app
from memoturnd.stores.memory import MemoryStore

MODEL = "openai/words"
DB = "/v1/db/app--ann"


@pytest.fixture
async def fake():
    async with fake_endpoint() as fake:
        yield fake


@pytest.fixture
async def node(tmp_path, fake):
    async with running_node(tmp_path, **settings_of(fake, EMBED_TIMEOUT_S="0.5", EMBED_BATCH="8")) as node:
        yield node


@pytest.fixture
async def client(node):
    async with client_of(create_app(node, limits())) as client:
        yield client


def event(n, **more):
    return {"type": "event", "summary": f"event number {n}", **more}


async def without_vectors(client, fake, count=20):
    """Memories that were ingested while the embedder took nothing."""
    fake.fault = 400
    await ingest(client, *(event(n) for n in range(count)))
    fake.fault = None


async def begin(client, **body):
    answer = await client.post(f"{MEMORY}/reembed", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def job(client, path=MEMORY, branch="main"):
    return (await client.get(f"{path}/reembed", headers={"Memoturn-Branch": branch})).json()


async def until(client, holds, path=MEMORY, branch="main"):
    """The job once it is as wanted."""
    for _ in range(2000):
        got = await job(client, path, branch)
        if holds(got):
            return got
        await asyncio.sleep(0.01)
    raise AssertionError(got)


async def over(client, path=MEMORY, state="done"):
    """The job once it is over."""
    got = await until(client, lambda got: got["state"] not in {"running", "waiting"}, path)
    assert got["state"] == state, got
    return got


async def models(client, path=MEMORY):
    answer = (await client.get(f"{path}/models")).json()
    return {m["name"]: (m["dimensions"], m["memories"], m["turns"], m["active"]) for m in answer["models"]}


async def recall(client, path=MEMORY, **body):
    return (await client.post(f"{path}/recall", json=body)).json()


async def test_what_was_stored_during_an_outage_gets_its_vectors(client, fake):
    await without_vectors(client, fake)
    await ingest(client, event(99))
    fake.requests.clear()
    first = await begin(client, only_missing=True)
    done = await over(client)

    assert (first["state"], first["total"], first["model"]) == ("running", 20, MODEL)
    assert (done["done"], done["failed"], done["error"]) == (20, 0, None)
    assert done["started_at"] <= done["updated_at"] == done["finished_at"]
    assert sorted(fake.texts) == sorted(f"event number {n}" for n in range(20))
    assert await models(client) == {MODEL: (32, 21, 0, True)}
    assert "vector" in (await recall(client, query="event number 7"))["memories"][0]["channels"]


async def test_a_profile_changes_its_model_and_keeps_the_old_one_until_it_is_dropped(client, fake):
    await ingest(
        client, *(event(n, embedding=[n + 1, 1, 0]) for n in range(30)), {"type": "task", "summary": "t"}
    )
    for n in range(20):
        turn = {"role": "user", "content": f"turn {n}", "embedding": [1, n]}
        await client.post(f"{DB}/memory/s/turns", json=turn)
    assert (await recall(client, query="event"))["degraded"] == ["vector"]

    await begin(client)
    done = await over(client)

    assert (done["total"], done["done"]) == (50, 50)
    assert await models(client) == {None: (3, 30, 20, False), MODEL: (32, 30, 20, True)}
    listed = (await client.get(f"{MEMORY}/models")).json()
    assert (listed["embeddable"], listed["embedder"]) == ({"memories": 30, "turns": 20}, MODEL)
    assert "degraded" not in await recall(client, query="event")
    assert (await recall(client, embedding=[1, 1, 0]))["memories"][0]["summary"] == "event number 0"
    assert (await client.delete(f"{MEMORY}/models/-")).status_code == 204
    assert await models(client) == {MODEL: (32, 30, 20, True)}
    assert (await recall(client, embedding=[1, 1, 0]))["memories"] == []
    assert failure(await client.delete(f"{MEMORY}/models/-")) == (404, "not_found")
    assert (await client.delete(f"{MEMORY}/models/openai%2Fwords")).status_code == 204
    assert await models(client) == {}
    assert len((await recall(client, query="event"))["memories"]) == 8


@pytest.mark.parametrize(("scope", "made"), [("memories", (3, 0)), ("turns", (0, 2)), ("all", (3, 2))])
async def test_a_job_has_a_scope(client, fake, scope, made):
    await without_vectors(client, fake, 3)
    fake.fault = 400
    for text in ("a turn", {"type": "text", "text": "another"}):
        await client.post(f"{DB}/memory/s/turns", json={"role": "user", "content": text})
    await client.post(f"{DB}/memory/s/turns", json={"role": "user", "content": 5})
    fake.fault = None

    await begin(client, scope=scope)
    done = await over(client)

    assert done["failed"] == 0
    assert done["done"] == done["total"] == {"memories": 3, "turns": 3, "all": 6}[scope]
    assert await models(client) == {MODEL: (32, *made, True)}


async def test_everything_is_embedded_again_unless_only_what_is_missing_is_meant(client, fake):
    await ingest(client, *(event(n) for n in range(10)))
    fake.requests.clear()

    await begin(client, only_missing=True)
    assert (await over(client))["total"] == 0
    assert fake.requests == []
    await begin(client)
    assert (await over(client))["done"] == 10
    assert len(fake.texts) == 10


async def test_a_job_waits_out_an_outage(client, fake, node, monkeypatch):
    monkeypatch.setattr("memoturnd.reembedding.PAUSE_S", 0.01)
    monkeypatch.setattr("memoturnd.embedders.breaker.PAUSE_S", 0.05)
    await without_vectors(client, fake)
    fake.fault, fake.faults_left = 503, 6

    await begin(client)

    assert (await over(client))["done"] == 20
    assert fake.faults_left == 0
    assert node.reembedding.running == 0


async def test_an_outage_that_does_not_end_ends_the_job_and_another_goes_on(client, fake, monkeypatch):
    monkeypatch.setattr("memoturnd.reembedding.PAUSE_S", 0.001)
    monkeypatch.setattr("memoturnd.embedders.breaker.PAUSE_S", 0.001)
    monkeypatch.setattr("memoturnd.embedders.breaker.PAUSE_LIMIT_S", 0.001)
    monkeypatch.setattr("memoturnd.reembedding.PAUSE_LIMIT_S", 0.002)
    await without_vectors(client, fake)
    fake.fault = 503

    await begin(client)
    failed = await over(client, state="failed")
    fake.fault = None
    await begin(client, only_missing=True)

    assert "503" in failed["error"]
    assert (await over(client))["done"] == 20


async def test_wrong_settings_end_a_job_at_once(client, fake):
    await without_vectors(client, fake)
    fake.fault = 401

    await begin(client)

    assert "MEMOTURN_EMBED_API_KEY" in (await over(client, state="failed"))["error"]


async def test_texts_that_are_refused_are_counted_and_hold_up_nothing(client, fake):
    await without_vectors(client, fake)
    fake.refused_text = "number 13"

    await begin(client)
    done = await over(client)

    assert (done["done"], done["failed"]) == (20, 1)
    assert await models(client) == {MODEL: (32, 19, 0, True)}


async def test_vectors_that_the_profile_does_not_take_end_the_job(client, fake):
    await ingest(client, event(1, embedding=[1, 2], embedding_model=MODEL), event(2, embedding=[1, 2]))

    await begin(client)

    assert "32 dimensions" in (await over(client, state="failed"))["error"]


async def test_a_job_can_be_cancelled_and_what_it_made_stays(client, fake):
    await without_vectors(client, fake, 100)
    fake.fault, fake.well_until = "slow", len(fake.requests) + 2
    await begin(client, scope="memories")
    await until(client, lambda got: got["done"] == 16)

    answer = await client.delete(f"{MEMORY}/reembed")
    got = await over(client, state="cancelled")

    assert answer.status_code == 204
    assert got["done"] == 16
    await asyncio.sleep(0.1)
    assert (await job(client)) == {**got, "txid": (await job(client))["txid"]}
    assert (await models(client))[MODEL][1] == got["done"]
    assert (await client.delete(f"{MEMORY}/reembed")).status_code == 204


async def test_one_job_per_branch_and_the_same_again_is_the_same(client, fake):
    await without_vectors(client, fake)
    fake.fault = "slow"
    first = await begin(client, scope="memories")
    again = await begin(client, scope="memories")

    assert again == first
    answer = await client.post(f"{MEMORY}/reembed", json={"scope": "turns"})
    assert failure(answer) == (409, "conflict")
    answer = await client.delete(f"{MEMORY}/models/openai%2Fwords")
    assert failure(answer) == (409, "conflict")
    await client.delete(f"{MEMORY}/reembed")


async def test_a_node_does_a_few_jobs_at_once_and_the_others_after(client, fake, node):
    names = [f"p{n}" for n in range(5)]
    for name in names:
        fake.fault = 400
        await ingest(client, event(1), path=f"/v1/memory/app/{name}")
    fake.fault = "slow"
    for name in names:
        assert (await client.post(f"/v1/memory/app/{name}/reembed", json={})).status_code == 202
    states = sorted([(await job(client, f"/v1/memory/app/{name}"))["state"] for name in names])

    assert states == ["running"] * 2 + ["waiting"] * 3
    fake.fault = None
    for _ in range(100):
        now_ms = node._services.clock.now_ms() + 60_000
        for claimed in await node._services.catalog.claim_due(now_ms, until_ms=now_ms, limit=10):
            if claimed.chore.kind == "reembed":
                await node.reembedding.look(claimed.chore)
        if not node.reembedding.running:
            break
        await asyncio.sleep(0.05)
    for name in names:
        await over(client, f"/v1/memory/app/{name}")


async def test_a_fork_has_no_job_and_its_parents_goes_on(client, fake):
    await without_vectors(client, fake)
    fake.fault = "slow"
    await begin(client)
    await client.post(f"{DB}/branches", json={"name": "fork"})
    fork = (await client.get(f"{MEMORY}/reembed?branch=fork")).json()
    fake.fault = None

    assert fork["state"] == "none"
    await over(client)
    answer = await client.post(f"{MEMORY}/reembed?branch=fork", json={})
    assert answer.status_code == 202
    await until(client, lambda got: got["state"] == "done", branch="fork")
    assert (await client.get(f"{MEMORY}/models?branch=fork")).json()["models"][0]["memories"] == 20


async def test_a_rewind_takes_the_job_along(client, fake):
    await without_vectors(client, fake)
    before = stamps(await client.get(f"{MEMORY}/reembed"))[0]
    await begin(client)
    await over(client)

    await client.post(f"{DB}/branches/main/rewind", json={"to": str(before)})

    assert (await job(client))["state"] == "none"
    assert await models(client) == {}
    await begin(client)
    await over(client)
    assert await models(client) == {MODEL: (32, 20, 0, True)}


async def test_the_past_shows_the_job_and_the_models_as_they_were(client, fake):
    await without_vectors(client, fake)
    before = stamps(await client.get(f"{MEMORY}/reembed"))[0]
    await begin(client)
    await over(client)
    at = {"Memoturn-At": str(before)}

    assert (await client.get(f"{MEMORY}/reembed", headers=at)).json()["state"] == "none"
    assert (await client.get(f"{MEMORY}/models", headers=at)).json()["models"] == []


async def test_memories_that_change_or_go_meanwhile_are_left_to_who_changed_them(client, node, fake):
    await without_vectors(client, fake, 4)
    fake.fault = "slow"
    await begin(client, scope="memories")
    await asyncio.sleep(0.1)
    ids = [m["id"] for m in (await client.get(f"{MEMORY}/memories")).json()["memories"]]
    await client.delete(f"{MEMORY}/memories/{ids[0]}")
    fake.fault = None

    await over(client)

    assert (await models(client))[MODEL][1] == 3


async def test_recall_searches_the_new_vectors_of_a_profile_that_is_kept_in_memory(client, node, fake):
    texts = [f"word{n % 40} event {n}" for n in range(900)]
    for first in range(0, len(texts), 300):
        batch = [{"type": "event", "summary": text} for text in texts[first : first + 300]]
        await ingest(client, *batch)
    for n in range(5):
        await recall(client, query=f"word{n}")
    fake.salt = "salt pepper vinegar"

    await begin(client)
    for n in range(20):  # while it goes on
        assert (await client.post(f"{MEMORY}/recall", json={"query": f"word{n}"})).status_code == 200
    await over(client)

    body = {
        "embedding": vector_of(f"{texts[777]} {fake.salt}"),
        "embedding_model": MODEL,
        "explain": True,
        "k": 5,
    }
    hits = (await recall(client, **body))["memories"]
    assert hits[0]["summary"] == texts[777]
    wanted = sorted(_distance(body["embedding"], vector_of(f"{text} {fake.salt}")) for text in texts)[:5]
    got = [hit["explain"]["vector"]["distance"] for hit in hits]
    assert got == pytest.approx(wanted, abs=1e-5)


def _distance(one, other):
    return 1 - sum(a * b for a, b in zip(one, other, strict=True))


async def test_much_may_happen_to_a_profile_while_it_is_embedded_again(client, node, fake):
    await without_vectors(client, fake, 60)
    ids = [m["id"] for m in (await client.get(f"{MEMORY}/memories?limit=1000")).json()["memories"]]
    await begin(client)
    for n, id_ in enumerate(ids[::3]):
        await client.delete(f"{MEMORY}/memories/{id_}")
        await ingest(client, event(1000 + n), event(2000 + n, embedding=[1, n], embedding_model="acme/one"))
        await client.patch(f"{MEMORY}/memories/{ids[3 * n + 1]}", json={"keywords": f"word{n}"})
        await recall(client, query=f"word{n}")
    await over(client)

    listed = await models(client)
    assert 60 <= listed[MODEL][1] <= 80, "those of the other model were met or not"
    assert listed["acme/one"] == (2, 20, 0, False)
    await begin(client, only_missing=True)
    await over(client)
    assert (await models(client))[MODEL][1] == 80


# ---- after a restart


async def test_a_job_goes_on_after_its_node_was_killed(tmp_path, fake):
    store = MemoryStore()
    env = settings_of(fake, EMBED_BATCH="4", EMBED_TIMEOUT_S="5")
    async with (
        killed(tmp_path / "a", store, tmp_path / "copy", **env) as node,
        client_of(create_app(node, limits())) as client,
    ):
        await without_vectors(client, fake, 40)
        fake.fault, fake.well_until = "slow", len(fake.requests) + 3
        await begin(client, scope="memories")
        before = await until(client, lambda got: got["done"] == 12)
        await node.reembedding.close()
    fake.fault = None
    fake.requests.clear()

    async with (
        node_on(tmp_path / "copy", store, **env) as node,
        client_of(create_app(node, limits())) as client,
    ):
        assert (await job(client))["state"] == "waiting"
        now_ms = node._services.clock.now_ms() + 60_000
        for claimed in await node._services.catalog.claim_due(now_ms, until_ms=now_ms, limit=10):
            if claimed.chore.kind == "reembed":
                await node.reembedding.look(claimed.chore)
        done = await over(client)

    assert done["done"] == 40
    assert done["started_at"] == before["started_at"]
    assert len(fake.texts) == 28, "what was done is not done again"


async def test_the_chore_of_what_is_over_or_gone_ends(client, node, fake):
    await ingest(client, event(1))
    await begin(client)
    await over(client)
    await ingest(client, event(1), path="/v1/memory/app/gone")
    await client.post("/v1/memory/app/gone/reembed", json={})
    await over(client, "/v1/memory/app/gone")
    await client.delete("/v1/databases/app--gone")
    now_ms = node._services.clock.now_ms() + 60_000
    claimed = await node._services.catalog.claim_due(now_ms, until_ms=now_ms, limit=10)
    chores = [c.chore for c in claimed if c.chore.kind == "reembed"]

    assert len(chores) == 2
    assert [await node.reembedding.look(chore) for chore in chores] == [None, None]


# ---- what is refused


@pytest.mark.parametrize(
    "body",
    [
        [], 5, "x", {"scope": "everything"}, {"scope": 5}, {"only_missing": "yes"}, {"model": "acme/one"},
        {"model": ""}, {"model": 5}, {"scope": ["all"]},
    ],
)  # fmt: skip
async def test_nonsense_is_refused(client, fake, body):
    await ingest(client, FACT)

    answer = await client.post(f"{MEMORY}/reembed", json=body)

    assert failure(answer) == (400, "invalid_request")
    assert (await job(client))["state"] == "none"


async def test_an_unknown_profile_has_nothing(client, fake):
    assert (await job(client))["state"] == "none"
    empty = {"models": [], "embeddable": {"memories": 0, "turns": 0}, "embedder": MODEL, "txid": 0}
    assert (await client.get(f"{MEMORY}/models")).json() == empty
    assert failure(await client.post(f"{MEMORY}/reembed", json={}))[0] == 404
    assert failure(await client.delete(f"{MEMORY}/models/x"))[0] == 404


@pytest.mark.parametrize("name", ["%20", "%22", "a%20b", "%00", "..", "x" * 129, "%2F"])
async def test_models_of_odd_names_are_refused(client, fake, name):
    await ingest(client, FACT)

    assert (await client.delete(f"{MEMORY}/models/{name}")).status_code in {400, 404}
    assert len(await models(client)) == 1


async def test_without_an_embedder_it_is_said_so(tmp_path):
    async with running_node(tmp_path) as node, client_of(create_app(node, limits())) as client:
        await ingest(client, {**FACT, "embedding": [1]})

        answer = await client.post(f"{MEMORY}/reembed", json={})

        assert failure(answer) == (503, "unconfigured")
        assert await models(client) == {None: (1, 1, 0, False)}
        assert (await client.get(f"{MEMORY}/models")).json()["embedder"] is None


# ---- the headers of every write


@pytest.mark.parametrize("write", EMBEDDING_WRITES.values(), ids=EMBEDDING_WRITES)
async def test_writes_honour_durability_and_take_effect_once(client, fake, write):
    await ingest(client, FACT)
    if write is EMBEDDING_WRITES["cancel reembed"]:
        fake.fault = "slow"
        await begin(client)
    method, path, rest = write
    odd = await client.request(method, path, headers={"Memoturn-Durability": "eventual"}, **rest)
    key = {"Idempotency-Key": "k"}

    first = await client.request(method, path, headers={"Memoturn-Durability": "durable", **key}, **rest)
    again = await client.request(method, path, headers=key, **rest)

    assert failure(odd) == (400, "invalid_request")
    assert first.headers["memoturn-durability"] == "durable"
    assert stamps(first)[1] >= stamps(first)[0] == stamps(again)[0]
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"


async def test_an_export_with_models_and_a_job_is_imported_again(client, fake):
    await ingest(client, FACT, event(1, embedding=[1, 2]))
    await begin(client)
    await over(client)
    file = (await client.get(f"{DB}/export")).content

    answer = await client.put("/v1/databases/app--copy/import", content=file)

    assert answer.status_code == 201, answer.text
    assert await models(client, "/v1/memory/app/copy") == await models(client)
    assert (await job(client, "/v1/memory/app/copy"))["state"] == "none"


def test_a_vector_is_what_the_fake_says():
    assert len(vector_of("x")) == 32
    assert json.loads(json.dumps(vector_of("x"))) == vector_of("x")
