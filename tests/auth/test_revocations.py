"""What a node knows of revocations: fresh, bounded, and closed where nobody can say."""

import asyncio

import pytest

from memoturnd.auth.revocations import STALE_S, WHOLE_S, Revocations
from memoturnd.core.principal import Grant, Principal
from memoturnd.errors import ForbiddenError, RetryableError, StoreUnavailableError
from memoturnd.metrics import Metrics
from memoturnd.seams.credentials import Revocation

FAR = 10**12


class HandClock:
    def __init__(self):
        self.s = 1000.0

    def now_ms(self):
        return int(1000 * self.s)

    def monotonic_s(self):
        return self.s


class Records:
    """A catalog that can be down, slow, or say something."""

    def __init__(self):
        self.rows = []
        self.down = False
        self.asked = 0

    async def revocations_since(self, change, *, limit=1000):
        self.asked += 1
        if self.down:
            raise RetryableError("the catalog is down")
        await asyncio.sleep(0)
        return [row for row in self.rows if row.change > change][:limit]


class World:
    def __init__(self, **options):
        self.clock, self.records, self.exported, self.export_down = HandClock(), Records(), [], False
        self.metrics = Metrics()
        self.known = Revocations(self.records, self._fallback, self.clock, self.metrics, **options)

    async def _fallback(self):
        if self.export_down:
            raise StoreUnavailableError("the bucket is down")
        return self.exported


@pytest.fixture
def world():
    return World()


def bearer(token_id="tok_1", *, db="app--ann", ns="", tenant="default", at=1000, parents=()):
    grant = Grant("read", ns=ns) if ns else Grant("read", db)
    return Principal("token", tenant, grant, token_id=token_id, issued_at=at, parents=parents)


def revoked(world, who, db="app--ann"):
    try:
        world.known.check(who, db)
    except ForbiddenError:
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "subject", "meant"),
    [
        ("token", "tok_1", {"own", "child"}),
        ("database", "app--ann", {"own", "child", "other"}),
        ("namespace", "app", {"own", "child", "other", "ns"}),
        ("tenant", "default", {"own", "child", "other", "ns", "web"}),
        ("tombstone", "app--ann", {"own", "child", "other", "ns", "web"}),
    ],
)
def test_a_revocation_means_those_tokens_and_no_others(world, kind, subject, meant):
    senders = {
        "own": bearer(),
        "child": bearer("tok_2", parents=("tok_0", "tok_1")),
        "other": bearer("tok_3"),
        "ns": bearer("tok_4", ns="app"),
        "web": bearer("tok_5", ns="web"),
        "theirs": bearer("tok_1", tenant="acme"),
        "young": bearer("tok_6", at=2001),
    }
    world.known.take([Revocation(kind, "default", subject, 2000, FAR, 1)])
    assert {name for name, sender in senders.items() if revoked(world, sender)} == meant


def test_a_deletion_is_held_against_tokens_on_that_name_only(world):
    world.known.take([Revocation("tombstone", "default", "app--ann", 2000, FAR, 1)])
    assert revoked(world, bearer(ns="app"), "app--ann")
    assert not revoked(world, bearer(ns="app"), "app--bob")
    assert world.known.newest("default", "app--ann", "") == 2000


def test_the_later_of_two_times_holds_in_whichever_order_they_come(world):
    late = Revocation("database", "default", "app--ann", 3000, FAR, 2)
    early = Revocation("database", "default", "app--ann", 2000, FAR, 1)
    for rows in ([early, late], [late, early]):
        world = World()
        for row in rows:
            world.known.take([row])
        assert revoked(world, bearer(at=3000))
        assert not revoked(world, bearer(at=3001))


async def test_what_is_new_is_asked_for_in_pages_and_once(world):
    world.records.rows = [Revocation("token", "default", f"tok_{n}", 1, FAR, n) for n in range(1, 2501)]
    await world.known.refresh()
    assert len(world.known) == 2500
    assert world.records.asked == 4
    await world.known.refresh()
    assert world.records.asked == 5


