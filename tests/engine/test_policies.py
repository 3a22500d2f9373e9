"""The policies of a node: what it knows of them, for how long, and what it does while the store is down."""

import asyncio

import pytest
from harness import HandClock

from memoturnd import policies as module
from memoturnd.core import policy_document
from memoturnd.core.policy import NOTHING, Rules
from memoturnd.core.policy_document import new, with_override, with_policy
from memoturnd.errors import ConflictError, CorruptionError, StoreUnavailableError
from memoturnd.metrics import Metrics
from memoturnd.policies import Policies, PolicyUnreadableError
from memoturnd.seams.clock import SystemRandomness
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore

KEY = "v1/_policy/acme.json"
TTL = {"memory": {"task_ttl_max_secs": 600}}
SHORTER = {"memory": {"task_ttl_max_secs": 60}}


class World:
    """A store that fails on demand, and nodes that read policies of it."""

    def __init__(self):
        self.clock = HandClock()
        self.inner = MemoryStore()
        self.faults = []
        self.store = FaultyStore(self.inner, self.clock, self.faults)

    def node(self, **changes):
        return Policies(
            self.store,
            clock=self.clock,
            randomness=SystemRandomness(),
            metrics=Metrics(),
            **{"cache_s": 30, **changes},
        )

    def break_reads(self):
        self.faults.append(Fault(FaultKind.STATUS_503, ("get",), times=None))


@pytest.fixture
def world():
    return World()


async def put(node, said, tenant="default"):
    return await node.change(
        tenant, "acme", lambda current: with_policy(current or new(tenant, "acme"), said)
    )


# ---- what holds


async def test_nothing_is_asked_where_nobody_said_anything(world):
    node = world.node()

    assert await node.effective("acme--ann") == NOTHING
    assert await node.document("default", "acme") is None


async def test_ceiling_namespace_and_profile_hold_together(world):
    node = world.node(ceiling=Rules(pitr_secs=900, task_ttl_max_secs=700))
    await put(node, TTL)
    await node.change("default", "acme", lambda current: with_override(current, "ann", SHORTER, node.ceiling))

    assert (await node.effective("acme--bob")) == Rules(pitr_secs=900, task_ttl_max_secs=600)
    assert (await node.effective("acme--ann")) == Rules(pitr_secs=900, task_ttl_max_secs=60)
    assert (await node.effective("other--ann")) == node.ceiling


async def test_database_of_no_namespace_has_the_ceiling_alone(world):
    node = world.node(ceiling=Rules(embed="deny"))
    await put(node, TTL)

    assert await node.effective("acme") == Rules(embed="deny")
    assert world.store.counts["get"] == 1  # that of the change


async def test_namespaces_of_two_tenants_have_nothing_in_common(world):
    node = world.node()
    await put(node, TTL, tenant="t")

    assert await node.effective("acme--ann") == NOTHING
    assert (await node.effective("t/acme--ann")).task_ttl_max_secs == 600


# ---- for how long


async def test_writer_sees_its_change_at_once_and_another_node_within_the_cache_time(world):
    writer, other = world.node(), world.node()
    assert await writer.effective("acme--ann") == await other.effective("acme--ann") == NOTHING

    await put(writer, TTL)

    assert (await writer.effective("acme--ann")).task_ttl_max_secs == 600
    world.clock.at_s += 29
    assert await other.effective("acme--ann") == NOTHING
    assert (await other.effective("acme--ann", fresh=True)).task_ttl_max_secs == 600
    world.clock.at_s += 1
    await put(writer, SHORTER)
    world.clock.at_s += 30
    assert (await other.effective("acme--ann")).task_ttl_max_secs == 60


async def test_so_many_who_ask_at_once_cost_one_read(world):
    node = world.node()

    await asyncio.gather(*(node.effective("acme--ann") for _ in range(50)))

    assert world.store.counts["get"] == 1


async def test_what_is_kept_has_a_bound(world, monkeypatch):
    monkeypatch.setattr(module, "CACHE_ENTRIES", 3)
    node = world.node()
    for number in range(9):
        await node.effective(f"n{number}--p")
    assert len(node._entries) == 3
    assert node._size_bytes == 3 * 1024

    monkeypatch.setattr(module, "CACHE_BYTES", 2500)
    await put(node, TTL)
    assert len(node._entries) == 1  # it takes more than one that says nothing
    assert 1024 < node._size_bytes <= 2500
    assert (await node.effective("acme--ann")).task_ttl_max_secs == 600


async def test_used_of_late_stays_where_others_go(world, monkeypatch):
    monkeypatch.setattr(module, "CACHE_ENTRIES", 2)
    node = world.node()
    await node.effective("a--p")
    await node.effective("b--p")
    await node.effective("a--p")
    await node.effective("c--p")
    before = world.store.counts["get"]

    await node.effective("a--p")

    assert world.store.counts["get"] == before


# ---- while the store is down


async def test_last_that_was_known_holds_while_the_store_is_down(world):
    node = world.node()
    await put(node, TTL)
    world.break_reads()
    world.clock.at_s += 3600

    assert (await node.effective("acme--ann")).task_ttl_max_secs == 600
    before = world.store.counts["get"]
    assert (await node.effective("acme--ann")).task_ttl_max_secs == 600
    assert world.store.counts["get"] == before  # it is left alone for a moment
    world.faults.clear()
    await put(world.node(), SHORTER)
    world.clock.at_s += module.RETRY_S
    assert (await node.effective("acme--ann")).task_ttl_max_secs == 60


