"""Erasures over a whole node: what was erased is in no object and no file any more, and all else is where it was."""

import asyncio
import contextlib
import json
import shutil

import pytest
from auth_support import CLUSTER_KEY, PLATFORM_KEY, mint
from erased import files_with, registered, states
from harness import ShiftedClock, node_on
from http_calls import failure, stamps
from http_support import client_of, limits
from memoturn import InvalidReceiptError, verify_receipt
from profiles import Cable

from memoturnd.core import erasures as erased
from memoturnd.core import segment
from memoturnd.core.manifest import ERASURES_KEPT
from memoturnd.core.policy_document import new, with_policy
from memoturnd.engine import changes
from memoturnd.errors import StoreUnavailableError
from memoturnd.http.app import create_app
from memoturnd.http.auditing import Auditor
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.seams.catalog import ERASE, Chore, NodeRow
from memoturnd.stores.memory import MemoryStore

MARK = "zq4711secret"
MEMORY = "/v1/memory/app/ann"
DB = "/v1/db/app--ann"
GRACE_S = 86_400
GC_S = 700


class Place:
    """A node, a client of it, its store, and a clock that the test moves."""

    def __init__(self, folder, store, clock):
        self.folder, self.store, self.clock = folder, store, clock
        self.node = self.client = None

    async def call(self, method, path, status=None, **more):
        answer = await self.client.request(method, path, **more)
        assert answer.is_success if status is None else answer.status_code == status, answer.text
        return answer

    async def erase(self, path=MEMORY, headers=None, **body):
        answer = await self.call("POST", f"{path}/erasures", 202, json=body, headers=headers or {})
        assert answer.headers["memoturn-erasure-id"] == answer.json()["erasure_id"]
        return answer.json()["erasure_id"]

    async def coupon(self, erasure_id, path=MEMORY):
        return (await self.call("GET", f"{path}/erasures/{erasure_id}")).json()

    async def later(self, seconds):
        """Let time pass, and do what is due then, until nothing is."""
        self.clock.ahead_s += seconds
        for _ in range(4):
            await self.node.maintenance.run_due()

    async def completed(self, erasure_id, path=MEMORY):
        for _ in range(6):
            coupon = await self.coupon(erasure_id, path)
            if coupon["status"] == "completed":
                return coupon
            await self.later(GC_S)
        raise AssertionError(coupon)

    @property
    async def uuid(self):
        return (await self.node.databases.get("app--ann")).uuid

    async def objects_with(self, marker=MARK):
        """The keys of all objects of the store, named or not, that have the marker in them or in one of their pages."""
        found, needle = [], marker.encode()
        for key in [info.key async for info in self.store.list("")]:
            data = (await self.store.get(key)).data
            pages = []
            if "/segments/" in key or "/snapshots/" in key:
                part = segment.decode(data)
                pages = [image for _, image in part.numbered_images(range(part.page_count))]
            if any(needle in part.lower() for part in (data, *pages)):
                found.append(key)
        return found

    def files_with(self, marker=MARK):
        return files_with(self.folder, marker.encode())

    async def states(self, name="main"):
        """What each retained state of a branch holds, by txid."""
        standing = (await registered(self.node, await self.uuid))[name]
        return await states(self.store, standing, self.folder / "looked", everything)


TABLES = {
    "__memoturn_memories": "id, type, topic_key, summary, content, keywords, session_id, created_at",
    "__memoturn_messages": "session_id, seq, content",
    "__memoturn_kv": "ns, k, v",
    "__memoturn_docs_people": "id, doc",
    "__memoturn_vectors_1": "id, metadata, e",
    "__memoturn_timeline_rows": "timeline_id, at, seq, data",
    "own": "a",
}


def everything(conn):
    found = {}
    for table, columns in TABLES.items():
        if conn.table_exists("main", table):
            found[table] = sorted(map(repr, conn.execute(f"SELECT {columns} FROM {table}", can_cache=False)))
    return found


def without_marker(states_):
    return {
        txid: {table: [row for row in rows if MARK not in row.lower() and MARK.encode().hex() not in row] for table, rows in state.items()}
        for txid, state in states_.items()
    }  # fmt: skip


def app_of(node, clock):
    return create_app(
        node,
        limits(loopback_only=node.authority is None),
        auditor=Auditor(node.audit, node.audit_rules, clock),
    )


@contextlib.asynccontextmanager
async def started(place, *, leases=None, **env):
    async with (
        node_on(place.folder, place.store, clock=place.clock, leases=leases, **env) as node,
        client_of(app_of(node, place.clock)) as client,
    ):
        place.node, place.client = node, client
        yield place


