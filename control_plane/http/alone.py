"""What a control plane serves that is a process of its own: its routes, and those of whoever runs it."""

import functools
from typing import Any, Final

import msgspec

from control_plane.http.routes import CONTROL_ROUTES
from memoturnd.http import openapi, ops
from memoturnd.http.call import Call
from memoturnd.http.describe import described
from memoturnd.http.envelope import JSON, Answer
from memoturnd.http.route import Body, Kind, Route, Scope


@described(gives={200: dict[str, Any]})
async def api_description(call: Call) -> Answer:
    """Answer with the description of these routes: OpenAPI 3.1."""
    del call
    return Answer(200, _description(), [JSON])


SERVED_ALONE: Final[tuple[Route, ...]] = (
    Route("GET", "/health", ops.health, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/ready", ops.ready, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/metrics", ops.metrics, Kind.OPEN, Body.NONE, Scope.NONE),
    Route("GET", "/openapi.json", api_description, Kind.OPEN, Body.NONE, Scope.NONE),
    *(route for route in CONTROL_ROUTES if route.scope is not Scope.INTERNAL),
)


@functools.cache
def _description() -> bytes:
    return msgspec.json.encode(openapi.document(SERVED_ALONE))
