"""Policies over a whole node: the routes, and what they do to lives, texts, models, memories and history."""

import asyncio

import pytest
from fake_embedder import fake_endpoint
from fake_embedder import settings_of as embedder_settings
from harness import ShiftedClock, node_on
from http_calls import FACT, MEMORY, append, failure, ingest
from http_support import client_of, limits, running_node

from memoturnd.core import policy_document
from memoturnd.http.app import create_app
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore

NAMESPACE = "/v1/namespaces/app/policy"
PROFILE = f"{MEMORY}/policy"
DAY_S = 86_400
TASK = {"type": "task", "summary": "call bob"}
NOTHING = {
    "pitr_secs": None,
    "pitr_snapshot_secs": None,
    "task_ttl_max_secs": None,
    "event_max_age_secs": None,
    "superseded_max_age_secs": None,
    "superseded_max_count": None,
    "purge_on_forget": False,
    "erasure_grace_secs": 86_400,
    "audit_enabled": False,
    "audit_include_reads": False,
    "audit_retention_secs": None,
    "extract": "allow",
    "ask": "allow",
    "embed": "allow",
    "reads": None,
}


async def put(client, policy, path=NAMESPACE, status=200, **headers):
    answer = await client.put(path, json={"policy": policy}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer


async def memory(client, id_):
    answer = await client.get(f"{MEMORY}/memories/{id_}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(client, branch="main", **more):
    query = {"branch": branch, "include_superseded": "true", **more}
    answer = await client.get(f"{MEMORY}/memories", params=query)
    assert answer.status_code == 200, answer.text
    return [row["summary"] for row in answer.json()["memories"]]


async def metric(client, name):
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"memoturn_{name}"))


# ---- the routes of a namespace


async def test_policy_that_was_never_set_is_not_there(client):
    assert failure(await client.get(NAMESPACE)) == (404, "not_found")
    shown = await client.get(PROFILE)
    assert shown.json() == {
        "namespace": "app",
        "profile": "ann",
        "override": None,
        "effective": NOTHING,
        "revision": 0,
    }
    assert "etag" not in shown.headers


async def test_policy_is_set_whole_and_keeps_what_is_not_known(client):
    said = {"memory": {"task_ttl_max_secs": 600, "later": [1]}, "later": {"a": None}}

    first = await put(client, {"audit": {"enabled": True}})
    second = await put(client, said)

    assert (first.json()["revision"], second.json()["revision"]) == (1, 2)
    assert second.json() == {
        "namespace": "app",
        "revision": 2,
        "updated_at": second.json()["updated_at"],
        "policy": said,
    }
    shown = await client.get(NAMESPACE)
    assert shown.json() == {**second.json(), "profiles": {}}
    assert shown.headers["etag"] == second.headers["etag"] == '"2"'


async def test_bad_policy_is_refused_by_its_field_and_changes_nothing(client):
    await put(client, {"memory": {"task_ttl_max_secs": 600}})

    for path in (NAMESPACE, PROFILE):
        refused = await client.put(path, json={"policy": {"memory": {"task_ttl_max_secs": 5}}})
        assert failure(refused) == (400, "invalid_request")
        assert "policy.memory.task_ttl_max_secs is 5" in refused.json()["error"]
        assert failure(await client.put(path, json={})) == (400, "invalid_request")
    assert failure(await client.put(NAMESPACE, json={"policy": None})) == (400, "invalid_request")
    assert (await client.get(NAMESPACE)).json()["revision"] == 1


@pytest.mark.parametrize("namespace", ["App", "a--b", "..%2f..%2fx", "%2e%2e", "a-"])
async def test_namespace_that_is_no_name_is_refused(client, namespace):
    for method in ("GET", "PUT"):
        answer = await client.request(
            method, f"/v1/namespaces/{namespace}/policy", json={"policy": {}} if method == "PUT" else None
        )
        assert failure(answer)[0] in (400, 404)


