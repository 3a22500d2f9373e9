"""Leases on a real etcd that expires, pauses, restarts, forgets, and loses its leader."""

import asyncio
import secrets
import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from etcd_server import fresh_prefix, own_etcd
from lease_support import TTL_S, etcd_client, etcd_leases

from memoturnd.errors import ConfigurationError, FencedError, NotOwnerError, OverloadedError, RetryableError
from memoturnd.leases import etcd
from memoturnd.leases.etcd import EtcdLeases, EtcdWatching, Identity
from memoturnd.leases.etcd_client import (
    MOST_CALLS,
    Endpoints,
    EtcdClient,
    EtcdRefusedError,
    EtcdUnavailableError,
)
from memoturnd.leases.open import Load
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.leases import LiveNode, NodeLeft, Placed, Placements

WITHIN_S = 3 * TTL_S


@pytest.fixture(scope="module")
def own():
    """A server that the tests of this file may stop, which each leaves running."""
    with own_etcd() as server:
        yield server


@pytest.fixture
def prefix():
    return fresh_prefix()


@pytest.fixture
def silent():
    """The address of something that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


class Reading(SystemClock):
    """The machine's clock, with an offset that only this test moves."""

    def __init__(self):
        self.offset_s = 0.0

    def monotonic_s(self):
        return super().monotonic_s() + self.offset_s


async def until(condition, within_s=WITHIN_S):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


async def taken(leases, branch_id, within_s=WITHIN_S):
    """Acquire as soon as that is possible."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await leases.acquire(branch_id)
        except (NotOwnerError, RetryableError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def answered(ask, within_s=WITHIN_S):
    """Ask until there is an answer: a member without a leader has none."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await ask()
        except RetryableError:
            assert time.monotonic() < deadline


async def started(url, prefix, node_id="a", clock=None, **options):
    """Return leases that nobody renews."""
    leases = EtcdLeases(
        etcd_client(url),
        Identity(node_id, f"http://{node_id}:1", f"disk of {node_id}"),
        clock or SystemClock(),
        ttl_s=TTL_S,
        prefix=prefix,
        **options,
    )
    await leases.start()
    return leases


# ---- the session


async def test_session_of_a_silent_node_runs_out_and_its_branches_are_free(etcd_url, prefix):
    silent = await started(etcd_url, prefix)
    lease = await silent.acquire("branch")
    async with etcd_leases(etcd_url, "b", prefix=prefix) as other:
        assert silent.holds(lease)
        with pytest.raises(NotOwnerError):
            await other.acquire("branch")

        current = await taken(other, "branch")

        assert not silent.holds(lease), "it has to stop before another can begin"
        assert current.epoch > lease.epoch
        assert [node.node_id for node in await other.live_nodes()] == ["b"]
    await silent.close()


async def test_session_lasts_as_long_as_it_is_renewed(etcd_url, prefix):
    failed = []
    async with etcd_leases(etcd_url, prefix=prefix, on_failed_renewal=lambda: failed.append(True)) as leases:
        lease, first_s = await leases.acquire("branch"), leases.deadline()
        await asyncio.sleep(1.5 * TTL_S)

        assert leases.holds(lease)
        assert leases.deadline() > first_s + 0.5 * TTL_S
        assert failed == []


async def test_deadline_counts_from_before_the_request_was_sent(etcd_url, prefix):
    clock = Reading()
    leases = await started(etcd_url, prefix, clock=clock)
    call = leases._client.call

    async def slow(path, body, **how):
        answer = await call(path, body, **how)
        clock.offset_s += 0.5  # what the request and its answer took
        return answer

    leases._client.call = slow
    before_s = clock.monotonic_s()
    await leases._renew()

    margin_s = etcd.MARGIN_SHARE * TTL_S
    assert before_s + TTL_S - margin_s == pytest.approx(leases.deadline(), abs=0.1)
    leases._client.call = call
    await leases.close()


async def test_lease_is_not_held_from_its_deadline_on(etcd_url, prefix):
    clock = Reading()
    leases = await started(etcd_url, prefix, clock=clock)
    lease = await leases.acquire("branch")

    clock.offset_s += leases.left_s - 0.1
    assert leases.holds(lease)
    clock.offset_s += 0.2
    assert not leases.holds(lease)
    assert leases.left_s == 0

    await leases._renew()  # etcd has kept the lease all the time, so nobody else had the branch
    assert leases.holds(lease)
    await leases.close()


