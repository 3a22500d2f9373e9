"""Which words of a query are worth looking up in a full-text index by SQL."""

from typing import Final

from memoturnd.core import text
from memoturnd.engine.connection import ProfileConnection

_MANY_ROWS: Final = 500
_RARE: Final = 3
"""A word is rare where at most one row of so many has it."""


def telling_words(conn: ProfileConnection, table: str, words: list[str]) -> list[str]:
    """Return the words without those that more than half of a table's rows have, where the others are rare.

    bm25 gives frequent words the weight 1e-6 whatever they are: beside a rare one they change a score by less
    than 1e-4 of it, so they only matter where rare words do not find enough. Scoring every row that has one is
    what a query over many rows would cost.
    """
    if len(words) == 1:
        return words
    total: int = conn.execute(f"SELECT count(*) FROM {table}").get
    if total < _MANY_ROWS:
        return words
    counting = f"SELECT count(*) FROM {table}_fts WHERE {table}_fts MATCH ?"
    counts = {word: conn.execute(counting, (text.match_expression([word]),)).get for word in words}
    telling = [word for word in words if counts[word] <= total // 2]
    return telling if telling and all(_RARE * counts[word] <= total for word in telling) else words