async def test_change_holds_only_for_the_revision_that_it_was_made_for(client):
    await put(client, {}, **{"if-none-match": "*"})
    assert failure(await client.put(NAMESPACE, json={"policy": {}}, headers={"if-none-match": "*"})) == (
        412,
        "precondition_failed",
    )

    await put(client, {"audit": {"enabled": True}}, **{"if-match": '"1"'})
    late = await client.put(NAMESPACE, json={"policy": {}}, headers={"if-match": '"1"'})

    assert failure(late) == (412, "precondition_failed")
    assert (await client.get(NAMESPACE)).json()["policy"] == {"audit": {"enabled": True}}
    assert failure(await client.put(PROFILE, json={"policy": {}}, headers={"if-match": '"1"'}))[0] == 412
    await put(client, {}, path=PROFILE, **{"if-match": '"2"'})


# ---- the routes of a profile


async def test_profile_is_held_to_the_strictest_of_both_before_it_exists(client):
    await put(client, {"memory": {"task_ttl_max_secs": 600}, "ai_egress": {"ask": "deny"}})

    answer = await put(client, {"memory": {"task_ttl_max_secs": 60}, "later": 1}, path=PROFILE)

    assert answer.json() == {
        "namespace": "app",
        "profile": "ann",
        "override": {"memory": {"task_ttl_max_secs": 60}, "later": 1},
        "effective": {**NOTHING, "task_ttl_max_secs": 60, "ask": "deny"},
        "revision": 2,
    }
    assert (await client.get(PROFILE)).json() == answer.json()
    other = (await client.get("/v1/memory/app/bob/policy")).json()
    assert (other["override"], other["effective"]["task_ttl_max_secs"]) == (None, 600)
    assert (await client.get(NAMESPACE)).json()["profiles"] == {"ann": answer.json()["override"]}
    assert failure(await client.get(f"{MEMORY}/memories/mem_0")) == (404, "database_not_found")


async def test_profile_that_loosens_is_told_each_field(client):
    await put(client, {"memory": {"task_ttl_max_secs": 600}, "erasure": {"purge_on_forget": True}})

    refused = await client.put(
        PROFILE,
        json={"policy": {"memory": {"task_ttl_max_secs": 601}, "erasure": {"purge_on_forget": False}}},
    )

    assert failure(refused) == (409, "conflict")
    assert "memory.task_ttl_max_secs, erasure.purge_on_forget" in refused.json()["error"]
    assert (await client.get(PROFILE)).json()["override"] is None


async def test_null_clears_a_profiles_policy_and_the_namespaces_stays(client):
    await put(client, {"audit": {"enabled": True}})
    await put(client, {"audit": {"include_reads": True}}, path=PROFILE)

    answer = await put(client, None, path=PROFILE)

    assert answer.json()["override"] is None
    assert answer.json()["effective"] == {**NOTHING, "audit_enabled": True}


async def test_namespace_that_tightens_later_holds_its_profiles_too(client):
    await put(client, {"memory": {"task_ttl_max_secs": 500}}, path=PROFILE)

    await put(client, {"memory": {"task_ttl_max_secs": 100}})

    shown = (await client.get(PROFILE)).json()
    assert shown["override"] == {"memory": {"task_ttl_max_secs": 500}}
    assert shown["effective"]["task_ttl_max_secs"] == 100


async def test_tenants_namespaces_of_one_name_have_policies_of_their_own(client):
    other = {"memoturn-tenant": "other"}
    await put(client, {"audit": {"enabled": True}})

    assert failure(await client.get(NAMESPACE, headers=other)) == (404, "not_found")
    await put(client, {"ai_egress": {"ask": "deny"}}, **other)

    assert (await client.get(NAMESPACE)).json()["policy"] == {"audit": {"enabled": True}}
    shown = (await client.get(PROFILE, headers=other)).json()
    assert shown["effective"] == {**NOTHING, "ask": "deny"}


# ---- lives of tasks


@pytest.fixture
async def bounded(client):
    await put(client, {"memory": {"task_ttl_max_secs": 600}})
    return client


def life_s(record):
    return (record["expires_at"] - record["created_at"]) / 1000


