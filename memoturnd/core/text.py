"""From a question in plain words to an FTS5 query. Pure."""

import re
import unicodedata
from typing import Final

TOKEN_LIMIT: Final = 64
"""Most distinct words of a query that are searched for; the rest is ignored."""
LENGTH_LIMIT: Final = 32 * 1024
"""Characters of a query in which words are looked for, so that the event loop is not held long; the rest is ignored."""

_TOKEN = re.compile(r"[^\W_]+")

_ENGLISH = """
a about above after again against all am an and any are as at be because been before being below
between both but by can could did do does doing don down during each few for from further had has
have having he her here hers herself him himself his how i if in into is it its itself just ll me
might more most must my myself no nor not now of off on once only or other our ours ourselves out
over own re s same shall she should so some such t than that the their theirs them themselves then
there these they this those through to too under until up us ve very was we were what when where
which while who whom why will with would you your yours yourself yourselves
"""
STOP_WORDS: Final = frozenset(_ENGLISH.split())


def tokens(query: str) -> list[str]:
    """Return the distinct words of `query` in order, without stop words unless it has no others.

    A letter and its accent that come as two characters are one, as they are in FTS5's index.
    """
    composed = unicodedata.normalize("NFC", query[:LENGTH_LIMIT])
    words = list(dict.fromkeys(word.lower() for word in _TOKEN.findall(composed)))
    telling = [word for word in words if word not in STOP_WORDS]
    return (telling or words)[:TOKEN_LIMIT]


def match_expression(words: list[str]) -> str:
    """Return the FTS5 query that finds rows with any of `words`, which come from `tokens`."""
    # A token has no quote in it, and quoted it is never an operator such as NEAR or NOT.
    return " OR ".join(f'"{word}"' for word in words)