@pytest.fixture
async def place(tmp_path):
    clock = ShiftedClock()
    async with started(Place(tmp_path / "node", MemoryStore(clock), clock)) as place:
        yield place


async def ingest(place, **item):
    answer = await place.call("POST", f"{MEMORY}/memories", json={"memories": [{"type": "fact", **item}]})
    return answer.json()["results"][0]["id"]


async def fill(place, n):
    """Put the marker into everything that a profile can hold, and other things beside it."""
    diet = {"summary": f"{MARK} {n}", "keywords": MARK, "content": {"in": [MARK, n]}, "session_id": "s1"}
    one = await ingest(place, topic_key="diet", embedding=[1, n], **diet)
    said = {"json": {"keywords": f"{MARK} {n} words"}, "headers": {"idempotency-key": f"key{n}"}}
    await place.call("PATCH", f"{MEMORY}/memories/{one}", **said)
    await ingest(place, topic_key="home", summary=f"lives in Oslo {n}", content=n, session_id="s1")
    await ingest(place, type="task", summary=f"{MARK} task {n}", session_id="s1")
    for session, text in (("s1", f"{MARK} said {n}"), ("s2", f"hello {n}")):
        turn = {"role": "user", "content": text, "embedding": [1, n]}
        await place.call("POST", f"{DB}/memory/{session}/turns", json=turn)
    docs = [{"_id": f"d{n}", "name": f"{MARK} {n}"}, {"_id": f"other{n}", "name": "Bob"}]
    await place.call("POST", f"{DB}/docs/people/insert", json={"docs": docs})
    for key, value in (("secret", f"{MARK}{n}"), ("other", f"stays{n}"), (f"big{n}", MARK * 2000)):
        await place.call("PUT", f"{DB}/kv/ns/{key}", content=value.encode())
    for id_, text in (("v1", MARK), ("v2", "stays")):
        vector = {"id": id_, "embedding": [1, n], "metadata": {"m": text, "n": n}}
        await place.call("POST", f"{DB}/vectors/vecs", json=vector)
    rows = [{"key": "a", "data": {"x": MARK}}, {"key": "b", "data": {"x": n}}]
    await place.call("POST", f"{DB}/timelines/line/rows", json={"rows": rows})


EVERYTHING = [
    {"topic_key": "diet", "type": "fact"},
    {"session_id": "s1", "turns": True},
    {"document": {"collection": "people", "filter": {"name": {"$regex": MARK}}}},
    {"kv": {"ns": "ns", "key": "secret"}},
    {"kv": {"ns": "ns", "prefix": "big"}},
    {"vector": {"collection": "vecs", "id": "v1"}},
    {"timeline": {"name": "line", "key": "a"}},
]


async def lived(place):
    """A history with supersessions, forgetting, a checkpoint, forks, a burner, a rewind and pasts that were read."""
    await fill(place, 1)
    await place.call("POST", f"{DB}/branches/main/checkpoint", json={"name": "early"})
    await place.call("POST", f"{DB}/branches", json={"name": "fork"})
    await fill(place, 2)
    await place.call("POST", f"{DB}/branches", json={"name": "burner", "ttl": 10**7})
    await place.call("POST", f"{DB}/branches", json={"name": "gone"})
    await place.call("PUT", "/v1/db/app--ann@gone/kv/ns/secret", content=f"{MARK} gone".encode())
    await place.call("DELETE", f"{DB}/branches/gone")
    await place.call("PUT", "/v1/db/app--ann@fork/kv/ns/secret", content=f"{MARK} fork".encode())
    forgotten = await ingest(place, topic_key="diet", summary=f"{MARK} forgotten", content=9)
    await place.call("DELETE", f"{MEMORY}/memories/{forgotten}")
    await place.call(
        "POST",
        f"{DB}/sql",
        json={"stmts": [{"q": "CREATE TABLE own(a)"}, {"q": "INSERT INTO own VALUES (1)"}]},
    )
    await place.call("POST", f"{DB}/branches/main/rewind", json={"to": "early"})
    await fill(place, 3)
    await place.call("POST", f"{DB}/sync")
    await place.call("POST", "/v1/db/app--ann@fork/sync")
    for at in ("early", "head~2", "head~5"):
        await place.call("GET", f"{MEMORY}/memories?at={at}")
    return forgotten


