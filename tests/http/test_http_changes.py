"""The change feed over HTTP: what each write tells, pages and events that lose and repeat nothing, and how feeds end."""

import asyncio

import pytest
from auth_support import guarded_node, mint, sender
from feeds import following, until
from http_calls import EMBEDDING_WRITES, FACT, FACT_ID, OLD_FACT, WRITES, failure, ingest, stamps
from http_support import client_of, limits, running_node

from memoturnd import feeds
from memoturnd.engine import changes as log
from memoturnd.http import changes as routes
from memoturnd.http.app import create_app

DB = "/v1/db/app--ann"
CHANGES = f"{DB}/changes"
ANY = object()
"""Whatever key was made."""


@pytest.fixture
def app(node):
    return create_app(node, limits())


async def changes(client, path=CHANGES, status=200, **query):
    answer = await client.get(path, params=query)
    assert answer.status_code == status, answer.text
    return answer.json()


async def put(client, key, value=b"x", db=DB):
    return stamps(await client.put(f"{db}/kv/ns/{key}", content=value))[0]


def kv(*keys):
    return [{"surface": "kv", "in": "ns", "put": list(keys)}]


# ---- what each write tells

TOLD = {
    "ingest": [{"surface": "memory", "put": [ANY]}],
    "extract": [{"surface": "memory", "put": [ANY]}],
    "forget": [{"surface": "memory", "put": [ANY], "deleted": [FACT_ID]}],
    "patch": [{"surface": "memory", "put": [FACT_ID]}],
    "undo": [{"surface": "memory", "put": [FACT_ID, ANY]}],
    "forget many": [{"surface": "memory", "put": [], "deleted": [ANY, ANY]}],
    "import lines": "imported",
    "end session": [{"surface": "memory", "in": "sessions", "deleted": ["s"]}],
    "sql": [{"surface": "sql", "put": ["t"]}],
    "put": kv("k"),
    "delete": [{"surface": "kv", "in": "ns", "deleted": ["old"]}],
    "batch": kv("k"),
    "increment": kv("n"),
    "upsert vectors": [{"surface": "vectors", "in": "c", "put": ["new"]}],
    "delete vector": [{"surface": "vectors", "in": "c", "deleted": ["old"]}],
    "delete vectors": [{"surface": "vectors", "in": "c", "deleted": ["old"]}],
    "drop collection": [{"surface": "vectors", "in": "c", "dropped": True}],
    "insert": [{"surface": "documents", "in": "c", "put": [ANY]}],
    "update": [{"surface": "documents", "in": "c", "put": ["a"]}],
    "delete documents": [{"surface": "documents", "in": "c", "deleted": ["a"]}],
    "create index": [{"surface": "documents", "in": "c", "more": True}],
    "drop index": [{"surface": "documents", "in": "c", "more": True}],
    "drop": [{"surface": "documents", "in": "c", "dropped": True}],
    "append": [{"surface": "turns", "in": "s", "put": [1]}],
    "append many": [{"surface": "turns", "in": "s", "put": [1, 2, 3]}],
    "delete turn": [{"surface": "turns", "in": "old", "deleted": [1]}],
    "delete turns": [{"surface": "turns", "in": "old", "deleted": [1]}],
    "append rows": [{"surface": "timelines", "in": "t", "put": ["k"]}],
    "set retention": [{"surface": "timelines", "in": "t", "more": True}],
    "delete timeline": [{"surface": "timelines", "in": "t", "dropped": True}],
}


def matches(entry, wanted):
    if entry.keys() != {name for name, value in wanted.items() if value != []}:
        return False
    for name, value in wanted.items():
        found = entry.get(name, [])
        if isinstance(value, list):
            if len(found) != len(value) or not all(v is ANY or v in found for v in value):
                return False
        elif found != value:
            return False
    return True


def test_every_write_is_tried():
    assert TOLD.keys() == WRITES.keys()


@pytest.mark.parametrize("write", WRITES)
async def test_write_tells_what_it_changed(client, written, write):
    method, path, request = WRITES[write]

    answer = await client.request(method, path, **request)

    assert answer.is_success, answer.text
    txid = stamps(answer)[0]
    assert txid > written
    page = await changes(client, since=written)
    [told] = page["changes"]
    assert (told["txid"], page["next_since"], page["more"]) == (txid, txid, False)
    wanted = TOLD[write]
    if isinstance(wanted, str):
        assert (told["all"], told["changes"]) == (wanted, [])
        return
    assert len(told["changes"]) == len(wanted), told
    for entry, expected in zip(told["changes"], wanted, strict=True):
        assert matches(entry, expected), told


