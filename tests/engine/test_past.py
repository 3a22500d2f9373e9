"""Past states: what they show, and how those who ask share them."""

import asyncio

import apsw
import pytest
from harness import node_on
from pasts import at, files, slow_gets, state, with_values
from profiles import BY_HAND, everything, get, killed, put

from memoturnd.core import revisions
from memoturnd.core.durability import Durability
from memoturnd.engine.past import ASKER_AT_ONCE, ASKER_WAITING, IDLE_READERS, MADE_AT_ONCE, MADE_WAITING
from memoturnd.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionFailedError,
    RequestTimeoutError,
    StoreUnavailableError,
)
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import kv


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


# ---- what is shown


async def test_every_commit_is_shown_as_it_was_by_txid_and_by_count(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 5)

        for back, txid in enumerate(reversed(txids)):
            expected = {"x": str(4 - back)}
            seen = await (await at(node, txid)).read(everything)
            assert (seen.value, seen.txid, seen.durable_txid) == (expected, txid, txids[-1])
            assert await state(node, f"head~{back}") == expected
        assert (await (await node.profile("a")).read(everything)).value == {"x": "4"}


async def test_commits_that_are_not_shipped_yet_are_shipped_to_be_looked_at(tmp_path, store):
    async with node_on(tmp_path, store, **BY_HAND) as node:
        await with_values(node, 1)
        profile = await node.profile("a")
        txids = [(await profile.write(put("x", value))).txid for value in "ab"]

        assert await state(node, "head~1") == {"x": "a"}
        assert profile.durable_txid == txids[-1]
        await profile.write(put("x", "c"))
        assert await state(node, txids[1]) == {"x": "b"}
        assert profile.durable_txid == txids[-1], "what is durable already needs no ship"
        assert await state(node, profile.txid) == {"x": "c"}
        await profile.write(put("x", "d"))
        assert await state(node, revisions.rfc3339(profile.at_ms)) == {"x": "d"}


