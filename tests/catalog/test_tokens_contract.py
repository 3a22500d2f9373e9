"""Records of tokens and revocations in every catalog."""

import asyncio
import json

import pytest
from test_catalog_contract import catalog as catalog  # noqa: PLC0414 - the fixture of every catalog
from test_catalog_contract import database

from memoturnd.seams.credentials import Revocation, TokenRow

FAR = 10**13


def token(token_id, *, db="", ns="", tenant="default", issued_at=1000, expires_at=FAR):
    return TokenRow(token_id, tenant, db, ns, issued_at, expires_at, b'{"scope":"read"}')


async def exported(catalog):
    """What the export is told, by kind and id."""
    rows = await catalog.pending_exports()
    await catalog.exported([row.change for row in rows])
    return {(row.kind, row.id): None if row.body is None else json.loads(row.body) for row in rows}


async def test_tokens_are_found_in_their_tenant_and_listed_by_what_they_are_for(catalog):
    rows = [
        token("tok_1", db="app--ann"),
        token("tok_2", ns="app"),
        token("tok_3", db="app--ann"),
        token("tok_4", ns="app", tenant="acme"),
    ]
    for row in rows:
        await catalog.put_token(row)
    assert await catalog.get_token("default", "tok_1") == rows[0]
    assert await catalog.get_token("acme", "tok_1") is None
    assert await catalog.get_token("default", "tok_9") is None
    assert await catalog.list_tokens(tenant="default", db="app--ann") == [rows[0], rows[2]]
    assert await catalog.list_tokens(tenant="default", ns="app") == [rows[1]]
    assert await catalog.list_tokens(tenant="acme", ns="app") == [rows[3]]
    assert await catalog.list_tokens(tenant="default", db="app--ann", limit=1) == [rows[0]]
    assert await catalog.list_tokens(tenant="default", db="app--ann", after="tok_1") == [rows[2]]


async def test_revocations_have_numbers_in_their_order_and_are_read_from_any(catalog):
    first = await catalog.revoke(Revocation("token", "default", "tok_1", 5, FAR))
    second = await catalog.revoke(Revocation("tenant", "acme", "acme", 6, FAR))
    assert second.change == first.change + 1
    assert await catalog.revocations_since(0) == [first, second]
    assert await catalog.revocations_since(0, limit=1) == [first]
    assert await catalog.revocations_since(first.change) == [second]
    assert await catalog.revocations_since(second.change) == []


async def test_revoking_again_is_news_and_the_later_time_holds(catalog):
    await catalog.revoke(Revocation("database", "default", "app--ann", 9, FAR))
    again = await catalog.revoke(Revocation("database", "default", "app--ann", 7, FAR + 1))
    assert (again.at, again.expires_at) == (9, FAR + 1)
    assert await catalog.revocations_since(0) == [again]


@pytest.mark.parametrize(
    ("kind", "subject", "youngest"),
    [
        ("database", "app--ann", 20),
        ("namespace", "app", 40),
        ("tenant", "default", 50),
        ("tombstone", "app--ann", 1),
    ],
)
async def test_a_cut_off_is_not_before_the_youngest_token_that_it_means(catalog, kind, subject, youngest):
    for number, (db, ns, tenant) in enumerate(
        [
            ("app--ann", "", "default"),
            ("app--ann", "", "default"),
            ("app--bob", "", "default"),
            ("", "app", "default"),
            ("apple--x", "", "default"),
            ("app--ann", "", "acme"),
        ],
        1,
    ):
        await catalog.put_token(token(f"tok_{number}", db=db, ns=ns, tenant=tenant, issued_at=10 * number))
    assert (await catalog.revoke(Revocation(kind, "default", subject, 1, FAR))).at == youngest


async def test_a_deletion_is_held_against_tokens_in_the_transaction_of_the_deletion(catalog):
    one = database("app--ann", 1)
    await catalog.create_database(one)
    await catalog.delete_database(one.uuid, at_ms=77)
    [buried] = await catalog.revocations_since(0)
    assert (buried.kind, buried.tenant, buried.subject, buried.at) == ("tombstone", "default", "app--ann", 77)
    await catalog.delete_database(one.uuid, at_ms=99)
    assert await catalog.revocations_since(buried.change) == []


