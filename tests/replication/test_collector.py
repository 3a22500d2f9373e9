"""The collector: what nobody names goes after its grace, and never anything that somebody names."""

from contextlib import suppress

import pytest
from family import DELETE_GRACE_S, GRACE_S, UUID, Family, MovedClock, Watched

from memoturnd.core import garbage, layout, manifest
from memoturnd.core import register as registers
from memoturnd.core.keyed import RECENT_LIMIT
from memoturnd.errors import AlreadyExistsError, CorruptionError, StoreUnavailableError
from memoturnd.replication.archive import CHECKPOINTS, PINS
from memoturnd.replication.collector import Graces
from memoturnd.seams.object_store import Committed

FORK, OTHER = "a" * 16, "b" * 16
AFTER_S = GRACE_S + 6
"""When a second pass is due: the grace, and the few seconds that clocks of whole seconds may cost."""


@pytest.fixture
async def family():
    return await Family().begin()


def key_of(ref):
    return layout.object_key(UUID, ref)


async def marked(family):
    """Upload something that nothing names, and let a first pass see it, longer ago than the grace."""
    ref = await family.upload()
    await family.collect()
    family.later(AFTER_S)
    return key_of(ref)


# ---- the grace, and two marks


async def test_object_that_nothing_names_goes_after_two_passes_a_grace_apart(family):
    await family.ship()
    orphan = key_of(await family.upload())
    named = await family.keys("/segments/") - {orphan}

    first_due_ms = await family.collect()
    family.later(GRACE_S - 1)
    await family.collect()
    assert orphan in await family.keys()
    family.later(7)
    assert first_due_ms <= family.clock.now_ms()
    await family.collect()

    assert await family.keys("/segments/") == named
    assert family.metrics.garbage_objects._value.get() == 1
    assert family.metrics.garbage_bytes._value.get() == len("segment 2")


async def test_a_pass_tells_how_many_bytes_it_has_found_and_left(family):
    await family.ship()
    orphan = await marked(family)
    await family.collect()

    left = sum([info.size_bytes async for info in family.store.list(f"v1/{UUID}/")])
    assert orphan not in await family.keys()
    assert family.sizes.begun == len(family.sizes.heard) == 2
    assert family.sizes.heard[-1] == pytest.approx(left, abs=500)
    assert family.sizes.heard[0] - family.sizes.heard[-1] == pytest.approx(len("segment 2"), abs=500)


async def test_a_pass_that_cannot_read_everything_tells_no_size(family):
    await family.ship()
    await family.store.put(layout.manifest_key(UUID, family.main), b"not a manifest")

    with pytest.raises(CorruptionError):
        await family.collect()

    assert family.sizes.heard == [None]


async def test_old_object_that_a_manifest_lets_go_of_stays_the_grace_from_the_first_pass_that_saw_it(family):
    await family.ship()
    dropped = await family.keys("/segments/")
    family.later(30 * 86_400)
    await family.drop_history()

    await family.collect()
    await family.collect()
    family.later(GRACE_S - 10)
    await family.collect()
    assert dropped <= await family.keys()

    family.later(16)
    await family.collect()
    assert await family.keys("/segments/") == set()


async def test_object_named_between_two_passes_stays_for_good(family):
    ref = await family.upload()
    await family.collect()
    family.later(GRACE_S - 1)
    await family.name(ref)
    family.later(7)

    assert await family.collect() is None
    family.later(10 * GRACE_S)
    await family.collect()

    assert key_of(ref) in await family.keys()


async def test_object_put_again_since_it_was_marked_is_as_young_as_that(family):
    orphan = await marked(family)
    data = (await family.store.get(orphan)).data
    await family.store.put(orphan, data)

    due_ms = await family.collect()
    assert orphan in await family.keys()
    assert due_ms is not None
    family.later(AFTER_S)
    await family.collect()

    assert orphan not in await family.keys()


