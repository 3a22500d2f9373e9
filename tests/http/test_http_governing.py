"""What policies do in the background, with a moved clock: memories and history that go, on every branch, open or not."""

import pytest
from harness import ShiftedClock, node_on
from http_calls import FACT, MEMORY, failure, ingest
from http_support import client_of, limits

from memoturnd import governing
from memoturnd import node as node_module
from memoturnd.core import policy_document
from memoturnd.http.app import create_app
from memoturnd.seams.catalog import GOVERN, RETENTION, SWEEP, Chore
from memoturnd.stores.memory import MemoryStore

DAY_S = 86_400
NAMESPACE = "/v1/namespaces/app/policy"
OLD_EVENTS = {"memory": {"event_max_age_secs": DAY_S}}
CHORES_LATE_S = 7200
"""Later than this no sweep waits for more to come together."""


class Governed:
    """A node with a clock of the test's, its client, and its maintenance done when the test says."""

    def __init__(self, node, client, clock, store):
        self.node, self.client, self.clock, self.store = node, client, clock, store

    async def put(self, policy, path=NAMESPACE):
        answer = await self.client.put(path, json={"policy": policy})
        assert answer.status_code == 200, answer.text

    async def pass_(self, seconds=0):
        """Move the clock, and do the maintenance that is due then, and what follows from it."""
        self.clock.ahead_s += seconds
        for _ in range(12):
            self.clock.ahead_s += governing.PASS_AGAIN_S / 10
            await self.node.maintenance.run_due()

    async def summaries(self, branch="main", path=MEMORY):
        query = {"branch": branch, "include_superseded": "true", "order": "oldest", "limit": 1000}
        answer = await self.client.get(f"{path}/memories", params=query)
        assert answer.status_code == 200, answer.text
        return [row["summary"] for row in answer.json()["memories"]]

    async def fork(self, name, db="app--ann"):
        answer = await self.client.post(f"/v1/db/{db}/branches", json={"name": name})
        assert answer.status_code == 201, answer.text

    async def cool(self):
        """Send every branch cold: nothing of them is on the node."""
        for branch in list(self.node.tiers.hot()):
            await branch.close()
            assert await self.node.tiers.evict(branch)
        assert self.node.tiers.counts == (0, 0, 0)

    async def rows(self, sql, branch="main", db="app--ann"):
        profile = await self.node.profile(db, branch)
        return (await profile.read(lambda conn, _: conn.execute(sql).fetchall())).value


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """Maintenance is done when a test says so, and not beside it."""
    monkeypatch.setattr(node_module, "TICK_S", 1e6)


@pytest.fixture
async def governed(tmp_path):
    store, clock = MemoryStore(), ShiftedClock()
    env = {"MAINTENANCE_INTERVAL_S": "60", "COLD_AFTER_S": "2000000", "WARM_AFTER_S": "1000000"}
    async with (
        node_on(tmp_path, store, clock=clock, **env) as node,
        client_of(create_app(node, limits())) as client,
    ):
        yield Governed(node, client, clock, store)


def event(summary, **more):
    return {"type": "event", "summary": summary, "content": summary, **more}


def fact(value, topic="t"):
    return {"type": "fact", "topic_key": topic, "summary": value, "content": value}


# ---- events


async def test_events_go_at_their_age_with_their_words_and_vectors(governed):
    await governed.put(OLD_EVENTS)
    await ingest(governed.client, event("old", embedding=[1, 0], pinned=True, keywords="zebra"), FACT)
    await governed.pass_(DAY_S / 2)
    await ingest(governed.client, event("new", embedding=[0, 1]))

    await governed.pass_(DAY_S / 2 + CHORES_LATE_S)

    assert await governed.summaries() == ["likes dark", "new"]
    recalled = await governed.client.post(
        f"{MEMORY}/recall", json={"query": "zebra old", "embedding": [1, 0]}
    )
    assert "old" not in [hit["summary"] for hit in recalled.json()["memories"]]
    assert len(await governed.rows("SELECT rid FROM __memoturn_memory_vectors_1")) == 1
    words = "SELECT rowid FROM __memoturn_memories_fts('zebra')"
    assert await governed.rows(words) == []
    rendered = (await governed.client.get("/metrics")).text
    assert "memoturn_policy_swept_memories_total 1.0" in rendered


async def test_nothing_goes_before_its_age_nor_without_a_policy(governed):
    await governed.put(OLD_EVENTS)
    await ingest(governed.client, event("young"))
    await ingest(governed.client, event("free"), path="/v1/memory/other/ann")
    await governed.pass_(DAY_S - 600)

    assert await governed.summaries() == ["young"]
    await governed.pass_(30 * DAY_S)
    assert await governed.summaries() == []
    assert await governed.summaries(path="/v1/memory/other/ann") == ["free"]


async def test_every_branch_is_swept_also_a_fork_made_before_and_one_made_after(governed):
    await ingest(governed.client, event("old"))
    await governed.fork("before")
    await governed.put(OLD_EVENTS)
    await governed.pass_(DAY_S / 2)
    await governed.fork("after")

    await governed.pass_(DAY_S / 2 + CHORES_LATE_S)

    for branch in ("main", "before", "after"):
        assert await governed.summaries(branch) == [], branch


