"""Who may send a request where authentication is on: the credential that came, and whether it opens what is asked for."""

from typing import Final

from memoturnd.auth.revocations import Revocations
from memoturnd.auth.secrets import Secrets
from memoturnd.auth.verifier import Verifier
from memoturnd.core import coverage, names
from memoturnd.core.coverage import Reach, Scope
from memoturnd.core.principal import ANONYMOUS, Principal
from memoturnd.errors import ForbiddenError, RetryableError, UnauthorizedError
from memoturnd.http.admission import INTERNAL_HEADER, TENANT_HEADER
from memoturnd.http.call import Call
from memoturnd.http.route import Route
from memoturnd.metrics import Metrics

_BEARER: Final = "bearer"


class CredentialAdmission:
    """Asks every request for a credential. Implements memoturnd.http.admission.Admission."""

    def __init__(
        self,
        *,
        verifier: Verifier,
        revocations: Revocations,
        platform: Secrets,
        cluster: Secrets,
        metrics: Metrics,
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._platform = platform
        self._cluster = cluster
        self._refused = metrics.credentials_refused
        self._reaches: dict[str, Reach] = {}

    async def admit(self, route: Route, call: Call) -> Principal:
        """Return who sends the request. Raises UnauthorizedError, ForbiddenError, InvalidRequestError, RetryableError."""
        if route.scope is Scope.NONE:
            return ANONYMOUS
        sender = call.principal = self._sender(call)  # whoever is turned away is known to the audit
        target = coverage.target_of(call.params, route.template, call)
        reach = self._reaches.get(route.template)
        if reach is None:
            reach = self._reaches[route.template] = coverage.reach_of(route.template)
        try:
            coverage.check(sender, route.scope, reach, target)
        except ForbiddenError:
            self._refused["forbidden"].inc()
            raise
        if sender.kind == "token":
            await self._check_revocation(sender, target.db)
        return sender

    async def admit_unknown(self, call: Call) -> Principal:
        """Return who asks for what no route serves, which takes an admin token, the platform or the cluster key."""
        sender = self._sender(call)
        if not sender.may("admin"):
            self._refused["forbidden"].inc()
            raise ForbiddenError(
                "nothing is served here for this token; check the path against the API reference"
            )
        if sender.kind == "token":
            await self._check_revocation(sender, "")
        return sender

    async def _check_revocation(self, sender: Principal, db: str) -> None:
        try:
            await self._revocations.ensure_fresh()
            self._revocations.check(sender, db)
        except ForbiddenError:
            self._refused["revoked"].inc()
            raise
        except RetryableError:
            self._refused["unknown"].inc()
            raise

    def _sender(self, call: Call) -> Principal:
        internal = call.header(INTERNAL_HEADER)
        if internal is not None:
            if not self._cluster.matches(internal.encode("latin-1")):
                raise self._bad(f"{INTERNAL_HEADER} does not hold the cluster key")
            return _in_tenant("internal", call)
        authorization = call.header("Authorization")
        if authorization is None:
            self._refused["missing"].inc()
            raise UnauthorizedError(
                "no credential came; send `Authorization: Bearer` with a token or the platform key"
            )
        scheme, _, credential = authorization.partition(" ")
        given = credential.strip().encode("latin-1")
        if scheme.lower() != _BEARER or not given:
            raise self._bad("the credential is of another scheme than `Authorization: Bearer`")
        if self._platform.matches(given):
            return _in_tenant("platform", call)
        try:
            bearer = self._verifier.bearer_of(given)
        except UnauthorizedError:
            self._refused["bad"].inc()
            raise
        tenant = call.header(TENANT_HEADER)
        if tenant is not None and tenant != bearer.tenant:
            call.principal = bearer
            self._refused["forbidden"].inc()
            raise ForbiddenError(f"the token is not of the tenant in {TENANT_HEADER}; leave the header out")
        return bearer

    def _bad(self, message: str) -> UnauthorizedError:
        self._refused["bad"].inc()
        return UnauthorizedError(message)


def _in_tenant(kind: "coverage.KeyKind", call: Call) -> Principal:
    """Return the bearer of a key, in the tenant that the request names. Raises InvalidRequestError."""
    tenant = call.header(TENANT_HEADER)
    return Principal(kind) if tenant is None else Principal(kind, names.tenant(tenant))