async def test_lease_that_was_lost_is_granted_again(own, prefix):
    async with etcd_leases(own.url, prefix=prefix) as leases:
        lease = await leases.acquire("branch")

        own.call("lease/revoke", {"ID": lease.session})
        await until(lambda: not leases.holds(lease))
        await until(lambda: leases.left_s > 0)

        assert leases.held == 0
        again = await leases.acquire("branch")
        assert again.session != lease.session
        assert again.epoch > lease.epoch
        assert leases.holds(again)
        assert not leases.holds(lease)
        assert [node.node_id for node in await leases.live_nodes()] == ["a"]


async def test_answer_with_no_time_left_means_lost(own, prefix):
    leases = await started(own.url, prefix)
    lease = await leases.acquire("branch")
    own.call("lease/revoke", {"ID": lease.session})

    await leases._renew()

    assert not leases.holds(lease)
    assert leases.left_s > 0, "with a session of its own again"
    await leases.close()


async def test_branch_is_taken_under_a_new_session_where_the_old_one_has_ended_unnoticed(own, prefix):
    leases = await started(own.url, prefix)
    lost = await leases.acquire("one")
    own.call("lease/revoke", {"ID": lost.session})

    lease = await leases.acquire("two")

    assert leases.holds(lease)
    assert not leases.holds(lost)
    await leases.close()


async def test_own_branch_of_an_earlier_session_is_taken_without_a_gap(etcd_url, prefix):
    earlier = await started(etcd_url, prefix)
    lease = await earlier.acquire("branch")
    again = await started(etcd_url, prefix)  # the same node, on the same disk

    current = await again.acquire("branch")

    assert current.epoch > lease.epoch
    assert (await again.owner_of("branch")).epoch == current.epoch
    await earlier.close()
    assert (await again.owner_of("branch")).epoch == current.epoch, "it goes with the new session now"
    await again.close()


async def test_sync_set_takes_the_epoch_that_stands(etcd_url, prefix):
    async with etcd_leases(etcd_url, prefix=prefix) as leases:
        stale = await leases.acquire("branch")
        await leases.acquire("branch")

        with pytest.raises(FencedError):
            await leases.record_sync_set(stale, (LiveNode("b", "http://b:1"),))


async def test_release_under_another_session_spares_what_has_the_same_revision(etcd_url, prefix):
    """As an etcd that was emptied makes it come about: its revisions begin anew."""
    async with etcd_leases(etcd_url, prefix=prefix) as leases:
        lease = await leases.acquire("branch")

        await leases.release(replace(lease, session="4711"))
        assert leases.holds(lease)
        assert (await leases.owner_of("branch")).epoch == lease.epoch

        await leases.release(lease)
        assert await leases.owner_of("branch") is None


async def test_late_copy_of_a_taking_leaves_the_epoch_that_its_node_goes_by(etcd_url, prefix, monkeypatch):
    async with etcd_leases(etcd_url, prefix=prefix) as leases:
        call, sent = leases._client.call, []

        async def noted(path, body, **options):
            sent.append((path, body))
            return await call(path, body, **options)

        monkeypatch.setattr(leases._client, "call", noted)
        lease = await leases.acquire("branch")

        await call("kv/txn", next(body for path, body in sent if path == "kv/txn"))

        assert (await leases.owner_of("branch")).epoch == lease.epoch
        await leases.release(lease)
        assert await leases.owner_of("branch") is None


async def test_late_copy_of_a_recorded_sync_set_undoes_no_newer_one(etcd_url, prefix, monkeypatch):
    async with etcd_leases(etcd_url, prefix=prefix) as leases:
        lease = await leases.acquire("branch")
        call, sent = leases._client.call, []

        async def noted(path, body, **options):
            sent.append((path, body))
            return await call(path, body, **options)

        monkeypatch.setattr(leases._client, "call", noted)
        await leases.record_sync_set(lease, (LiveNode("b", "http://b:1"),))
        await leases.record_sync_set(lease, (LiveNode("c", "http://c:1"),))

        await call(
            "kv/txn", next(body for path, body in sent if path == "kv/txn")
        )  # of a server that was paused

        assert [node.node_id for node in (await leases.sync_set("branch")).members] == ["c"]
        await leases.record_sync_set(lease, ())
        assert await leases.sync_set("branch") is None


# ---- who a node is


async def test_two_nodes_of_one_name_refuse_to_run(etcd_url, prefix):
    async with etcd_leases(etcd_url, "n", "http://first:1", prefix=prefix, instance="one"):
        with pytest.raises(ConfigurationError, match="another node is there as 'n', at http://first:1"):
            async with etcd_leases(etcd_url, "n", "http://second:1", prefix=prefix, instance="two"):
                pass


