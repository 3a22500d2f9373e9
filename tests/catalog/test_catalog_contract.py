"""One contract for every catalog; another implementation joins by one line in `CATALOGS`."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from postgres_server import emptied

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    NotFoundError,
    RetryableError,
)
from memoturnd.seams.catalog import BranchRow, Catalog, Chore, Database, KnownRequest, NodeRow, RequestKey


async def in_a_file(path, _request):
    return SqliteCatalog(path / "catalog.db")


async def in_memory(_path, _request):
    return SqliteCatalog(":memory:")


async def in_postgres(_path, request):
    return await emptied(request.getfixturevalue("postgres_url"))


CATALOGS = {"sqlite-file": in_a_file, "sqlite-memory": in_memory, "postgres": in_postgres}


@pytest.fixture(params=CATALOGS)
async def catalog(request, tmp_path) -> AsyncIterator[Catalog]:
    catalog = await CATALOGS[request.param](tmp_path, request)
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


async def test_forgotten_database_is_gone_with_its_branches(catalog):
    one, other = database("a", 1), database("b", 2)
    for db in (one, other):
        await catalog.create_database(db)
        await catalog.put_branch(branch(db, "x", expires_at=5))

    await catalog.forget_database(one.uuid)
    await catalog.forget_database(one.uuid)

    with pytest.raises(DatabaseNotFoundError):
        await catalog.get_database("a")
    with pytest.raises(DatabaseNotFoundError):
        await catalog.get_database_by_uuid(one.uuid)
    assert await catalog.list_branches(one.uuid) == []
    assert await catalog.due_branches(10) == [branch(other, "x", expires_at=5)]
    await catalog.create_database(database("a", 3))
    assert await catalog.get_database("a") == database("a", 3)


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


async def taken(catalog, limit=1000):
    """Take what is to be exported, as the export does, and return what it says of databases."""
    rows = await catalog.pending_exports(limit)
    await catalog.exported([row.change for row in rows])
    return [row for row in rows if row.kind == "database"]


async def test_never_written_databases_are_to_be_exported_until_they_are(catalog):
    rows = [database(name, number) for number, name in enumerate("cab")]
    for row in rows:
        await catalog.create_database(row)

    pending = await catalog.pending_exports()

    assert {row.id for row in pending} == {row.uuid for row in rows}
    assert {row.kind for row in pending} == {"database"}
    assert json.loads(next(row.body for row in pending if row.id == rows[0].uuid)) == {
        "tenant": "default",
        "name": "c",
        "main_branch_id": rows[0].main_branch_id,
        "created_at": rows[0].created_at,
    }
    assert [row.change for row in pending] == sorted({row.change for row in pending})
    assert await catalog.pending_exports() == pending
    assert await catalog.pending_exports(2) == pending[:2]
    await catalog.exported([pending[1].change])
    assert await catalog.pending_exports() == [pending[0], pending[2]]


async def test_database_that_came_and_went_or_was_written_before_anybody_asked_is_not_exported(catalog):
    written, deleted, forgotten = (database(name, number) for number, name in enumerate("abc"))
    for row in (written, deleted, forgotten):
        await catalog.create_database(row)

    await catalog.mark_written(written.uuid)
    await catalog.delete_database(deleted.uuid, at_ms=5)
    await catalog.forget_database(forgotten.uuid)

    assert await taken(catalog) == []


@pytest.mark.parametrize("end", ["written", "deleted", "forgotten"])
async def test_export_hears_once_that_a_database_it_knows_is_gone_or_written(catalog, end):
    one = database("a", 1)
    await catalog.create_database(one)
    [created] = await taken(catalog)

    for _ in range(2):
        if end == "written":
            await catalog.mark_written(one.uuid)
        elif end == "deleted":
            await catalog.delete_database(one.uuid, at_ms=5)
        await (catalog.forget_database(one.uuid) if end != "written" else catalog.mark_written(one.uuid))

    [gone] = await taken(catalog)
    assert (gone.kind, gone.id, gone.body) == ("database", one.uuid, None)
    assert gone.change > created.change


async def test_undeleted_database_is_exported_again(catalog):
    one = database("a", 1)
    await catalog.create_database(one)
    await catalog.delete_database(one.uuid, at_ms=5)

    await catalog.undelete_database(one.uuid)

    [row] = await taken(catalog)
    assert (row.id, json.loads(row.body)["name"]) == (one.uuid, "a")


async def test_replaying_exports_gives_the_unwritten_databases(catalog):
    known = {}

    async def replay(limit):
        rows = await taken(catalog, limit)
        for row in rows:
            known[row.id] = row.body
        return rows

    for number in range(40):
        await catalog.create_database(database(f"d{number}", number))
        if number % 3 == 0:
            await catalog.forget_database(database(f"d{number // 2}", number // 2).uuid)
        if number % 4 == 0:
            await catalog.mark_written(database(f"d{number // 3}", number // 3).uuid)
        if number % 5 == 0:
            await replay(4)
    while await replay(4):
        pass

    live = {db.uuid for db in await catalog.list_databases() if not db.written}
    assert {uuid for uuid, body in known.items() if body is not None} == live


# ---- tenants, deletion and its undo


async def test_tenants_have_names_of_their_own(catalog):
    await catalog.create_tenant("acme", 7)
    ours, theirs = database("a", 1), database("a", 2, tenant="acme")
    await catalog.create_database(ours)
    await catalog.create_database(theirs)

    assert await catalog.get_database("a") == ours
    assert await catalog.get_database("acme/a") == theirs
    assert await catalog.list_databases() == [ours]
    assert await catalog.list_databases(tenant="acme") == [theirs]
    assert await catalog.list_databases(tenant="nobody") == []
    with pytest.raises(AlreadyExistsError, match="acme/a"):
        await catalog.create_database(database("a", 3, tenant="acme"))


async def test_database_of_a_missing_tenant_is_refused(catalog):
    with pytest.raises(NotFoundError, match="no tenant acme"):
        await catalog.create_database(database("a", 1, tenant="acme"))


async def test_tenants_are_listed_found_and_deleted_when_they_have_nothing(catalog):
    assert [row.name for row in await catalog.list_tenants()] == ["default"]
    made = await catalog.create_tenant("acme", 7)
    one = database("a", 1, tenant="acme")
    await catalog.create_database(one)

    assert await catalog.get_tenant("acme") == made
    assert [row.name for row in await catalog.list_tenants(limit=1)] == ["acme"]
    assert [row.name for row in await catalog.list_tenants(after="acme")] == ["default"]
    with pytest.raises(AlreadyExistsError):
        await catalog.create_tenant("acme", 8)
    await catalog.delete_database(one.uuid, at_ms=5)
    with pytest.raises(ConflictError, match="acme"):
        await catalog.delete_tenant("acme", at_ms=1)
    with pytest.raises(ConflictError, match="always"):
        await catalog.delete_tenant("default", at_ms=1)
    await catalog.forget_database(one.uuid)
    await catalog.delete_tenant("acme", at_ms=1)
    await catalog.delete_tenant("acme", at_ms=1)
    with pytest.raises(NotFoundError, match="acme"):
        await catalog.get_tenant("acme")


async def test_deleted_database_is_gone_until_it_is_undeleted(catalog):
    one = database("a", 1, written=True)
    await catalog.create_database(one)
    await catalog.put_branch(branch(one, "x", expires_at=5))

    await catalog.delete_database(one.uuid, at_ms=50)
    await catalog.delete_database(one.uuid, at_ms=60)

    deleted = replace(one, deleted_at=50)
    with pytest.raises(DatabaseNotFoundError):
        await catalog.get_database("a")
    assert await catalog.list_databases() == []
    assert await catalog.written_after("") is None
    assert await catalog.list_branches(one.uuid) == []
    assert await catalog.due_branches(10) == []
    assert await catalog.get_database_by_uuid(one.uuid) == deleted
    assert await catalog.list_deleted(tenant="default") == [deleted]
    assert await catalog.find_deleted("a") == deleted
    assert not await catalog.is_empty()
    assert await catalog.undelete_database(one.uuid) == one
    assert await catalog.undelete_database(one.uuid) == one
    assert await catalog.get_database("a") == one
    assert await catalog.list_deleted(tenant="default") == []


async def test_name_of_a_deleted_database_is_free_and_may_be_taken_for_good(catalog):
    first, second, third = (database("a", number) for number in (1, 2, 3))
    for at_ms, row in ((50, first), (60, second)):
        await catalog.create_database(row)
        await catalog.delete_database(row.uuid, at_ms=at_ms)
    await catalog.create_database(third)

    assert (await catalog.find_deleted("a")).uuid == second.uuid
    assert (await catalog.find_deleted("a", first.uuid)).uuid == first.uuid
    with pytest.raises(DatabaseNotFoundError):
        await catalog.find_deleted("a", third.uuid)
    with pytest.raises(DatabaseNotFoundError):
        await catalog.find_deleted("b", first.uuid)
    with pytest.raises(AlreadyExistsError):
        await catalog.undelete_database(first.uuid)
    await catalog.forget_database(first.uuid)
    with pytest.raises(DatabaseNotFoundError):
        await catalog.undelete_database(first.uuid)
    assert [row.uuid for row in await catalog.list_deleted(tenant="default")] == [second.uuid]


async def test_deleted_databases_are_listed_by_name_and_uuid_a_page_at_a_time(catalog):
    made = [database(name, number) for number, name in enumerate(["b", "a", "a", "ab", "c"])]
    for row in made:
        await catalog.create_database(row)
        await catalog.delete_database(row.uuid, at_ms=9)

    listed, after = [], ("", "")
    while page := await catalog.list_deleted(tenant="default", after=after, limit=2):
        listed += page
        after = (page[-1].name, page[-1].uuid)

    assert [(row.name, row.uuid) for row in listed] == sorted((row.name, row.uuid) for row in made)
    assert len(await catalog.list_deleted(tenant="default", prefix="a")) == 3
    assert await catalog.list_deleted(tenant="acme") == []


async def test_namespaces_are_listed_once_each_and_by_page(catalog):
    names = ["a--1", "a--2", "a-b--1", "a0--1", "plain", "z--9", "z--8"]
    for number, name in enumerate(names):
        await catalog.create_database(database(name, number))

    assert await catalog.list_namespaces(tenant="default") == ["a", "a-b", "a0", "z"]
    assert await catalog.list_namespaces(tenant="default", limit=2) == ["a", "a-b"]
    assert await catalog.list_namespaces(tenant="default", after="a-b") == ["a0", "z"]
    assert await catalog.list_namespaces(tenant="acme") == []


async def test_nodes_are_known_by_their_last_sign(catalog):
    one, two = NodeRow("n1", "http://1", "0.1", 10, 100), NodeRow("n2", "http://2", "0.1", 20, 200)
    await catalog.put_node(one)
    await catalog.put_node(two)
    await catalog.put_node(one._replace(address="http://3", seen_at=150))

    assert await catalog.list_nodes(0) == [one._replace(address="http://3", seen_at=150), two]
    assert [node.id for node in await catalog.list_nodes(151)] == ["n2"]
    assert await catalog.forget_silent_nodes(151) == 1
    await catalog.forget_node("n2")
    await catalog.forget_node("n2")
    assert await catalog.list_nodes(0) == []


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


async def test_what_a_process_was_at_when_it_ended_is_due_at_the_next_start(catalog):
    await catalog.schedule(COLLECT_A, 100)
    await catalog.schedule(RETENTION_A, 5000)
    for _ in range(3):
        await claimed_at(catalog, 200)
        await catalog.schedule(COLLECT_A, 5000)
        await catalog.release_claims(200)

    (claimed,) = await claimed_at(catalog, 200)
    await catalog.release_claims(200)  # it may be what ends the process: its claim has to run out

    assert (claimed.chore, claimed.attempts) == (COLLECT_A, 4)
    assert await claimed_at(catalog, 1199) == []
    await catalog.finish(claimed, next_ms=None)
    assert [c.chore for c in await claimed_at(catalog, 5000)] == [RETENTION_A]


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