async def test_neither_the_nodes_nor_the_stores_clock_alone_makes_garbage_ripe():
    for ahead in ("node", "store"):
        store_clock = MovedClock()
        family = await Family(store_clock=store_clock).begin()
        orphan = key_of(await family.upload())
        await family.collect()

        fast, slow = (family.clock, store_clock) if ahead == "node" else (store_clock, family.clock)
        fast.at_s += 10 * GRACE_S
        slow.at_s += GRACE_S - 60
        await family.collect()
        assert orphan in await family.keys(), ahead
        slow.at_s += 120
        await family.collect()

        assert orphan not in await family.keys(), ahead


async def test_grace_of_an_old_object_counts_by_both_clocks_too():
    for ahead in ("node", "store"):
        store_clock = MovedClock()
        family = await Family(store_clock=store_clock).begin()
        await family.ship()
        (dropped,) = await family.keys("/segments/")
        for clock in (family.clock, store_clock):
            clock.at_s += 30 * 86_400
        await family.drop_history()
        await family.collect()

        fast, slow = (family.clock, store_clock) if ahead == "node" else (store_clock, family.clock)
        fast.at_s += 10 * GRACE_S
        slow.at_s += GRACE_S - 60
        await family.collect()
        assert dropped in await family.keys(), ahead
        slow.at_s += 120
        await family.collect()

        assert dropped not in await family.keys(), ahead


async def test_pass_that_ends_after_a_newer_one_does_not_write_its_older_knowledge_over_it():
    """Else an object that was named in between would count as unreachable since before."""
    at = 0
    while True:
        at += 1
        family = await Family().begin()
        await family.ship()
        ref = await family.upload()
        await family.collect()
        family.later(300)
        await family.upload()
        store = Watched(family.store)

        async def name_look_and_drop(family=family, ref=ref):
            await family.name(ref)
            await family.collect()
            await family.drop_history()

        store.before[at] = name_look_and_drop
        await family.collect(store)
        if store.before:
            break
        family.later(GRACE_S - 10)
        await family.collect()
        assert key_of(ref) in await family.keys(), f"before request {at}"
    assert at > 8


async def test_pass_on_a_database_without_garbage_writes_nothing_and_is_not_due_again(family):
    await family.ship()
    before = {info.key: info.modified_ms async for info in family.store.list("v1/")}
    family.later(60)

    assert await family.collect() is None

    assert {info.key: info.modified_ms async for info in family.store.list("v1/")} == before


async def test_nothing_unreachable_stays_longer_than_grace_plus_one_pass(family):
    """With passes made when they are due, and one an interval after each change, as the agenda schedules them."""
    interval_s, step_s = 600, 15
    due_s = family.clock.at_s + interval_s
    unreachable_since: dict[str, float] = {}
    longest_s = 0.0
    for step in range(600):
        if step < 400 and step % 13 == 0:
            await family.upload()
            due_s = min(due_s, family.clock.at_s + interval_s)
        if step < 400 and step % 37 == 0:
            await family.ship()
            await family.drop_history()
            due_s = min(due_s, family.clock.at_s + interval_s)
        current = await family.standing()
        reachable = {key_of(ref) for ref in current.objects}
        there = await family.keys("/segments/") | await family.keys("/snapshots/")
        for key in there - reachable:
            unreachable_since.setdefault(key, family.clock.at_s)
        if family.clock.at_s >= due_s:
            next_ms = await family.collect()
            due_s = next_ms / 1000 if next_ms is not None else float("inf")
        gone = unreachable_since.keys() - await family.keys()
        longest_s = max([longest_s, *(family.clock.at_s - unreachable_since.pop(key) for key in gone)])
        family.later(step_s)

    assert unreachable_since == {}
    assert due_s == float("inf"), "an idle database without garbage is not looked at again"
    assert GRACE_S <= longest_s <= GRACE_S + interval_s + 60


