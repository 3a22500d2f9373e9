"""What keeps web pages away from the node: browsers send requests to any address that a page names.

A page of another origin gets no answer to read, but what it sends would be carried out; and a page whose own
name is made to resolve to this machine (DNS rebinding) could read as well. The first is told by `Origin`,
which browsers add to everything that writes, the second by `Host`, which carries the page's own name.
"""

import re
from collections.abc import Mapping
from typing import Final

from memoturnd.errors import ForbiddenError

_LOOPBACK: Final = re.compile(
    rb"(?:localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE
).fullmatch
_PORTS: Final = {b"http": b":80", b"https": b":443"}
_SHOWN: Final = 100


class Browsers:
    """Refuses what web pages must not send. No origin but the node's own is allowed."""

    def __init__(self, *, loopback_only: bool) -> None:
        """`loopback_only` says whether the node serves only its own machine, by names of that machine."""
        self._loopback_only = loopback_only

    def check(self, headers: Mapping[bytes, bytes], *, any_host: bool) -> None:
        """Raise ForbiddenError on an `Origin` that is not `Host`, and on a foreign `Host` unless `any_host`."""
        host = headers.get(b"host", b"")
        if b"origin" in headers and not _same(headers[b"origin"], host):
            raise ForbiddenError(
                f"a web page of {_shown(headers[b'origin'])} may not use the node at {_shown(host)}: no other "
                "origins are allowed; send the request from a program, without `Origin`"
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
