"""What is said of a memory by hand, and forgetting many."""

import pytest

from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import memories, memory_edits, memory_list, recall


def item(type_="event", summary="s", **more):
    return {"type": type_, "summary": summary, "content": summary, **more}


async def ingest(profile, *items):
    results = (await memories.ingest(profile, memories.parse_items({"memories": list(items)}))).value
    return [result["id"] for result in results]


async def patch(profile, id_, **change):
    return await memory_edits.patch(profile, id_, memory_edits.parse_patch(change))


async def forget(profile, **asked):
    wanted = memory_edits.parse_forget(asked)
    if wanted.dry_run:
        return (await memory_edits.would_forget(profile, wanted)).value
    return (await memory_edits.forget_many(profile, wanted)).value


async def left(profile):
    listing = memory_list.parse_listing({"include_superseded": True}, order="oldest", limit=1000)
    return [memory["summary"] for memory in (await memory_list.page(profile, listing)).value["memories"]]


async def found(profile, query):
    hits = (await recall.recall(profile, recall.parse_query({"query": query}))).value["memories"]
    return [hit["id"] for hit in hits]


def changes(profile):
    return profile.count("__memoturn_memory_changes")


# ---- patch


async def test_what_is_said_of_a_memory_changes_and_nothing_else(profile, plain):
    (id_,) = await ingest(profile, item("fact", "s", topic_key="t", keywords="old words"))
    before = plain((await memories.get(profile, id_)).value)
    profile.now_ms += 7

    written = await patch(profile, id_, pinned=True, importance=0.25, keywords="new", ttl=60)

    said = {
        "pinned": True,
        "importance": 0.25,
        "keywords": "new",
        "expires_at": 1_060_007,
        "updated_at": 1_000_007,
    }
    assert (written.value, written.txid) == ({"id": id_, **said}, 2)
    assert plain((await memories.get(profile, id_)).value) == {**before, **said}


async def test_keywords_are_found_by_and_no_longer(profile):
    (id_,) = await ingest(profile, item(summary="summary", keywords="zebra"))
    noted = changes(profile)

    await patch(profile, id_, keywords="quagga")

    assert (
        await found(profile, "zebra"),
        await found(profile, "quagga"),
        await found(profile, "summary"),
    ) == (
        [],
        [id_],
        [id_],
    )
    assert changes(profile) == noted + 1
    await patch(profile, id_, keywords=None)
    assert await found(profile, "quagga") == []


async def test_a_patch_that_changes_nothing_commits_nothing(profile):
    (id_,) = await ingest(profile, item(keywords="k"))
    profile.now_ms += 1000

    written = await patch(profile, id_, pinned=False, importance=None, keywords="k", expires_at=None)

    assert (written.txid, written.value["updated_at"]) == (1, 1_000_000)
    assert changes(profile) == 0


@pytest.mark.parametrize("type_", memories.TYPES)
async def test_every_type_may_get_an_expiry_and_lose_it(profile, type_):
    (id_,) = await ingest(profile, item(type_))

    await patch(profile, id_, expires_at=1_005_000)
    await patch(profile, id_, pinned=True)
    assert (await memories.get(profile, id_)).value["expires_at"] == 1_005_000
    await patch(profile, id_, ttl=None)
    profile.now_ms += 90_000_000
    assert (await memories.get(profile, id_)).value["expires_at"] is None
    await patch(profile, id_, expires_at="2001-01-01T00:00:00Z", importance=1)
    await patch(profile, id_, ttl=0)
    with pytest.raises(NotFoundError):
        await memories.get(profile, id_)
    with pytest.raises(NotFoundError):
        await patch(profile, id_, ttl=None)
    assert await left(profile) == []


async def test_a_fact_that_expired_can_be_stored_anew_and_supersedes_nothing(profile):
    a, b = await ingest(profile, item("fact", "a", topic_key="t"), item("fact", "b", topic_key="t"))
    await patch(profile, b, ttl=5)
    profile.now_ms += 5000

    batch = memories.parse_items(
        {"memories": [item("fact", "b", topic_key="t"), item("fact", "c", topic_key="t")]}
    )
    results = (await memories.ingest(profile, batch)).value

    assert [(r["status"], r["superseded"]) for r in results] == [("created", []), ("created", [b])]
    await patch(profile, results[1]["id"], ttl=5)
    profile.now_ms += 5000
    results = (await memories.ingest(profile, batch)).value
    assert [(r["status"], r["superseded"]) for r in results] == [("revived", []), ("created", [b])]
    assert (await memories.get(profile, a)).value["superseded_by"] is None


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"unknown": 1},
        {"pinned": 1},
        {"pinned": "true"},
        {"importance": -0.1},
        {"importance": 1.1},
        {"importance": True},
        {"importance": "high"},
        {"importance": 10**400},
        {"keywords": ["a"]},
        {"keywords": "a\0"},
        {"ttl": -1},
        {"ttl": 1.5},
        {"ttl": memory_edits.fields.SECONDS_LIMIT + 1},
        {"ttl": 5, "expires_at": 5},
        {"expires_at": "soon"},
        {"expires_at": -5},
        {"expires_at": 2**63},
        *({"pinned": True, name: "x"} for name in ("summary", "content", "type", "topic_key", "source")),
        [],
        None,
        "x",
    ],
)
def test_a_patch_that_is_none_is_refused(change):
    with pytest.raises(InvalidRequestError):
        memory_edits.parse_patch(change)


async def test_a_memory_that_is_not_there_is_not_patched(profile):
    with pytest.raises(NotFoundError):
        await patch(profile, "mem_0", pinned=True)