async def test_profile_that_is_cold_and_that_nobody_uses_is_swept(governed):
    await ingest(governed.client, event("old"))
    await governed.fork("side")
    await governed.pass_(60)
    await governed.cool()
    await governed.pass_(3 * DAY_S)  # whatever else there was to do is done

    await governed.put(OLD_EVENTS)
    await governed.pass_()

    assert await governed.summaries() == await governed.summaries("side") == []


async def test_policy_has_the_branches_of_its_namespace_looked_at_and_no_others(governed, monkeypatch):
    for path in (MEMORY, "/v1/memory/app/bob", "/v1/memory/other/ann", "/v1/memory/app-2/ann"):
        await ingest(governed.client, event("x"), path=path)
    await governed.fork("side")
    await governed.pass_(600)
    catalog, scheduled = governed.node._services.catalog, []
    schedule = catalog.schedule

    async def noting(chore, due_ms):
        scheduled.append(chore)
        await schedule(chore, due_ms)

    monkeypatch.setattr(catalog, "schedule", noting)

    await governed.node.governing.spread(Chore(GOVERN, "app", ""))
    of_all = set(scheduled)
    scheduled.clear()
    await governed.node.governing.spread(Chore(GOVERN, "app", "bob"))

    branches = [(await governed.node.profile("app--ann", name)) for name in ("main", "side")]
    bob = await governed.node.profile("app--bob")
    expected = {Chore(RETENTION, b.ref.database.uuid, b.branch_id) for b in (*branches, bob)}
    assert of_all == expected
    assert set(scheduled) == {Chore(RETENTION, bob.ref.database.uuid, bob.branch_id)}


async def test_profiles_policy_sweeps_that_profile_alone(governed):
    for path in (MEMORY, "/v1/memory/app/bob"):
        await ingest(governed.client, event("old"), path=path)
    await governed.put(OLD_EVENTS, path=f"{MEMORY}/policy")

    await governed.pass_(DAY_S + CHORES_LATE_S)

    assert await governed.summaries() == []
    assert await governed.summaries(path="/v1/memory/app/bob") == ["old"]


async def test_a_pass_removes_so_many_and_the_next_goes_on(governed, monkeypatch):
    monkeypatch.setattr(governing, "MEMORIES_PER_PASS", 5)
    await governed.put(OLD_EVENTS)
    await ingest(governed.client, *(event(f"e{n}") for n in range(12)))
    branch = await governed.node.profile("app--ann")
    chore = Chore(SWEEP, branch.ref.database.uuid, branch.branch_id)
    governed.clock.ahead_s += 2 * DAY_S

    left = []
    while await governed.node.governing.sweep(chore) is not None:
        left.append(len(await governed.summaries()))

    assert left == [7, 2, 0]


async def test_policy_that_was_loosened_meanwhile_removes_nothing(governed):
    await governed.put(OLD_EVENTS)
    await ingest(governed.client, event("kept"))
    await governed.pass_(60)
    # Another node changes it, and this one would go by what it knows for a while.
    document = await governed.node.policies.document("default", "app")
    governed.clock.ahead_s += 2 * DAY_S
    assert (await governed.node.policies.effective("app--ann")).sweeps
    loose = policy_document.with_policy(document, {})
    await governed.store.put(policy_document.key_of("default", "app"), policy_document.encode(loose))
    branch = await governed.node.profile("app--ann")

    due = await governed.node.governing.sweep(Chore(SWEEP, branch.ref.database.uuid, branch.branch_id))

    assert due is None
    assert await governed.summaries() == ["kept"]


async def test_sweep_waits_while_the_policy_cannot_be_read(governed):
    await governed.put(OLD_EVENTS)
    await ingest(governed.client, event("old"))
    key = policy_document.key_of("default", "app")
    good = (await governed.store.get(key)).data
    await governed.store.put(key, b"damaged")

    await governed.pass_(DAY_S + CHORES_LATE_S)

    assert await governed.summaries() == ["old"]
    rendered = (await governed.client.get("/metrics")).text
    assert 'memoturn_policy_unknown_total{effect="retention"} 0.0' not in rendered
    await governed.store.put(key, good)
    await governed.pass_(DAY_S)
    assert await governed.summaries() == []


async def test_branch_that_was_deleted_is_not_swept(governed):
    await ingest(governed.client, event("old"))
    await governed.fork("gone")
    branch = await governed.node.profile("app--ann", "gone")
    chore = Chore(SWEEP, branch.ref.database.uuid, branch.branch_id)
    await governed.put(OLD_EVENTS)
    await governed.client.delete("/v1/db/app--ann/branches/gone")

    assert await governed.node.governing.sweep(chore) is None


# ---- what was superseded


async def chain(governed, count, topic="t", path=MEMORY):
    for number in range(count):
        await ingest(governed.client, fact(f"{topic}{number}", topic), path=path)