async def test_nothing_that_was_erased_is_in_any_object_or_file_and_all_else_is_at_its_txid(place):
    forgotten = await lived(place)
    before = {name: await place.states(name) for name in ("main", "fork", "burner")}
    assert await place.objects_with()
    assert place.files_with()

    erasure = await place.erase(targets=EVERYTHING)

    assert not (await place.call("GET", f"{MEMORY}/topics/diet", 404)).is_success
    pending = await place.coupon(erasure)
    assert pending["status"] == "pending"
    assert forgotten not in pending["memory_ids"]
    await place.later(GRACE_S + 600)
    coupon = await place.completed(erasure)

    assert await place.objects_with() == []
    assert place.files_with() == []
    assert forgotten in coupon["memory_ids"]
    assert set(coupon["forget_txid"]) >= {"main", "fork", "burner"}
    evidence = coupon["receipt"]["payload"]["evidence"]
    assert evidence["clean"]
    assert evidence["rounds_rewritten"]
    assert evidence["rounds_checked"]
    for name, states_ in before.items():
        after = await place.states(name)
        assert {txid: after[txid] for txid in states_} == without_marker(states_), name
    checkpoints = (await place.call("GET", f"{DB}/branches/main/checkpoints")).json()["checkpoints"]
    assert [row["checkpoint"] for row in checkpoints] == ["early"]
    await place.call("GET", f"{MEMORY}/memories?at=early")
    await place.call("POST", f"{DB}/verify?deep=true")
    assert '"outcome":"clean"' in (await place.call("POST", f"{DB}/verify?deep=true")).text


NAMED = [
    {"kv": {"ns": "ns", "key": f"{MARK}-key"}},
    {"kv": {"ns": "ns", "prefix": f"{MARK}-pre"}},
    {"document": {"collection": "people", "id": f"{MARK}-doc"}},
    {"document": {"collection": "people", "filter": {"name": "Ann"}}},
    {"vector": {"collection": "vecs", "id": f"{MARK}-vector"}},
    {"timeline": {"name": "line", "key": f"{MARK}-series"}},
    {"session_id": f"{MARK}-session", "turns": True},
]


async def test_no_key_that_was_erased_is_left_in_what_rounds_say_that_they_changed(place):
    """Not of what was removed long before the erasure either."""
    memory = await ingest(place, topic_key="diet", summary="vegan", content=1)
    await place.call("POST", f"{DB}/sync", json={})
    keys = [f"{DB}/kv/ns/{MARK}-key", f"{DB}/kv/ns/{MARK}-prefixed"]
    for path in keys:
        await place.call("PUT", path, content=b"x")
    docs = [{"_id": f"{MARK}-doc", "n": 1}, {"_id": f"{MARK}-ann", "name": "Ann"}]
    await place.call("POST", f"{DB}/docs/people/insert", json={"docs": docs})
    await place.call("POST", f"{DB}/vectors/vecs", json={"id": f"{MARK}-vector", "embedding": [1]})
    await place.call("POST", f"{DB}/timelines/line/rows", json={"key": f"{MARK}-series", "data": 1})
    turn = {"role": "user", "content": "hello"}
    await place.call("POST", f"{DB}/memory/{MARK}-session/turns", json=turn)
    await place.call("DELETE", f"{MEMORY}/memories/{memory}")
    for path in keys:
        await place.call("DELETE", path)
    await place.call("POST", f"{DB}/docs/people/delete", json={"filter": {}, "multi": True})
    await place.call("DELETE", f"{DB}/memory/{MARK}-session/turns?all=true")
    for n in range(40):  # so that it moves from one place to the other
        await place.call("PUT", f"{DB}/kv/ns/other", content=str(n).encode())
    assert await place.objects_with() or place.files_with()
    assert files_with(place.folder, memory.encode())

    erasure = await place.erase(targets=[*NAMED, {"topic_key": "diet", "type": "fact"}])
    since = (await place.coupon(erasure))["forget_txid"]["main"]
    await place.call("PUT", f"{DB}/kv/ns/other", content=b"later")
    await place.later(GRACE_S + 600)
    await place.completed(erasure)

    # What an erasure was asked for is kept with it.
    assert [key for key in await place.objects_with() if "/erasures/" not in key] == []
    assert [path for path in place.files_with() if "audit" not in str(path)] == []

    def kept(conn):
        floor = conn.execute("SELECT changes_after FROM __memoturn_lineage").get
        found = changes.read_after(conn, floor, 1000)
        return [(change.txid, change.why) for change in found], memory in repr(found)

    standing = (await registered(place.node, await place.uuid))["main"]
    told = await states(place.store, standing, place.folder / "looked", kept)
    assert not any(named for _, named in told.values())
    assert told[since + 1][0] == [(since, "erased"), (since + 1, None)]


