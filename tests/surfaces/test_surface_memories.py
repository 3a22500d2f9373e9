import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core.durability import Durability
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import memories, sessions, turns


def item(type_="fact", summary="s", **more):
    return {"type": type_, "summary": summary, **more}


def parse(*items):
    return memories.parse_items({"memories": list(items)})


async def ingest(profile, *items):
    return (await memories.ingest(profile, parse(*items))).value


def statuses(results):
    return [result["status"] for result in results]


# ---- validation

BAD_FIELDS = [
    ("type", None),
    ("type", 1),
    ("type", "Fact"),
    ("type", ""),
    ("topic_key", 1),
    ("topic_key", ["a"]),
    ("topic_key", "a\0b"),
    ("topic_key", "t" * 1025),
    ("summary", None),
    ("summary", 5),
    ("summary", ""),
    ("summary", " \n\t"),
    ("summary", "a\0"),
    ("summary", "\ud800"),
    ("keywords", ["a"]),
    ("keywords", "a\0"),
    ("session_id", 1),
    ("session_id", ""),
    ("session_id", "a\nb"),
    ("session_id", "s" * 257),
    ("source", {}),
    ("source", "a\0"),
    ("ttl", 60),
    ("content", math.nan),
    ("content", 2**64),
    ("embedding", []),
    ("embedding", "abc"),
    ("embedding", [1, "2"]),
    ("embedding", [True, False]),
    ("embedding", [None]),
    ("embedding", [[1]]),
    ("embedding", [math.nan]),
    ("embedding", [math.inf]),
    ("embedding", [3.5e38]),
    ("embedding", [10**400]),
    ("embedding", [0.5] * 8193),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS)
def test_a_wrong_field_is_named_by_its_path(name, value):
    with pytest.raises(InvalidRequestError, match=rf"^memories\[1\]\.{name}"):
        parse(item(), {**item(), name: value})


@pytest.mark.parametrize("ttl", [-1, 1.5, "60", True, 2**63])
def test_a_wrong_ttl_of_a_task_is_refused(ttl):
    with pytest.raises(InvalidRequestError, match=r"memories\[0\]\.ttl"):
        parse(item("task", ttl=ttl))


@pytest.mark.parametrize("type_", ["event", "task"])
def test_topics_are_for_facts_and_instructions(type_):
    with pytest.raises(InvalidRequestError, match="topic_key"):
        parse(item(type_, topic_key="a"))


@pytest.mark.parametrize(
    "payload", [None, [], "x", {}, {"memories": {}}, {"memories": [1]}, {"memories": [None]}]
)
def test_a_body_of_another_shape_is_refused(payload):
    with pytest.raises(InvalidRequestError, match=r"the body|memories"):
        memories.parse_items(payload)


def test_a_batch_has_at_most_1000_items_and_may_be_empty():
    assert parse() == []
    assert len(parse(*[item()] * 1000)) == 1000
    with pytest.raises(InvalidRequestError, match="1001 items"):
        parse(*[item()] * 1001)


def test_unknown_fields_and_nulls_are_ignored():
    (parsed,) = parse(
        item(color="red", topic_key=None, keywords=None, ttl=None, embedding=None, session_id=None)
    )

    assert (parsed.topic_key, parsed.keywords, parsed.embedding, parsed.content) == (None, "", None, b"null")


def test_one_batch_has_one_dimension():
    with pytest.raises(InvalidRequestError, match=r"memories\[2\]\.embedding has 3 dimensions"):
        parse(item(embedding=[1, 2]), item(), item(embedding=[1, 2, 3]))
    parse(item(embedding=[1, 2]), item("task", embedding=[1, 2, 3]))


# ---- ingest


async def test_created_then_duplicate_then_superseded_then_revived(profile):
    first = (await ingest(profile, item(topic_key="t", content={"v": 1})))[0]
    again = (await ingest(profile, item(topic_key="t", content={"v": 1}, summary="other words")))[0]
    profile.now_ms += 5
    second = (await ingest(profile, item(topic_key="t", content={"v": 2})))[0]
    profile.now_ms += 5
    revived = (await ingest(profile, item(topic_key="t", content={"v": 1}, summary="third words")))[0]

    assert first == {"id": first["id"], "status": "created", "superseded": []}
    assert again == {"id": first["id"], "status": "duplicate", "superseded": []}
    assert second == {"id": second["id"], "status": "created", "superseded": [first["id"]]}
    assert revived == {"id": first["id"], "status": "revived", "superseded": [second["id"]]}
    one = (await memories.get(profile, first["id"])).value
    two = (await memories.get(profile, second["id"])).value
    assert (one["superseded_by"], one["superseded_at"], one["supersedes"]) == (None, None, [second["id"]])
    assert (one["summary"], one["created_at"]) == ("s", 1_000_000)
    assert (two["superseded_by"], two["superseded_at"], two["supersedes"]) == (
        first["id"],
        profile.now_ms,
        [],
    )