async def test_only_so_many_keys_are_remembered_and_the_rest_comes_later(family, monkeypatch):
    monkeypatch.setattr(garbage, "KEYS_LIMIT", 3)
    monkeypatch.setitem(garbage.judge.__kwdefaults__, "limit", 3)
    for _ in range(8):
        await family.upload()

    for _ in range(4):
        due_ms = await family.collect()
        standing = garbage.decode((await family.store.get(layout.garbage_key(UUID))).data)
        assert sum(len(mark.keys) for mark in standing.marks) <= 3
        assert due_ms is not None or not await family.keys("/segments/")
        family.later(AFTER_S)

    assert await family.keys("/segments/") == set()


async def test_keys_that_this_version_does_not_write_are_left_alone(family):
    strange = [f"v1/{UUID}/notes.txt", f"v1/{UUID}/branches/{OTHER}/blobs/x", f"v1/{UUID}/branches/{OTHER}/x"]
    for key in strange:
        await family.store.put(key, b"?")

    await family.collect()
    family.later(10 * GRACE_S)

    assert await family.collect() is None
    assert await family.keys() >= set(strange)


# ---- what a manifest names through others


async def test_objects_in_pages_and_pages_and_runs_themselves_stay(family):
    for _ in range(4):
        await family.ship()
    await family.archive_history()
    await family.ship()
    await family.checkpoints(RECENT_LIMIT + 1)
    for number in range(RECENT_LIMIT + 1):
        await family.fork(f"f{number}", f"{number:016x}")
    standing = await family.standing()
    assert standing.pages
    assert standing.checkpoint_runs
    assert standing.pin_runs
    assert (await family.register().load()).branch_runs

    for _ in range(4):
        await family.collect()
        family.later(AFTER_S)

    assert await family.lost() == set()
    assert set(await family.keys("/register/")) == {
        layout.run_key(UUID, run, "branches") for run in (await family.register().load()).branch_runs
    }


async def test_objects_that_only_a_page_names_stay(family):
    for _ in range(4):
        await family.ship()
    await family.archive_history()
    whole = await family.archive.whole(await family.standing())
    assert len((await family.standing()).objects) < len(whole.objects)

    for _ in range(4):
        await family.collect()
        family.later(AFTER_S)

    assert await family.keys("/segments/") == {key_of(ref) for ref in whole.objects}
    assert await family.lost() == set()


async def test_runs_and_pages_that_were_joined_into_others_go(family):
    await family.checkpoints(5 * RECENT_LIMIT)
    runs = {layout.run_key(UUID, run, "checkpoints") for run in (await family.standing()).checkpoint_runs}
    assert len(await family.keys("/checkpoints/")) > len(runs)

    for _ in range(2):
        await family.collect()
        family.later(AFTER_S)

    assert await family.keys("/checkpoints/") == runs


async def test_forks_keep_what_their_parent_lets_go_of(family):
    await family.ship()
    await family.ship()
    await family.archive_history()
    await family.fork("f", FORK)
    await family.ship(FORK)
    await family.drop_history()

    for _ in range(3):
        await family.collect()
        family.later(AFTER_S)

    assert await family.lost() == set()
    assert len(await family.keys("/segments/")) == 3


# ---- what cannot be read stops it


async def damage(family, key, data=b"{}"):
    family.store._objects.pop(key)
    if data is not None:
        await family.store.put(key, data)


@pytest.mark.parametrize("data", [None, b"{", b'{"format":99}'])
@pytest.mark.parametrize(
    "what", ["manifest", "page", "checkpoint run", "pin run", "register run", "register", "garbage"]
)
async def test_pass_that_cannot_read_something_registered_deletes_nothing(family, what, data):
    for _ in range(3):
        await family.ship()
    await family.archive_history()
    await family.checkpoints(RECENT_LIMIT)
    await family.checkpoints(1)
    for number in range(RECENT_LIMIT + 1):
        await family.fork(f"f{number}", f"{number:016x}")
    orphan = await marked(family)
    standing, register = await family.standing(), await family.register().load()
    keys = {
        "manifest": layout.manifest_key(UUID, f"{3:016x}"),
        "page": layout.page_key(UUID, standing.pages[0]),
        "checkpoint run": layout.run_key(UUID, standing.checkpoint_runs[0], "checkpoints"),
        "pin run": layout.run_key(UUID, standing.pin_runs[0], "pins"),
        "register run": layout.run_key(UUID, register.branch_runs[0], "branches"),
        "register": layout.register_key(UUID),
        "garbage": layout.garbage_key(UUID),
    }
    await damage(family, keys[what], data)
    before = await family.keys()

    if data is None and what in {"register", "garbage"}:
        assert await family.collect() is None or what == "garbage"
    else:
        with pytest.raises(CorruptionError, match=keys[what]):
            await family.collect()

    assert await family.keys() >= before
    assert orphan in await family.keys()


