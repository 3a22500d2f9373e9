import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import embedding, memories, recall, turns


async def ingest(profile, *items):
    parsed = memories.parse_items({"memories": [{"type": "fact", "summary": "s", **item} for item in items]})
    return [result["id"] for result in (await memories.ingest(profile, parsed)).value]


async def found(profile, **body):
    return (await recall.recall(profile, recall.parse_query(body))).value["memories"]


async def ids(profile, **body):
    return [hit["id"] for hit in await found(profile, **body)]


# ---- validation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query", 1),
        ("query", "a\0"),
        ("embedding", []),
        ("embedding", ["x"]),
        ("embedding", [math.nan]),
        ("topic_key", 1),
        ("types", "fact"),
        ("types", ["fact", 1]),
        ("types", ["memory"]),
        ("session_id", 1),
        ("source", []),
        ("k", "8"),
        ("k", -1),
        ("k", 1.5),
        ("k", True),
        ("include_superseded", 1),
        ("include_turns", "yes"),
        ("explain", "no"),
        ("since", "yesterday"),
        ("until", -1),
        ("fusion", "rrf"),
        ("fusion", 1),
        ("weights", []),
        ("weights", {"words": 1}),
        ("weights", {"keyword": -1}),
        ("weights", {"keyword": "1"}),
        ("weights", {"vector": math.nan}),
        ("weights", {"vector": 10**400}),
        ("weights", {"recency": 1}),
        ("decay", 5),
        ("decay", {}),
        ("decay", {"half_life_s": 0}),
        ("decay", {"half_life_s": math.inf}),
        ("min_score", "0.5"),
        ("min_score", -1),
        ("pinned_first", 1),
        ("include_context", "yes"),
    ],
)
def test_a_wrong_field_is_named(name, value):
    with pytest.raises(InvalidRequestError, match=rf"^{name}"):
        recall.parse_query({"query": "q", name: value})


@pytest.mark.parametrize("body", [None, [], {}, {"k": 3}, {"query": None, "types": ["fact"]}])
def test_a_recall_takes_a_query_an_embedding_or_a_topic(body):
    with pytest.raises(InvalidRequestError):
        recall.parse_query(body)


def test_k_is_8_by_default_at_most_1000_and_at_least_1():
    assert [recall.parse_query({"query": "q", "k": k}).k for k in (None, 0, 5, 10**9)] == [8, 1, 5, 1000]


def test_turns_take_an_embedding():
    with pytest.raises(InvalidRequestError, match="include_turns"):
        embedding.check_recall(None, recall.parse_query({"query": "q", "include_turns": True}))


# ---- channels


async def test_a_hit_has_exactly_the_fields_of_the_contract(profile, plain):
    (id_,) = await ingest(
        profile, {"topic_key": "t", "content": {"v": 1}, "keywords": "k", "session_id": "s"}
    )

    (hit,) = plain(await found(profile, topic_key="t"))

    assert hit == {
        "id": id_,
        "type": "fact",
        "topic_key": "t",
        "summary": "s",
        "content": {"v": 1},
        "keywords": "k",
        "session_id": "s",
        "source": None,
        "created_at": 1_000_000,
        "superseded_by": None,
        "source_turns": None,
        "pinned": False,
        "score": 2.0,
        "channels": ["topic"],
    }


async def test_three_channels_at_rank_1_add_up(profile):
    (id_,) = await ingest(profile, {"summary": "dark theme", "topic_key": "t", "embedding": [1, 0]})
    body = {"query": "theme?", "topic_key": "t", "embedding": [2, 0], "fusion": "reference", "explain": True}

    (hit,) = await found(profile, **body)

    assert hit["id"] == id_
    assert hit["channels"] == ["topic", "keyword", "vector"]
    assert hit["score"] == pytest.approx(0.065574, abs=1e-6)
    assert hit["explain"]["topic"] == {
        "rank": 1,
        "weight": 2.0,
        "contribution": pytest.approx(0.032787, abs=1e-6),
    }
    assert hit["explain"]["keyword"]["rank"] == 1
    assert hit["explain"]["keyword"]["bm25"] < 0
    assert hit["explain"]["vector"] == {
        "rank": 1,
        "distance": pytest.approx(0, abs=1e-6),
        "weight": 1.0,
        "contribution": pytest.approx(0.016393, abs=1e-6),
    }


