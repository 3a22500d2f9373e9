"""Who may send a request: the first thing that is asked of it once its route is known."""

from typing import Final, Protocol

from memoturnd.core import names
from memoturnd.core.principal import ANONYMOUS, Principal
from memoturnd.http.call import Call
from memoturnd.http.route import Route

TENANT_HEADER: Final = "Memoturn-Tenant"


class Admission(Protocol):
    """Decides about requests."""

    async def admit(self, route: Route, call: Call) -> Principal:
        """Return who sends the request. Raises UnauthorizedError, ForbiddenError, InvalidRequestError."""
        ...


class OpenAdmission:
    """Lets everybody do everything, in the tenant that the request names: for a node that serves its own machine."""

    async def admit(self, route: Route, call: Call) -> Principal:
        """Return nobody in particular. Raises InvalidRequestError for what is no name of a tenant."""
        del route
        tenant = call.header(TENANT_HEADER)
        return ANONYMOUS if tenant is None else Principal("anonymous", names.tenant(tenant))
