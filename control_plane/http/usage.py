"""Routes of usage: what a database, or a namespace, has taken by day."""

from typing import Final

from memoturnd.core import days
from memoturnd.core.limits import Owner
from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import named_database, namespace
from memoturnd.http.call import Call
from memoturnd.http.describe import PAGE, Value, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.paging import Page, page
from memoturnd.http.shapes import limits as shapes
from memoturnd.seams.catalog import UsageDay

DAYS_SHOWN: Final = 30
"""Days before the last one that are shown where `from` is not given."""
_RANGE: Final = (
    Value("from", str, "The first day (UTC) as 2026-11-27; 30 days before `to` without it."),
    Value("to", str, "The last day; today without it."),
    *PAGE,
)


@described(gives={200: shapes.DatabaseUsage}, values=_RANGE)
async def of_database(call: Call) -> Answer:
    """Show what a database was used by day, oldest first; days without use are left out. Raises DatabaseNotFoundError."""
    asked, first, last = _asked(call)
    database = await call.node.databases.get(named_database(call))
    rows = await call.node.meter.of_database(database.uuid, first, last, asked.rows)
    return reply({"database": database.name, **_shown(asked, rows)})


@described(gives={200: shapes.NamespaceUsage}, values=_RANGE)
async def of_namespace(call: Call) -> Answer:
    """Show what the databases of a namespace were used by day, deleted ones included, in the same way."""
    asked, first, last = _asked(call)
    owner = Owner(call.principal.tenant, namespace(call))
    rows = await call.node.meter.of_owner(owner, first, last, asked.rows)
    return reply({"namespace": owner.namespace, **_shown(asked, rows)})


def _asked(call: Call) -> tuple[Page[str], str, str]:
    """Return the page, and the first and last day that it may show. Raises InvalidRequestError."""
    given = {name: call.text(name) for name in ("from", "to")}
    parsed = {name: None if text is None else days.parse_day(name, text) for name, text in given.items()}
    last = parsed["to"] or call.node.meter.today
    first = parsed["from"] or days.days_before(last, DAYS_SHOWN)
    if first > last:
        raise InvalidRequestError("`from` is behind `to`: swap them")
    asked = page(call, str, given["from"], given["to"])
    if asked.after is not None:
        first = max(first, f"{days.parse_day('cursor', asked.after)}+")  # above that day, below the next
    return asked, first, last


def _shown(asked: Page[str], rows: list[UsageDay]) -> dict[str, object]:
    return {
        "days": [row._asdict() for row in rows],
        "next_cursor": asked.cursor(rows, lambda row: row.day),
    }