async def test_scores_are_absolute_and_explained_to_the_last_part(profile):
    found_by_all, by_word = await ingest(
        profile,
        {"summary": "dark theme", "topic_key": "t", "embedding": [1, 0], "content": 1},
        {"summary": "theme park ticket", "embedding": [-1, 1], "content": 2},
    )
    body = {
        "query": "theme",
        "topic_key": "t",
        "embedding": [1, 0],
        "explain": True,
        "decay": {"half_life_s": 60},
    }
    profile.now_ms += 60_000

    hits = await found(profile, **body)

    assert [hit["id"] for hit in hits] == [found_by_all, by_word]
    for hit in hits:
        assert hit["score"] == pytest.approx(sum(part["contribution"] for part in hit["explain"].values()))
    explain = hits[0]["explain"]
    assert explain["topic"] == {"rank": 1, "weight": 2.0, "contribution": 2.0}
    assert explain["vector"]["cosine"] == pytest.approx(1)
    assert explain["recency"] == {"age_s": 60.0, "weight": 0.3, "contribution": pytest.approx(0.15)}
    assert 0 < explain["keyword"]["words"] < 1
    assert hits[1]["explain"]["vector"]["contribution"] == 0  # it points away
    assert hits[1]["channels"] == ["keyword", "vector"]


async def test_keywords_are_stemmed_and_stop_words_dropped(profile):
    liked, _ = await ingest(
        profile,
        {"summary": "prefers dark themes", "content": 1},
        {"summary": "what is the user", "content": 2},
    )

    assert await ids(profile, query="What theme is preferred?") == [liked]
    assert await ids(profile, query="?!") == []
    assert await ids(profile, query="") == []


async def test_the_keywords_field_is_searched_too(profile):
    (id_,) = await ingest(profile, {"summary": "s", "keywords": "espresso coffee"})

    assert await ids(profile, query="coffees") == [id_]


async def test_ties_between_channels_go_to_the_newest(profile):
    by_text = (await ingest(profile, {"summary": "dark theme", "content": 1}))[0]
    profile.now_ms += 10
    by_vector = (await ingest(profile, {"summary": "unrelated", "content": 2, "embedding": [1, 0]}))[0]

    assert await ids(profile, query="theme", embedding=[1, 0]) == [by_vector, by_text]


async def test_a_null_vector_is_at_right_angles_to_everything(profile):
    null, near, far = await ingest(
        profile,
        {"content": 1, "embedding": [0, 0]},
        {"content": 2, "embedding": [1, 0.1]},
        {"content": 3, "embedding": [-1, 0]},
    )

    assert await ids(profile, embedding=[1, 0]) == [near, null, far]
    assert len(await ids(profile, embedding=[0, 0])) == 3


@pytest.mark.parametrize("scale", [1e-37, 1, 3e37])
async def test_directions_compare_exactly_at_any_length(profile, scale):
    near, far = await ingest(
        profile,
        {"content": 1, "embedding": [scale, scale / 10]},
        {"content": 2, "embedding": [scale, scale / 5]},
    )

    assert await ids(profile, embedding=[scale, 0]) == [near, far]


async def test_another_dimension_is_refused_by_both_numbers(profile):
    await ingest(profile, {"embedding": [1, 0]})

    with pytest.raises(InvalidRequestError, match=r"has 3 dimensions.* have 2"):
        await found(profile, embedding=[1, 0, 0])


async def test_an_empty_profile_answers_empty(profile):
    assert await ids(profile, query="a", embedding=[1, 2, 3], topic_key="t") == []
    assert profile.works[-1] == ("read", Work.SCAN)


# ---- filters


async def test_superseded_versions_come_only_on_demand_newest_first(profile):
    versions = []
    for n in range(3):
        profile.now_ms += 1
        versions += await ingest(
            profile, {"topic_key": "t", "content": n, "summary": "theme", "embedding": [1, n]}
        )

    assert await ids(profile, topic_key="t", query="theme", embedding=[1, 0]) == [versions[2]]
    assert await ids(profile, topic_key="t", include_superseded=True) == versions[::-1]


async def test_forgetting_the_active_version_does_not_make_the_old_one_active(profile):
    _, new = [(await ingest(profile, {"topic_key": "t", "content": n}))[0] for n in range(2)]
    await memories.forget(profile, new)

    assert await ids(profile, topic_key="t") == []


async def test_expired_tasks_are_out_of_every_channel(profile):
    await ingest(profile, {"type": "task", "summary": "call the bank", "ttl": 1})
    assert len(await ids(profile, query="bank")) == 1

    profile.now_ms += 1000

    assert await ids(profile, query="bank", include_superseded=True) == []