async def test_what_is_over_goes_and_what_is_not_stays(catalog):
    await catalog.put_token(token("tok_old", ns="app", expires_at=10))
    await catalog.put_token(token("tok_new", ns="app", expires_at=30))
    await catalog.revoke(Revocation("token", "default", "tok_old", 1, 10))
    kept = await catalog.revoke(Revocation("token", "default", "tok_new", 1, 30))
    await exported(catalog)
    assert await catalog.forget_expired_tokens(20) == 2
    assert await catalog.forget_expired_tokens(20) == 0
    assert [row.id for row in await catalog.list_tokens(tenant="default", ns="app")] == ["tok_new"]
    assert await catalog.revocations_since(0) == [kept]
    assert await exported(catalog) == {
        ("token", "tok_old"): None,
        ("revocation", "token/default/tok_old"): None,
    }


async def test_the_export_hears_of_tokens_without_the_token_and_of_revocations(catalog):
    await catalog.put_token(token("tok_1", ns="app"))
    entered = await catalog.revoke(Revocation("token", "default", "tok_1", 5, FAR))
    told = await exported(catalog)
    assert told["token", "tok_1"]["ns"] == "app"
    assert told["revocation", "token/default/tok_1"] == {
        "kind": "token",
        "tenant": "default",
        "subject": "tok_1",
        "at": 1000,
        "expires_at": FAR,
        "change": entered.change,
    }


async def test_many_revocations_at_once_have_numbers_of_their_own_without_gaps(catalog):
    entered = await asyncio.gather(
        *(catalog.revoke(Revocation("token", "default", f"tok_{n}", n, FAR)) for n in range(20))
    )
    assert sorted(one.change for one in entered) == list(range(1, 21))


async def test_no_token_that_is_recorded_meanwhile_passes_a_revocation_by(catalog):
    async def recorded(ns):
        await catalog.put_token(token(f"tok_{ns}", ns=ns, issued_at=50))
        return await catalog.revocations_since(0)

    async def cut_off(ns):
        return await catalog.revoke(Revocation("namespace", "default", ns, 1, FAR))

    for number in range(40):
        seen, revoked = await asyncio.gather(recorded(f"ns{number}"), cut_off(f"ns{number}"))
        assert revoked.at >= 50 or revoked in seen


async def test_a_lost_catalog_gets_tokens_and_revocations_back_and_numbers_go_on(catalog):
    await catalog.put_token(token("tok_1", ns="app"))
    revoked = await catalog.revoke(Revocation("token", "default", "tok_1", 5, FAR))
    bodies = {(row.kind, row.id): row.body for row in await catalog.pending_exports()}
    lost = {
        **bodies,
        ("revocation", "x"): json.dumps(
            {**json.loads(bodies["revocation", "token/default/tok_1"]), "change": 70}
        ).encode(),
    }
    await catalog.forget_expired_tokens(FAR + 1)
    assert await catalog.get_token("default", "tok_1") is None

    for (kind, identity), body in lost.items():
        assert await catalog.restore_exported(kind, identity, body, is_dry=True)
    for (kind, identity), body in bodies.items():
        assert await catalog.restore_exported(kind, identity, body)
        assert not await catalog.restore_exported(kind, identity, body)

    assert await catalog.get_token("default", "tok_1") == token("tok_1", ns="app")
    [back] = await catalog.revocations_since(0)
    assert (back.kind, back.subject, back.at) == (revoked.kind, revoked.subject, revoked.at)
    late = {**json.loads(bodies["revocation", "token/default/tok_1"]), "subject": "tok_2", "change": 70}
    await catalog.restore_exported("revocation", "token/default/tok_2", json.dumps(late).encode())
    after = await catalog.revoke(Revocation("token", "default", "tok_3", 5, FAR))
    assert after.change > 70  # a node that was told of 70 hears of it


async def test_tokens_of_a_deleted_tenant_are_revoked_for_a_tenant_of_that_name_too(catalog):
    await catalog.create_tenant("acme", 1)
    await catalog.put_token(token("tok_1", ns="app", tenant="acme", issued_at=50))
    await catalog.delete_tenant("acme", at_ms=40)
    (found,) = await catalog.revocations_since(0)
    assert (found.kind, found.tenant, found.subject, found.at) == ("tenant", "acme", "acme", 50)
