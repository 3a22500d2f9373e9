import apsw
import pytest

from memoturnd.core.erasures import Target
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import collections, documents, erasing, kv, memories, timelines, turns, vectors
from memoturnd.surfaces.erasing import Eraser
from memoturnd.surfaces.memory_batch import parse_batch

MARKER = "zqsecret"


def content_of(conn):
    """The file as VACUUM writes it, so that only what rows and indexes hold is in it."""
    copy = apsw.Connection(":memory:")
    copy.deserialize("main", conn.serialize("main"))
    copy.execute("PRAGMA journal_mode=memory")
    copy.execute("VACUUM")
    data = copy.serialize("main")
    copy.close()
    return data.lower()


async def erase(profile, *targets, all_of=False, **known):
    named = [erasing.parse(body).targets for body in targets]
    eraser = Eraser(tuple(t for each in named for t in (each if all_of else each[:1])), **known)
    gone = (await profile.write(eraser.apply)).value
    return gone, eraser


async def ingest(profile, *items):
    batch = parse_batch({"memories": list(items)})
    written = await memories.ingest(profile, batch.items, places=batch.places)
    return [result["id"] for result in written.value]


async def fill(profile):
    """Put the marker into everything that a profile can hold, under names without it."""
    old, new = [
        (await ingest(
            profile,
            {"type": "fact", "topic_key": "diet", "summary": f"{MARKER} {n}", "keywords": f"{MARKER}k",
             "content": {"deep": MARKER}, "embedding": [1, n], "session_id": "s1"},
        ))[0]
        for n in (1, 2)
    ]  # fmt: skip
    await ingest(profile, {"type": "task", "summary": f"{MARKER} task", "session_id": "s1"})
    await ingest(
        profile, {"type": "fact", "topic_key": "home", "summary": "lives in Oslo", "session_id": "s1"}
    )
    for n in range(3):
        turn = turns.parse_turn({"role": "user", "content": f"{MARKER} said {n}", "embedding": [1, n]})
        await turns.append(profile, "s1", [turn])
    await turns.append(profile, "s2", [turns.parse_turn({"role": "user", "content": "hello"})])
    doc = documents.parse_insert({"docs": [{"_id": "d1", "name": MARKER}, {"_id": "d2", "name": "Bob"}]})
    await documents.insert(profile, "people", doc)
    await kv.put(profile, "ns", "k1", MARKER.encode())
    await kv.put(profile, "ns", "other", b"stays")
    for id_, meta in (("v1", {"m": MARKER}), ("v2", {"m": "stays"})):
        found = vectors.parse_upsert({"id": id_, "embedding": [1, 2], "metadata": meta})
        await profile.write(lambda conn, now, found=found: vectors.apply_upsert(conn, now, "vecs", found))
    rows = [{"key": "a", "data": {"x": MARKER}}, {"key": "b", "data": {"x": "stays"}}]
    await timelines.append(profile, "line", timelines.parse_rows({"rows": rows}))
    return old, new


EVERYTHING = (
    {"topic_key": "diet", "type": "fact"},
    {"session_id": "s1", "turns": True},
    {"document": {"collection": "people", "id": "d1"}},
    {"kv": {"ns": "ns", "key": "k1"}},
    {"vector": {"collection": "vecs", "id": "v1"}},
    {"timeline": {"name": "line", "key": "a"}},
)


async def test_nothing_of_what_is_named_stays_and_all_else_does(profile):
    ids = await fill(profile)
    assert MARKER.encode() in content_of(profile.conn)

    gone, eraser = await erase(profile, *EVERYTHING)

    assert MARKER.encode() not in content_of(profile.conn)
    assert set(ids) <= eraser.memory_ids
    assert profile.count("__memoturn_memories") == 1
    assert profile.count("__memoturn_messages") == 1
    assert profile.count("__memoturn_kv") == 1
    assert profile.count("__memoturn_timeline_rows") == 1
    assert profile.count(collections.table_of("people")) == 1
    assert gone >= len(EVERYTHING)


