"""One contract for every catalog; another implementation joins by one line in `CATALOGS`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    DatabaseNotFoundError,
    RetryableError,
)
from memoturnd.seams.catalog import BranchRow, Catalog, Chore, Database, KnownRequest, RequestKey

CATALOGS: dict[str, Callable[[Path], Catalog]] = {
    "sqlite-file": lambda path: SqliteCatalog(path / "catalog.db"),
    "sqlite-memory": lambda _: SqliteCatalog(":memory:"),
}


@pytest.fixture(params=CATALOGS)
async def catalog(request, tmp_path):
    catalog = CATALOGS[request.param](tmp_path)
    yield catalog
    await catalog.close()


def database(name, number=None, **values):
    number = number if number is not None else sum(name.encode()) + len(name) * 1000
    return Database(name, f"{number:032x}", f"{number:016x}", 1_700_000_000_000 + number, **values)


def branch(db, name, *, number=1, expires_at=None):
    return BranchRow(db.uuid, f"{number:016x}", name, "main", 7, 1_700_000_000_000, expires_at)


async def test_created_database_is_found(catalog):
    one = database("user--alice")

    await catalog.create_database(one)

    assert await catalog.get_database("user--alice") == one


async def test_missing_database_raises(catalog):
    with pytest.raises(DatabaseNotFoundError, match="nobody"):
        await catalog.get_database("nobody")


async def test_taken_name_is_refused_and_the_first_stays(catalog):
    await catalog.create_database(database("a", 1))

    with pytest.raises(AlreadyExistsError, match="a already exists"):
        await catalog.create_database(database("a", 2))

    assert await catalog.get_database("a") == database("a", 1)


async def test_list_is_in_name_order_and_pages_by_name(catalog):
    for number, name in enumerate(["b", "a--2", "a--1", "c", "a"]):
        await catalog.create_database(database(name, number))

    names = [row.name for row in await catalog.list_databases()]
    page = [row.name for row in await catalog.list_databases(limit=2)]
    rest = [row.name for row in await catalog.list_databases(after=page[-1])]

    assert names == ["a", "a--1", "a--2", "b", "c"]
    assert page + rest == names


async def test_list_by_prefix_takes_it_literally(catalog):
    for number, name in enumerate(["ab", "a_1", "a%", "a--1", "a--2", "a-", "b"]):
        await catalog.create_database(database(name, number))

    async def listed(prefix, **options):
        return [row.name for row in await catalog.list_databases(prefix=prefix, **options)]

    assert await listed("a--") == ["a--1", "a--2"]
    assert await listed("a_") == ["a_1"]
    assert await listed("a%") == ["a%"]
    assert await listed("a--", after="a--1") == ["a--2"]
    assert await listed("a--", limit=1) == ["a--1"]
    assert await listed("a--", after="z") == []
    assert await listed("a--", after="a") == ["a--1", "a--2"]
    assert await listed("a", limit=0) == []


async def test_mark_written_is_remembered(catalog):
    one = database("a")
    await catalog.create_database(one)

    await catalog.mark_written(one.uuid)
    await catalog.mark_written(one.uuid)
    await catalog.mark_written("f" * 32)

    assert await catalog.get_database("a") == Database(
        one.name, one.uuid, one.main_branch_id, one.created_at, written=True
    )


async def test_written_databases_are_found_from_any_uuid_on_and_round_again(catalog):
    assert await catalog.written_after("") is None
    made = sorted((database(f"d{n}", n) for n in range(4)), key=lambda db: db.uuid)
    for db in made:
        await catalog.create_database(db)
    assert await catalog.written_after("") is None
    for db in made[1:]:
        await catalog.mark_written(db.uuid)

    async def found(uuid):
        return (await catalog.written_after(uuid)).name

    assert await found("") == made[1].name
    assert await found(made[0].uuid) == made[1].name
    assert await found(made[1].uuid) == made[2].name
    assert await found(made[3].uuid) == made[1].name
    assert await found("g") == made[1].name


async def test_deleted_database_is_gone_with_its_branches(catalog):
    one, other = database("a", 1), database("b", 2)
    for db in (one, other):
        await catalog.create_database(db)
        await catalog.put_branch(branch(db, "x", expires_at=5))

    await catalog.delete_database(one.uuid)
    await catalog.delete_database(one.uuid)

    with pytest.raises(DatabaseNotFoundError):
        await catalog.get_database("a")
    assert await catalog.list_branches(one.uuid) == []
    assert await catalog.due_branches(10) == [branch(other, "x", expires_at=5)]


async def test_deleted_name_may_be_used_again(catalog):
    await catalog.create_database(database("a", 1))
    await catalog.delete_database(database("a", 1).uuid)

    await catalog.create_database(database("a", 2))

    assert await catalog.get_database("a") == database("a", 2)


async def test_branch_is_found_and_listed_by_name(catalog):
    db = database("a")
    await catalog.create_database(db)
    rows = [branch(db, "try-2", number=2, expires_at=99), branch(db, "try-1", number=1)]
    for row in rows:
        await catalog.put_branch(row)

    assert await catalog.get_branch(db.uuid, "try-2") == rows[0]
    assert await catalog.list_branches(db.uuid) == [rows[1], rows[0]]


async def test_branch_names_are_per_database_and_taken_once(catalog):
    one, other = database("a", 1), database("b", 2)
    for db in (one, other):
        await catalog.create_database(db)
        await catalog.put_branch(branch(db, "x"))

    with pytest.raises(AlreadyExistsError, match="x"):
        await catalog.put_branch(branch(one, "x", number=3))


async def test_branch_named_main_always_exists(catalog):
    db = database("a")
    await catalog.create_database(db)

    with pytest.raises(AlreadyExistsError):
        await catalog.put_branch(branch(db, "main"))


async def test_branch_of_a_missing_database_is_refused(catalog):
    with pytest.raises(DatabaseNotFoundError):
        await catalog.put_branch(branch(database("a"), "x"))


async def test_missing_branch_raises_and_its_deletion_does_not(catalog):
    db = database("a")
    await catalog.create_database(db)
    await catalog.put_branch(branch(db, "x"))

    await catalog.delete_branch(db.uuid, "x")
    await catalog.delete_branch(db.uuid, "x")

    with pytest.raises(BranchNotFoundError, match="x"):
        await catalog.get_branch(db.uuid, "x")


async def test_due_branches_come_oldest_first_up_to_the_limit(catalog):
    db = database("a")
    await catalog.create_database(db)
    for number, expires_at in enumerate([300, 100, None, 200, 301]):
        await catalog.put_branch(branch(db, f"x{number}", number=number, expires_at=expires_at))

    assert [row.name for row in await catalog.due_branches(300)] == ["x1", "x3", "x0"]
    assert [row.name for row in await catalog.due_branches(300, limit=2)] == ["x1", "x3"]
    assert await catalog.due_branches(99) == []


async def test_changes_number_creations_in_order(catalog):
    rows = [database(name, number) for number, name in enumerate("cab")]
    for row in rows:
        await catalog.create_database(row)

    changes = await catalog.unwritten_changes(0)

    assert [(kind, db) for _, kind, db in changes] == [("created", row) for row in rows]
    assert changes[0][0] > 0
    assert sorted(number for number, _, _ in changes) == [number for number, _, _ in changes]
    assert await catalog.unwritten_changes(changes[-1][0]) == []
    assert await catalog.unwritten_changes(changes[0][0]) == changes[1:]
    assert await catalog.unwritten_changes(0, limit=2) == changes[:2]


async def test_written_database_is_no_unwritten_change(catalog):
    one, two = database("a", 1), database("b", 2)
    await catalog.create_database(one)
    await catalog.create_database(two)

    await catalog.mark_written(one.uuid)

    assert [db.name for _, _, db in await catalog.unwritten_changes(0)] == ["b"]


async def test_deletion_of_a_handed_out_database_is_a_later_change(catalog):
    one = database("a", 1)
    await catalog.create_database(one)
    [(created, _, _)] = await catalog.unwritten_changes(0)

    await catalog.delete_database(one.uuid)
    await catalog.create_database(database("a", 2))
    changes = await catalog.unwritten_changes(created)

    assert [(kind, db) for _, kind, db in changes] == [("deleted", one), ("created", database("a", 2))]
    assert created < changes[0][0] < changes[1][0]
    assert await catalog.unwritten_changes(changes[-1][0]) == []


async def test_deletion_stays_until_its_number_is_confirmed(catalog):
    one = database("a", 1)
    await catalog.create_database(one)
    [(created, _, _)] = await catalog.unwritten_changes(0)
    await catalog.delete_database(one.uuid)

    first = await catalog.unwritten_changes(created)
    again = await catalog.unwritten_changes(created)

    assert first == again
    assert [kind for _, kind, _ in first] == ["deleted"]


async def test_replaying_changes_gives_the_unwritten_databases(catalog):
    known: dict[str, Database] = {}
    since = 0
    for number in range(40):
        await catalog.create_database(database(f"d{number}", number))
        if number % 3 == 0:
            await catalog.delete_database(database(f"d{number // 2}", number // 2).uuid)
        if number % 5 == 0:
            for change, kind, db in await catalog.unwritten_changes(since, limit=4):
                since = change
                if kind == "created":
                    known[db.uuid] = db
                else:
                    known.pop(db.uuid, None)
    while changes := await catalog.unwritten_changes(since, limit=4):
        for change, kind, db in changes:
            since = change
            if kind == "created":
                known[db.uuid] = db
            else:
                known.pop(db.uuid, None)

    assert set(known.values()) == set(await catalog.list_databases())


async def test_closed_catalog_does_not_answer(catalog):
    await catalog.ping()
    await catalog.close()

    with pytest.raises(RetryableError):
        await catalog.ping()


# ---- chores

COLLECT_A = Chore("collect", "a" * 32)
RETENTION_A = Chore("retention", "a" * 32, "b" * 16)


async def claimed_at(catalog, now_ms, **options):
    return await catalog.claim_due(now_ms, until_ms=now_ms + 1000, **options)


async def test_chores_are_claimed_when_due_oldest_first_and_by_one_only(catalog):
    await catalog.schedule(COLLECT_A, 200)
    await catalog.schedule(RETENTION_A, 100)

    assert await claimed_at(catalog, 99) == []
    assert [c.chore for c in await claimed_at(catalog, 200, limit=1)] == [RETENTION_A]
    assert [c.chore for c in await claimed_at(catalog, 200)] == [COLLECT_A]
    assert await claimed_at(catalog, 300) == []


async def test_scheduling_twice_keeps_the_earlier_time(catalog):
    await catalog.schedule(COLLECT_A, 200)
    await catalog.schedule(COLLECT_A, 100)
    await catalog.schedule(COLLECT_A, 300)

    (claimed,) = await claimed_at(catalog, 100)

    assert (claimed.due_at, claimed.until, claimed.attempts) == (100, 1100, 1)


async def test_finished_chore_is_gone_unless_it_says_when_it_is_due_next(catalog):
    await catalog.schedule(COLLECT_A, 100)
    (claimed,) = await claimed_at(catalog, 100)
    await catalog.finish(claimed, next_ms=500)

    assert await claimed_at(catalog, 499) == []
    (claimed,) = await claimed_at(catalog, 500)
    await catalog.finish(claimed, next_ms=None)

    assert await claimed_at(catalog, 10_000) == []


@pytest.mark.parametrize(
    ("wanted", "next_ms", "due"), [(5000, None, 5000), (5000, 300, 300), (150, 300, 150)]
)
async def test_chore_scheduled_while_it_is_under_way_is_due_again(catalog, wanted, next_ms, due):
    await catalog.schedule(COLLECT_A, 100)
    (claimed,) = await claimed_at(catalog, 100)

    await catalog.schedule(COLLECT_A, wanted)
    await catalog.finish(claimed, next_ms=next_ms)

    assert await claimed_at(catalog, due - 1) == []
    assert [c.chore for c in await claimed_at(catalog, due)] == [COLLECT_A]


async def test_claim_that_was_never_finished_passes_to_the_next_who_asks(catalog):
    await catalog.schedule(COLLECT_A, 100)
    (lost,) = await claimed_at(catalog, 100)
    await catalog.schedule(COLLECT_A, 5000)

    assert await claimed_at(catalog, 1099) == []
    (claimed,) = await claimed_at(catalog, 1100)
    await catalog.finish(lost, next_ms=None)  # whoever lost it comes back late
    assert claimed.attempts == 2
    await catalog.finish(claimed, next_ms=None)

    assert [c.chore for c in await claimed_at(catalog, 5000)] == [COLLECT_A]


async def test_failed_chore_counts_its_attempts_until_one_ends_well(catalog):
    await catalog.schedule(COLLECT_A, 0)
    attempts = []
    for now_ms, failed in ((0, True), (10, True), (20, False), (30, True)):
        (claimed,) = await claimed_at(catalog, now_ms)
        attempts.append(claimed.attempts)
        await catalog.finish(claimed, next_ms=now_ms + 10, failed=failed)

    assert attempts == [1, 2, 3, 1]


def request_key(**changes):
    return RequestKey(**{"scope": "s", "route": "POST /x", "principal": "p", "key": "k", **changes})


async def test_request_is_found_with_what_was_known_and_its_answer(catalog):
    key = request_key()
    assert await catalog.find_request(key, 0) is None

    await catalog.begin_request(key, b"d", b"{}", 100, keep=10)
    assert await catalog.find_request(key, 100) == KnownRequest(b"d", b"{}", None)
    await catalog.finish_request(key, b"answer")

    assert await catalog.find_request(key, 100) == KnownRequest(b"d", b"{}", b"answer")
    assert await catalog.find_request(key, 101) is None
    for other in ({"scope": "t"}, {"route": "r"}, {"principal": "q"}, {"key": "l"}):
        assert await catalog.find_request(request_key(**other), 0) is None


async def test_request_begins_anew_in_place_of_an_old_one_and_may_be_forgotten(catalog):
    key = request_key()
    await catalog.begin_request(key, b"d", b"{}", 100, keep=10)
    await catalog.finish_request(key, b"answer")

    await catalog.begin_request(key, b"e", b"[]", 200, keep=10)
    assert await catalog.find_request(key, 0) == KnownRequest(b"e", b"[]", None)

    await catalog.forget_request(key)
    assert await catalog.find_request(key, 0) is None


async def test_only_the_newest_requests_are_kept(catalog):
    for name in "abcd":
        await catalog.begin_request(request_key(key=name), b"d", b"{}", 100, keep=2)

    found = [await catalog.find_request(request_key(key=name), 0) is not None for name in "abcd"]

    assert found == [False, False, True, True]
