"""Routes of verifiable erasure, of profiles and of databases that are none."""

from collections.abc import Awaitable, Callable
from typing import Final

from memoturnd.core import cursors, erasures
from memoturnd.core.durability import Durability
from memoturnd.core.erasures import Target
from memoturnd.engine.journal import Entry, Facts
from memoturnd.http.addresses import database_of, profile_of
from memoturnd.http.call import Call
from memoturnd.http.describe import PAGE, described
from memoturnd.http.envelope import Answer, at, reached, reply
from memoturnd.http.journal import taking_effect_once
from memoturnd.http.paging import page
from memoturnd.http.ports import BranchProfile, Requested
from memoturnd.http.shapes import erasures as shapes
from memoturnd.surfaces import erasing
from memoturnd.surfaces.erasing import Asked

_LISTED_AT_ONCE: Final = 100


@described(takes=shapes.Erase, gives={202: shapes.Requested})
async def erase_of_profile(call: Call) -> Answer:
    """Erase something of a profile from its history too. Raises NotFoundError for a memory or topic that never was."""
    return await _erase(call, *profile_of(call))


@described(takes=shapes.Erase, gives={202: shapes.Requested})
async def erase_of_database(call: Call) -> Answer:
    """Erase something of a database from its history too."""
    return await _erase(call, *database_of(call))


async def _erase(call: Call, name: str, branch_name: str) -> Answer:
    asked, _ = await call.parsed(erasing.parse), call.durability  # which it is in any case

    async def ask() -> Asked:
        return asked

    return await erase_once(
        call, (name, branch_name), ask, lambda requested: reply(_accepted(requested), status=202)
    )


async def erase_once(
    call: Call,
    place: tuple[str, str],
    ask: Callable[[], Awaitable[Asked]],
    answer: Callable[[Requested], Answer],
) -> Answer:
    """Erase what `ask` says on a database's branch, once for an Idempotency-Key; return the `answer`, which names the erasure.

    `ask` raises NotFoundError where there is nothing to erase.
    """
    name, branch_name = place
    database = await call.node.databases.get(name)

    async def facts() -> Facts:
        return {"erasure_id": call.node.erasing.new_id()}

    async def run(entry: Entry | None) -> Answer:
        erasure_id = (await facts() if entry is None else entry.facts)["erasure_id"]
        requested = await call.node.erasing.request(name, branch_name, ask, erasure_id)
        call.tell(resource=f"erasures/{erasure_id}", count=len(requested.coupon.targets))
        found = answer(requested)
        found.headers.append((b"memoturn-erasure-id", requested.coupon.id.encode()))
        return reached(at(found, requested.txid, requested.durable_txid), Durability.DURABLE)

    return await taking_effect_once(call, facts, run, scope=database.uuid)


async def purge(
    call: Call,
    targets: Callable[[BranchProfile], Awaitable[list[Target]]],
    answer: Callable[[Requested], Answer],
) -> Answer:
    """Erase what is forgotten in a profile; `targets` says what that is, NotFoundError where it is not there."""
    call.require_every_branch()
    name, branch_name = profile_of(call)
    _ = call.durability  # which it is in any case

    async def ask() -> Asked:
        profile = await call.node.profile(name, branch_name)
        return Asked(tuple(await targets(profile)), None)

    return await erase_once(call, (name, branch_name), ask, answer)


async def purges(call: Call) -> bool:
    """Return whether the policy of the profile makes each forgetting an erasure. Raises PolicyUnreadableError."""
    return await call.node.erasing.purges(profile_of(call)[0])


def _accepted(requested: Requested) -> dict[str, object]:
    coupon = requested.coupon
    return {
        "erasure_id": coupon.id,
        "status": coupon.status,
        "txid": requested.txid,
        "grace_until": coupon.grace_until,
    }


@described(gives={200: shapes.Coupons}, values=PAGE)
async def list_of_profile(call: Call) -> Answer:
    """List the erasures of a profile, the newest request first."""
    return await _list(call, profile_of(call)[0])


@described(gives={200: shapes.Coupons}, values=PAGE)
async def list_of_database(call: Call) -> Answer:
    """List the erasures of a database, the newest request first."""
    return await _list(call, database_of(call)[0])


async def _list(call: Call, name: str) -> Answer:
    asked = page(call, cursors.Name, default=_LISTED_AT_ONCE)
    database = await call.node.databases.get(name)
    rows = await call.node.erasing.coupons.page(database.uuid, before=asked.after, limit=asked.rows)
    shown = [erasures.shown(coupon) for coupon in rows]
    return reply({"erasures": shown, "next_cursor": asked.cursor(rows, lambda coupon: coupon.id)})


@described(gives={200: shapes.Coupon})
async def get_of_profile(call: Call) -> Answer:
    """Show an erasure of a profile, with its receipt once it is completed. Raises NotFoundError."""
    return await _get(call, profile_of(call)[0])


@described(gives={200: shapes.Coupon})
async def get_of_database(call: Call) -> Answer:
    """Show an erasure of a database, with its receipt once it is completed. Raises NotFoundError."""
    return await _get(call, database_of(call)[0])


async def _get(call: Call, name: str) -> Answer:
    database = await call.node.databases.get(name)
    return reply(erasures.shown(await call.node.erasing.coupons.get(database.uuid, call.params["id"])))