async def test_database_whose_first_write_is_under_way_is_not_taken_for_damaged():
    family = Family()
    new = registers.Register(
        uuid=UUID, name="db", created_at=1, branches={"main": registers.RegisteredBranch(family.main, 1)}
    )
    await family.register().create(new)

    assert await family.collect() is None


async def test_main_that_lost_its_manifest_stops_the_pass(family):
    await family.ship()
    await damage(family, layout.manifest_key(UUID, family.main), None)

    with pytest.raises(CorruptionError, match=r"manifest\.json is gone"):
        await family.collect()


# ---- forks that are being made, or never will be


async def test_fork_that_is_being_made_keeps_a_pass_from_deleting(family):
    orphan = await marked(family)
    await family.enter("f", FORK)

    due_ms = await family.collect()

    assert orphan in await family.keys()
    assert due_ms is not None
    assert await family.create(await family.pin("f", FORK))
    await family.collect()
    assert orphan not in await family.keys()
    assert not (await family.branches())["f"].is_new, "what is made is noted, so that a loss would be seen"


async def test_fork_that_was_cut_off_is_given_up_after_the_grace_and_cannot_be_made_any_more(family):
    await family.ship()
    await family.enter("f", FORK)
    child = await family.pin("f", FORK)
    family.later(GRACE_S - 1)
    await family.collect()
    assert "f" in await family.branches()
    family.later(2)

    due_ms = await family.collect()

    assert set(await family.branches()) == {"main", registers.deleted_name("f", FORK)}
    assert not await family.create(child), "who comes late finds a tombstone"
    assert due_ms is not None
    for _ in range(3):
        family.later(AFTER_S)
        await family.collect()
    assert set(await family.branches()) == {"main"}
    assert await family.archive.all(PINS, await family.standing()) == {}
    assert await family.keys(FORK) == set()


async def test_fork_is_made_late_or_given_up_but_never_both(family):
    """Whatever a pass does, a fork whose manifest came to be is registered, and one that was given up is not made."""
    for at in range(1, 60):
        family = await Family().begin()
        await family.ship()
        await family.enter("f", FORK)
        child = await family.pin("f", FORK)
        family.later(AFTER_S)
        store, made = Watched(family.store), []

        async def create(family=family, child=child, made=made):
            made.append(await family.create(child))

        store.before[at] = create
        await family.collect(store)
        if not made:
            assert at > 10
            break
        for _ in range(4):
            await family.collect()
            family.later(AFTER_S)

        assert ("f" in await family.branches()) == made[0]
        assert await family.lost() == set()
    else:
        raise AssertionError("the pass never ended")


async def test_branch_with_objects_is_not_given_up_however_new_it_is(family):
    await family.fork("f", FORK)
    await family.ship(FORK)
    await damage(family, layout.manifest_key(UUID, FORK), None)
    family.later(AFTER_S)

    with pytest.raises(CorruptionError, match=FORK):
        await family.collect()

    assert "f" in await family.branches()


# ---- deleted branches


