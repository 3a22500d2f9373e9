"""Who may send a request: the first thing that is asked of it once its route is known."""

from collections.abc import Callable
from typing import Final, Protocol

from memoturnd.core import names
from memoturnd.core.principal import ANONYMOUS, Principal
from memoturnd.errors import UnauthorizedError
from memoturnd.http.call import Call
from memoturnd.http.route import Route, Scope

TENANT_HEADER: Final = "Memoturn-Tenant"
INTERNAL_HEADER: Final = "X-Memoturn-Internal"


class Admission(Protocol):
    """Decides about requests."""

    async def admit(self, route: Route, call: Call) -> Principal:
        """Return who sends the request. Raises UnauthorizedError, ForbiddenError, InvalidRequestError, RetryableError."""
        ...

    async def admit_unknown(self, call: Call) -> Principal:
        """Return who asks for a path, or a method of one, that is not served; raises as `admit` does."""
        ...


class OpenAdmission:
    """Lets everybody do everything, in the tenant that the request names: for a node that serves its own machine.

    Routes between nodes take the cluster key all the same: `is_cluster_key` tells it, and without it they are closed.
    """

    def __init__(self, is_cluster_key: Callable[[bytes], bool] | None = None) -> None:
        self._is_cluster_key = is_cluster_key

    async def admit(self, route: Route, call: Call) -> Principal:
        """Return nobody in particular. Raises InvalidRequestError for what is no name of a tenant, UnauthorizedError."""
        tenant = call.header(TENANT_HEADER)
        name = names.DEFAULT_TENANT if tenant is None else names.tenant(tenant)
        if route.scope is Scope.INTERNAL:
            key = call.header(INTERNAL_HEADER)
            if key is None or self._is_cluster_key is None or not self._is_cluster_key(key.encode("latin-1")):
                raise UnauthorizedError(
                    f"this route takes the cluster key in {INTERNAL_HEADER}, and nothing else"
                )
            return Principal("internal", name)
        return ANONYMOUS if tenant is None else Principal("anonymous", name)

    async def admit_unknown(self, call: Call) -> Principal:
        """Return nobody in particular."""
        del call
        return ANONYMOUS