async def test_a_model_that_is_dropped_is_told(tmp_path):
    async with running_node(tmp_path) as node, client_of(create_app(node, limits())) as client:
        await ingest(client, {**FACT, "embedding": [1], "embedding_model": "m"})
        answer = await client.delete("/v1/memory/app/ann/models/m")
        assert answer.is_success, answer.text

        [*_, last] = (await changes(client, since=0))["changes"]
        assert last["changes"] == [{"surface": "memory", "in": "models", "deleted": ["m"]}]
    assert "drop model" in EMBEDDING_WRITES


async def test_a_write_that_changes_nothing_tells_nothing(client, written):
    await client.delete(f"{DB}/kv/ns/absent")
    await client.put(f"{DB}/kv/ns/old", content=b"x", headers={"if-match": '"0000000000000000"'})
    await ingest(client, FACT)

    page = await changes(client, since=written)
    assert (page["changes"], page["next_since"]) == ([], written)


async def test_a_write_that_is_sent_again_is_told_once(client, written):
    for _ in range(2):
        await client.put(f"{DB}/kv/ns/k", content=b"x", headers={"idempotency-key": "once"})

    [told] = (await changes(client, since=written))["changes"]
    assert told["changes"] == kv("k")


async def test_superseding_tells_both_memories(client):
    await ingest(client, OLD_FACT)
    since = stamps(await client.get("/v1/memory/app/ann/memories"))[0]
    await ingest(client, FACT)

    [told] = (await changes(client, since=since))["changes"]
    [entry] = told["changes"]
    assert entry["surface"] == "memory"
    assert FACT_ID in entry["put"]
    assert len(entry["put"]) == 2


async def test_what_expired_is_told_when_it_is_removed(client, node, written):
    await client.put(f"{DB}/kv/ns/short?ttl=0", content=b"x")
    since = (await changes(client))["next_since"]
    await node.housekeeping.sweep_rows()

    [told] = (await changes(client, since=since))["changes"]
    assert told["changes"] == [{"surface": "kv", "in": "ns", "deleted": ["short"]}]


# ---- pages


async def test_pages_add_up_to_every_commit(client, written):
    txids = [await put(client, f"k{n}") for n in range(30)]

    found, since = [], written
    while True:
        page = await changes(client, since=since, limit=7)
        found += [told["txid"] for told in page["changes"]]
        since = page["next_since"]
        if not page["more"]:
            break
    assert found == txids
    assert (await changes(client, since=since))["changes"] == []


async def test_without_since_it_begins_now(client, written):
    page = await changes(client)

    assert page == {"changes": [], "next_since": written, "more": False}


async def test_profiles_have_the_same_feed_at_both_addresses(client, written):
    assert await changes(client, since=0) == await changes(client, "/v1/memory/app/ann/changes", since=0)


async def test_surfaces_can_be_chosen(client, written):
    await put(client, "k")
    await client.post(f"{DB}/sql", json={"stmts": [{"q": "CREATE TABLE t (a)"}]})

    page = await changes(client, since=written, surface="sql,turns")
    [told] = page["changes"]
    assert told["changes"] == [{"surface": "sql", "put": ["t"]}]
    assert (await changes(client, since=written, surface="turns"))["next_since"] == page["next_since"]


async def test_durable_tells_only_what_object_storage_has(client, written):
    await client.post(f"{DB}/sync", json={})
    txid = await put(client, "k")

    page = await changes(client, since=written, durable=True)
    assert page["changes"] == [] or page["next_since"] == txid
    await client.post(f"{DB}/sync", json={})
    [told] = (await changes(client, since=written, durable=True))["changes"]
    assert told["txid"] == txid


@pytest.mark.parametrize("query", [
    {"since": "x"}, {"since": "-1"}, {"surface": "branches"}, {"surface": ""}, {"wait_s": "61"}, {"durable": "maybe"},
    {"limit": "x"}, {"at": "head"},
])  # fmt: skip
async def test_bad_queries_are_refused(client, written, query):
    answer = await client.get(CHANGES, params=query)
    assert failure(answer) == (400, "invalid_request")


async def test_bad_ids_are_refused(client, written):
    answer = await client.get(CHANGES, headers={"last-event-id": "1x"})
    assert failure(answer) == (400, "invalid_request")


# ---- what cannot be told


async def test_before_what_is_kept_it_says_so(client, written, monkeypatch):
    monkeypatch.setattr(log, "KEPT_BYTES", 2000)
    for n in range(200):
        await put(client, f"k{n}")

    assert (await changes(client, status=410, since=0))["code"] == "changes_gone"
    since = (await changes(client))["next_since"]
    assert (await changes(client, since=since))["changes"] == []


async def test_a_txid_that_the_branch_never_had_is_refused(client, written):
    assert (await changes(client, status=410, since=written + 5))["code"] == "changes_gone"


