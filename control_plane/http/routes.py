"""The control plane's part of the route table."""

from typing import Final

from control_plane.http import databases
from memoturnd.http.route import Body, Kind, Route, Scope

CONTROL_ROUTES: Final[tuple[Route, ...]] = (
    Route("POST", "/v1/databases", databases.create, Kind.CONTROL, Body.SMALL, Scope.PLATFORM),
    Route("GET", "/v1/databases", databases.list_all, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("DELETE", "/v1/databases/{db}", databases.delete, Kind.CONTROL, Body.NONE, Scope.PLATFORM),
    Route("GET", "/v1/memory/{ns}", databases.list_profiles, Kind.READ, Body.NONE, Scope.NAMESPACE, at=False),
)
