"""What pages of other origins may do: the origins of `MEMOTURN_CORS_ORIGINS`, and the headers by which browsers know it.

Browsers ask with OPTIONS before they send anything but the plainest request (a preflight), and show a page no answer, and no header
of one, that does not name the page's origin. What nodes tell one another is for no page. There are no cookies, and pages
may not send any: a credential is a header that the page sets itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from memoturnd.http.envelope import Answer, Header
from memoturnd.http.openapi import values_of
from memoturnd.http.route import Route, Scope

ANY: Final = "*"
"""Instead of origins: every page may use the API."""
MAX_AGE_S: Final = 7200
"""How long browsers remember what a preflight was answered; none does for longer than a day, Chromium for so long."""
ALWAYS_TAKEN: Final = ("Authorization", "Content-Type", "Memoturn-Request-Id", "Memoturn-Tenant")
"""Headers that every route takes, besides those that routes are described with."""
SHOWN: Final = (
    "Allow",
    "ETag",
    "Idempotent-Replayed",
    "Memoturn-Applied",
    "Memoturn-Durability",
    "Memoturn-Durable-Txid",
    "Memoturn-Erasure-Id",
    "Memoturn-Expires-At",
    "Memoturn-Limit",
    "Memoturn-Meta",
    "Memoturn-Owner",
    "Memoturn-Owner-Epoch",
    "Memoturn-Owner-Node",
    "Memoturn-Replica-Age-Ms",
    "Memoturn-Request-Id",
    "Memoturn-Txid",
    "Retry-After",
    "WWW-Authenticate",
)
"""Headers of answers that pages may read, besides the few that they always may. Tests hold every answer to this list."""
_INTERNAL: Final = "/internal/"
_VARY: Final[Header] = (b"vary", b"Origin")
_ASKED: Final = b"access-control-request-method"


def taken_headers(routes: Iterable[Route]) -> list[str]:
    """Return the request headers of `routes` that a page may set, sorted."""
    read = {value.name for route in _for_pages(routes) for value in values_of(route) if value.is_header}
    return sorted(read | {*ALWAYS_TAKEN})


class Cors:
    """The pages of which origins may use what is served, and what they are told."""

    def __init__(self, origins: Collection[str], routes: Sequence[Route]) -> None:
        """`origins` are as browsers write them, or `ANY` alone; without any, no page of another origin is told anything."""
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._preflight = _answered_to_preflights(routes) if origins else []
        self._exposed = (b"access-control-expose-headers", ", ".join(SHOWN).encode())

    def allows(self, origin: bytes | None, path: str) -> bool:
        """Return whether a page of `origin` may send a request to `path`, percent-decoded."""
        if origin is None or not self._origins or path.startswith(_INTERNAL):
            return False
        return self._any or origin in self._origins

    def preflight(self, method: str, headers: Mapping[bytes, bytes], path: str) -> Answer | None:
        """Return the answer to a browser that asks what a page may do, None for any other request.

        It is the same for every path, whether something is there or not: the request itself is answered with what is wrong.
        """
        if method != "OPTIONS" or _ASKED not in headers or not self.allows(headers.get(b"origin"), path):
            return None
        return Answer(204, headers=[*self._preflight])

    def stamp(self, answer: list[Header], sent: Iterable[Header], path: str) -> None:
        """Say in the headers of an answer whether the page that sent the request may read it, once, also where a node has said so."""
        if not self._origins or path.startswith(_INTERNAL):
            return
        origin = next((value for name, value in sent if name == b"origin"), None)
        if self.allows(origin, path):
            answer[:] = [header for header in answer if not _is_said_again(header[0])]
            answer.append((b"access-control-allow-origin", b"*" if self._any else origin or b""))
            answer.append(self._exposed)
        if not any(name == b"vary" and value.lower() == b"origin" for name, value in answer):
            answer.append(_VARY)


def _answered_to_preflights(routes: Iterable[Route]) -> list[Header]:
    methods = {route.method for route in _for_pages(routes)} | {"HEAD"}
    return [
        (b"access-control-allow-methods", ", ".join(sorted(methods)).encode()),
        (b"access-control-allow-headers", ", ".join(taken_headers(routes)).encode()),
        (b"access-control-max-age", b"%d" % MAX_AGE_S),
    ]


def _for_pages(routes: Iterable[Route]) -> Iterable[Route]:
    return (route for route in routes if route.scope is not Scope.INTERNAL)


def _is_said_again(name: bytes) -> bool:
    return name in {b"access-control-allow-origin", b"access-control-expose-headers"}
