"""The API's description in OpenAPI 3.1, made of the route table and what its handlers say of themselves."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from memoturnd import __version__
from memoturnd.core.consistency import Consistency
from memoturnd.http.describe import IF_MATCH, ONCE, SINCE, Description, Media, Value, description_of
from memoturnd.http.shapes import Problem

if TYPE_CHECKING:
    from memoturnd.http.route import Route

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"

_MIN_TXID = Value("Memoturn-Min-Txid", int, "Txid that the state shown must have reached.", is_header=True)
_CONSISTENCY = Value(
    "Memoturn-Consistency",
    Consistency,
    "`primary` is the newest state that anybody was told of, `cached` may be a moment old, where nodes share branches.",
    is_header=True,
)
_AT = Value("at", str, "Revision of the past state to show: a txid, a checkpoint, a time, `head~N`.")
_DURABILITY = Value(
    "Memoturn-Durability",
    str,
    "`replicated` waits for the disks of other nodes, `durable` for object storage; it may only raise.",
    is_header=True,
)
_AT_HEADER = Value("Memoturn-At", str, "The same as `at`, which wins.", is_header=True)
_BRANCH = Value("branch", str, "Branch of the profile; main unless given.")
_BRANCH_HEADER = Value("Memoturn-Branch", str, "The same as `branch`, which wins.", is_header=True)

_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token, or the platform key on the routes of the control plane; none where authentication is off.",
    }
}
_ALWAYS: Final = frozenset({400, 403, 404, 408, 429, 500, 503})
_OF_BODIES: Final = frozenset({413, 415})
_OF_KIND: Final[Mapping[str, frozenset[int]]] = {
    "read": frozenset({409, 412}),
    "write": frozenset({409, 412, 422}),
    "control": frozenset({409}),
    "peer": frozenset({409, 421}),
}


def errors_of(route: "Route") -> frozenset[int]:
    """Return the statuses of the errors that a route may answer with."""
    if route.kind.value == "open":
        return frozenset({403, 404, 408, 500, 503})
    found = _ALWAYS | _OF_KIND[route.kind.value] | {401}
    if route.asks_model:
        found |= {502}
    if ONCE in _required(route).values:
        found |= {422}
    if IF_MATCH in _required(route).values:
        found |= {412}
    if SINCE in _required(route).values:
        found |= {410}
    return found if route.body.value == "none" else found | _OF_BODIES


def document(routes: Iterable["Route"]) -> dict[str, Any]:
    """Return the description of `routes`. Every handler has to be described."""
    rows = [(route, _required(route)) for route in routes]
    types = [Problem, *(shape for _, described in rows for shape in _types(described))]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = {id(shape): schema for shape, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route, described in rows:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, described, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Memoturn",
            "version": __version__,
            "summary": "A database for the memory of AI agents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


def _required(route: "Route") -> Description:
    described = description_of(route.handler)
    if described is None:
        raise LookupError(f"{route.operation} has no description: put @described above its handler")
    return described


def _types(described: Description) -> list[Any]:
    bodies = [] if described.takes is None else [described.takes]
    for given in described.gives.values():
        bodies += [shape for shape in _several(given) if shape is not None and not isinstance(shape, Media)]
    return [*bodies, *(value.type for value in described.values), int, str, Consistency]


def _several(given: Any) -> Sequence[Any]:
    return given if isinstance(given, tuple) else (given,)


def _operation(route: "Route", described: Description, schema_of: dict[int, Any]) -> dict[str, Any]:
    module = route.handler.__module__.rpartition(".")[2]
    lines = (inspect.getdoc(route.handler) or "").split("\n", 1)
    operation: dict[str, Any] = {
        "operationId": f"{module}_{route.handler.__name__}",
        "tags": [module],
        "summary": lines[0],
        "parameters": [*_path(route), *(_parameter(value, schema_of) for value in values_of(route))],
        "responses": _responses(route, described, schema_of),
        "security": [] if route.scope.value == "none" else [{"bearer": []}, {}],
        "x-memoturn-scope": route.scope.value,
    }
    if described.takes is not None:
        operation["requestBody"] = {
            "required": not described.optional_body,
            "content": {_JSON: {"schema": schema_of[id(described.takes)]}},
        }
    elif route.body.value in ("raw", "file"):
        operation["requestBody"] = {"required": False, "content": {"application/octet-stream": {}}}
    return operation


def _path(route: "Route") -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.template)
    ]


def values_of(route: "Route") -> list[Value]:
    """Return the query values and headers that a route reads. Raises LookupError for a handler without description."""
    common = []
    if route.template.startswith("/v1/memory/{ns}/{profile}") and route.kind.value != "control":
        common += [_BRANCH, _BRANCH_HEADER]
    if route.kind.value == "read":
        common += [_MIN_TXID, _CONSISTENCY]
    if route.takes_at:
        common += [_AT, _AT_HEADER]
    if route.kind.value == "write":
        common += [_DURABILITY, ONCE]
    return [*_required(route).values, *common]


def _parameter(value: Value, schema_of: dict[int, Any]) -> dict[str, Any]:
    return {
        "name": value.name,
        "in": "header" if value.is_header else "query",
        "required": False,
        "description": value.says,
        "schema": schema_of[id(value.type)],
    }


def _responses(route: "Route", described: Description, schema_of: dict[int, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, given in sorted(described.gives.items()):
        shapes = [shape for shape in _several(given) if shape is not None]
        content: dict[str, Any] = {shape.type: {} for shape in shapes if isinstance(shape, Media)}
        schemas = [schema_of[id(shape)] for shape in shapes if not isinstance(shape, Media)]
        if schemas:
            content[_JSON] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            **({"content": content} if content else {}),
        }
    problem = {_JSON: {"schema": schema_of[id(Problem)]}}
    for status in sorted(errors_of(route) - described.gives.keys()):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    return responses
