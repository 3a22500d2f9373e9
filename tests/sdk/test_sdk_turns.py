"""Transcripts through both clients, with a token for turns alone."""

import pytest


@pytest.fixture
async def db(api):
    return await api.of_database("write", "turns")


@pytest.fixture
async def session(db):
    session = db.session("chat/1")
    appended = await session.append_turns(
        [{"role": "user", "content": f"turn number {n}", "at": 1000 + n} for n in range(1, 8)]
    )
    assert appended["seqs"] == [1, 2, 3, 4, 5, 6, 7]
    assert appended["embedded"] == 7
    return session


async def test_turns_are_appended_and_read_back(session):
    appended = await session.append_turn("assistant", {"text": "done", "tool": "x"})

    assert appended["seq"] == 8
    assert [turn["seq"] for turn in await session.get_window(2)] == [7, 8]
    assert len(await session.get_window()) == 8
    assert (await session.get(8))["content"] == {"text": "done", "tool": "x"}
    assert (await session.get(3))["created_at"] == 1003
    assert await session.get(99) is None


async def test_pages_lead_both_ways(session):
    newest = await session.get_page(limit=2)
    older = await session.get_page(before=newest["older"], limit=3)
    newer = await session.get_page(after=older["newer"], limit=100)

    assert [turn["seq"] for turn in newest["turns"]] == [6, 7]
    assert [turn["seq"] for turn in older["turns"]] == [3, 4, 5]
    assert [turn["seq"] for turn in newer["turns"]] == [6, 7]
    assert newer["newer"] is None
    assert newest["txid"] == newer["txid"] > 0


async def test_an_iterator_goes_through_all_pages(session):
    await session.append_turns([{"role": "user", "content": "x"} for _ in range(1000)])

    assert [turn["seq"] async for turn in session.iter_turns()] == list(range(1, 1008))
    assert [turn["seq"] async for turn in session.iter_turns(after=5, limit=3)] == [6, 7, 8]


async def test_search_by_words_vectors_or_both(db, session):
    await db.session("other").append_turn("assistant", "the boiler is cold", [1.0, 0.0])
    await db.session("other").append_turn("user", "nothing to see", [0.0, 1.0])

    by_words = await db.search_turns("boiler", mode="keyword")
    by_both = await db.search_turns("is the boiler cold", role="assistant", k=3)
    by_vector = await db.session("other").search(vector=[1.0, 0.1], mode="vector", k=1)
    nearest = await db.session("other").search_semantic([0.1, 1.0], k=1)

    (hit,) = by_words["turns"]
    assert (hit["session_id"], hit["seq"], hit["channels"]) == ("other", 1, ["keyword"])
    assert by_both["turns"][0]["seq"] == 1
    assert [turn["content"] for turn in by_vector["turns"]] == ["the boiler is cold"]
    assert [turn["content"] for turn in nearest] == ["nothing to see"]
    assert (await session.search("boiler", mode="keyword"))["turns"] == []
    early = await session.search("number", since=1002, until=1003, mode="keyword", k=10)
    assert sorted(turn["seq"] for turn in early["turns"]) == [2, 3]


async def test_turns_are_deleted(session):
    assert await session.delete(7) is True
    assert await session.delete(7) is False
    some = await session.delete_turns(from_seq=2, to_seq=3)

    assert (some["deleted"], some["more"]) == (2, False)
    assert [turn["seq"] for turn in await session.get_window()] == [1, 4, 5, 6]
    assert (await session.delete_turns(all=True))["deleted"] == 4
    assert await session.get_window() == []


async def test_a_session_of_a_profile_keeps_its_branch(api):
    profile = await api.of_namespace("admin")
    await profile.ingest([{"type": "event", "summary": "began"}])
    await profile.fork("side")
    side = profile.on_branch("side")

    await side.session("s").append_turn("user", "only here: parsnip")

    assert [turn["content"] for turn in await side.session("s").get_window()] == ["only here: parsnip"]
    assert await profile.session("s").get_window() == []
    assert len((await side.search_turns("parsnip", mode="keyword"))["turns"]) == 1
    assert (await profile.search_turns("parsnip", mode="keyword"))["turns"] == []
    assert side.last_txid > profile.last_txid
    assert side.db.spec == profile.db.on_branch("side").spec == f"{api.name}--ann@side"
    await side.db.kv.put("n", "k", "v")
    assert await profile.db.kv.get("n", "k") is None
    assert await profile.db.on_branch("side").kv.get("n", "k") == b"v"
    assert side.db.on_branch("main").spec == f"{api.name}--ann"