async def test_deleted_branch_stays_whole_until_its_grace_has_passed_and_then_goes(family):
    await family.ship()
    await family.fork("f", FORK)
    ref = await family.ship(FORK)
    await family.collect()
    await family.delete("f")

    due_ms = await family.collect()
    assert due_ms == family.clock.now_ms() + 1000 * DELETE_GRACE_S
    family.later(DELETE_GRACE_S - 1)
    await family.collect()
    assert await family.undelete("f", FORK)
    assert await family.lost() == set()
    await family.delete("f")
    family.later(DELETE_GRACE_S)
    await family.collect()

    assert set(await family.branches()) == {"main"}
    assert await family.archive.all(PINS, await family.standing()) == {}
    assert key_of(ref) in await family.keys(), "what is unreachable from now on stays the grace"
    family.later(AFTER_S)
    assert await family.collect() is None
    assert await family.keys(FORK) == set()
    assert await family.lost() == set()


async def test_burner_stays_the_grace_of_garbage_only(family):
    await family.enter("f", FORK, expires_at=family.clock.now_ms())
    await family.create(await family.pin("f", FORK))
    await family.collect()
    await family.delete("f")

    family.later(GRACE_S)
    await family.collect()

    assert set(await family.branches()) == {"main"}


async def test_objects_of_a_deleted_parent_that_its_forks_name_stay(family):
    await family.fork("f", FORK)
    await family.ship(FORK)
    await family.fork("g", OTHER, "f")
    await family.delete("f")
    family.later(DELETE_GRACE_S)

    for _ in range(4):
        await family.collect()
        family.later(AFTER_S)

    assert set(await family.branches()) == {"main", "g"}
    assert await family.lost() == set()
    assert len(await family.keys(f"{FORK}/segments/")) == 1
    assert await family.keys(f"{FORK}/manifest") == set()


async def test_name_of_a_deleted_branch_may_be_taken_and_deleted_again(family):
    for number in range(3):
        await family.fork("f", f"{number:016x}")
        await family.ship(f"{number:016x}")
        await family.delete("f")
        family.later(60)
    family.later(DELETE_GRACE_S - 170)

    await family.collect()

    assert set(await family.branches()) == {"main", f"f#{1:016x}", f"f#{2:016x}"}
    assert await family.undelete("f", f"{2:016x}")
    assert await family.lost() == set()


async def test_manifests_follow_the_register_where_a_deletion_or_its_undoing_was_cut_off(family):
    await family.fork("f", FORK)
    await family.collect()
    branch, now_ms = (await family.branches())["f"], family.clock.now_ms()
    await family.register().update(lambda r: registers.delete_branch(r, "f", branch, at_ms=now_ms))

    await family.collect()
    assert (await family.standing(FORK)).deleted_at == now_ms

    deleted = (await family.branches())[f"f#{FORK}"]
    await family.register().update(lambda r: registers.undelete_branch(r, "f", deleted))
    await family.collect()
    assert (await family.standing(FORK)).deleted_at is None


async def test_branch_that_is_undeleted_in_the_middle_of_a_pass_is_there_although_the_pass_fails():
    """The register is the truth: a manifest that follows an older one would hide the branch until a pass ends well."""
    for is_due in (False, True):
        at = 0
        while True:
            at += 1
            family = await Family().begin()
            await family.fork("f", FORK)
            await family.fork("g", OTHER)
            await family.collect()
            await family.delete("f")
            family.later(DELETE_GRACE_S if is_due else 60)
            await damage(family, layout.manifest_key(UUID, OTHER), b"{")
            store, back = Watched(family.store), []

            async def undelete(family=family, back=back):
                back.append(await family.undelete("f", FORK))

            store.before[at] = undelete
            with suppress(CorruptionError):
                await family.collect(store)
            if store.before:
                break
            if back == [True]:
                assert (await family.standing(FORK)).deleted_at is None, f"before request {at}"
        assert at > 4


# ---- races, driven by hand: something happens before each request of a pass that deletes


class Race:
    """A family with garbage that is ripe, and what somebody does meanwhile."""

    def __init__(self, family):
        self.family = family
        self.acknowledged = []

    @classmethod
    async def prepared(cls):
        family = await Family().begin()
        await family.ship()
        await family.ship()
        await family.fork("f", FORK)
        await family.ship(FORK)
        race = cls(family)
        await race.begin()
        await family.drop_history()
        await marked(family)
        return race

    async def begin(self):
        """Happen long before the pass."""

    async def act(self):
        """Happen in the middle of it."""