async def test_tasks_live_no_longer_than_the_policy_lets_them(bounded):
    answer = await ingest(
        bounded,
        TASK,
        {**TASK, "summary": "long", "ttl": 10**6},
        {**TASK, "summary": "short", "ttl": 60},
        FACT,
    )

    ids = [result["id"] for result in answer.json()["results"]]
    lives = [life_s(await memory(bounded, id_)) for id_ in ids[:3]]
    assert lives == [600, 600, 60]
    assert (await memory(bounded, ids[3]))["expires_at"] is None


async def test_patch_gives_a_task_no_longer_life(bounded):
    task, fact = (
        result["id"] for result in (await ingest(bounded, TASK, {**FACT, "summary": "x"})).json()["results"]
    )
    now_ms = (await memory(bounded, task))["created_at"]

    for said in ({"ttl": 10**6}, {"ttl": None}, {"expires_at": now_ms + 10**12}):
        answer = await bounded.patch(f"{MEMORY}/memories/{task}", json=said)
        assert answer.status_code == 200, answer.text
        assert 0 <= answer.json()["expires_at"] - now_ms - 600_000 < 60_000
    short = await bounded.patch(f"{MEMORY}/memories/{task}", json={"ttl": 30})
    assert short.json()["expires_at"] - now_ms < 90_000
    free = await bounded.patch(f"{MEMORY}/memories/{fact}", json={"ttl": 10**6})
    assert free.json()["expires_at"] - now_ms > 900_000_000


async def test_lines_bring_in_no_task_that_lives_longer(client):
    await ingest(client, {**TASK, "ttl": 10**6}, {**TASK, "summary": "short", "ttl": 60}, FACT)
    exported = (await client.get(f"{MEMORY}/export")).content
    await put(client, {"memory": {"task_ttl_max_secs": 600}})

    answer = await client.post("/v1/memory/app/bob/import", content=exported)

    assert answer.status_code == 201, answer.text
    rows = (await client.get("/v1/memory/app/bob/memories")).json()["memories"]
    lives = {row["summary"]: row["expires_at"] and life_s(row) for row in rows}
    assert lives["short"] == 60
    assert 600 <= lives["call bob"] < 660
    assert lives["likes dark"] is None


# ---- models


async def test_extraction_is_denied_before_the_model_hears_of_it(client, model):
    await put(client, {"ai_egress": {"extract": "deny"}})
    asked = len(model.requests)

    for body in ({"turns": [{"role": "user", "content": "went hiking"}]}, {"turns": []}):
        answer = await client.post(f"{MEMORY}/extract", json=body)
        assert failure(answer) == (403, "forbidden")
        assert "ai_egress.extract" in answer.json()["error"]
    assert len(model.requests) == asked
    await ingest(client, FACT)
    assert (await client.post(f"{MEMORY}/ask", json={"question": "is it dark?"})).status_code == 200


async def test_answers_are_denied_after_the_question_was_read_and_before_recall(client, model):
    await ingest(client, FACT)
    await put(client, {"ai_egress": {"ask": "deny"}}, path=PROFILE)
    asked = len(model.requests)

    assert failure(await client.post(f"{MEMORY}/ask", json={"question": " "})) == (400, "invalid_request")
    answer = await client.post(f"{MEMORY}/ask", json={"question": "is it dark?"})
    streamed = await client.post(f"{MEMORY}/ask", json={"question": "is it dark?", "stream": True})

    assert failure(answer) == failure(streamed) == (403, "forbidden")
    assert len(model.requests) == asked
    other = await client.post("/v1/memory/app/bob/ask", json={"question": "is it dark?"})
    assert other.status_code == 200  # who has no such policy


async def test_order_of_checks_where_nothing_is_configured(tmp_path):
    async with running_node(tmp_path) as node, client_of(create_app(node, limits())) as client:
        await put(client, {"ai_egress": {"extract": "deny", "ask": "deny"}})

        assert failure(await client.post(f"{MEMORY}/extract", json={"turns": []})) == (403, "forbidden")
        assert failure(await client.post(f"{MEMORY}/ask", json={"question": ""})) == (503, "unconfigured")


# ---- the embedder


@pytest.fixture
async def fake():
    async with fake_endpoint() as fake:
        yield fake


