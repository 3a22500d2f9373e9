"""The control plane's part of the route table."""

from typing import Final

from control_plane.http import (
    audit,
    databases,
    internal,
    keys,
    policies,
    quotas,
    settings,
    tenants,
    tokens,
    usage,
)
from memoturnd.http.route import Body, Kind, Route, Scope

_NAMESPACE_POLICY: Final = "/v1/namespaces/{ns}/policy"
_PROFILE_POLICY: Final = "/v1/memory/{ns}/{profile}/policy"
_NAMESPACE: Final = "/v1/namespaces/{ns}"
_TENANT: Final = "/v1/tenants/{tenant}"
_OF_DATABASE: Final = "/v1/databases/{db}/tokens"
_OF_NAMESPACE: Final = "/v1/namespaces/{ns}/tokens"
_MINTS: Final = Scope.NAMESPACE_ADMIN

CONTROL_ROUTES: Final[tuple[Route, ...]] = (
    Route("POST", "/v1/databases", databases.create, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", "/v1/databases", databases.list_all, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("DELETE", "/v1/databases/{db}", databases.delete, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route(
        "POST", "/v1/databases/{db}/undelete", databases.undelete, Kind.CONTROL, Body.SMALL, Scope.PLATFORM
    ),
    Route("GET", "/v1/namespaces", databases.list_namespaces, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("POST", "/v1/tenants", tenants.create, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", "/v1/tenants", tenants.list_all, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("GET", "/v1/tenants/{tenant}", tenants.get, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("DELETE", "/v1/tenants/{tenant}", tenants.delete, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("GET", "/v1/databases/{db}/usage", usage.of_database, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("GET", f"{_NAMESPACE}/usage", usage.of_namespace, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("GET", f"{_NAMESPACE}/quotas", quotas.of_namespace, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("PUT", f"{_NAMESPACE}/quotas", quotas.set_of_namespace, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", f"{_TENANT}/quotas", quotas.of_tenant, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("PUT", f"{_TENANT}/quotas", quotas.set_of_tenant, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", "/v1/memory/{ns}", databases.list_profiles, Kind.READ, Body.NONE, Scope.NAMESPACE, at=False),
    Route("GET", _NAMESPACE_POLICY, policies.get, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("PUT", _NAMESPACE_POLICY, policies.put, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", _PROFILE_POLICY, policies.get_override, Kind.CONTROL, Body.NONE, Scope.READ),
    Route("PUT", _PROFILE_POLICY, policies.put_override, Kind.CONTROL, Body.SMALL, Scope.ADMIN),
    Route("GET", "/v1/db/{db}/settings", settings.get, Kind.CONTROL, Body.NONE, Scope.READ),
    Route("PUT", "/v1/db/{db}/settings", settings.put, Kind.CONTROL, Body.SMALL, Scope.ADMIN),
    Route("GET", "/v1/namespaces/{ns}/audit", audit.read, Kind.CONTROL, Body.NONE, Scope.NAMESPACE_ADMIN),
    Route(
        "GET",
        "/v1/namespaces/{ns}/audit/export",
        audit.export,
        Kind.CONTROL,
        Body.NONE,
        Scope.NAMESPACE_ADMIN,
    ),
    Route("POST", _OF_DATABASE, tokens.mint_for_database, Kind.CONTROL, Body.SMALL, _MINTS),
    Route("GET", _OF_DATABASE, tokens.list_of_database, Kind.CONTROL, Body.NONE, _MINTS),
    Route("POST", f"{_OF_DATABASE}/revoke", tokens.revoke_all_of_database, Kind.CONTROL, Body.SMALL, _MINTS),
    Route("DELETE", f"{_OF_DATABASE}/{{id}}", tokens.revoke_of_database, Kind.CONTROL, Body.NONE, _MINTS),
    Route("POST", _OF_NAMESPACE, tokens.mint_for_namespace, Kind.CONTROL, Body.SMALL, _MINTS),
    Route("GET", _OF_NAMESPACE, tokens.list_of_namespace, Kind.CONTROL, Body.NONE, _MINTS),
    Route(
        "POST", f"{_OF_NAMESPACE}/revoke", tokens.revoke_all_of_namespace, Kind.CONTROL, Body.SMALL, _MINTS
    ),
    Route("DELETE", f"{_OF_NAMESPACE}/{{id}}", tokens.revoke_of_namespace, Kind.CONTROL, Body.NONE, _MINTS),
    Route("POST", "/v1/tokens/revoke", tokens.revoke_all_of_tenant, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", "/v1/keys", keys.list_all, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("POST", "/v1/keys/rotate", keys.rotate, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("GET", "/.well-known/jwks.json", keys.published, Kind.OPEN, Body.NONE, Scope.NONE),
    Route(
        "DELETE",
        "/internal/databases/{db}/{uuid}",
        internal.delete_database,
        Kind.CONTROL,
        Body.NONE,
        Scope.INTERNAL,
    ),
)
