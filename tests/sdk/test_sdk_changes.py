"""The change feed through both clients: pages, waiting, and following across broken connections."""

import asyncio
from urllib.parse import urlsplit

import pytest
from memoturn import BranchNotFoundError, ChangesGoneError, UnreachableError
from proxy import FaultProxy

PATIENCE_S = 20


@pytest.fixture
async def db(api):
    return await api.of_database("write", "kv", "documents")


async def take(feed, count):
    """Return the next changes of a feed, and leave it."""
    found = []
    async with asyncio.timeout(PATIENCE_S):
        async for change in feed:
            found.append(change)
            if len(found) == count:
                break
    await feed.aclose()
    return found


def keys(changes):
    return [key for change in changes for entry in change["changes"] for key in entry.get("put", [])]


async def test_a_page_tells_what_commits_changed(db):
    start = (await db.changes())["next_since"]
    await db.kv.put("n", "a", "1")
    await db.collection("c").insert([{"_id": "d"}])
    await db.kv.delete("n", "a")

    page = await db.changes(start)
    first = await db.changes(start, limit=1)
    documents = await db.changes(start, surfaces=["documents"])

    assert [change["changes"] for change in page["changes"]] == [
        [{"surface": "kv", "in": "n", "put": ["a"]}],
        [{"surface": "documents", "in": "c", "put": ["d"]}],
        [{"surface": "kv", "in": "n", "deleted": ["a"]}],
    ]
    assert (page["more"], page["next_since"], page["txid"]) == (False, db.last_txid, db.last_txid)
    assert (first["more"], keys(first["changes"])) == (True, ["a"])
    assert keys(documents["changes"]) == ["d"]
    assert (await db.changes(page["next_since"]))["changes"] == []


async def test_what_is_not_durable_may_be_left_out(db):
    start = (await db.changes())["next_since"]
    await db.kv.put("n", "a", "1", durability="durable")

    assert keys((await db.changes(start, durable=True))["changes"]) == ["a"]


async def test_a_poll_waits_for_the_first_change(db):
    await db.kv.put("n", "a", "1")
    waiting = asyncio.create_task(db.changes(db.last_txid, wait_s=10))
    await asyncio.sleep(0.05)

    await db.kv.put("n", "b", "2")

    assert keys((await waiting)["changes"]) == ["b"]


async def test_a_feed_that_does_not_reach_back_says_so(db):
    start = await db.kv.put("n", "a", "1")
    for batch in range(24):  # the feed keeps 256 KiB, and up to 16 KiB of each commit
        await db.kv.batch("n", puts=[{"key": f"{batch}/{n:045}", "value": ""} for n in range(250)])

    with pytest.raises(ChangesGoneError):
        await db.changes(start)
    with pytest.raises(ChangesGoneError) as caught:
        await anext(db.follow(start))
    assert caught.value.txid == db.last_txid


async def test_following_yields_what_was_and_what_comes(db):
    start = (await db.changes())["next_since"]
    await db.kv.put("n", "before", "1")
    following = asyncio.create_task(take(db.follow(start, surfaces=["kv"]), 3))
    await db.collection("c").insert([{"_id": "not told"}])

    await db.kv.put("n", "a", "1")
    await db.kv.put("n", "b", "2")

    assert keys(await following) == ["before", "a", "b"]


async def test_a_profile_is_followed_on_its_branch(api):
    ann = await api.of_namespace("admin")
    await ann.ingest([{"type": "event", "summary": "x"}])
    await ann.fork("side")
    side = ann.on_branch("side")
    start = (await side.changes())["next_since"]

    stored = await side.ingest([{"type": "event", "summary": "y"}])
    await ann.ingest([{"type": "event", "summary": "z"}])

    assert keys(await take(side.follow(start), 1)) == [stored["results"][0]["id"]]
    with pytest.raises(BranchNotFoundError):
        await anext(ann.on_branch("none").follow())


async def test_a_broken_connection_is_mended_without_a_gap_and_without_a_repeat(api):
    db = await api.of_database("write", "kv")
    token = await api.admin.create_token(api.name, "read", surfaces=["kv"])
    node = urlsplit(api.url)
    async with FaultProxy(node.hostname, node.port) as proxy:
        api.url = proxy.url
        feed = api.client(token=token["token"]).db(api.name).follow((await db.changes())["next_since"])
        seen = []
        async with asyncio.timeout(PATIENCE_S):
            for number in range(6):
                if number == 4:
                    await proxy.refuse()
                await db.kv.put("n", f"k{number}", "v")
                if number == 4:
                    await proxy.accept()
                seen += keys([await anext(feed)])
                if number % 2:
                    proxy.cut()
        await feed.aclose()

        assert seen == [f"k{number}" for number in range(6)]
        assert len([head for head in proxy.requests if "/changes?" in head]) >= 3


async def test_a_feed_that_was_silent_for_longer_than_patience_is_mended_all_the_same(api):
    db = await api.of_database("write", "kv")
    token = await api.admin.create_token(api.name, "read", surfaces=["kv"])
    node = urlsplit(api.url)
    async with FaultProxy(node.hostname, node.port) as proxy:
        api.url = proxy.url
        start = (await db.changes())["next_since"]
        feed = api.client(token=token["token"]).db(api.name).follow(start, patience_s=0.1)
        waiting = asyncio.create_task(take(feed, 1))
        await asyncio.sleep(0.4)

        proxy.cut()
        await db.kv.put("n", "k", "v")

        assert keys(await waiting) == ["k"]


async def test_a_node_that_stays_away_is_told(api):
    db = await api.of_database("write", "kv")
    api.url = "http://127.0.0.1:1"
    gone = api.client(token="t", retries=0).db(api.name)

    with pytest.raises(UnreachableError):
        async with asyncio.timeout(PATIENCE_S):
            await anext(gone.follow(db.last_txid, patience_s=0.1))


async def test_leaving_the_loop_ends_the_connection(api):
    db = await api.of_database("write", "kv")
    await db.kv.put("n", "a", "1")
    token = await api.admin.create_token(api.name, "read", surfaces=["kv"])
    node = urlsplit(api.url)
    async with FaultProxy(node.hostname, node.port) as proxy:
        api.url = proxy.url
        feed = api.client(token=token["token"]).db(api.name).follow(0)
        await anext(feed)
        assert len(proxy._connections) == 1

        await feed.aclose()

        async with asyncio.timeout(PATIENCE_S):
            while proxy._connections:  # noqa: ASYNC110 - a connection has no event for its end
                await asyncio.sleep(0.01)