@pytest.fixture
async def embedding_node(tmp_path, fake):
    async with running_node(tmp_path, **embedder_settings(fake)) as node:
        yield node


@pytest.fixture
async def embedding(embedding_node):
    async with client_of(create_app(embedding_node, limits())) as client:
        yield client


async def every_use_of_the_embedder(client):
    """Send what would be embedded on every path; return the statuses."""
    return [
        await client.post(f"{MEMORY}/memories", json={"memories": [FACT]}),
        await client.post(f"{MEMORY}/recall", json={"query": "dark"}),
        await client.patch(f"{MEMORY}/memories/{(await first_id(client))}", json={"keywords": "new"}),
        await client.post("/v1/db/app--ann/memory/s/turns", json={"role": "user", "content": "hello"}),
        await client.post("/v1/db/app--ann/memory/s/search", json={"query": "hello"}),
        await client.post("/v1/db/app--ann/memory/search", json={"query": "hello"}),
    ]


async def first_id(client):
    rows = (await client.get(f"{MEMORY}/memories")).json()["memories"]
    return rows[0]["id"] if rows else "mem_0"


async def test_denied_embedder_is_as_if_there_were_none(embedding, fake):
    await put(embedding, {"ai_egress": {"embed": "deny"}})

    answers = await every_use_of_the_embedder(embedding)

    assert [answer.status_code for answer in answers] == [201, 200, 200, 201, 200, 200]
    for answer in answers:
        assert not {"embedded", "degraded"} & set(answer.json())
    assert fake.texts == []
    assert failure(await embedding.post(f"{MEMORY}/reembed", json={})) == (503, "unconfigured")
    assert (await embedding.get(f"{MEMORY}/models")).json()["embedder"] is None
    refused = await embedding.post(f"{MEMORY}/recall", json={"query": "x", "include_turns": True})
    assert failure(refused) == (400, "invalid_request")
    await ingest(embedding, {**FACT, "summary": "mine", "topic_key": "other", "embedding": [1, 0]})


async def test_own_embedder_may_be_used_where_only_such_may(embedding, fake):
    await put(embedding, {"ai_egress": {"embed": "self_hosted_only"}})

    answers = await every_use_of_the_embedder(embedding)

    assert [answer.status_code for answer in answers] == [201, 200, 200, 201, 200, 200]
    assert fake.texts  # it listens at 127.0.0.1


async def test_foreign_embedder_may_not_be_used_where_only_own_may(embedding, embedding_node, fake):
    embedding_node.policies._self_hosted = False
    await put(embedding, {"ai_egress": {"embed": "self_hosted_only"}})

    await every_use_of_the_embedder(embedding)

    assert fake.texts == []


async def until_job_is(client, state):
    for _ in range(200):
        job = (await client.get(f"{MEMORY}/reembed")).json()
        if job["state"] == state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(job)


async def test_job_that_embeds_again_waits_while_the_policy_forbids_it(embedding, embedding_node, fake):
    await put(embedding, {"ai_egress": {"embed": "deny"}})
    await ingest(embedding, FACT)
    await put(embedding, {})
    fake.fault = 500  # so that the job does not end at once
    assert (await embedding.post(f"{MEMORY}/reembed", json={})).status_code == 202
    await put(embedding, {"ai_egress": {"embed": "deny"}})
    fake.fault = None
    before = len(fake.texts)

    await until_job_is(embedding, "waiting")
    await embedding_node.reembedding.go_on("app--ann", "main")
    await until_job_is(embedding, "waiting")
    assert len(fake.texts) == before

    await put(embedding, {})
    await embedding_node.reembedding.go_on("app--ann", "main")

    await until_job_is(embedding, "done")
    assert "likes dark" in fake.texts


# ---- a store that is down