async def test_while_the_catalog_is_down_the_export_says_what_is_revoked(world):
    await world.known.refresh()
    world.records.down = True
    world.exported = [Revocation("token", "default", "tok_1", 1, FAR, 7)]
    world.clock.s += STALE_S + 1
    await world.known.ensure_fresh()
    assert revoked(world, bearer())
    # The catalog is asked from where it was left: the export may lack what came before.
    world.records.down = False
    world.records.rows = [Revocation("token", "default", "tok_9", 1, FAR, 6)]
    await world.known.refresh()
    assert revoked(world, bearer("tok_9"))


async def test_everything_is_asked_for_anew_now_and_then_for_a_catalog_that_was_rebuilt(world):
    world.records.rows = [Revocation("token", "default", "tok_1", 1, world.clock.now_ms() + 1, 50)]
    await world.known.refresh()
    world.records.rows = [Revocation("token", "default", "tok_2", 1, FAR, 7)]
    await world.known.refresh()
    assert not revoked(world, bearer("tok_2"))
    world.clock.s += WHOLE_S + 1
    await world.known.refresh()
    assert revoked(world, bearer("tok_2"))
    assert len(world.known) == 1  # what is over is forgotten


async def test_where_neither_catalog_nor_export_answers_tokens_are_refused(world):
    await world.known.refresh()
    world.records.down = world.export_down = True
    world.clock.s += STALE_S
    await world.known.ensure_fresh()
    world.clock.s += 0.1
    with pytest.raises(RetryableError, match="revoked"):
        await world.known.ensure_fresh()
    world.export_down = False
    await world.known.ensure_fresh()


async def test_a_node_that_has_never_heard_takes_no_token(world):
    world.records.down = world.export_down = True
    with pytest.raises(RetryableError):
        await world.known.ensure_fresh()


async def test_a_node_that_slept_asks_once_for_all_who_wait(world):
    await world.known.refresh()
    world.clock.s += 100
    asked = world.records.asked
    await asyncio.gather(*(world.known.ensure_fresh() for _ in range(10)))
    assert world.records.asked == asked + 1


def test_memory_is_bounded_and_what_is_folded_revokes_more_and_never_less():
    world = World(kept_limit=100)
    rows = [Revocation("token", "acme", f"tok_{n}", n, FAR, n) for n in range(1, 102)]
    rows.append(Revocation("token", "default", "tok_x", 1000, FAR, 500))
    world.known.take(rows)
    assert len(world.known) <= 100
    for row in rows:
        assert revoked(world, bearer(row.subject, tenant=row.tenant, at=row.at))
    assert not revoked(world, bearer("tok_new", tenant="default", at=1))
    assert not revoked(world, bearer("tok_new", tenant="acme", at=102))
    assert b"memoturn_revocations_limit 100.0" in world.metrics.render()


def test_what_is_folded_holds_for_as_long_as_any_of_it():
    world = World(kept_limit=10)
    soon = world.clock.now_ms() + 1000
    rows = [Revocation("token", "acme", f"tok_{n}", n, FAR if n == 1 else soon, n) for n in range(1, 12)]
    world.known.take(rows)
    world.clock.s += 2
    world.known.take([Revocation("token", "loud", f"tok_{n}", n, FAR, n) for n in range(20, 31)])
    assert revoked(world, bearer("tok_1", tenant="acme", at=1))


def test_a_tenant_that_revokes_much_folds_its_own():
    world = World(kept_limit=10)
    world.known.take([Revocation("token", "quiet", "tok_old", 5, FAR, 1)])
    world.known.take([Revocation("token", "loud", f"tok_{n}", n, FAR, n) for n in range(10, 40)])
    assert revoked(world, bearer("tok_old", tenant="quiet", at=1))
    assert not revoked(world, bearer("tok_other", tenant="quiet", at=1))


def test_what_is_over_is_forgotten_before_anything_is_folded():
    world = World(kept_limit=10)
    world.known.take(
        [Revocation("token", "default", f"tok_{n}", n, world.clock.now_ms() + 10, n) for n in range(1, 11)]
    )
    world.clock.s += 1
    world.known.take([Revocation("token", "default", "tok_new", 100, FAR, 11)])
    assert len(world.known) == 1
    assert not revoked(world, bearer("other", at=1))
