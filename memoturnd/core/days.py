"""Days of UTC, as `2026-11-27`: their text sorts as they do. Pure."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from memoturnd.errors import InvalidRequestError

DAY_MS: Final = 86_400_000


def day_of(at_ms: int) -> str:
    """Return the day of a time in unix ms."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def days_before(day: str, count: int) -> str:
    """Return the day `count` days before a day, the first one that there is at the earliest."""
    last = date.fromisoformat(day)
    return (last - timedelta(days=min(count, (last - date.min).days))).isoformat()


def parse_day(name: str, text: str) -> str:
    """Check a day that a request names. Raises InvalidRequestError."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            pass
    raise InvalidRequestError(f"`{name}` takes a day of UTC such as 2026-11-27")
