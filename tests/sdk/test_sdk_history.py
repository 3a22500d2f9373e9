"""SQL, branches, history, erasure and files through both clients."""

import io

import pytest
from memoturn import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)

OLD = {"type": "fact", "topic_key": "t", "summary": "old", "content": 1}
NEW = {"type": "fact", "topic_key": "t", "summary": "new", "content": 2}


@pytest.fixture
async def db(api):
    return await api.of_database("admin")


@pytest.fixture
async def ann(api):
    profile = await api.of_namespace("admin")
    await profile.ingest([OLD])
    return profile


async def test_sql_runs_one_statement_or_several_as_one(db):
    made = await db.batch(
        [
            ("create table t (k text, v blob)", []),
            ("insert into t values (?, ?)", ["a", b"\x00"]),
            ("select * from t", []),
        ],
        durability="durable",
    )

    assert made["results"][2]["rows"] == [["a", b"\x00"]]
    assert made["durability"] == "durable"
    assert await db.sql("select v from t where k = ?", ["a"], consistency="primary") == {
        "columns": ["v"],
        "rows": [[b"\x00"]],
        "rows_affected": 0,
    }
    await db.sql("delete from t")
    assert (await db.sql("select count(*) from t", at=made["txid"]))["rows"] == [[1]]
    with pytest.raises(InvalidRequestError, match="stmts"):
        await db.sql("select nonsense")
    with pytest.raises(ForbiddenError):
        await db.sql("delete from __memoturn_memories")
    assert await db.sync() == db.last_txid == db.last_durable_txid
    assert await db.sync(made["txid"]) >= made["txid"]


async def test_branches_are_forked_listed_deleted_and_brought_back(db):
    await db.kv.put("n", "k", "1")

    fork = await db.branch.create("side", at="head", ttl=3600)

    assert (fork["branch"], fork["parent"], fork["spec"]) == ("side", "main", f"{db.name}@side")
    with pytest.raises(AlreadyExistsError):
        await db.branch.create("side")
    assert [row["branch"] for row in await db.branch.list()] == ["side"]
    assert [row["ttl_at"] async for row in db.branch.iter(limit=1)] == [fork["ttl_at"]]
    await db.branch.create("deeper", from_branch="side")
    await db.branch.delete("deeper")
    await db.branch.delete("deeper")
    (gone,) = [row async for row in db.branch.iter_deleted()]
    assert (gone["branch"], gone["parent"]) == ("deeper", "side")
    assert gone["undelete_until"] > gone["deleted_at"]
    assert (await db.branch.undelete("deeper"))["branch"] == "deeper"
    with pytest.raises(BranchNotFoundError):
        await db.branch.undelete("deepest")


async def test_checkpoints_restore_points_and_rewinds(db):
    before = await db.kv.put("n", "k", "1")
    named = await db.branch.checkpoint("main", "monday")
    await db.kv.put("n", "k", "2")

    rewound = await db.branch.rewind("main", "monday")

    assert (named["txid"], rewound["rewound_to"]) == (before, before)
    assert await db.kv.get_text("n", "k") == "1"
    undone = await db.branch.undo()
    assert await db.kv.get_text("n", "k") == "2"
    assert undone["txid"] == db.last_txid
    past = await db.branch.past_rewinds()
    assert (past[0]["txid"], past[0]["rewound_to"]) == (rewound["txid"], before)
    points = await db.branch.restore_points(oldest_first=True, until=before)
    assert (points[-1]["txid"], points[-1]["checkpoints"]) == (before, ["monday"])
    assert len(await db.branch.restore_points(limit=1)) == 1
    recent = [point["txid"] async for point in db.branch.iter_restore_points(since=rewound["txid"])]
    assert recent == [undone["txid"], rewound["txid"]]
    assert [row["checkpoint"] for row in await db.branch.checkpoints()] == ["monday"]
    assert [row["txid"] async for row in db.branch.iter_checkpoints(limit=1)] == [before]
    await db.branch.delete_checkpoint("main", "monday")
    with pytest.raises(BranchNotFoundError):
        await db.branch.delete_checkpoint("main", "monday")
    with pytest.raises(ConflictError):
        await db.branch.rewind("main", 10_000_000)


async def test_a_profile_travels_in_time(ann):
    named = await ann.checkpoint("monday")
    newer = (await ann.ingest([NEW]))["results"][0]["id"]

    assert [hit["summary"] for hit in (await ann.recall(topic_key="t", at="monday"))["memories"]] == ["old"]
    await ann.fork("side", at=named["txid"])
    assert await ann.on_branch("side").get(newer) is None
    rewound = await ann.rewind("monday")
    assert await ann.get(newer) is None
    assert await ann.get(newer, at=rewound["undo_txid"]) is not None
    await ann.undo_rewind()
    assert (await ann.get(newer))["summary"] == "new"
    assert ann.last_durable_txid <= ann.last_txid
    with pytest.raises(BranchNotFoundError):
        await ann.on_branch("none").get(newer)


async def test_a_memory_and_more_is_erased(ann, api):
    memory = (await ann.recall(topic_key="t"))["memories"][0]["id"]
    db = api.client(token=(await api.admin.create_namespace_token(api.name, "write"))["token"]).db(
        f"{api.name}--ann"
    )
    await db.kv.put("n", "k", "v")

    requested = await ann.erase(memory_id=memory, grace_secs=3600)
    other = await db.erase({"kv": {"ns": "n", "key": "k"}}, {"session_id": "s", "turns": True})

    assert await ann.get(memory) is None
    assert await db.kv.get("n", "k") is None
    coupon = await ann.erasure(requested["erasure_id"])
    assert (coupon["status"], coupon["memory_ids"]) == ("pending", [memory])
    assert await ann.erasure("none") is None
    assert await db.erasure("none") is None
    both = [other["erasure_id"], requested["erasure_id"]]
    assert [row["id"] for row in await ann.erasures()] == both
    assert [row["id"] for row in await db.erasures()] == both
    assert [row["id"] async for row in ann.iter_erasures(limit=1)] == both[:1]
    assert [row["id"] async for row in db.iter_erasures(limit=1)] == both[:1]
    assert (await db.erasure(both[0]))["id"] == both[0]
    with pytest.raises(NotFoundError):
        await ann.erase(topic_key="nothing", type="fact")


async def test_a_database_goes_to_a_file_and_becomes_another(api, db, tmp_path):
    await db.kv.put("n", "k", "v")
    path, seen = tmp_path / "copy.db", []

    saved = await db.export(path, progress=lambda done, of: seen.append((done, of)))

    assert saved["size_bytes"] == path.stat().st_size == seen[-1][0] == seen[-1][1]
    into = io.BytesIO()
    assert (await db.export(into, at=saved["txid"]))["sha256"] == saved["sha256"]
    made = await api.admin.import_database(path, f"{api.name}-copy")
    assert (made["branch"], made["txid"]) == ("main", saved["txid"])
    branch = await api.admin.import_database(path, api.name, branch="from-file", ttl=3600)
    assert branch["branch"] == "from-file"
    (row,) = await db.branch.list()
    assert (row["branch"], row["ttl_at"] > row["created_at"]) == ("from-file", True)
    with pytest.raises(AlreadyExistsError):
        await api.admin.import_database(path, f"{api.name}-copy")
    found = await db.verify()
    assert (found["outcome"], found["findings"]) == ("clean", [])


async def test_a_client_may_be_closed(api):
    client = api.client()
    assert await client.health()

    await client.close()

    assert client.url == api.url