async def test_what_was_stored_again_is_new_and_stays_and_what_a_rewind_brought_back_goes(place):
    await ingest(place, topic_key="diet", summary=f"{MARK} old", content=1)
    early = stamps(await place.call("PUT", f"{DB}/kv/ns/k", content=b"x"))[0]
    erasure = await place.erase(topic_key="diet", type="fact")
    kept = await ingest(place, topic_key="diet", summary="vegan now", content=2)
    await place.call("POST", f"{DB}/branches", json={"name": "since"})
    await place.call("POST", f"{DB}/branches", json={"name": "rewound"})
    await place.call("POST", f"{DB}/branches/rewound/rewind", json={"to": str(early)})
    seen = await place.call("GET", f"{MEMORY}/memories?branch=rewound")
    assert MARK in seen.text

    await place.later(GRACE_S + 600)
    await place.completed(erasure)

    assert await place.objects_with() == []
    for name in ("main", "since"):
        listed = (await place.call("GET", f"{MEMORY}/memories?branch={name}")).json()["memories"]
        assert [row["id"] for row in listed] == [kept], name
    assert (await place.call("GET", f"{MEMORY}/memories?branch=rewound")).json()["memories"] == []


async def test_a_memory_of_the_past_alone_can_be_erased_and_one_that_never_was_is_not_found(place):
    gone = await ingest(place, topic_key="diet", summary=f"{MARK} old")
    await place.call("DELETE", f"{MEMORY}/memories/{gone}")
    await place.call("POST", f"{DB}/sync")
    unknown = ["mem_0", gone[:-1], f"mem_{'0' * 32}"]
    bodies = [{"memory_id": id_} for id_ in unknown]
    for body in (*bodies, {"topic_key": "die", "type": "fact"}, {"topic_key": "diets", "type": "fact"}):
        assert failure(await place.client.post(f"{MEMORY}/erasures", json=body)) == (404, "not_found")

    erasure = await place.erase(memory_id=gone, grace_secs=0)
    await place.later(5)
    await place.completed(erasure)

    assert await place.objects_with() == []
    listed = (await place.call("GET", f"{MEMORY}/erasures")).json()["erasures"]
    assert [row["id"] for row in listed] == [erasure]


async def test_erasures_are_listed_the_newest_first_a_page_at_a_time(place):
    await place.call("PUT", f"{DB}/kv/ns/k", status=404, content=b"x")
    await ingest(place, summary="x")
    ids = []
    for n in range(5):
        ids.append(await place.erase(DB, kv={"ns": "ns", "key": f"k{n}"}))
        place.clock.ahead_s += 1
    found, cursor = [], ""
    for size in (2, 2, 1):
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        answer = (await place.call("GET", f"{MEMORY}/erasures", params=query)).json()
        assert len(answer["erasures"]) == size
        found += [row["id"] for row in answer["erasures"]]
        cursor = answer["next_cursor"]
    assert cursor is None
    assert found == ids[::-1]
    for wrong in ("ers_0123456789abcdef", "ers_..%2f..", "x"):
        assert failure(await place.client.get(f"{MEMORY}/erasures/{wrong}")) == (404, "not_found")
    nobody = await place.client.get("/v1/memory/app/nobody/erasures")
    assert failure(nobody) == (404, "database_not_found")


async def test_an_erasure_that_is_sent_again_is_the_same_one(place):
    one = await ingest(place, summary=f"{MARK}")
    key = {"idempotency-key": "k1"}
    first = await place.call("POST", f"{MEMORY}/erasures", json={"memory_id": one}, headers=key)
    again = await place.call("POST", f"{MEMORY}/erasures", json={"memory_id": one}, headers=key)
    assert (first.json(), again.headers["idempotent-replayed"]) == (again.json(), "true")
    assert len((await place.call("GET", f"{MEMORY}/erasures")).json()["erasures"]) == 1
    assert first.headers["memoturn-durability"] == "durable"
    txid, durable = stamps(first)
    assert txid == durable == first.json()["txid"]