async def test_within_a_batch_later_items_supersede_earlier_ones(profile):
    old = (await ingest(profile, item(topic_key="t", content=0)))[0]["id"]

    a, b, again = await ingest(profile, *(item(topic_key="t", content=n) for n in (1, 2, 1)))

    assert a["superseded"] == [old]
    assert b["superseded"] == [a["id"]]
    assert again == {"id": a["id"], "status": "duplicate", "superseded": []}


async def test_topics_of_two_types_are_two_topics(profile):
    await ingest(profile, item("fact", topic_key="t"))
    result = await ingest(profile, item("instruction", topic_key="t"))

    assert result[0]["superseded"] == []


async def test_without_a_topic_nothing_is_superseded(profile):
    results = await ingest(profile, item(content=1), item(content=2), item(content=3, topic_key=""))

    assert statuses(results) == ["created"] * 3
    assert all(result["superseded"] == [] for result in results)


@pytest.mark.parametrize("type_", ["event", "task"])
async def test_events_and_tasks_of_equal_content_are_told_apart_by_summary(profile, type_):
    a, b, c, again_a, again_b = await ingest(
        profile, *(item(type_, summary=s) for s in ("a", "b", "c", "a", "b"))
    )
    later = await ingest(profile, *(item(type_, summary=s) for s in ("b", "a", "c")))

    assert statuses([a, b, c]) == ["created"] * 3
    assert statuses([again_a, again_b, *later]) == ["duplicate"] * 5
    assert len({a["id"], b["id"], c["id"]}) == 3
    assert [again_a["id"], again_b["id"]] == [a["id"], b["id"]]
    if type_ == "event":
        assert a["id"] == "mem_006e7494200d7e4085a06be94574bda6"


async def test_a_mixed_id_is_still_known_once_the_plain_one_is_forgotten(profile):
    a, b = await ingest(profile, item("event", summary="a"), item("event", summary="b"))
    await memories.forget(profile, a["id"])

    again = await ingest(profile, item("event", summary="b"), item("event", summary="c"))

    assert again[0] == {"id": b["id"], "status": "duplicate", "superseded": []}
    assert (again[1]["id"], again[1]["status"]) == (a["id"], "created")


async def test_facts_with_content_keep_the_plain_id_whatever_the_summary(profile):
    a, b = await ingest(profile, item(summary="a", content={"v": 1}), item(summary="b", content={"v": 1}))

    assert (b["id"], b["status"]) == (a["id"], "duplicate")


@pytest.mark.parametrize("type_", ["fact", "instruction"])
@pytest.mark.parametrize("said", [{}, {"content": None}])
async def test_a_fact_without_content_is_superseded_by_what_the_next_one_says(profile, type_, said):
    meat = (await ingest(profile, item(type_, "eats meat", topic_key="diet", **said)))[0]
    vegan = (await ingest(profile, item(type_, "is vegan", topic_key="diet", **said)))[0]
    again = (await ingest(profile, item(type_, "is vegan", topic_key="diet", **said)))[0]
    back = (await ingest(profile, item(type_, "eats meat", topic_key="diet", **said)))[0]

    assert (vegan["status"], vegan["superseded"]) == ("created", [meat["id"]])
    assert (again["id"], again["status"]) == (vegan["id"], "duplicate")
    assert back == {"id": meat["id"], "status": "revived", "superseded": [vegan["id"]]}


async def test_a_batch_of_duplicates_moves_no_txid(profile):
    await ingest(profile, item(session_id="s1"))
    profile.now_ms += 1000
    written = await memories.ingest(profile, parse(item(session_id="s1")))

    assert written.txid == profile.txid == 1
    assert (await sessions.recent(profile)).value[0]["last_active_at"] == 1_000_000