async def test_a_rewind_says_that_anything_may_have_changed(client, written):
    await client.post(f"{DB}/branches/main/checkpoint", json={"name": "c"})
    later = await put(client, "k")
    answer = await client.post(f"{DB}/branches/main/rewind", json={"to": "c"})
    assert answer.is_success, answer.text
    txid = stamps(answer)[0]
    after = await put(client, "k2")

    for since in (written, later):
        told = (await changes(client, since=since))["changes"]
        assert [(t["txid"], t.get("all")) for t in told] == [(txid, "rewound"), (after, None)]


async def test_a_fork_has_what_its_parent_had_and_then_its_own(client, written):
    mine = await put(client, "before")
    await client.post(f"{DB}/branches", json={"name": "f"})
    await put(client, "parents")
    own = await put(client, "forks", db=f"{DB}@f")

    told = (await changes(client, f"{DB}@f/changes", since=written))["changes"]
    assert [(t["txid"], t["changes"]) for t in told] == [(mine, kv("before")), (own, kv("forks"))]


async def test_an_import_begins_anew(client, written):
    await put(client, "secret-key")
    exported = await client.get(f"{DB}/export")
    answer = await client.put("/v1/databases/copy/import", content=exported.content)
    assert answer.is_success, answer.text

    assert (await changes(client, "/v1/db/copy/changes", status=410, since=1))["code"] == "changes_gone"
    assert (await changes(client, "/v1/db/copy/changes"))["changes"] == []


# ---- long poll


async def test_a_poll_waits_for_the_next_change(client, written):
    async def later():
        await asyncio.sleep(0.2)
        return await put(client, "k")

    page, txid = await asyncio.gather(changes(client, since=written, wait_s=10), later())

    assert [told["txid"] for told in page["changes"]] == [txid]


async def test_a_poll_ends_when_nothing_happens(client, written):
    page = await changes(client, since=written, wait_s=1)

    assert page == {"changes": [], "next_since": written, "more": False}


async def test_a_poll_of_one_surface_is_not_ended_by_others(client, written):
    async def later():
        await asyncio.sleep(0.1)
        await put(client, "k")
        await asyncio.sleep(0.2)
        await client.post(f"{DB}/sql", json={"stmts": [{"q": "CREATE TABLE t (a)"}]})

    page, _ = await asyncio.gather(changes(client, since=written, wait_s=10, surface="sql"), later())

    assert page["changes"][0]["changes"] == [{"surface": "sql", "put": ["t"]}]


async def test_polls_hold_no_slot_while_they_wait(node, client, written):
    app = create_app(node, limits(max_concurrency=2))
    async with client_of(app) as other:
        polls = [asyncio.create_task(changes(other, since=written, wait_s=20)) for _ in range(12)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(2):
            txid = await put(other, "k")
        for page in await asyncio.gather(*polls):
            assert [told["txid"] for told in page["changes"]] == [txid]


# ---- events


async def test_events_tell_each_commit_once_and_resume(app, client, written):
    seen = []
    async with following(app, CHANGES, since=written) as feed:
        for n in range(5):
            txid = await put(client, f"k{n}")
            name, id_, data = await feed.next()
            assert (name, id_, data["txid"], data["changes"]) == ("change", str(txid), txid, kv(f"k{n}"))
            seen.append(txid)
        assert (feed.status, feed.headers["content-type"]) == (200, "text/event-stream")
    missed = [await put(client, f"m{n}") for n in range(3)]
    async with following(app, CHANGES, {"last-event-id": seen[-1]}, since=1) as feed:
        assert [(await feed.next())[2]["txid"] for _ in missed] == missed


async def test_events_begin_now_with_an_id_to_resume_from(app, client, written):
    async with following(app, CHANGES) as feed:
        await feed.started()
        assert feed.events == [(None, str(written), None)]
        txid = await put(client, "k")
        assert (await feed.next())[1] == str(txid)


async def test_events_of_other_surfaces_move_the_id_on(app, client, written):
    async with following(app, CHANGES, since=written, surface="sql") as feed:
        await feed.started()
        txid = await put(client, "k")
        await until(lambda: feed.events[-1] == (None, str(txid), None))


async def test_events_that_cannot_go_on_say_so_and_go_on_from_now(app, client, written):
    async with following(app, CHANGES, {"last-event-id": written + 700}) as feed:
        name, id_, data = await feed.next()
        assert (name, id_, data["code"]) == ("reset", str(written), "changes_gone")
        txid = await put(client, "k")
        assert (await feed.next())[2]["txid"] == txid


async def test_erasing_resets_a_feed_that_is_behind(app, client, written):
    async with following(app, CHANGES, since=0) as feed:
        while (await feed.next())[1] != str(written):
            pass
        answer = await client.post(f"{DB}/erasures", json={"kv": {"ns": "ns", "key": "old"}})
        assert answer.is_success, answer.text
        name, _, data = await feed.next()
        assert (name, data["all"]) == ("change", "erased")
    assert (await changes(client, status=410, since=1))["code"] == "changes_gone"


async def test_a_slow_reader_is_ended(node, client, written):
    app = create_app(node, limits(request_timeout_s=0.3))
    async with following(app, CHANGES, since=written) as feed:
        await feed.started()
        assert node.feeds._by_branch.total() == 1
        feed.reading.clear()
        await put(client, "k")
        await until(lambda: not node.feeds._by_branch.total())


async def test_a_client_that_leaves_gives_its_place_back(app, node, client, written, monkeypatch):
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.05)
    async with following(app, CHANGES, since=written) as feed:
        await feed.started()
        assert node.feeds._by_branch.total() == 1
    await until(lambda: not node.feeds._by_branch.total())


