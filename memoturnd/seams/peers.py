"""The peers seam: how a node asks another one for what only that one can do or has."""

from collections.abc import Mapping
from typing import Final, Protocol

JSON: Final = {"Content-Type": "application/json"}
"""Headers of a body that is JSON: routes that take JSON refuse one that does not say so."""


class Peers(Protocol):
    """Asks nodes by their addresses, showing the cluster key."""

    async def ask(
        self,
        address: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> bytes:
        """POST `body` to the route `path` (`/internal/...`) of the node at `address`, and return the answer's body.

        Raises what the node answered, as the same class of the error tree; RetryableError where it does not answer
        in time: then it may have done what was asked.
        """
        ...