async def test_renewed_lease_shows_that_the_other_node_lives(etcd_url, prefix):
    # With a longer lease it is seen at its next renewal, long before it could have run out.
    async with etcd_leases(etcd_url, "n", prefix=prefix, instance="one", ttl_s=6):
        began_s = time.monotonic()
        with pytest.raises(ConfigurationError, match="another node is there"):
            async with etcd_leases(etcd_url, "n", prefix=prefix, instance="two", ttl_s=6):
                pass
        assert time.monotonic() - began_s < 5


async def test_new_disk_waits_for_the_end_of_the_old_ones_lease(etcd_url, prefix):
    dead = await started(etcd_url, prefix)
    began_s = time.monotonic()
    async with etcd_leases(etcd_url, "a", prefix=prefix, instance="a new disk") as leases:
        assert 0 < time.monotonic() - began_s < TTL_S + 2
        assert [node.node_id for node in await leases.live_nodes()] == ["a"]
    await dead.close()


async def test_same_disk_takes_over_at_once(etcd_url, prefix):
    dead = await started(etcd_url, prefix)
    began_s = time.monotonic()
    async with etcd_leases(etcd_url, "a", "http://moved:2", prefix=prefix, instance="disk of a") as leases:
        assert time.monotonic() - began_s < TTL_S / 2
        assert await leases.live_nodes() == (LiveNode("a", "http://moved:2"),)
        await dead.close()
        assert await leases.live_nodes() == (LiveNode("a", "http://moved:2"),)


async def test_load_is_told_when_it_changes_noticeably(etcd_url, prefix, monkeypatch):
    monkeypatch.setattr(etcd, "LOAD_S", 0.1)
    load = SimpleNamespace(now=0.25)
    async with etcd_leases(etcd_url, prefix=prefix, load=lambda: load.now) as leases:
        changes = leases.watch()
        assert (await anext(changes)).nodes == (LiveNode("a", "http://a:1", 0.25),)
        load.now = 0.26  # not worth telling
        await asyncio.sleep(TTL_S / 3 + 0.1)
        load.now = 7
        async with asyncio.timeout(WITHIN_S):
            assert await anext(changes) == LiveNode("a", "http://a:1", 1.0)
        await changes.aclose()


async def test_node_that_drains_says_so_at_once(etcd_url, prefix):
    load = Load()
    async with etcd_leases(etcd_url, prefix=prefix, ttl_s=30, load=load) as leases:
        load.on_change = leases.tell_load
        changes = leases.watch()
        assert (await anext(changes)).nodes == (LiveNode("a", "http://a:1", 1.0),), "it does not serve yet"
        for change, told in ((lambda: load.serve(lambda: 0.25), 0.25), (load.drain, 1.0)):
            change()
            async with asyncio.timeout(1):
                assert await anext(changes) == LiveNode("a", "http://a:1", told)
        await changes.aclose()


# ---- a server in trouble


async def test_paused_server_ends_what_is_held_in_time_and_is_asked_again(own, prefix):
    failed = []
    async with etcd_leases(own.url, prefix=prefix, on_failed_renewal=lambda: failed.append(True)) as leases:
        lease = await leases.acquire("branch")
        own.members[0].pause()
        try:
            began_s = time.monotonic()
            with pytest.raises(RetryableError, match="etcd"):
                await leases.owner_of("branch")
            assert time.monotonic() - began_s < TTL_S / 3
            await until(lambda: not leases.holds(lease))
            assert failed
        finally:
            own.members[0].resume()
        current = await taken(leases, "branch")
        assert leases.holds(current)


async def test_restarted_server_is_found_again(own, prefix):
    async with etcd_leases(own.url, prefix=prefix) as leases:
        lease = await leases.acquire("branch", database="db", branch="main")
        changes = leases.watch()
        assert isinstance(await anext(changes), Placements)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.3)

        own.members[0].kill()
        await asyncio.to_thread(own.start)

        async with asyncio.timeout(WITHIN_S):
            told = await waiting
        assert isinstance(told, Placements), "after a gap everything again"
        assert [placed.branch_id for placed in told.placed] == ["branch"]
        await until(lambda: leases.left_s > TTL_S / 2)
        assert leases.holds(lease) == ((await leases.owner_of("branch")).epoch == lease.epoch)
        other = await leases.acquire("other")
        async with asyncio.timeout(WITHIN_S):
            while (change := await anext(changes)) != Placed("other", "", "", await leases.owner_of("other")):
                assert isinstance(change, (Placements, Placed, LiveNode, NodeLeft))
        assert leases.holds(other)
        await changes.aclose()