async def test_feeds_are_bounded(app, client, written, monkeypatch):
    monkeypatch.setattr(feeds, "BRANCH_FEEDS_LIMIT", 2)
    async with following(app, CHANGES) as one, following(app, CHANGES) as two:
        await one.started()
        await two.started()
        answer = await client.get(CHANGES, params={"since": written, "wait_s": 1})
        assert failure(answer) == (429, "overloaded")
        assert (await client.get(CHANGES, params={"since": written})).status_code == 200
        await client.post(f"{DB}/branches", json={"name": "f"})
        assert (await client.get(f"{DB}@f/changes", params={"wait_s": 1})).status_code == 200


async def test_many_feeds_hear_of_every_commit(app, client, written):
    async def follow():
        async with following(app, CHANGES, since=written) as feed:
            return [(await feed.next(20))[2]["txid"] for _ in range(20)]

    followers = [asyncio.create_task(follow()) for _ in range(50)]
    await asyncio.sleep(0.05)
    txids = [await put(client, f"k{n}") for n in range(20)]
    for found in await asyncio.gather(*followers):
        assert found == txids


async def test_stopping_ends_feeds_and_polls(app, node, client, written):
    async with following(app, CHANGES, since=written) as feed:
        await feed.started()
        poll = asyncio.create_task(changes(client, since=written, wait_s=30))
        await asyncio.sleep(0.1)
        node.feeds.stop()
        name, _, data = await feed.next()
        assert (name, data) == ("end", {"reason": "stopping"})
        async with asyncio.timeout(2):
            assert (await poll)["changes"] == []
        await until(lambda: feed.ended)


async def test_a_deleted_branch_ends_its_feeds(app, client, written):
    await client.post(f"{DB}/branches", json={"name": "f"})
    async with following(app, f"{DB}@f/changes") as feed:
        await feed.started()
        await client.delete(f"{DB}/branches/f")
        assert (await feed.next())[::2] == ("end", {"reason": "gone"})


async def test_a_feed_keeps_no_branch_open(app, node, client, written):
    branch = await node.profile("app--ann")
    async with following(app, CHANGES, since=written) as feed:
        await feed.started()
        assert await branch.close()
        assert not branch.hot
        await asyncio.sleep(0.1)
        assert not branch.hot
        txid = await put(client, "k")
        assert (await feed.next())[2]["txid"] == txid


# ---- credentials


async def test_a_token_of_some_surfaces_sees_theirs_alone(tmp_path):
    async with guarded_node(tmp_path) as node:
        async with sender(node, "platform-key-of-the-tests") as platform:
            await platform.post("/v1/databases", json={"name": "notes"})
            whole = (await mint(platform, "databases/notes"))["token"]
            narrow = (await mint(platform, "databases/notes", "read", surfaces=["kv"]))["token"]
            branchy = (await mint(platform, "databases/notes", "read", branches=["other"]))["token"]
        async with sender(node, whole) as client:
            await client.put("/v1/db/notes/kv/ns/k", content=b"x")
            await client.post("/v1/db/notes/sql", json={"stmts": [{"q": "CREATE TABLE secret (a)"}]})
            assert len((await changes(client, "/v1/db/notes/changes", since=0))["changes"]) == 2
        async with sender(node, narrow) as client:
            page = await changes(client, "/v1/db/notes/changes", since=0)
            assert [told["changes"] for told in page["changes"]] == [kv("k")]
            assert failure(await client.get("/v1/db/notes/changes?surface=sql")) == (403, "forbidden")
            assert failure(await client.get("/v1/db/other/changes")) == (403, "forbidden")
        async with sender(node, branchy) as client:
            assert failure(await client.get("/v1/db/notes/changes")) == (403, "forbidden")