async def test_what_was_never_known_is_nobodys_leave(world):
    node = world.node()
    world.break_reads()

    with pytest.raises(PolicyUnreadableError, match="acme are not known now"):
        await node.lets_embed("acme--ann")
    with pytest.raises(PolicyUnreadableError):  # and the next one does not wait for the store
        await node.lets_embed("acme--ann")
    assert await node.task_ttl_max_s("acme--ann") is None
    rendered = node._metrics.render().decode()
    for effect, count in (("egress", 2), ("task_ttl", 1), ("retention", 0), ("sweep", 0)):
        assert f'memoturn_policy_unknown_total{{effect="{effect}"}} {count}.0' in rendered


async def test_ceiling_holds_whatever_the_store_does(world):
    node = world.node(ceiling=Rules(task_ttl_max_secs=60))
    world.break_reads()

    assert await node.task_ttl_max_s("acme--ann") == 60


async def test_what_deletes_does_not_go_by_what_was_known(world):
    node = world.node()
    await put(node, {"memory": {"event_max_age_secs": 60}})
    world.break_reads()
    world.clock.at_s += 1

    with pytest.raises(PolicyUnreadableError):
        await node.effective("acme--ann", fresh=True)


async def test_store_that_hangs_is_waited_for_so_long_and_no_longer(world, monkeypatch):
    monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.01)

    class Hanging(MemoryStore):
        async def get(self, key):
            await asyncio.sleep(60)

    world.store = Hanging()
    with pytest.raises(PolicyUnreadableError, match=r"took over 0\.01 s"):
        await world.node().effective("acme--ann")


# ---- what cannot be read


@pytest.mark.parametrize(
    "data",
    [
        b'{"schema_version":2,"namespace":"acme","revision":1,"updated_at":1,"policy":{}}',
        b'{"sum":"0000000000000000","schema_version":1}',
        b"",
    ],
    ids=["newer", "damaged", "empty"],
)
async def test_damaged_or_newer_policies_are_not_taken_for_none(world, data):
    node = world.node()
    await world.inner.put(KEY, data)

    with pytest.raises(PolicyUnreadableError, match=f"{KEY}|cannot be read"):
        await node.lets_embed("acme--ann")
    with pytest.raises(CorruptionError):
        await node.document("default", "acme")
    with pytest.raises(CorruptionError):
        await put(node, TTL)
    assert (await world.inner.get(KEY)).data == data


async def test_damage_does_not_let_go_of_what_was_known(world):
    node = world.node()
    await put(node, {"ai_egress": {"embed": "deny"}})
    await world.inner.put(KEY, b"garbage")
    world.clock.at_s += 60

    assert not await node.lets_embed("acme--ann")


# ---- changes


async def test_changes_of_two_nodes_at_once_both_land(world):
    nodes = [world.node() for _ in range(3)]
    await put(nodes[0], TTL)

    await asyncio.gather(
        *(
            node.change("default", "acme", lambda d, name=f"p{n}": with_override(d, name, {}, NOTHING))
            for n, node in enumerate(nodes)
        )
    )

    document = await nodes[0].document("default", "acme")
    assert sorted(document.profiles) == ["p0", "p1", "p2"]
    assert document.revision == 4


async def test_change_gives_up_after_others_were_faster_three_times(world):
    node, other = world.node(), world.node()
    await put(node, TTL)
    seen = []

    class Racing(MemoryStore):
        async def put_if_match(self, key, data, etag):
            seen.append(etag)
            await put(other, SHORTER)
            return await world.inner.put_if_match(key, data, etag)

        async def get(self, key):
            return await world.inner.get(key)

    node._store = Racing()
    with pytest.raises(ConflictError, match="3 times meanwhile"):
        await put(node, TTL)

    assert len(seen) == 3
    assert (await node.effective("acme--ann")).task_ttl_max_secs == 60


@pytest.mark.parametrize("kind", [FaultKind.LOST_REPLY, FaultKind.LOST_REQUEST])
@pytest.mark.parametrize("is_first", [True, False])
async def test_lost_reply_or_request_ends_in_one_change(world, kind, is_first):
    node = world.node()
    if not is_first:
        await put(node, TTL)
    world.faults.append(Fault(kind, ("put_if_match", "put_if_absent")))

    made = await put(node, SHORTER)

    assert made.revision == (1 if is_first else 2)
    assert await world.node().document("default", "acme") == made


async def test_outcome_that_stays_unknown_is_said_to_be(world):
    node = world.node()
    world.faults.append(Fault(FaultKind.LOST_REQUEST, ("put_if_absent",), times=None))

    with pytest.raises(StoreUnavailableError, match="may still land"):
        await put(node, TTL)


async def test_refused_change_changes_nothing(world):
    node = world.node()
    before = await put(node, TTL)

    with pytest.raises(ConflictError):
        await node.change(
            "default",
            "acme",
            lambda d: with_override(d, "ann", {"memory": {"task_ttl_max_secs": 700}}, NOTHING),
        )

    assert await world.node().document("default", "acme") == before
    assert policy_document.key_of("default", "acme") == KEY