@pytest.mark.parametrize("left_out", range(len(EVERYTHING)))
async def test_what_is_not_named_stays(profile, left_out):
    await fill(profile)
    await erase(profile, *(t for n, t in enumerate(EVERYTHING) if n != left_out))
    assert MARKER.encode() in content_of(profile.conn)


async def test_an_erasure_again_finds_nothing(profile):
    await fill(profile)
    await erase(profile, *EVERYTHING)
    assert (await erase(profile, *EVERYTHING))[0] == 0


async def test_one_version_of_a_topic_goes_and_its_chain_stays_whole(profile):
    ids = [
        (await ingest(profile, {"type": "fact", "topic_key": "t", "summary": "v", "content": n}))[0]
        for n in range(3)
    ]
    await erase(profile, {"memory_id": ids[1]})
    links = dict(profile.conn.execute("SELECT id, superseded_by FROM __memoturn_memories"))
    assert links == {ids[0]: ids[2], ids[2]: None}


async def test_a_chain_is_mended_over_many_that_go_at_once_and_over_circles(profile):
    ids = [
        (await ingest(profile, {"type": "fact", "topic_key": "t", "summary": "v", "content": n}))[0]
        for n in range(6)
    ]
    await erase(profile, {"targets": [{"memory_id": id_} for id_ in (ids[1], ids[2], ids[4])]}, all_of=True)
    links = dict(profile.conn.execute("SELECT id, superseded_by FROM __memoturn_memories"))
    assert links == {ids[0]: ids[3], ids[3]: ids[5], ids[5]: None}
    profile.conn.execute("UPDATE __memoturn_memories SET superseded_by = ? WHERE id = ?", (ids[3], ids[5]))
    await erase(profile, {"targets": [{"memory_id": id_} for id_ in (ids[3], ids[5])]}, all_of=True)
    links = dict(profile.conn.execute("SELECT id, superseded_by FROM __memoturn_memories"))
    assert links == {ids[0]: None}


async def test_durable_memories_of_a_session_go_only_when_they_are_asked_for(profile):
    await ingest(profile, {"type": "fact", "summary": "stays", "session_id": "s"})
    await ingest(profile, {"type": "task", "summary": "goes", "session_id": "s"})
    await erase(profile, {"session_id": "s"})
    assert [row for (row,) in profile.conn.execute("SELECT summary FROM __memoturn_memories")] == ["stays"]
    await erase(profile, {"session_id": "s", "memories": True})
    assert profile.count("__memoturn_memories") == 0


async def test_documents_of_a_filter_lose_their_other_versions_as_well(profile):
    await documents.insert(profile, "c", documents.parse_insert({"docs": [{"_id": "1", "who": "Al"}]}))
    _, eraser = await erase(profile, {"document": {"collection": "c", "filter": {"who": "Al"}}})
    assert eraser.document_ids == {("c", "1")}
    await documents.insert(profile, "c", documents.parse_insert({"docs": [{"_id": "1", "who": "someone"}]}))
    gone, _ = await erase(
        profile, {"document": {"collection": "c", "filter": {"who": "Al"}}}, document_ids=[("c", "1")]
    )
    assert gone == 1


@pytest.mark.parametrize("what", ["memories", "turns"])
async def test_indexes_of_words_keep_no_beginning_of_a_word_that_is_gone(profile, what):
    def words(n):
        return " ".join(f"{MARKER}{n:x}{i:06x}" for i in range(400))

    async def store(text, session):
        if what == "memories":
            item = {"type": "event", "summary": text, "content": text[:20], "session_id": session}
            await ingest(profile, item)
        else:
            await turns.append(profile, session, [turns.parse_turn({"role": "user", "content": text})])

    for n in range(8):  # a page of the index begins with words that go, and ends with words that stay
        await store(words(n), "s")
        await store(" ".join(f"zr{n}{i}" for i in range(50)), "stays")
    await erase(profile, {"session_id": "s", "turns": True, "memories": True})
    assert MARKER[:5].encode() not in content_of(profile.conn)