async def test_pinned_and_importance_come_with_an_ingest_and_with_a_revival(profile):
    (a,) = await ingest(profile, item("fact", "a", topic_key="t", pinned=True, importance=1))
    await ingest(profile, item("fact", "b", topic_key="t"))
    await ingest(profile, item("fact", "a", topic_key="t"))
    memory = (await memories.get(profile, a)).value
    assert (memory["pinned"], memory["importance"]) == (True, 1.0)

    await ingest(profile, item("fact", "b", topic_key="t"))
    await ingest(profile, item("fact", "a", topic_key="t", pinned=False, importance=0))
    memory = (await memories.get(profile, a)).value
    assert (memory["pinned"], memory["importance"]) == (False, 0.0)


@pytest.mark.parametrize(
    ("name", "value"), [("pinned", 1), ("importance", 2), ("importance", "1"), ("reason", 5)]
)
def test_a_wrong_addition_to_an_item_is_named(name, value):
    with pytest.raises(InvalidRequestError, match=rf"^memories\[0\]\.{name}"):
        memories.parse_items({"memories": [item("fact", topic_key="t", **{name: value})]})


# ---- forgetting many


async def test_ids_are_forgotten_with_a_status_each(profile):
    a, b, c = await ingest(profile, *(item(summary=word) for word in "abc"))

    would = await forget(profile, ids=[b, "mem_0", b, a], dry_run=True)
    got = await forget(profile, ids=[b, "mem_0", b, a])

    def results(status):
        return [
            {"id": b, "status": status},
            {"id": "mem_0", "status": "not_found"},
            {"id": b, "status": "not_found"},
            {"id": a, "status": status},
        ]

    assert would == {
        "dry_run": True, "forgotten": 0, "matched": 2, "results": results("would_forget"), "more": False,
    }  # fmt: skip
    assert got == {"dry_run": False, "forgotten": 2, "results": results("forgotten"), "more": False}
    assert await left(profile) == ["c"]
    assert (await forget(profile, ids=[]))["results"] == []
    assert c


async def test_a_filter_forgets_the_oldest_first_and_says_that_there_are_more(profile):
    await ingest(profile, *(item(summary=str(n), source="chat" if n % 2 else None) for n in range(10)))

    would = await forget(profile, source="chat", limit=2, dry_run=True)
    got = await forget(profile, source="chat", limit=2)

    assert (would["matched"], would["more"], would["forgotten"]) == (5, True, 0)
    assert [r["id"] for r in would["results"]] == [r["id"] for r in got["results"]]
    assert (got["forgotten"], got["more"]) == (2, True)
    assert await left(profile) == list("02456789")
    assert (await forget(profile, source="chat"))["more"] is False
    assert await left(profile) == list("02468")


async def test_history_is_forgotten_along_unless_it_is_to_stay(profile):
    words = [item("fact", word, topic_key="t") for word in "abc"]
    await ingest(profile, *words)
    await forget(profile, topic_key="t", include_superseded=False)
    assert await left(profile) == ["a", "b"]

    await ingest(profile, *words[2:], item("instruction", "d", topic_key="t"))
    await forget(profile, topic_key="t", types=["fact"])
    assert await left(profile) == ["d"]


async def test_everything_is_forgotten_where_all_is_said(profile):
    await ingest(
        profile, *(item("fact", str(n), topic_key="t", embedding=[n, 1]) for n in range(1100)[:1000])
    )
    await ingest(profile, *(item(summary=str(n)) for n in range(100)))

    first = await forget(profile, all=True)
    assert (first["forgotten"], first["more"]) == (1000, True)
    assert profile.works[-1] == ("write", Work.HEAVY)
    second = await forget(profile, all=True)

    assert (second["forgotten"], second["more"]) == (100, False)
    assert await left(profile) == []
    assert profile.count("__memoturn_memory_vectors_1") == 0
    assert await found(profile, "7") == []
    assert (await forget(profile, all=True))["results"] == []


async def test_nothing_that_a_filter_does_not_mean_is_forgotten(profile):
    await ingest(profile, item(summary="a"))
    for asked in (
        {"types": []},
        {"source": ""},
        {"since": 2_000_000},
        {"pinned": True},
        {"topic_prefix": ""},
    ):
        assert (await forget(profile, **asked))["forgotten"] == 0
        assert (await forget(profile, **asked, dry_run=True))["matched"] == 0
    assert await left(profile) == ["a"]


async def test_what_expired_is_not_forgotten_again(profile):
    (id_,) = await ingest(profile, item("task", ttl=5))
    profile.now_ms += 5000

    assert (await forget(profile, ids=[id_]))["results"] == [{"id": id_, "status": "not_found"}]
    assert (await forget(profile, all=True))["forgotten"] == 0


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"dry_run": True},
        {"include_superseded": False},
        {"all": False},
        {"all": True, "source": "x"},
        {"all": True, "ids": []},
        {"ids": ["a"], "types": ["fact"]},
        {"ids": "a"},
        {"ids": [1]},
        {"ids": ["a"] * 1001},
        {"all": 1},
        {"all": True, "dry_run": "yes"},
        {"all": True, "limit": -1},
        {"types": ["x"]},
        {"types": ["task"], "sesion_id": "s"},
        {"ids": ["a"], "dryrun": True},
        None,
        [],
    ],
)
def test_a_forgetting_that_does_not_say_what_is_refused(asked):
    with pytest.raises(InvalidRequestError):
        memory_edits.parse_forget(asked)


async def test_chain_stays_whole_whichever_of_its_memories_are_forgotten_together(profile):
    ids = [(await ingest(profile, item("fact", f"v{number}", topic_key="t")))[0] for number in range(4)]

    await forget(profile, ids=[ids[2], ids[1]])  # the later one first

    assert (await memories.get(profile, ids[0])).value["superseded_by"] == ids[3]
    assert (await memories.get(profile, ids[3])).value["supersedes"] == [ids[0]]
