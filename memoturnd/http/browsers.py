"""What keeps web pages away from the node: browsers send requests to any address that a page names.

A page of another origin gets no answer to read, but what it sends would be carried out; and a page whose own
name is made to resolve to this machine (DNS rebinding) could read as well. The first is told by `Origin`,
which browsers add to everything that writes, the second by `Host`, which carries the page's own name. Which other origins are
let through is a setting (memoturnd.http.cors); whatever it says, `Host` has to be this machine's.
"""

import re
from collections.abc import Mapping
from typing import Final

from memoturnd.errors import ForbiddenError
from memoturnd.http.cors import Cors

_LOOPBACK: Final = re.compile(
    rb"(?:localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE
).fullmatch
_PORTS: Final = {b"http": b":80", b"https": b":443"}
_SHOWN: Final = 100


class Browsers:
    """Refuses what web pages must not send: no origin is allowed but the node's own, and those of a setting."""

    def __init__(self, *, loopback_only: bool, cors: Cors) -> None:
        """`loopback_only` says whether the node serves only its own machine, by names of that machine."""
        self._loopback_only = loopback_only
        self._cors = cors

    def check(self, headers: Mapping[bytes, bytes], path: str, *, any_host: bool) -> None:
        """Raise ForbiddenError on an `Origin` that is neither `Host` nor allowed, and on a foreign `Host` unless `any_host`.

        `path` is percent-decoded.
        """
        host = headers.get(b"host", b"")
        origin = headers.get(b"origin")
        if origin is not None and not _same(origin, host) and not self._cors.allows(origin, path):
            raise ForbiddenError(
                f"a web page of {_shown(origin)} may not use {path[:_SHOWN]!r} of the node at {_shown(host)}: send the request "
                "from a program, without `Origin`, or let whoever runs the node add the page's origin to MEMOTURN_CORS_ORIGINS"
            )
        if self._loopback_only and not any_host and not _LOOPBACK(host):
            raise ForbiddenError(
                f"the node serves only its own machine and not the host {_shown(host)}: address it as localhost, "
                "127.0.0.1 or [::1]; a proxy in front has to send one of these as `Host`"
            )


def _same(origin: bytes, host: bytes) -> bool:
    scheme, _, authority = origin.lower().partition(b"://")
    port = _PORTS.get(scheme)  # none for `null`, files and browser extensions
    return port is not None and authority.removesuffix(port) == host.lower().removesuffix(port) != b""


def _shown(value: bytes) -> str:
    return repr(value[:_SHOWN].decode("latin-1"))