async def test_big_batches_run_in_the_pool_and_durable_is_passed_on(profile):
    await memories.ingest(profile, parse(item()))
    written = await memories.ingest(
        profile, parse(*(item(content=n) for n in range(100))), durability=Durability.DURABLE
    )

    assert profile.works == [("write", Work.POINT), ("write", Work.HEAVY)]
    assert written.durable


# ---- tasks


async def test_tasks_live_a_day_by_default_and_are_gone_once_expired(profile):
    short, default = await ingest(profile, item("task", "a", ttl=2), item("task", "b"))
    assert (await memories.get(profile, default["id"])).value["expires_at"] == profile.now_ms + 86_400_000
    profile.now_ms += 1999
    assert (await memories.get(profile, short["id"])).value["expires_at"] == 1_002_000

    profile.now_ms += 1

    with pytest.raises(NotFoundError):
        await memories.get(profile, short["id"])
    with pytest.raises(NotFoundError):
        await memories.forget(profile, short["id"])


async def test_an_expired_task_that_was_not_swept_is_created_anew(profile):
    first = (await ingest(profile, item("task", ttl=1)))[0]
    assert statuses(await ingest(profile, item("task", ttl=1))) == ["duplicate"]
    profile.now_ms += 1000

    again = (await ingest(profile, item("task", ttl=5)))[0]

    assert again == {"id": first["id"], "status": "created", "superseded": []}
    memory = (await memories.get(profile, first["id"])).value
    assert (memory["created_at"], memory["expires_at"]) == (profile.now_ms, profile.now_ms + 5000)
    assert profile.count("__memoturn_memories") == 1


async def test_an_expired_task_of_another_summary_gives_its_id_free(profile):
    first = (await ingest(profile, item("task", "a", ttl=1)))[0]
    profile.now_ms += 1000

    other = (await ingest(profile, item("task", "b", ttl=1)))[0]

    assert other == {"id": first["id"], "status": "created", "superseded": []}


async def test_tasks_store_no_embedding(profile):
    await ingest(profile, item("task", embedding=[1, 2, 3]))

    assert profile.count("__memoturn_models") == 0


async def test_the_sweep_removes_what_is_due_and_no_more_than_asked(profile):
    await ingest(profile, *(item("task", str(n), ttl=n) for n in range(1, 6)), item())
    profile.conn.execute(
        "INSERT INTO __memoturn_kv(ns, k, v, expires_at) VALUES ('n', 'old', x'', 1000500), ('n', 'kept', x'', NULL)"
    )
    profile.now_ms += 3000

    assert memories.sweep_expired(profile.conn, profile.now_ms, 2) == (3, True)
    assert memories.sweep_expired(profile.conn, profile.now_ms, 2) == (1, True)
    assert memories.sweep_expired(profile.conn, profile.now_ms, 2) == (0, False)
    assert profile.count("__memoturn_memories") == 3
    assert profile.count("__memoturn_kv") == 1


# ---- embeddings


async def test_another_dimension_refuses_the_whole_batch(profile):
    await ingest(profile, item(content=0, embedding=[1, 0]))

    with pytest.raises(InvalidRequestError, match=r"memories\[1\]\.embedding has 3 dimensions.* have 2"):
        await ingest(profile, item(content=1), item(content=2, embedding=[1, 0, 0]))

    assert profile.count("__memoturn_memories") == 1


async def test_an_emptied_profile_may_change_its_dimension(profile):
    (first,) = await ingest(profile, item(embedding=[1, 0]))
    await memories.forget(profile, first["id"])

    assert statuses(await ingest(profile, item(embedding=[1, 0, 0]))) == ["created"]


# ---- get and forget


async def test_a_memory_comes_back_as_it_went_in(profile, plain):
    content = {"b": [1, 2.5, None, True, "é\u0000"], "a": {"": -0.0}}
    (result,) = await ingest(
        profile,
        item(
            summary="zoë ✓", content=content, keywords="k1 k2", session_id="s", source="chat", topic_key="t"
        ),
    )

    assert plain((await memories.get(profile, result["id"])).value) == {
        "id": result["id"],
        "type": "fact",
        "topic_key": "t",
        "summary": "zoë ✓",
        "content": content,
        "keywords": "k1 k2",
        "session_id": "s",
        "source": "chat",
        "created_at": 1_000_000,
        "expires_at": None,
        "superseded_by": None,
        "superseded_at": None,
        "pinned": False,
        "importance": None,
        "version": 1,
        "reason": None,
        "updated_at": 1_000_000,
        "undone_at": None,
        "supersedes": [],
        "source_turns": None,
    }