async def test_watch_on_a_paused_server_goes_on_afterwards(own, prefix):
    watching = EtcdWatching(etcd_client(own.url), SystemClock(), ttl_s=TTL_S, prefix=prefix)
    changes = watching.watch()
    assert await anext(changes) == Placements((), ())
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.3)
    own.members[0].pause()
    await asyncio.sleep(TTL_S)
    own.members[0].resume()
    async with asyncio.timeout(WITHIN_S):
        assert await waiting == Placements((), ()), "its silence was noticed, and everything read again"
    await changes.aclose()
    await watching.close()


async def test_watch_begins_elsewhere_where_a_server_takes_it_and_says_nothing(own, prefix, silent):
    client = EtcdClient(Endpoints((silent, own.members[0].url)), timeout_s=1)
    watching = EtcdWatching(client, SystemClock(), ttl_s=TTL_S, prefix=prefix)
    client._at = 1
    changes = watching.watch()
    assert await anext(changes) == Placements((), ())
    client._at = 0
    async with asyncio.timeout(WITHIN_S):
        assert await anext(changes) == Placements((), ())
    await changes.aclose()
    await watching.close()


async def test_compaction_costs_a_watch_one_reading_of_everything(own, prefix):
    async with etcd_leases(own.url, prefix=prefix) as leases:
        lease = await leases.acquire("branch", database="db", branch="main")
        client, keys = leases._client, leases._keys
        revision = int(own.call("kv/range", {"key": "AA=="})["header"]["revision"])
        for number in range(5):
            await leases.acquire(f"later{number}")
        own.call("kv/compaction", {"revision": str(revision + 3)})
        read, calls = etcd.read_range, []

        async def old(*asked):
            entries, now = await read(*asked)
            calls.append(now)
            return entries, revision if len(calls) == 1 else now

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(etcd, "read_range", old)
            changes = etcd.watch(client, keys, SystemClock(), silence_s=1)
            async with asyncio.timeout(WITHIN_S):
                first, second = await anext(changes), await anext(changes)
            assert isinstance(first, Placements)
            assert isinstance(second, Placements)
            assert "branch" in {placed.branch_id for placed in second.placed}
            await leases.release(lease)
            async with asyncio.timeout(WITHIN_S):
                assert await anext(changes) == Placed("branch", "db", "main", None)
            await changes.aclose()


async def test_wiped_server_gets_everything_anew(own, prefix):
    async with etcd_leases(own.url, prefix=prefix) as leases:
        for number in range(3):
            lease = await leases.acquire(f"branch{number}")
        remembered, before_s = leases.lineage, time.clock_gettime(time.CLOCK_BOOTTIME)
        await asyncio.to_thread(own.wipe)

        await until(lambda: not leases.holds(lease))
        current = await taken(leases, lease.branch_id)

        assert leases.holds(current)
        assert [node.node_id for node in await leases.live_nodes()] == ["a"]
        assert current.lineage == leases.lineage
        assert current.lineage.id != remembered.id
        assert current.lineage.settled_s >= before_s + TTL_S


async def test_question_to_a_wiped_server_ends_what_was_held_before_it_is_answered(own, prefix):
    async with etcd_leases(own.url, prefix=prefix) as leases:
        lease = await leases.acquire("branch")
        await asyncio.to_thread(own.wipe)
        assert leases.holds(lease), "nobody has told it yet: this proves nothing"

        assert await answered(lambda: leases.owner_of("branch")) is None
        assert not leases.holds(lease)
        assert leases.lineage.id != lease.lineage.id


async def test_nodes_agree_on_the_lineage_and_a_restart_is_of_the_same(own, prefix):
    async with (
        etcd_leases(own.url, prefix=prefix) as one,
        etcd_leases(own.url, "b", prefix=prefix) as other,
    ):
        assert one.lineage.id == other.lineage.id != ""
    async with etcd_leases(own.url, prefix=prefix) as again:
        assert again.lineage.id == one.lineage.id


