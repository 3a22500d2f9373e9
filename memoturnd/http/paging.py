"""Pages of listings: what `limit` and `cursor` of a request ask for.

A cursor is bound to the route, the tenant and what the path addresses, so that one of another listing, tenant or
database is refused instead of skipping rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from memoturnd.core import cursors
from memoturnd.http.call import MAX_LIMIT, Call

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Up to `limit` rows (None: all) behind the position `after` (None: from the start)."""

    limit: int | None
    after: T | None
    _listing: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Return the most rows of one page."""
        return MAX_LIMIT if self.limit is None else self.limit

    def cursor(self, rows: Sequence[R], position: Callable[[R], Any]) -> str | None:
        """Return the cursor behind `rows`, None where the page is not full. `position` is of JSON's types."""
        if self.limit is None or len(rows) < self.limit:
            return None
        return cursors.make(self._listing, position(rows[-1]))

    def listed(
        self, name: str, shown: list[Any], rows: Sequence[R], position: Callable[[R], Any]
    ) -> dict[str, Any]:
        """Return the body of the answer: `{name, next_cursor}`, without a cursor where no page was asked for."""
        if self.limit is None:
            return {name: shown}
        return {name: shown, "next_cursor": self.cursor(rows, position)}


def page(call: Call, position: type[T], *filters: str | None, default: int = MAX_LIMIT) -> Page[T]:
    """Return the page that the request asks for, of at least one row and at most 1000.

    `filters` are what else narrows or orders the listing. Raises InvalidRequestError, for a cursor of another listing too.
    """
    listing = (call.operation, call.principal.tenant, *call.params.values(), *(f or "" for f in filters))
    cursor = call.text("cursor")
    after = None if cursor is None else cursors.read(cursor, listing, position)
    return Page(max(1, call.limit("limit", default)), after, listing)


def page_if_asked(call: Call, position: type[T], *filters: str | None) -> Page[T]:
    """Like `page`, of all rows where neither `limit` nor `cursor` is given: for listings that once had no pages."""
    if call.text("limit") is None and call.text("cursor") is None:
        return Page(None, None, ())
    return page(call, position, *filters)