async def test_a_memory_keeps_the_turns_that_it_came_from_until_it_is_forgotten(profile):
    origin = {"session_id": "s", "from_seq": 3}
    (first,) = await ingest(profile, item(topic_key="t", content=1, source_turns=origin))
    await ingest(profile, item(topic_key="t", content=2))
    (again,) = await ingest(profile, item(topic_key="t", content=1, source_turns={**origin, "from_seq": 9}))

    kept = (await memories.get(profile, first["id"])).value["source_turns"]

    assert (again["id"], again["status"]) == (first["id"], "revived")
    assert kept == {"session_id": "s", "from_seq": 3, "to_seq": 3}
    await memories.forget(profile, first["id"])
    assert profile.count("__memoturn_memory_origins") == 0


async def test_what_was_never_stored_is_not_found(profile):
    for missing in ("mem_0", "", "\0"):
        with pytest.raises(NotFoundError):
            await memories.get(profile, missing)
        with pytest.raises(NotFoundError):
            await memories.forget(profile, missing)


async def test_forgetting_the_middle_of_a_chain_mends_it(profile):
    a, b, c = [(await ingest(profile, item(topic_key="t", content=n)))[0]["id"] for n in range(3)]

    await memories.forget(profile, b)

    assert (await memories.get(profile, a)).value["superseded_by"] == c
    assert (await memories.get(profile, c)).value["supersedes"] == [a]


async def test_forgetting_the_active_version_does_not_bring_its_predecessor_back(profile):
    a, b = [(await ingest(profile, item(topic_key="t", content=n)))[0]["id"] for n in range(2)]

    await memories.forget(profile, b)

    old = (await memories.get(profile, a)).value
    assert (old["superseded_by"], old["superseded_at"]) == (None, 1_000_000)
    assert (await ingest(profile, item(topic_key="t", content=5)))[0]["superseded"] == []
    assert statuses(await ingest(profile, item(topic_key="t", content=0))) == ["revived"]


async def test_forget_leaves_neither_text_nor_vector(profile):
    (result,) = await ingest(profile, item(summary="zyzzyva", embedding=[1, 2]))

    await memories.forget(profile, result["id"])

    assert profile.count("__memoturn_memory_vectors_1") == 0
    assert profile.count("__memoturn_memories_fts WHERE __memoturn_memories_fts MATCH 'zyzzyva'") == 0


# ---- sessions


async def test_sessions_are_listed_by_last_activity(profile):
    for now_ms, session in ((10, "a"), (20, "b"), (30, "a"), (40, "c")):
        profile.now_ms = now_ms
        await ingest(profile, item("event", f"at {now_ms}", session_id=session))

    listed = (await sessions.recent(profile)).value

    assert listed == [
        {"id": "c", "created_at": 40, "last_active_at": 40},
        {"id": "a", "created_at": 10, "last_active_at": 30},
        {"id": "b", "created_at": 20, "last_active_at": 20},
    ]
    assert len((await sessions.recent(profile, limit=2)).value) == 2


async def test_ending_a_session_takes_its_tasks_and_keeps_the_rest(profile):
    task, event, other = await ingest(
        profile,
        item("task", session_id="s"),
        item("event", session_id="s"),
        item("task", "x", session_id="z"),
    )
    await turns.append(profile, "s", [turns.parse_turn({"role": "user", "content": 1})])

    assert (await sessions.end(profile, "s")).txid == 3

    with pytest.raises(NotFoundError):
        await memories.get(profile, task["id"])
    assert (await memories.get(profile, event["id"])).value["session_id"] == "s"
    assert (await memories.get(profile, other["id"])).value["type"] == "task"
    assert [session["id"] for session in (await sessions.recent(profile)).value] == ["z"]
    assert profile.count("__memoturn_messages") == 1
    await sessions.end(profile, "s", turns=True)
    assert profile.count("__memoturn_messages") == 0


async def test_ending_an_unknown_session_changes_nothing(profile):
    assert (await sessions.end(profile, "none", turns=True)).txid == 0


# ---- against a model