async def test_what_was_stored_after_the_cut_is_new_unless_a_rewind_brought_the_past_back(profile):
    await ingest(profile, {"type": "fact", "topic_key": "t", "summary": "new"})
    conn = profile.conn
    conn.execute("UPDATE __memoturn_meta SET txid = 10")
    eraser = Eraser((Target(topic_key="t", type="fact"),))
    assert eraser.erase(conn, 9) == 0
    conn.execute("UPDATE __memoturn_lineage SET replaced_txid = 10")
    assert eraser.erase(conn, 9) == 1
    assert eraser.erase(conn, 10) == 0


@pytest.mark.parametrize("topic", ["t", "diet", "ä" * 700, "x" * 60, "y" * 1024])
async def test_traces_of_a_topic_are_in_the_pages_of_a_state_that_has_it_alone(profile, topic):
    await ingest(profile, {"type": "fact", "topic_key": topic, "summary": f"about {topic[:-1]}"})
    image = profile.conn.serialize("main")
    assert erasing.traces(Target(topic_key=topic, type="fact")).search(image)
    for other in (topic[:-1] or "u", f"z{topic[1:]}", f"{topic}s", "mem"):
        assert not erasing.traces(Target(topic_key=other, type="fact")).search(image), other


def test_states_of_the_first_schema_lose_what_is_named():
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create_anywhere(conn, version=1)
    conn.execute(
        "INSERT INTO __memoturn_memories(rid, id, type, topic_key, summary, content, created_at)"
        f" VALUES (1, 'mem_1', 'fact', 'diet', '{MARKER}', 'null', 1)"
    )
    conn.execute(f"INSERT INTO __memoturn_memories_fts(rowid, summary, keywords) VALUES (1, '{MARKER}', '')")
    conn.execute("INSERT INTO __memoturn_memory_vectors VALUES (1, x'00000000')")
    conn.execute(f"INSERT INTO __memoturn_messages VALUES ('s1', 1, 'user', '{MARKER}', NULL, 1)")
    conn.execute(f"INSERT INTO __memoturn_kv VALUES ('ns', 'k1', '{MARKER}', NULL)")
    conn.execute("COMMIT")
    targets = tuple(erasing.parse(body).targets[0] for body in EVERYTHING)
    eraser = Eraser(targets)
    assert eraser.erase(conn) >= 3
    assert MARKER.encode() not in content_of(conn)
    assert conn.execute("SELECT count(*) FROM __memoturn_memory_vectors").get == 0
    assert eraser.memory_ids == {"mem_1"}


@pytest.mark.parametrize(
    ("said", "body"),
    [
        ("names nothing", {}),
        ("memory_id and session_id", {"memory_id": "a", "session_id": "b"}),
        ("type is fact or instruction", {"topic_key": "a"}),
        ("type is fact or instruction", {"topic_key": "a", "type": "task"}),
        ("grace_secs", {"memory_id": "a", "grace_secs": -1}),
        ("memory_id is empty", {"memory_id": ""}),
        ("targets has 0", {"targets": []}),
        ("targets has 101", {"targets": [{"memory_id": "a"}] * 101}),
        (r"targets\[1\]\.names", {"targets": [{"memory_id": "a"}, {}]}),
        ("`targets` beside", {"targets": [{"memory_id": "a"}], "memory_id": "b"}),
        ("document.id or document.filter", {"document": {"collection": "c"}}),
        ("document.filter", {"document": {"collection": "c", "filter": {"$no": 1}}}),
        ("kv.key or kv.prefix", {"kv": {"ns": "a", "key": "b", "prefix": "c"}}),
        ("turn.seq", {"turn": {"session_id": "s", "seq": "1"}}),
        ("vector.id", {"vector": {"collection": "c"}}),
        ("timeline.key", {"timeline": {"name": "c"}}),
        ("'tuns' is no field", {"session_id": "s", "tuns": True}),
        (r"targets\[0\]\.'grace_secs' is no", {"targets": [{"session_id": "s", "grace_secs": 1}]}),
        ("kv.'prefx' is no", {"kv": {"ns": "a", "key": "b", "prefx": "c"}}),
    ],
)
def test_a_wrong_target_is_named(said, body):
    with pytest.raises(InvalidRequestError, match=said):
        erasing.parse(body)