async def test_filters_by_type_session_and_source(profile):
    fact, event, other = await ingest(
        profile,
        {"content": 1, "session_id": "a", "source": "chat"},
        {"type": "event", "session_id": "a", "source": "mail"},
        {"content": 2, "session_id": "b", "source": "chat"},
    )

    async def by(**filters):
        return set(await ids(profile, query="s", **filters))

    assert await by(types=["event", "task"]) == {event}
    assert await by(types=[]) == set()
    assert await by(types=None) == {fact, event, other}
    assert await by(session_id="a") == {fact, event}
    assert await by(source="chat") == {fact, other}
    assert await by(source="chat", session_id="a", types=["fact", "fact"]) == {fact}


async def test_filters_leave_no_holes_behind_many_better_matches(profile):
    await ingest(
        profile,
        *(
            {"content": n, "summary": "theme theme", "source": "noise", "embedding": [1, 0]}
            for n in range(400)
        ),
    )
    wanted = await ingest(
        profile,
        *(
            {"content": 1000 + n, "summary": "theme and more", "source": "rare", "embedding": [0, 1]}
            for n in range(3)
        ),
    )

    assert set(await ids(profile, query="theme", source="rare", k=2)) < set(wanted)
    assert set(await ids(profile, embedding=[1, 0], source="rare", k=3)) == set(wanted)
    assert set(await ids(profile, query="theme", source="rare")) == set(wanted)


async def test_words_that_most_memories_have_still_fill_the_window(profile):
    many = [{"content": n, "summary": f"update number {n}"} for n in range(700)]
    many[7]["summary"] = "update refund"
    many[8]["summary"] = "refund"
    stored = await ingest(profile, *many)

    hits = await ids(profile, query="refund update")

    assert set(hits[:2]) == {stored[7], stored[8]}
    assert len(hits) == 8


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_vector_channel_equals_a_plain_computation(seed, k):
    rng = random.Random(seed)
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    vectors = [[rng.uniform(-1, 1) for _ in range(4)] for _ in range(60)]
    items = [
        {"type": "event", "summary": str(n), "embedding": vector, "source": rng.choice("ab")}
        for n, vector in enumerate(vectors)
    ]
    memories.apply_ingest(conn, 0, memories.parse_items({"memories": items}))
    wanted = [rng.uniform(-1, 1) for _ in range(4)]

    query = recall.parse_query({"embedding": wanted, "source": "a", "k": k, "explain": True})
    hits = recall.read_recall(conn, 0, query)["memories"]

    def distance(vector):
        dot = sum(x * y for x, y in zip(vector, wanted, strict=True))
        return 1 - dot / math.hypot(*vector) / math.hypot(*wanted)

    best = sorted(distance(item["embedding"]) for item in items if item["source"] == "a")[:k]
    assert [hit["explain"]["vector"]["distance"] for hit in hits] == pytest.approx(best, abs=1e-5)
    conn.execute("ROLLBACK")
    conn.close()


# ---- what else may be asked for


async def test_since_and_until_are_both_included(profile):
    stored = []
    for n in range(4):
        profile.now_ms += 10
        stored += await ingest(profile, {"content": n, "embedding": [1, n]})
    times = [1_000_010 + 10 * n for n in range(4)]

    for fusion in recall.FUSIONS:
        within = {"since": times[1], "until": times[2], "fusion": fusion}
        assert set(await ids(profile, query="s", **within)) == set(stored[1:3])
        assert set(await ids(profile, embedding=[1, 0], **within)) == set(stored[1:3])
        assert await ids(profile, query="s", since="2100-01-01T00:00:00Z", fusion=fusion) == []


async def test_weights_turn_channels_up_and_off(profile):
    by_text, by_vector = await ingest(
        profile,
        {"content": 1, "summary": "dark theme"},
        {"content": 2, "summary": "x", "embedding": [1, 0]},
    )
    body = {"query": "theme", "embedding": [1, 0]}

    assert await ids(profile, **body, weights={"keyword": 10}) == [by_text, by_vector]
    assert await ids(profile, **body, weights={"keyword": 0.01}) == [by_vector, by_text]
    assert await ids(profile, **body, weights={"keyword": 0}) == [by_vector]
    assert await ids(profile, **body, weights={"vector": 0}) == [by_text]
    assert await ids(profile, **body, weights={"vector": 0, "keyword": 0}) == []


async def test_what_scores_too_little_is_left_out_and_nothing_is_padded(profile):
    near, _ = await ingest(profile, {"content": 1, "embedding": [1, 0]}, {"content": 2, "embedding": [1, 2]})

    assert await ids(profile, embedding=[1, 0], min_score=0.9) == [near]
    assert await ids(profile, embedding=[1, 0], min_score=1.5) == []
    assert len(await ids(profile, embedding=[1, 0], min_score=0)) == 2
    assert await ids(profile, embedding=[1, 0], min_score=1 / 61, fusion="reference") == [near]