async def test_nothing_is_sent_away_while_the_policy_is_not_known_and_lives_go_on(tmp_path, fake):
    faults = []
    clock = ShiftedClock()
    store = FaultyStore(MemoryStore(), clock, faults)
    async with (
        node_on(tmp_path, store, clock=clock, **embedder_settings(fake)) as node,
        client_of(create_app(node, limits())) as client,
    ):
        await ingest(client, {**FACT, "embedding": [1, 0]}, path="/v1/memory/known/ann")
        await client.post("/v1/db/known--ann/sync")
        faults.append(Fault(FaultKind.STATUS_503, ("get",), key="v1/_policy/", times=None))
        text = {"memories": [{"type": "event", "summary": "x"}]}

        unknown = await client.post(f"{MEMORY}/memories", json=text)
        recalled = await client.post(f"{MEMORY}/recall", json={"query": "x"})
        vectors = await ingest(client, {**FACT, "embedding": [1, 0]}, {**TASK, "ttl": 900})
        clock.ahead_s += 3600
        stale = await client.post("/v1/memory/known/ann/memories", json=text)

        assert failure(unknown) == failure(recalled) == (503, "unavailable")
        assert "not known now" in unknown.json()["error"]
        assert vectors.json()["embedded"] == 0
        assert stale.json()["embedded"] == 1  # what was known holds
        assert await metric(client, 'policy_unknown_total{effect="egress"}') >= 2
        assert await metric(client, 'policy_unknown_total{effect="task_ttl"}') >= 1
        assert await metric(client, "policy_reads_failed_total") >= 2
        assert failure(await client.get(NAMESPACE)) == (503, "unavailable")
        assert failure(await client.put(NAMESPACE, json={"policy": {}})) == (503, "unavailable")


async def test_policy_that_is_damaged_is_told_and_not_overwritten(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path, store) as node, client_of(create_app(node, limits())) as client:
        await store.put(policy_document.key_of("default", "app"), b'{"schema_version":9}')

        for method, path in (("GET", NAMESPACE), ("PUT", NAMESPACE), ("GET", PROFILE), ("PUT", PROFILE)):
            body = {"policy": {}} if method == "PUT" else None
            answer = await client.request(method, path, json=body)
            assert failure(answer) == (500, "internal")
            assert "policies of namespace app" in answer.json()["error"]
        assert failure(await client.post(f"{MEMORY}/extract", json={"turns": []})) == (503, "unavailable")


# ---- another node, and the operator


async def test_another_node_sees_a_change_within_the_cache_time(tmp_path):
    store, clock = MemoryStore(), ShiftedClock()
    async with (
        node_on(tmp_path / "a", store, clock=clock) as one,
        node_on(tmp_path / "b", store, clock=clock) as other,
        client_of(create_app(one, limits())) as writer,
        client_of(create_app(other, limits())) as reader,
    ):
        denied = {"turns": [{"role": "user", "content": "x"}]}
        assert failure(await reader.post(f"{MEMORY}/extract", json=denied)) == (503, "unconfigured")
        await put(writer, {"ai_egress": {"extract": "deny"}})

        assert failure(await writer.post(f"{MEMORY}/extract", json=denied)) == (403, "forbidden")
        assert failure(await reader.post(f"{MEMORY}/extract", json=denied)) == (503, "unconfigured")
        clock.ahead_s += 30
        assert failure(await reader.post(f"{MEMORY}/extract", json=denied)) == (403, "forbidden")


async def test_nobody_is_looser_than_the_operators_ceiling(tmp_path, fake):
    ceiling = '{"memory": {"task_ttl_max_secs": 300}, "ai_egress": {"embed": "deny"}}'
    env = {**embedder_settings(fake), "POLICY_CEILING": ceiling}
    async with running_node(tmp_path, **env) as node, client_of(create_app(node, limits())) as client:
        await put(client, {"memory": {"task_ttl_max_secs": 600}})
        id_ = (await ingest(client, TASK, FACT)).json()["results"][0]["id"]
        await append(client)
        await client.post("/v1/databases", json={"name": "plain"})
        await client.post("/v1/db/plain/memory/s/turns", json={"role": "user", "content": "hello"})

        assert life_s(await memory(client, id_)) == 300
        assert fake.texts == []  # not of a database without a namespace either
        assert (await client.get(PROFILE)).json()["effective"]["task_ttl_max_secs"] == 300
        looser = {"policy": {"memory": {"task_ttl_max_secs": 400}}}
        assert failure(await client.put(PROFILE, json=looser)) == (409, "conflict")