class ForkOfMain(Race):
    async def act(self):
        self.acknowledged.append(await self.family.fork("late", OTHER))


class ForkOfFork(Race):
    async def act(self):
        self.acknowledged.append(await self.family.fork("late", OTHER, "f"))
        await self.family.drop_history(FORK)
        await self.family.delete("f")


class Ship(Race):
    async def act(self):
        await self.family.ship()
        await self.family.ship(FORK)


class OwnerChange(Race):
    async def act(self):
        await self.family.manifest(self.family.main).update(
            lambda m: manifest.own(m, epoch=m.epoch + 1, owner="next", start_txid=m.head_txid)
        )
        await self.family.ship()


class DeleteAndUndelete(Race):
    async def act(self):
        await self.family.delete("f")
        assert await self.family.undelete("f", FORK)


class UndeleteInTime(Race):
    async def begin(self):
        await self.family.delete("f")
        self.family.later(DELETE_GRACE_S - 10)

    async def act(self):
        await self.family.undelete("f", FORK)


class AnotherPass(Race):
    async def act(self):
        await self.family.collect()


class WriteAgain(Race):
    """A run that was written and not named long ago, and whose content is written again and named now."""

    async def begin(self):
        await self.family.checkpoints(RECENT_LIMIT)
        assert await self.family.archive.flush(CHECKPOINTS, await self.family.standing()) is not None

    async def act(self):
        await self.family.checkpoints(1)
        assert (await self.family.standing()).checkpoint_runs


class LateSwap(Race):
    """A swap that names an upload from before the first mark, held up on its way until now."""

    async def begin(self):
        self.ref = await self.family.upload()

    async def arm(self):
        key = layout.manifest_key(UUID, self.family.main)
        blob = await self.family.store.get(key)
        current = manifest.decode(blob.data)
        named = manifest.append_segments(current, (self.ref,), epoch=current.epoch)
        named = manifest.replace(named, commit_id="late")
        self.request = key, manifest.encode(named), blob.etag

    async def act(self):
        outcome = await self.family.store.put_if_match(*self.request)
        self.landed = isinstance(outcome, Committed)

    async def holds(self):
        key = layout.object_key(UUID, self.ref)
        return not self.landed or key in await self.family.keys()


RACES = [
    ForkOfMain,
    ForkOfFork,
    Ship,
    OwnerChange,
    DeleteAndUndelete,
    UndeleteInTime,
    AnotherPass,
    WriteAgain,
]


@pytest.mark.parametrize("kind", RACES, ids=lambda kind: kind.__name__)
async def test_nothing_that_is_named_is_lost_whatever_happens_before_any_request_of_a_pass(kind):
    at = 0
    while True:
        at += 1
        race = await kind.prepared()
        family, store = race.family, Watched(race.family.store)
        store.before[at] = race.act
        await family.collect(store)
        if store.before:
            assert at > 15
            break
        assert await family.lost() == set(), f"before request {at}"
        assert await family.remembered() & await family.named() == set(), f"before request {at}"
        for _ in range(4):
            family.later(AFTER_S)
            await family.collect()
        assert await family.lost() == set(), f"before request {at}, some passes later"
        known = {branch.id for branch in (await family.branches()).values()}
        assert known >= set(race.acknowledged)


async def test_swap_that_lands_late_never_names_what_was_deleted():
    landed, at = [], 0
    while True:
        at += 1
        race = await LateSwap.prepared()
        await race.arm()
        store = Watched(race.family.store)
        store.before[at] = race.act
        await race.family.collect(store)
        if store.before:
            break
        assert await race.holds(), f"before request {at}"
        landed.append(race.landed)

    assert True in landed, "early enough it lands, and the object is kept"
    assert False in landed