async def test_decay_lets_the_newer_of_two_alike_win_and_finds_nothing_by_itself(profile):
    (old,) = await ingest(profile, {"content": 1, "summary": "theme theme", "embedding": [1, 0.1]})
    profile.now_ms += 86_400_000
    new, _ = await ingest(
        profile, {"content": 2, "summary": "theme", "embedding": [1, 0.2]}, {"content": 3, "summary": "other"}
    )

    assert await ids(profile, query="theme", embedding=[1, 0]) == [old, new]
    assert await ids(profile, query="theme", embedding=[1, 0], decay={"half_life_s": 3600}) == [new, old]
    turned_up = {"decay": {"half_life_s": 3600}, "weights": {"recency": 5}}
    assert await ids(profile, query="theme", embedding=[1, 0], **turned_up) == [new, old]


async def test_pinned_memories_come_first_of_those_that_are_found(profile):
    weak, strong, unfound = await ingest(
        profile,
        {"content": 1, "summary": "theme among very many other words that are here", "pinned": True},
        {"content": 2, "summary": "theme"},
        {"content": 3, "summary": "elsewhere", "pinned": True},
    )

    for fusion in recall.FUSIONS:
        assert await ids(profile, query="theme", fusion=fusion) == [strong, weak]
        first = await found(profile, query="theme", pinned_first=True, k=1, fusion=fusion)
        assert [(hit["id"], hit["pinned"]) for hit in first] == [(weak, True)]
        assert unfound not in await ids(profile, query="theme", pinned_first=True, fusion=fusion)


async def test_context_is_the_turns_a_memory_was_drawn_from_and_what_stands_around(profile, plain):
    for n in range(1, 9):
        profile.now_ms += 10
        await turns.append(profile, "s", [turns.parse_turn({"role": "user", "content": n})])
    drawn, told = await ingest(
        profile,
        {"content": 1, "summary": "refund", "source_turns": {"session_id": "s", "from_seq": 4, "to_seq": 5}},
        {"content": 2, "summary": "flight", "session_id": "s"},
    )
    profile.now_ms += 10
    (after,) = await ingest(profile, {"content": 3, "summary": "later", "session_id": "s"})
    await turns.append(profile, "s", [turns.parse_turn({"role": "user", "content": 9})])

    async def context(query):
        (hit,) = plain(await found(profile, query=query, include_context=True))
        around = hit["context"]
        return [turn["content"] for turn in around["turns"]], [memory["id"] for memory in around["memories"]]

    assert await context("refund") == ([2, 3, 4, 5, 6, 7], [])
    assert await context("flight") == ([7, 8, 9], [after])
    assert await context("later") == ([8, 9], [told])
    assert drawn not in (told, after)


@pytest.mark.parametrize("at", [0, 1, 10, 35, 36, 40, 1000])
async def test_turns_next_to_a_time_are_those_on_both_sides_of_it(profile, at, plain):
    start = profile.now_ms
    for n in range(1, 5):
        profile.now_ms = start + 10 * n
        await turns.append(profile, "s", [turns.parse_turn({"role": "user", "content": 10 * n})])
    profile.now_ms = start + at
    await ingest(profile, {"summary": "flight", "session_id": "s"})

    (hit,) = plain(await found(profile, query="flight", include_context=True))

    times = [10, 20, 30, 40]
    expected = [t for t in times if t <= at][-2:] + [t for t in times if t > at][:2]
    assert [turn["content"] for turn in hit["context"]["turns"]] == expected


async def test_what_does_not_go_together_is_refused(profile):
    for body in (
        {"fusion": "reference", "weights": {"topic": 1}},
        {"fusion": "reference", "decay": {"half_life_s": 1}},
        {"include_context": True, "k": 101},
    ):
        with pytest.raises(InvalidRequestError):
            recall.parse_query({"query": "q", **body})


# ---- turns


async def test_turns_come_beside_the_memories(profile, plain):
    for session, content, vector in (("a", "x", [1, 0]), ("a", "y", [0, 1]), ("b", "z", [1, 0.1])):
        turn = turns.parse_turn({"role": "user", "content": content, "embedding": vector})
        await turns.append(profile, session, [turn])

    async def recalled(**body):
        query = recall.parse_query({"embedding": [1, 0], "include_turns": True, **body})
        return plain((await recall.recall(profile, query)).value)["turns"]

    assert [turn["content"] for turn in await recalled(k=2)] == ["x", "z"]
    assert await recalled(session_id="b") == [
        {
            "session_id": "b",
            "seq": 1,
            "role": "user",
            "content": "z",
            "distance": pytest.approx(0.00496, abs=1e-4),
        }
    ]
    assert len(await recalled(types=[])) == 3