async def test_leader_that_dies_or_stops_is_gone_round(prefix):
    with own_etcd(members=3) as server:
        async with (
            etcd_leases(server.url, prefix=prefix) as leases,
            etcd_leases(server.url, "b", prefix=prefix) as other,
        ):
            lease = await leases.acquire("branch")
            changes = other.watch()
            assert isinstance(await anext(changes), Placements)

            leader = server.leader()
            leader.kill()
            began_s = time.monotonic()
            second = await taken(leases, "second")
            assert time.monotonic() - began_s < TTL_S, "an election, and no lease has run out meanwhile"
            assert leases.holds(second)
            assert (await answered(lambda: other.owner_of("branch"))).epoch == lease.epoch
            async with asyncio.timeout(WITHIN_S):
                while True:
                    told = await anext(changes)
                    placed = told.placed if isinstance(told, Placements) else (told,)
                    if any(isinstance(one, Placed) and one.branch_id == "second" for one in placed):
                        break
            await asyncio.to_thread(server.start)

            paused = server.leader()
            paused.pause()
            try:
                third = await taken(leases, "third")
                assert leases.holds(third)
                owner = await answered(lambda: leases.owner_of("branch"))
                assert leases.holds(lease) == (owner is not None)
            finally:
                paused.resume()
            await changes.aclose()


# ---- the client


async def test_many_placements_are_read_in_pages_of_one_moment(etcd_url, prefix, monkeypatch):
    monkeypatch.setattr(etcd, "PAGE", 7)
    async with etcd_leases(etcd_url, prefix=prefix) as leases:
        await asyncio.gather(*(leases.acquire(f"branch{number:02}") for number in range(30)))
        changes = leases.watch()

        told = await anext(changes)

        assert [placed.branch_id for placed in told.placed] == [f"branch{number:02}" for number in range(30)]
        await changes.aclose()


async def test_key_that_is_nobodys_is_passed_over(own, prefix):
    async with etcd_leases(own.url, prefix=prefix) as leases:
        lease = await leases.acquire("branch")
        own.call("kv/put", {"key": etcd.records.encoded(f"{prefix}owner/strange"), "value": "eHl6"})
        changes = leases.watch()

        told = await anext(changes)

        assert [placed.owner.epoch for placed in told.placed] == [lease.epoch]
        await changes.aclose()


async def test_server_that_asks_for_a_password_gets_it(prefix):
    password = secrets.token_hex(8)
    with own_etcd() as server:
        server.call("auth/user/add", {"name": "root", "password": password})
        server.call("auth/role/add", {"name": "root"})
        server.call("auth/user/grant", {"user": "root", "role": "root"})
        server.call("auth/enable", {})
        wrong = EtcdClient(Endpoints((server.members[0].url,), "root", "another"), timeout_s=2)
        with pytest.raises(EtcdRefusedError, match="MEMOTURN_ETCD"):
            await wrong.call("kv/range", {"key": "AA=="})
        nobody = EtcdClient(Endpoints((server.members[0].url,)), timeout_s=2)
        with pytest.raises(EtcdRefusedError):
            await nobody.call("kv/range", {"key": "AA=="})

        client = EtcdClient(Endpoints((server.members[0].url,), "root", password), timeout_s=2)
        await client.call("kv/put", {"key": "AA==", "value": "AA=="})
        server.members[0].kill()
        await asyncio.to_thread(server.start)  # which forgets tokens
        assert (await client.call("kv/range", {"key": "AA=="}))["count"] == "1"
        for one in (wrong, nobody, client):
            await one.close()


async def test_silent_endpoint_costs_half_a_calls_time_once(own, silent):
    client = EtcdClient(Endpoints((silent, own.members[0].url)), timeout_s=1)

    took_s = []
    for _ in range(2):
        began_s = time.monotonic()
        await client.call("kv/range", {"key": "AA=="})
        took_s.append(time.monotonic() - began_s)

    assert 0.4 < took_s[0] < 1
    assert took_s[1] < 0.3
    await client.close()


async def test_lease_is_renewed_however_many_calls_wait(etcd_url, prefix, monkeypatch):
    leases = await started(etcd_url, prefix)
    attempt = leases._client._attempt

    async def slow(at, path, body):
        if path == "kv/txn":
            await asyncio.sleep(10)
        return await attempt(at, path, body)

    monkeypatch.setattr(leases._client, "_attempt", slow)
    waiting = [asyncio.ensure_future(leases.owner_of("branch")) for _ in range(2 * MOST_CALLS)]
    await asyncio.sleep(0)
    before_s = leases.deadline()

    await leases._renew()

    assert leases.deadline() > before_s
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in outcomes} == {EtcdUnavailableError, OverloadedError}
    await leases.close()