async def test_pass_may_end_between_any_two_requests_and_the_next_ones_finish_it():
    at = 0
    while True:
        at += 1
        race = await Race.prepared()
        family, store = race.family, Watched(race.family.store)
        store.cut(at)
        with suppress(StoreUnavailableError):
            await family.collect(store)
        if not store.is_cut:
            break
        for _ in range(4):
            family.later(AFTER_S)
            await family.collect()
        assert await family.lost() == set(), f"at request {at}"
        whole = await family.archive.whole(await family.standing())
        forked = await family.standing(FORK)
        assert await family.keys("/segments/") == {
            key_of(ref) for ref in (*whole.objects, *forked.objects) if ref.kind == "segment"
        }, f"at request {at}"
    assert at > 15


# ---- listings


class Lying:
    """A store whose listings miss some keys, and show some that are gone."""

    def __init__(self, inner, *, hidden=(), ghosts=()):
        self.inner = inner
        self.hidden = hidden
        self.ghosts = ghosts

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def list(self, prefix):
        for info in [row async for row in self.inner.list(prefix)] + list(self.ghosts):
            if info.key not in self.hidden and info.key.startswith(prefix):
                yield info


async def test_listing_that_misses_keys_or_shows_ghosts_costs_time_and_nothing_else(family):
    await family.ship()
    orphan = await marked(family)
    ghosts = [info async for info in family.store.list("v1/") if info.key == orphan]
    await family.collect()
    assert orphan not in await family.keys()

    other = key_of(await family.upload())
    lying = Lying(family.store, hidden={other}, ghosts=ghosts)
    for _ in range(3):
        await family.collect(lying)
        family.later(AFTER_S)
    assert other in await family.keys()
    assert await family.lost() == set()

    blind = Lying(family.store, hidden={layout.garbage_key(UUID)})
    for _ in range(3):
        await family.collect(blind)
        family.later(AFTER_S)
    assert other in await family.keys(), "without the store's time nothing is ripe"


# ---- deleted databases


async def deleted_database():
    race = await Race.prepared()
    family, now_ms = race.family, race.family.clock.now_ms()
    await family.register().update(lambda r: registers.mark_deleted(r, at_ms=now_ms))
    return family


async def test_deleted_database_is_fenced_at_once_and_goes_after_its_grace():
    family = await deleted_database()
    before = await family.keys()

    due_ms = await family.collect()

    assert due_ms == family.clock.now_ms() + 1000 * DELETE_GRACE_S
    assert await family.keys() == before
    for branch_id in (family.main, FORK):
        assert (await family.standing(branch_id)).deleted_at == family.clock.now_ms()
    family.later(DELETE_GRACE_S - 1)
    await family.collect()
    assert await family.keys() == before
    family.later(1)
    assert await family.collect() is None
    assert await family.keys() == set()


async def test_purge_that_was_cut_off_is_taken_up_again_and_the_register_goes_last():
    at = 0
    while True:
        at += 1
        family = await deleted_database()
        family.later(DELETE_GRACE_S)
        store = Watched(family.store)
        store.cut(at)
        with suppress(StoreUnavailableError):
            await family.collect(store)
        if not store.is_cut:
            break
        assert layout.register_key(UUID) in await family.keys(), f"at request {at}"
        await family.collect()
        assert await family.keys() == set(), f"at request {at}"
    assert at > 8


async def test_grace_of_a_deletion_is_never_below_that_of_garbage():
    family = await Family(graces=Graces(1000 * GRACE_S, 0)).begin()
    await family.fork("f", FORK)
    await family.collect()
    await family.delete("f")

    family.later(GRACE_S - 1)
    await family.collect()
    assert f"f#{FORK}" in await family.branches()
    family.later(1)
    await family.collect()

    assert set(await family.branches()) == {"main"}


async def test_taken_name_is_not_given_to_an_undeleted_branch(family):
    await family.fork("f", FORK)
    await family.delete("f")
    await family.fork("f", OTHER)

    with pytest.raises(AlreadyExistsError):
        await family.undelete("f", FORK)
