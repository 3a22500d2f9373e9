"""What looks after memories through both clients, with a token for memory alone."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from memoturn import ConflictError, InvalidRequestError, NotFoundError

DIET = [
    {"type": "fact", "topic_key": "user.diet", "summary": "eats everything", "content": 1, "source": "form"},
    {"type": "event", "summary": "went hiking", "session_id": "s", "importance": 0.5},
    {"type": "fact", "topic_key": "user.diet", "summary": "is vegan", "reason": "said so", "pinned": True},
]


@pytest.fixture
async def ann(api):
    return await api.of_namespace("write", "memory")


@pytest.fixture
async def ids(ann):
    return [(await ann.ingest([item]))["results"][0]["id"] for item in DIET]


async def test_ingest_may_leave_out_what_is_wrong(ann):
    with pytest.raises(InvalidRequestError):
        await ann.ingest([DIET[0], {"type": "fact", "summary": " "}])
    result = await ann.ingest([DIET[0], {"type": "fact", "summary": " "}], on_error="skip")

    assert [row["status"] for row in result["results"]] == ["created", "error"]
    assert result["results"][1]["id"] is None
    assert "summary" in result["results"][1]["error"]
    assert result["embedded"] == 1


async def test_recall_with_everything(ann, ids):
    found = await ann.recall(
        "what does she eat",
        types=["fact"],
        since=datetime.now(UTC) - timedelta(hours=1),
        until=datetime.now(UTC) + timedelta(hours=1),
        include_superseded=True,
        include_context=True,
        weights={"keyword": 2},
        decay={"half_life_s": 3600},
        min_score=0.0,
        pinned_first=True,
        explain=True,
    )
    old = await ann.recall(topic_key="user.diet", fusion="reference", source="form", include_superseded=True)

    assert found["memories"][0]["id"] == ids[2]
    assert set(found["memories"][0]["context"]) == {"turns", "memories"}
    assert "recency" in found["memories"][0]["explain"]
    assert [hit["id"] for hit in old["memories"]] == [ids[0]]
    assert (await ann.recall("vegan", since=1, until=2))["memories"] == []


async def test_memories_are_listed_by_filters(ann, ids):
    async def listed(**filters):
        return [memory["id"] async for memory in ann.iter_memories(**filters)]

    assert await listed() == [ids[2], ids[1]]
    assert await listed(include_superseded=True, order="oldest") == ids
    assert await listed(types=["event"], session_id="s") == [ids[1]]
    assert await listed(pinned=True) == [ids[2]]
    assert await listed(pinned=False) == [ids[1]]
    assert await listed(topic_prefix="user.", limit=1) == [ids[2]]
    assert await listed(topic_key="user.diet", source="form", include_superseded=True) == [ids[0]]
    assert await listed(since=datetime.now(UTC) + timedelta(hours=1)) == []
    page = await ann.list_memories(limit=1, order="most_important")
    following = await ann.list_memories(limit=1, order="most_important", cursor=page["next_cursor"])
    assert [memory["id"] for memory in (*page["memories"], *following["memories"])] == [ids[1], ids[2]]
    assert following["next_cursor"] is None
    assert following["txid"] == ann.last_txid


async def test_a_patch_changes_what_is_said_of_a_memory(ann, ids):
    rated = await ann.patch(ids[1], importance=0.9, keywords="alps", pinned=True, ttl=3600)
    unrated = await ann.patch(ids[1], importance=None, expires_at=None)

    assert (rated["importance"], rated["keywords"], rated["pinned"]) == (0.9, "alps", True)
    assert rated["expires_at"] > rated["updated_at"]
    assert (unrated["importance"], unrated["expires_at"]) == (None, None)
    later = datetime.now(UTC) + timedelta(days=1)
    assert (await ann.patch(ids[1], expires_at=later))["expires_at"] == round(later.timestamp() * 1000)
    with pytest.raises(NotFoundError):
        await ann.patch("0" * 32, pinned=True)
    with pytest.raises(InvalidRequestError):
        await ann.patch(ids[1])


async def test_history_undo_and_topics(ann, ids):
    history = await ann.history(ids[0])

    assert (history["active"], history["count"], history["pinned"]) == (ids[2], 2, True)
    assert [version["reason"] for version in history["versions"]] == ["said so", None]
    assert await ann.history("0" * 32) is None
    undone = await ann.undo(ids[2], reason="was a joke")
    assert (undone["undone"], undone["active"], undone["version"]) == (ids[2], ids[0], 3)
    with pytest.raises(ConflictError):
        await ann.undo(ids[2])
    assert (await ann.get(ids[0]))["reason"] == "was a joke"
    (topic,) = [topic async for topic in ann.iter_topics()]
    assert (topic["topic_key"], topic["type"], topic["active"]) == ("user.diet", "fact", ids[0])
    assert [row async for row in ann.iter_topics(prefix="x", type="fact", limit=1)] == []
    (chain,) = (await ann.topic("user.diet", type="fact"))["chains"]
    assert [version["id"] for version in chain["versions"]] == [ids[0], ids[2]]
    assert await ann.topic("nothing") is None


async def test_many_are_forgotten_at_once(ann, ids):
    dry = await ann.forget_many(topic_prefix="user.", dry_run=True)

    assert (dry["dry_run"], dry["forgotten"], dry["matched"]) == (True, 0, 2)
    assert {row["status"] for row in dry["results"]} == {"would_forget"}
    active = await ann.forget_many(topic_key="user.diet", include_superseded=False, limit=5)
    assert [row["id"] for row in active["results"]] == [ids[2]]
    some = await ann.forget_many(ids=[ids[0], ids[2]])
    assert [row["status"] for row in some["results"]] == ["forgotten", "not_found"]
    with pytest.raises(InvalidRequestError):
        await ann.forget_many()
    rest = await ann.forget_many(all=True)
    assert (rest["forgotten"], rest["more"]) == (1, False)
    assert [memory async for memory in ann.iter_memories()] == []


async def test_sessions_are_iterated(ann, ids):
    await ann.ingest([{"type": "event", "summary": "x", "session_id": "s2"}])

    assert [row["id"] async for row in ann.iter_sessions()] == ["s2", "s"]
    assert [row["id"] async for row in ann.iter_sessions(limit=1)] == ["s2"]
    await ann.end_session("s2")
    assert [row["id"] for row in await ann.sessions()] == ["s"]


async def test_an_unknown_profile_has_nothing(ann):
    assert [row async for row in ann.iter_memories()] == []
    assert await ann.get("0" * 32) is None
    assert await ann.forget("0" * 32) is False


async def test_models_and_embedding_again(api):
    ann = await api.of_namespace("admin")
    await ann.ingest(
        [
            {
                "type": "fact",
                "summary": "has a vector",
                "content": 1,
                "embedding": [1, 0],
                "embedding_model": "mine",
            }
        ]
    )
    await ann.ingest([{"type": "fact", "summary": "two words"}])

    models = await ann.models()

    assert (models["models"][0]["name"], models["models"][0]["memories"]) == ("mine", 1)
    assert models["embeddable"] == {"memories": 2, "turns": 0}
    job = await ann.reembed(scope="memories", only_missing=True)
    assert (job["scope"], job["only_missing"], job["model"]) == ("memories", True, models["embedder"])
    assert (await ann.reembed_progress())["state"] in {"running", "waiting", "done"}
    await ann.cancel_reembed()
    assert (await ann.reembed_progress())["state"] in {"cancelled", "done"}
    assert await ann.drop_model("mine") is True
    assert await ann.drop_model("mine") is False
    assert await ann.drop_model(None) is False
    hits = await ann.recall(embedding=[0.5] * 32, embedding_model=models["embedder"], k=1)
    assert hits["memories"] == [] or hits["memories"][0]["channels"] == ["vector"]


async def test_memory_goes_out_and_comes_in_as_lines(api, tmp_path):
    ann = await api.of_namespace("write", "memory", "turns")
    await ann.ingest(DIET)
    await ann.session("s").append_turn("user", "hello")
    path = tmp_path / "ann.ndjson"

    saved = await ann.export_memory(path)

    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert saved["size_bytes"] == path.stat().st_size
    assert saved["txid"] == ann.last_txid
    assert len(lines) > 4
    with pytest.raises(FileExistsError):
        await ann.export_memory(path)
    token = await api.admin.create_namespace_token(api.name, "write", surfaces=["memory", "turns"])
    bob = api.client(token=token["token"]).memory(api.name, "bob")
    imported = await bob.import_memory(path)
    assert (imported["imported"]["memory"], imported["imported"]["turn"]) == (3, 1)
    assert [m["summary"] async for m in bob.iter_memories()] == [
        m["summary"] async for m in ann.iter_memories()
    ]
    with pytest.raises(ConflictError):
        await bob.import_memory(path)
    assert (await bob.import_memory(path, replace=True))["imported"]["memory"] == 3