async def test_state_of_a_txid_never_changes_whatever_the_branch_does(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        before = [await state(node, txid) for txid in txids]

        await node.branches.rewind("a", "main", str(txids[0]))
        await (await node.profile("a")).write(put("x", "after"), durability=Durability.DURABLE)

        assert [await state(node, txid) for txid in txids] == before
        assert await state(node, "head~1") == {"x": "0"}


async def test_branch_that_was_never_written_is_empty_at_its_head_and_at_any_time(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        await node.databases.create("a")
        store.counts.clear()

        for revision in ("head", "0", "1790000000000"):
            seen = await (await at(node, revision)).read(everything)
            assert (seen.value, seen.txid) == ({}, 0)
        count = lambda conn, _now_ms: conn.execute("SELECT count(*) FROM sqlite_schema", can_cache=False).get  # noqa: E731
        assert (await (await at(node, "head")).read(count, work=Work.USER)).value > 0
        with pytest.raises(ConflictError):
            await state(node, 1)
        assert (store.counts["put"], store.counts["put_if_absent"], files(tmp_path)) == (0, 0, [])


async def test_fork_shows_its_parents_past_below_the_fork_point(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 4)
        await node.branches.create("a", "f", at=str(txids[2]))
        fork = await node.profile("a", "f")
        mine = (await fork.write(put("x", "mine"), durability=Durability.DURABLE)).txid

        assert await state(node, txids[0], branch="f") == {"x": "0"}
        assert await state(node, "head~1", branch="f") == {"x": "2"}
        assert await state(node, mine, branch="f") == {"x": "mine"}
        if mine != txids[3]:
            with pytest.raises(ConflictError, match=f"txid {txids[2]} below it"):
                await state(node, txids[3], branch="f")
        assert await state(node, txids[3]) == {"x": "3"}


async def test_what_expires_does_so_by_the_clock_of_the_state(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 1)
        profile = await node.profile("a")

        seen_ms = await (await at(node, txids[0])).read(lambda _conn, now_ms: now_ms)

        assert seen_ms.value == profile.at_ms
        assert (await profile.read(lambda _conn, now_ms: now_ms)).value >= seen_ms.value


async def test_key_that_has_expired_since_is_shown_in_its_time(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 1)
        profile = await node.profile("a")
        written = await kv.put(profile, "n", "k", b"v", ttl_s=1)
        await profile.write(put("x", "later"))
        await asyncio.sleep(1.05)
        later = (await profile.write(put("x", "expired"))).txid

        assert (await kv.get(await at(node, written.txid), "n", "k")).value.value == b"v"
        assert (await kv.page(await at(node, written.txid + 1), "n")).value["keys"] == ["k"]
        for past in (profile, await at(node, later), await at(node, txids[0])):
            with pytest.raises(NotFoundError):
                await kv.get(past, "n", "k")


async def test_history_replaced_under_a_node_that_only_reads_is_looked_up_again(tmp_path, store):
    async with node_on(tmp_path / "owner", store) as owner:
        txids = await with_values(owner, 3)
        mine = await owner.profile("a")
        async with node_on(tmp_path / "reader", store) as reader:  # knows the database from the store
            profile = await reader.profile("a")
            assert await state(reader, "head") == {"x": "2"}
            known = profile.manifests.cached
            for n in range(40):
                await mine.write(put("x", f"{n}"), durability=Durability.DURABLE)
            while (job := mine.owned.shipper.compactor.running) is not None:
                await asyncio.wait([job])
                await mine.owned.shipper.ship()
            kept = {ref.key_name for ref in (await mine.manifests.load()).objects}
            gone = [ref for ref in known.segments if ref.key_name not in kept]
            for ref in gone:
                await store.delete(f"v1/{known.db}/branches/{ref.branch}/segments/{ref.key_name}")

            assert gone
            assert profile.manifests.cached is known
            assert await state(reader, txids[0]) == {"x": "0"}


async def test_read_floor_above_the_state_is_refused_at_once(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        past = await at(node, txids[0])

        assert (await past.read(get("x"), min_txid=txids[0])).value == "0"
        async with asyncio.timeout(1):
            with pytest.raises(PreconditionFailedError, match=f"txid {txids[0]} "):
                await past.read(get("x"), min_txid=txids[1])


async def test_past_state_cannot_be_written(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        past = await at(node, txids[0])

        with pytest.raises(InvalidRequestError, match="fork"):
            await past.write(put("x", "no"))
        for work in (Work.POINT, Work.USER):
            with pytest.raises(apsw.ReadOnlyError):
                await past.read(
                    lambda conn, _: conn.execute("DELETE FROM __memoturn_kv", can_cache=False).get, work=work
                )
        assert await state(node, txids[0]) == {"x": "0"}


async def test_past_of_a_branch_that_another_node_owns_takes_no_lease(tmp_path, store):
    async with node_on(tmp_path / "owner", store, **BY_HAND) as owner:
        txids = await with_values(owner, 3)
        await (await owner.profile("a")).write(put("x", "not shipped"))
        async with node_on(tmp_path / "other", store, **BY_HAND) as other:
            epoch = (await owner.profile("a")).owned.shipper.epoch

            profile = await other.profile("a")
            assert await state(other, txids[0]) == {"x": "0"}
            assert await state(other, "head") == {"x": "2"}
            store.counts.clear()
            assert await state(other, txids[1]) == {"x": "1"}
            assert store.counts["get"] == 1, (
                "the commit: what the manifest says of an old txid does not change"
            )
            assert profile.owned is None

            assert (await other.profile("a")).owned is None
        assert (await (await owner.profile("a")).write(put("x", "4"), durability=Durability.DURABLE)).durable
        assert (await owner.profile("a")).owned.shipper.epoch == epoch


async def test_commits_left_behind_by_a_kill_are_shipped_to_be_looked_at(tmp_path, store):
    async with killed(tmp_path / "n", store, tmp_path / "killed", **BY_HAND) as node:
        txids = await with_values(node, 2)
        tail = (await (await node.profile("a")).write(put("x", "tail"))).txid

    store.faults.append(Fault(FaultKind.LATENCY, {"put_if_match"}, times=None, latency_s=0.1))
    async with node_on(tmp_path / "killed", store, **BY_HAND) as node:  # its recovery is still under way
        assert await state(node, tail) == {"x": "tail"}
        assert await state(node, txids[0]) == {"x": "0"}
        store.faults.clear()


async def test_reads_go_on_while_the_branch_goes_cold(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 3)
        profile = await node.profile("a")
        past = await at(node, txids[0])
        assert (await past.read(get("x"))).value == "0"

        reads = [asyncio.create_task(past.read(get("x"))) for _ in range(20)]
        assert await node.tiers.evict(profile)
        assert [(await read).value for read in reads] == ["0"] * 20
        assert not profile.hot
        assert await state(node, txids[1]) == {"x": "1"}
        assert not profile.hot, "reading the past opens nothing"


# ---- sharing


async def test_requests_for_one_state_share_its_making(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        store.faults.append(slow_gets(0.02))
        store.counts.clear()

        values = await asyncio.gather(*(state(node, txids[0]) for _ in range(50)))

        assert values == [{"x": "0"}] * 50
        assert store.counts["get"] == 1
        outcomes = {name: node.metrics.past_reads[name]._value.get() for name in ("hit", "shared", "miss")}
        assert outcomes == {"hit": 0, "shared": 49, "miss": 1}
        await state(node, txids[0])
        assert node.metrics.past_reads["hit"]._value.get() == 1
        assert len(files(tmp_path)) == 1


async def test_state_that_is_here_is_read_without_the_store(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        assert await state(node, txids[0]) == {"x": "0"}
        store.faults.append(Fault(FaultKind.LOST_REQUEST, {"get"}, times=None))

        assert await state(node, txids[0]) == {"x": "0"}
        with pytest.raises(StoreUnavailableError):
            await state(node, txids[1])


async def test_state_begins_with_the_nearest_one_below_that_is_here(tmp_path, store):
    async with node_on(tmp_path, store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        values = [f"{n}" * 5000 for n in range(12)] + [
            "0",
            "1",
            "2",
        ]  # the last ones are too few to be joined
        txids = [
            (await profile.write(put("x", value), durability=Durability.DURABLE)).txid for value in values
        ]
        await state(node, txids[11])
        store.counts.clear()

        assert await state(node, txids[-1]) == {"x": "2"}
        assert store.counts["get"] + store.counts["get_range"] == 3, "the three commits above it"
        assert await state(node, txids[-2]) == {"x": "1"}
        past = node.tiers.past
        assert all(s.users == 0 for s in past._states.values())
        await past.drop_oldest()
        assert {at for _, at in past._states} == {txids[-1], txids[-2]}, "what was begun with it stays whole"
        assert await state(node, txids[-1]) == {"x": "2"}


async def test_too_many_states_of_one_profile_are_turned_away_and_others_are_not(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 50)
        other = await with_values(node, 2, db="b")
        store.faults.append(slow_gets(0.05))
        running = []

        async def watch():
            while True:
                running.append(sum(s.begun and not s.made for s in node.tiers.past._states.values()))
                await asyncio.sleep(0.005)

        watcher = asyncio.create_task(watch())
        outcomes = await asyncio.gather(
            *(state(node, txid) for txid in txids), (await at(node, other[0], db="b")).read(get("x")),
            return_exceptions=True,
        )  # fmt: skip
        watcher.cancel()

        refused = [o for o in outcomes if isinstance(o, OverloadedError)]
        assert len(refused) == 50 - MADE_AT_ONCE - MADE_WAITING
        assert all(
            o == {"x": str(n)} for n, o in enumerate(outcomes[:-1]) if not isinstance(o, OverloadedError)
        )
        assert outcomes[-1].value == "0"
        assert max(running) <= MADE_AT_ONCE + 1, "two of this profile, one of the other"
        assert node.metrics.shed["past_states"]._value.get() == len(refused)
        assert await state(node, txids[49]) == {"x": "49"}, "the places are free again"
        assert not node.tiers.past._admission._held


async def test_one_token_has_so_many_states_made_whatever_profiles_it_asks_for(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        names = [f"p{number}" for number in range(ASKER_AT_ONCE + ASKER_WAITING + 5)]
        txids = {name: (await with_values(node, 2, db=name))[0] for name in names}
        other = await with_values(node, 2, db="other")
        store.faults.append(slow_gets(0.02))

        async def read(name, txid, asker):
            past = await node.past(name, "main", revisions.parse(str(txid)), asker=asker)
            return (await past.read(get("x"))).value

        outcomes = await asyncio.gather(
            *(read(name, txids[name], "tok_1") for name in names),
            read("other", other[0], "tok_2"),
            return_exceptions=True,
        )

        refused = [o for o in outcomes[:-1] if isinstance(o, OverloadedError)]
        assert len(refused) == 5
        assert "4 past states are being made for this token and 16 wait" in str(refused[0])
        assert outcomes[-1] == "0"
        assert not node.tiers.past._admission._held


async def test_who_leaves_does_not_take_the_making_from_the_others(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2)
        store.faults.append(slow_gets(0.1))
        first = asyncio.create_task(state(node, txids[0]))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(state(node, txids[0]))
        await asyncio.sleep(0.02)

        first.cancel()

        assert await second == {"x": "0"}
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_state_that_nobody_waits_for_any_more_is_finished_once_begun_and_else_never_made(
    tmp_path, store
):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 5)
        store.faults.append(slow_gets(0.1))
        reads = [asyncio.create_task(state(node, txid)) for txid in txids]
        await asyncio.sleep(0.05)

        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

        assert node.tiers.past.counts == (0, MADE_AT_ONCE)
        await asyncio.sleep(0.3)
        assert node.tiers.past.counts == (MADE_AT_ONCE, 0)
        assert len(files(tmp_path)) == MADE_AT_ONCE
        assert not node.tiers.past._admission._held


async def test_connections_to_past_states_are_bounded(tmp_path, store):
    async with node_on(tmp_path, store) as node:
        txids = await with_values(node, 2 * IDLE_READERS)
        for txid in txids:
            await state(node, txid)

        open_ = [c for c in apsw.connections() if "/past/" in c.filename]
        assert len(open_) == IDLE_READERS
    assert not [c for c in apsw.connections() if "/past/" in c.filename]


async def test_endless_statement_of_a_user_stops_at_its_deadline_while_others_read(tmp_path, store):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with node_on(tmp_path, store, REQUEST_TIMEOUT="1") as node:
        txids = await with_values(node, 2)
        past = await at(node, txids[0])
        long = [
            asyncio.create_task(
                past.read(lambda conn, _: conn.execute(endless, can_cache=False).get, work=Work.USER)
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0.05)

        async with asyncio.timeout(0.8):
            assert (await past.read(get("x"), work=Work.SCAN)).value == "0"
        for outcome in await asyncio.gather(*long, return_exceptions=True):
            assert isinstance(outcome, RequestTimeoutError)