async def test_superseded_memories_go_at_their_age_and_the_active_one_stays(governed):
    await governed.put({"memory": {"superseded_max_age_secs": DAY_S}})
    await chain(governed, 3)
    await governed.pass_(DAY_S - 7200)
    await ingest(governed.client, fact("t3"))

    await governed.pass_(7200 + CHORES_LATE_S)

    assert await governed.summaries() == ["t2", "t3"]
    topic = (await governed.client.get(f"{MEMORY}/topics/t")).json()["chains"][0]
    assert [row["summary"] for row in topic["versions"]] == ["t3", "t2"]
    await governed.pass_(DAY_S + CHORES_LATE_S)
    assert await governed.summaries() == ["t3"]


async def test_of_a_topic_so_many_superseded_memories_stay_the_newest(governed):
    await governed.put({"memory": {"superseded_max_count": 2}})
    await chain(governed, 5)
    await chain(governed, 2, topic="u")
    await ingest(governed.client, {**fact("i0"), "type": "instruction"})

    await governed.pass_(600)

    assert await governed.summaries() == ["t2", "t3", "t4", "u0", "u1", "i0"]


async def test_chain_stays_whole_where_its_middle_went(governed):
    await chain(governed, 4)
    second = (await governed.client.get(f"{MEMORY}/memories", params={"include_superseded": "true"})).json()
    ids = {row["summary"]: row["id"] for row in second["memories"]}
    await governed.put({"memory": {"superseded_max_count": 1}})

    await governed.pass_(600)

    last = (await governed.client.get(f"{MEMORY}/memories/{ids['t3']}")).json()
    assert last["supersedes"] == [ids["t2"]]
    gone = await governed.client.get(f"{MEMORY}/memories/{ids['t1']}")
    assert failure(gone) == (404, "not_found")


# ---- history


async def written_over_hours(governed, path, hours=6):
    """Write through some hours, a commit every ten minutes, and bring the branch to a state that retention may cut."""
    for number in range(hours * 6):
        await ingest(governed.client, fact(f"v{number}"), path=path)
        await governed.client.post(f"/v1/db/app--{path.rpartition('/')[2]}/sync")
        governed.clock.ahead_s += 600


async def restore_points(governed, db):
    answer = await governed.client.get(f"/v1/db/{db}/restore-points", params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    return [row["txid"] for row in answer.json()["restore_points"]]


async def test_history_is_kept_no_longer_than_the_policy_lets_it_be_and_other_profiles_is(governed):
    for name in ("ann", "bob"):
        await written_over_hours(governed, f"/v1/memory/app/{name}", hours=3)
    before = await restore_points(governed, "app--ann")
    await governed.put({"retention": {"pitr_secs": 60, "pitr_snapshot_secs": 3600}}, path=f"{MEMORY}/policy")

    await governed.pass_(2 * 3600)
    await governed.pass_(2 * 3600)

    assert await restore_points(governed, "app--bob") == before
    assert await restore_points(governed, "app--ann") == before[:1]
    gone = await governed.client.get(f"{MEMORY}/memories", params={"at": "3"})
    assert failure(gone)[0] in (404, 409)
    assert await governed.summaries() == [f"v{number}" for number in range(18)]


async def test_history_of_a_cold_branch_and_of_its_fork_goes_as_well(governed):
    await written_over_hours(governed, MEMORY, hours=2)
    await governed.fork("side")
    await ingest(governed.client, fact("more"), path=MEMORY)
    await governed.client.post("/v1/memory/app/ann/memories?branch=side", json={"memories": [fact("own")]})
    await governed.pass_(120)
    await governed.cool()
    await governed.put({"retention": {"pitr_snapshot_secs": 600}})

    for _ in range(3):
        await governed.pass_(3600)

    assert len(await restore_points(governed, "app--ann@side")) == 1
    # What the fork came from stays for as long as it does, and what it is restored by.
    left = await restore_points(governed, "app--ann")
    assert left[0] == 14
    assert 13 in left


async def test_node_that_keeps_all_history_keeps_what_no_policy_bounds(tmp_path):
    store, clock = MemoryStore(), ShiftedClock()
    env = {"MAINTENANCE_INTERVAL_S": "60", "PITR_RETENTION_SECS": "0"}
    async with (
        node_on(tmp_path, store, clock=clock, **env) as node,
        client_of(create_app(node, limits())) as client,
    ):
        world = Governed(node, client, clock, store)
        for name in ("ann", "bob"):
            await written_over_hours(world, f"/v1/memory/app/{name}", hours=1)
        before = await restore_points(world, "app--bob")
        await world.put({"retention": {"pitr_secs": 600}}, path=f"{MEMORY}/policy")

        await world.pass_(40 * DAY_S)
        await world.pass_(3600)

        assert await restore_points(world, "app--bob") == before
        assert 1 <= len(await restore_points(world, "app--ann")) <= 3  # one an hour, for ever


async def test_policy_that_says_nothing_of_history_takes_no_snapshot(governed):
    await written_over_hours(governed, MEMORY, hours=1)
    await governed.put({"memory": {"task_ttl_max_secs": 600}})
    await governed.pass_(40 * DAY_S)

    listed = [info.key async for info in governed.store.list("v1/")]
    assert not [key for key in listed if "/snapshots/" in key]