class Model:
    """The rules of ingest and forget over a plain dict."""

    def __init__(self):
        self.rows = {}

    def ingest(self, now_ms, entries):
        results, seen = [], set()
        for type_, topic, content, summary, ttl in entries:
            topical = type_ in ("fact", "instruction")
            plain, mixed = (type_, topic, content, None), (type_, topic, content, summary)
            for key in (plain, mixed):
                if (
                    key in self.rows
                    and self.rows[key]["expires"] is not None
                    and self.rows[key]["expires"] <= now_ms
                ):
                    del self.rows[key]
            key = plain
            if not topical:
                same = [k for k in (plain, mixed) if k in self.rows and self.rows[k]["summary"] == summary]
                key = same[0] if same else (mixed if plain in self.rows else plain)
            row = self.rows.get(key)
            if key in seen or (row is not None and row["at"] is None):
                results.append(("duplicate", 0))
                seen.add(key)
                continue
            seen.add(key)
            status = "created" if row is None else "revived"
            if row is None:
                expires = now_ms + 1000 * ttl if type_ == "task" else None
                row = self.rows[key] = {"summary": summary, "expires": expires}
            row.update(by=None, at=None)
            replaced = [
                k
                for k, r in self.rows.items()
                if topic and k[:2] == (type_, topic) and k != key and r["at"] is None
            ]
            for other in replaced:
                self.rows[other].update(by=key, at=now_ms)
            results.append((status, len(replaced)))
        return results

    def forget(self, key):
        gone = self.rows.pop(key)
        for row in self.rows.values():
            if row["by"] == key:
                row["by"] = gone["by"]


entry = st.one_of(
    st.tuples(
        st.sampled_from(["fact", "instruction"]),
        st.sampled_from([None, "t", "u"]),
        st.integers(0, 2),
        st.just("s"),
        st.none(),
    ),
    st.tuples(
        st.sampled_from(["event", "task"]),
        st.none(),
        st.integers(0, 1),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 3),
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.lists(entry, max_size=4)),
        st.tuples(st.just("forget"), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("sweep"), st.none()),
    ),
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_ingest_forget_and_revive_follow_the_model(plan):
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    model, ids, now_ms = Model(), {}, 1000
    for step, argument in plan:
        if step == "wait":
            now_ms += 1000 * argument
        elif step == "sweep":
            memories.sweep_expired(conn, now_ms, 1000)
            model.rows = {
                k: r for k, r in model.rows.items() if r["expires"] is None or r["expires"] > now_ms
            }
        elif step == "ingest":
            payload = [
                item(
                    type_,
                    summary,
                    topic_key=topic,
                    content=content,
                    **({"ttl": ttl} if type_ == "task" else {}),
                )
                for type_, topic, content, summary, ttl in argument
            ]
            before = set(conn.execute("SELECT id FROM __memoturn_memories").fetchall())
            results, changed = memories.apply_ingest(conn, now_ms, parse(*payload))
            expected = model.ingest(now_ms, argument)
            assert [(r["status"], len(r["superseded"])) for r in results] == expected
            assert changed >= any(status != "duplicate" for status, _ in expected)
            if not changed:
                assert before == set(conn.execute("SELECT id FROM __memoturn_memories").fetchall())
        elif model.rows:
            live = sorted(
                (k for k, r in model.rows.items() if r["expires"] is None or r["expires"] > now_ms), key=str
            )
            if live:
                key = live[argument % len(live)]
                memories.apply_forget(conn, now_ms, ids[key])
                model.forget(key)
        ids = compare(conn, model)
    conn.execute(
        "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rank) VALUES ('integrity-check', 1)"
    )
    conn.execute("ROLLBACK")
    conn.close()


def compare(conn, model):
    """Assert that the file holds the model's rows; return the id of each."""
    rows = conn.execute(
        "SELECT type, topic_key, CAST(content AS INTEGER), summary, id, superseded_by, superseded_at, expires_at"
        " FROM __memoturn_memories"
    ).fetchall()
    ids, seen = {}, []
    for type_, topic, content, summary, id_, *_ in rows:
        plain, mixed = (type_, topic, content, None), (type_, topic, content, summary)
        key = next(k for k in (plain, mixed) if k in model.rows and model.rows[k]["summary"] == summary)
        ids[key] = id_
        seen.append(key)
    assert sorted(seen, key=str) == sorted(model.rows, key=str)
    for key, row in zip(seen, rows, strict=True):
        wanted = model.rows[key]
        by = ids[wanted["by"]] if wanted["by"] is not None else None
        assert (row[5], row[6], row[7]) == (by, wanted["at"], wanted["expires"])
    return ids