async def test_writes_go_on_while_history_is_rewritten_and_two_erasures_share_a_pass(place):
    await lived(place)
    erasures = [await place.erase(targets=EVERYTHING[:3]), await place.erase(targets=EVERYTHING[3:])]
    written, stop = {}, asyncio.Event()

    async def write():
        n = 0
        while not stop.is_set():
            n += 1
            answer = await place.client.put(f"{DB}/kv/live/k{n % 50}", content=b"%d" % n)
            if answer.is_success:
                written[f"k{n % 50}"] = n
            else:
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.005)

    task = asyncio.create_task(write())
    try:
        await place.later(GRACE_S + 600)
        for erasure in erasures:
            await place.completed(erasure)
    finally:
        stop.set()
        await task
    assert await place.objects_with() == []
    assert len(written) > 10
    for key, n in written.items():
        assert (await place.call("GET", f"{DB}/kv/live/{key}")).content == b"%d" % n
    passes = {(await place.coupon(erasure))["receipt"]["payload"]["completed_at"] for erasure in erasures}
    assert len(passes) <= 2
    assert '"outcome":"clean"' in (await place.call("POST", f"{DB}/verify?deep=true")).text


async def test_an_erasure_of_a_fork_reaches_its_parent_and_siblings(place):
    one = await ingest(place, summary=f"{MARK}")
    for name in ("a", "b"):
        await place.call("POST", f"{DB}/branches", json={"name": name})
    answer = await place.call("POST", f"{MEMORY}/erasures?branch=a", json={"memory_id": one, "grace_secs": 0})
    await place.later(5)
    coupon = await place.completed(answer.json()["erasure_id"])
    assert (coupon["branch"], set(coupon["forget_txid"])) == ("a", {"main", "a", "b"})
    assert await place.objects_with() == []
    assert place.files_with() == []


async def test_several_erasures_leave_the_newest_state_of_a_fork_in_one_commit(place):
    ids = [await ingest(place, summary=f"{MARK} {n}", topic_key=f"t{n}", content=n) for n in range(5)]
    await place.call("POST", f"{DB}/branches", json={"name": "fork"})
    erasures = [await place.erase(memory_id=one) for one in ids]
    await place.later(70)

    coupons = [await place.coupon(erasure) for erasure in erasures]
    assert len({coupon["forget_txid"]["main"] for coupon in coupons}) == 5
    assert len({coupon["forget_txid"]["fork"] for coupon in coupons}) == 1
    assert [coupon["memory_ids"] for coupon in coupons] == [[one] for one in ids]
    listed = await place.call("GET", f"{MEMORY}/memories?branch=fork&include_superseded=true")
    assert listed.json()["memories"] == []


async def test_branches_that_bring_the_target_back_while_an_erasure_waits_lose_it_soon(place):
    one = await ingest(place, summary=f"{MARK}")
    before = stamps(await place.call("PUT", f"{DB}/kv/n/k", content=b"v"))[0]
    await place.call("POST", f"{DB}/branches", json={"name": "gone"})
    await place.call("DELETE", f"{DB}/branches/gone")
    await place.erase(memory_id=one)
    await place.later(70)

    await place.call("POST", f"{DB}/branches", json={"name": "old", "at": str(before)})
    await place.call("POST", f"{DB}/branches/gone/undelete")
    await place.later(1)

    for branch in ("main", "old", "gone"):
        await place.call("GET", f"{MEMORY}/memories/{one}?branch={branch}", 404)


async def test_erasures_of_a_deleted_database_are_completed_when_all_of_it_is_gone(place):
    one = await ingest(place, summary=f"{MARK}")
    erasure, uuid = await place.erase(memory_id=one), await place.uuid
    await place.call("DELETE", "/v1/databases/app--ann")
    for _ in range(6):
        await place.later(GRACE_S)
    coupon = await place.node.erasing.coupons.get(uuid, erasure)
    assert coupon.status == "completed"
    assert coupon.receipt.payload["evidence"]["objects_listed"] == 0
    assert await place.objects_with() == []
    assert place.files_with() == []


async def test_what_cannot_be_read_holds_an_erasure_up_and_is_said(place):
    one = await ingest(place, summary=f"{MARK}")
    await place.call("POST", f"{DB}/branches", json={"name": "fork"})
    await place.call("PUT", "/v1/db/app--ann@fork/kv/ns/k", content=b"x")
    await place.call("POST", "/v1/db/app--ann@fork/sync")
    erasure = await place.erase(memory_id=one, grace_secs=0)
    uuid = await place.uuid
    fork = (await registered(place.node, uuid))["fork"]
    ref = fork.segments[-1]
    [key] = [info.key async for info in place.store.list("") if ref.key_name in info.key]
    lost = await place.store.get(key)
    await place.store.delete(key)
    await place.later(5)

    coupon = await place.coupon(erasure)
    assert coupon["status"] == "blocked"
    assert coupon["blocked_by"]["branches"] == ["fork"]
    assert key in coupon["blocked_by"]["reasons"][0]

    await place.store.put(key, lost.data)
    await place.later(70)
    assert (await place.completed(erasure))["status"] == "completed"
    assert await place.objects_with() == []


