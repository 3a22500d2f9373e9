"""Whose databases are meant: those of a namespace, or all of a tenant; and how many there may be."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from control_plane.catalogs.backend import Session
from control_plane.schema import NAME, WHOLE, databases, tenants
from memoturnd.core import names
from memoturnd.core.limits import Owner
from memoturnd.errors import OverloadedError
from memoturnd.seams.catalog import Cap

ABOVE_ALL_TEXT: Final = "\U0010ffff"
_tenant = sa.bindparam("tenant", type_=NAME)
_limit = sa.bindparam("limit", type_=WHOLE)
OF_OWNER: Final = sa.and_(
    databases.c.tenant == _tenant,
    databases.c.name >= sa.bindparam("first", type_=NAME),
    databases.c.name < sa.bindparam("end", type_=NAME),
    databases.c.deleted_at.is_(None),
)
"""The condition that `range_of` has the values for."""
# One that holds the row of the tenant creates databases within caps at a time; what refers to it is not held up.
_LOCK_TENANT = sa.select(tenants.c.name).where(tenants.c.name == _tenant).with_for_update(key_share=True)
_SOME: Final[sa.Select[tuple[object]]] = (
    sa.select(sa.literal_column("1").label("one")).select_from(databases).where(OF_OWNER).limit(_limit)
)
_COUNT = sa.select(sa.func.count()).select_from(_SOME.subquery("some"))


async def lock_tenant(session: Session, tenant: str) -> None:
    """Let nobody else create a database within caps in this tenant until the session ends."""
    await session.rows(_LOCK_TENANT, tenant=tenant)


async def check_caps(session: Session, caps: Sequence[Cap]) -> None:
    """Raise OverloadedError where one of the caps is exceeded."""
    for owner, most in caps:
        [(count,)] = await session.rows(_COUNT, limit=most + 1, **range_of(owner))
        if count > most:
            raise OverloadedError(
                f"{owner.shown} may have {most} databases and has them; delete one, or ask for a larger quota",
                retry_after_s=60,
                limit="databases",
            )


def range_of(owner: Owner) -> dict[str, str]:
    """Return the names between which those of an owner's databases are."""
    prefix = f"{owner.namespace}{names.PROFILE_SEPARATOR}" if owner.namespace else ""
    return {"tenant": owner.tenant, "first": prefix, "end": prefix + ABOVE_ALL_TEXT}
