"""Who sends a request, as far as the node has proof of it. Pure."""

from dataclasses import dataclass
from typing import Literal

from memoturnd.core import names

Kind = Literal["anonymous", "platform", "token", "internal"]
"""Nobody in particular, while authentication is off; the operator; the bearer of a token; another node."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request, and the tenant whose names the request uses."""

    kind: Kind
    tenant: str = names.DEFAULT_TENANT

    @property
    def name(self) -> str:
        """What tells one sender from another; empty for nobody in particular."""
        return "" if self.kind == "anonymous" else self.kind


ANONYMOUS = Principal("anonymous")