async def test_forgetting_is_erasing_where_the_policy_says_so(place):
    await ingest(place, summary="x")
    said = {"erasure": {"purge_on_forget": True, "grace_secs": 60}}
    await place.node.policies.change(
        "default", "app", lambda current: with_policy(current or new("default", "app"), said)
    )
    one = await ingest(place, summary=f"{MARK} 1", content=1)
    many = [await ingest(place, summary=f"{MARK} {n}", content=n) for n in (2, 3)]
    await ingest(place, type="task", summary=f"{MARK} task", session_id="s")
    answers = [
        await place.call("DELETE", f"{MEMORY}/memories/{one}", 204),
        await place.call("POST", f"{MEMORY}/memories/forget", 200, json={"ids": [*many, "mem_0"]}),
        await place.call("DELETE", f"{MEMORY}/sessions/s", 204),
    ]
    assert [row["status"] for row in answers[1].json()["results"]] == ["forgotten", "forgotten", "not_found"]
    assert failure(await place.client.delete(f"{MEMORY}/memories/{one}")) == (404, "not_found")
    nothing = await place.call("POST", f"{MEMORY}/memories/forget", json={"ids": ["mem_0"]})
    assert nothing.json()["forgotten"] == 0
    await place.later(65)
    for answer in answers:
        await place.completed(answer.headers["memoturn-erasure-id"])
    assert await place.objects_with() == []


class Dying:
    """A store that a process reaches for `left` more requests, and then no more (None: for ever)."""

    def __init__(self, inner):
        self.inner, self.left = inner, None

    def _count(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise StoreUnavailableError("the process has died")

    def __getattr__(self, name):
        async def call(*args):
            self._count()
            return await getattr(self.inner, name)(*args)

        return call

    async def list(self, prefix):
        self._count()
        async for info in self.inner.list(prefix):
            yield info


async def test_a_node_that_dies_anywhere_goes_on_with_an_erasure(tmp_path):
    """Each try dies at a later request of the store than the one before; the last one is done."""
    clock = ShiftedClock()
    place = Place(tmp_path / "node", MemoryStore(clock), clock)
    erasure, at, tries = None, 0, 0
    while True:
        tries += 1
        dying = Dying(place.store)
        place.folder = tmp_path / f"node-{tries}"
        async with started(Place(place.folder, dying, clock)) as one:
            if erasure is None:
                await fill(one, 1)
                await one.call("POST", f"{DB}/branches", json={"name": "fork"})
                await fill(one, 2)
                await one.call("POST", f"{DB}/sync")
                erasure = await one.erase(targets=EVERYTHING, grace_secs=0)
            uuid = (await one.node.databases.get("app--ann")).uuid
            clock.ahead_s += GC_S
            dying.left = at
            at += 7
            try:
                for _ in range(3):
                    await one.node.erasing.look(Chore(ERASE, uuid))
                    await one.node.collector.collect(uuid)
                    clock.ahead_s += GC_S
            except (StoreUnavailableError, ExceptionGroup):
                assert dying.left < 0
            dying.left = None
            coupon = await one.node.erasing.coupons.get(uuid, erasure)
        if coupon.status == "completed":
            break
        assert tries < 80
    assert tries > 3
    assert await place.objects_with() == []


COPY = {"Memoturn-Consistency": "cached"}
"""For reads of what another node owns."""


async def test_an_erasure_waits_until_every_live_node_has_let_go_of_its_copies(tmp_path):
    clock = ShiftedClock()
    store, table = MemoryStore(clock), LeaseTable()
    places = {name: Place(tmp_path / name, store, clock) for name in ("a", "b")}
    async with contextlib.AsyncExitStack() as stack:

        async def start(name):
            leases = LocalLeases(name, f"http://{name}", table)
            return await stack.enter_async_context(started(places[name], leases=leases, NODE_ID=name))

        async def alive():
            for place in places.values():
                for name in places:
                    row = NodeRow(name, f"http://{name}", "0", 0, clock.now_ms() + 10**8)
                    await place.node._services.catalog.put_node(row)

        one = await start("a")
        secret = await ingest(one, summary=f"{MARK}")
        await one.call("PUT", f"{DB}/kv/ns/k", content=b"x")
        await one.call("POST", f"{DB}/sync")
        other = await start("b")
        for at in ("", "?at=head~1"):
            assert MARK in (await other.call("GET", f"{MEMORY}/memories{at}", headers=COPY)).text
        assert other.files_with()
        await alive()
        erasure = await one.erase(memory_id=secret, grace_secs=0)
        for _ in range(3):
            await one.later(GC_S)
        assert (await one.coupon(erasure))["status"] == "rewriting"
        assert await one.objects_with() == []

        await other.node.erasing.release()

        assert other.files_with() == []
        await one.later(15)
        coupon = await one.completed(erasure)
        assert coupon["receipt"]["payload"]["evidence"]["nodes_cleared"] == 2
        assert (await other.call("GET", f"{DB}/kv/ns/k", headers=COPY)).content == b"x"
        assert MARK not in (await other.call("GET", f"{MEMORY}/memories?at=head~1", headers=COPY)).text


async def test_an_erasure_is_carried_out_by_nodes_that_own_a_branch_each(tmp_path):
    clock = ShiftedClock()
    store, table = MemoryStore(clock), LeaseTable()
    async with contextlib.AsyncExitStack() as stack:

        async def start(name):
            place, leases = Place(tmp_path / name, store, clock), LocalLeases(name, f"http://{name}", table)
            env = {"NODE_ID": name, "WARM_AFTER_S": "99999", "COLD_AFTER_S": "99999"}
            return await stack.enter_async_context(started(place, leases=leases, **env))

        one = await start("a")
        secret = await ingest(one, summary=f"{MARK}")
        await one.call("POST", f"{DB}/branches", json={"name": "fork"})
        other = await start("b")
        await other.call("PUT", "/v1/db/app--ann@fork/kv/ns/k", content=b"x")
        erasure, chore = await one.erase(memory_id=secret, grace_secs=0), Chore(ERASE, await one.uuid)
        for place in (one, other) * 3:
            await place.node.erasing.look(chore)
        coupon = await one.coupon(erasure)
        assert (coupon["status"], "rewritten_at" in coupon) == ("rewriting", True), coupon
        await one.later(GC_S)
        await one.completed(erasure)
        assert await one.objects_with() == []
        assert (await other.call("GET", "/v1/db/app--ann@fork/kv/ns/k")).content == b"x"
        listed = await other.call("GET", f"{MEMORY}/memories?branch=fork&at=head~1")
        assert listed.json()["memories"] == []


async def test_more_erasures_than_a_manifest_records_are_completed_together(place):
    count = ERASURES_KEPT + 1
    items = [
        {"type": "fact", "topic_key": f"t{n}", "summary": f"{MARK} {n}", "content": n} for n in range(count)
    ]
    made = (await place.call("POST", f"{MEMORY}/memories", json={"memories": items})).json()["results"]
    await place.call("POST", f"{DB}/branches", json={"name": "gone"})
    await place.call("PUT", "/v1/db/app--ann@gone/kv/ns/k", content=b"x")
    erasures = [await place.erase(memory_id=one["id"]) for one in made]
    await place.later(70)
    await place.later(GRACE_S - 1000)
    await place.call("DELETE", f"{DB}/branches/gone")
    for _ in range(12):
        await place.later(GC_S)
    coupons = [await place.coupon(erasure) for erasure in erasures]
    assert {coupon["status"] for coupon in coupons} == {"completed"}, coupons[0].get("blocked_by")
    assert await place.objects_with() == []


async def test_an_erasure_of_a_deleted_database_waits_for_the_copies_of_other_nodes_too(place):
    one = await ingest(place, summary=f"{MARK}")
    erasure, uuid = await place.erase(memory_id=one), await place.uuid
    await place.call("DELETE", "/v1/databases/app--ann")
    row = NodeRow("other", "http://other", "0", 0, place.clock.now_ms() + 10**9)
    await place.node._services.catalog.put_node(row)
    for _ in range(6):
        await place.later(GRACE_S)
    coupons = place.node.erasing.coupons
    coupon = await coupons.get(uuid, erasure)
    assert (coupon.status, coupon.nodes["other"]) == ("pending", 0)
    [file] = await coupons.releasing()  # where the other one finds what it has to let go of

    await file.load()
    await file.update(lambda current: erased.cleared(current, "other", 1))
    await place.later(GRACE_S)
    coupon = await coupons.get(uuid, erasure)
    assert coupon.receipt.payload["evidence"]["nodes_cleared"] == 2


async def test_the_audit_stream_has_the_request_and_the_end_of_an_erasure(place):
    one = await ingest(place, summary=f"{MARK}")
    erasure = await place.erase(memory_id=one, grace_secs=0)
    await place.later(5)
    await place.completed(erasure)
    answer = await place.call("GET", "/v1/namespaces/app/audit", params={"action": "erasure."})
    told = [(row["action"], row["resource"], row["outcome"]) for row in answer.json()["events"]]
    assert told == [
        ("erasure.requested", f"erasures/{erasure}", "ok"),
        ("erasure.completed", f"erasures/{erasure}", "ok"),
    ]


async def test_a_node_that_was_away_drops_its_files_of_what_was_erased_meanwhile(tmp_path):
    clock = ShiftedClock()
    store = MemoryStore(clock)
    away, here = (Place(tmp_path / name, store, clock) for name in ("away", "here"))
    async with started(away):
        secret = await ingest(away, summary=f"{MARK}")
        await away.call("POST", f"{DB}/sync")
    assert away.files_with()
    async with started(here):
        erasure = await here.erase(memory_id=secret, grace_secs=0)
        await here.later(5)
        await here.completed(erasure)
    assert away.files_with()
    async with started(away):
        assert (await away.call("GET", f"{MEMORY}/memories")).json()["memories"] == []
        assert away.files_with() == []


async def test_a_receipt_is_signed_and_proved_offline_by_published_keys_retired_ones_too(tmp_path):
    clock = ShiftedClock()
    place = Place(tmp_path / "node", MemoryStore(clock), clock)
    async with started(place, AUTH="on", PLATFORM_KEY=PLATFORM_KEY, CLUSTER_KEY=CLUSTER_KEY):
        place.client.headers["Authorization"] = f"Bearer {PLATFORM_KEY}"
        token = await mint(place.client, "namespaces/app", "admin", expires_in=3600)
        place.client.headers["Authorization"] = f"Bearer {token['token']}"
        secret = await ingest(place, summary=f"{MARK}")
        erasure = await place.erase(memory_id=secret, grace_secs=0)
        for _ in range(3):
            await place.later(GC_S)
        coupon = await place.coupon(erasure)
        assert coupon["status"] == "completed"
        await place.node.authority.keyring.rotate(max_lifetime_s=60)
        keys = (await place.call("GET", "/.well-known/jwks.json")).json()
        assert len(keys["keys"]) == 2

    payload = verify_receipt(coupon, keys)
    assert (payload["erasure_id"], payload["memory_ids"]) == (erasure, [secret])
    assert coupon["receipt"]["key_id"] in {key["kid"] for key in keys["keys"]}
    changed = json.loads(json.dumps(coupon).replace(secret, f"mem_{'0' * 32}"))
    with pytest.raises(InvalidReceiptError, match="was changed"):
        verify_receipt(changed, keys)


async def test_a_node_that_was_silent_through_an_erasure_brings_nothing_of_it_back(tmp_path):
    clock = ShiftedClock()
    store, table = MemoryStore(clock), LeaseTable()
    cable = Cable(store)
    silent, env = Place(tmp_path / "a", cable, clock), {"NODE_ID": "a", "SHIP_INTERVAL_MS": "60000"}
    async with started(silent, leases=LocalLeases("a", "http://a", table), **env):
        secret = await ingest(silent, summary=f"{MARK}", content={"in": [MARK] * 2000})
        await silent.call("POST", f"{DB}/sync")
        await silent.call("PUT", f"{DB}/kv/ns/local", content=b"x")  # which is on its disk alone
        cable.cut = True
        shutil.copytree(silent.folder, tmp_path / "kept")
        for branch in silent.node.tiers.hot():
            await branch.owned.shipper.compactor.stop()
            branch.close_connections()
            branch._conn = branch.owned = None
    table.placed.clear()

    other, back = Place(tmp_path / "b", store, clock), Place(tmp_path / "kept", store, clock)
    async with started(other, leases=LocalLeases("b", "http://b", table), NODE_ID="b"):
        erasure = await other.erase(memory_id=secret, grace_secs=0)
        await other.completed(erasure)
        assert await other.objects_with() == []
        assert back.files_with(), "it was on the silent node's disk: else this proves nothing"
        async with started(back, leases=LocalLeases("a", "http://a", table), NODE_ID="a"):
            for _ in range(1000):
                if "recovered-1" in await registered(back.node, await back.uuid) and not back.files_with():
                    break
                await asyncio.sleep(0.01)
            assert back.files_with() == []
            assert await other.objects_with() == []
            kept = "/v1/db/app--ann@recovered-1"
            assert (await back.call("GET", f"{kept}/kv/ns/local")).content == b"x"
            listed = await back.call("GET", f"{MEMORY}/memories?branch=recovered-1")
            assert listed.json()["memories"] == []
