"""Holds every answer of the HTTP tests to what the API's description says of its route: status, type and fields."""

import json

import msgspec

from memoturnd.errors import InvalidRequestError
from memoturnd.http.cors import SHOWN
from memoturnd.http.describe import Media, description_of
from memoturnd.http.openapi import errors_of
from memoturnd.http.routes import ROUTES
from memoturnd.http.shapes import Problem
from memoturnd.http.tree import Tree

_TREE = Tree(ROUTES)
_READABLE = {name.lower() for name in SHOWN} | {"cache-control", "content-length", "content-type", "vary"}
"""Headers that web pages may read: those of the list, and what browsers show them anyway."""


def route_of(method, raw_path):
    """The route that serves a request, None where there is none."""
    try:
        found = _TREE.find(raw_path)
    except InvalidRequestError:  # a path that is no text
        return None
    return None if found is None else found[0].get("GET" if method == "HEAD" else method)


def fits(shape, body):
    """Whether a JSON value has the fields that a type names, all that it requires and no others."""
    try:
        return msgspec.to_builtins(msgspec.convert(body, shape, strict=True)) == body
    except msgspec.ValidationError as error:
        return str(error)


def check(method, raw_path, status, content_type, body):
    """Raise AssertionError where an answer is not what its route is described to give."""
    route = route_of(method, raw_path)
    if route is None or method == "HEAD":
        return
    described = description_of(route.handler)
    assert described is not None, f"{route.operation} has no description"
    if status not in described.gives:
        assert status in errors_of(route), f"{route.operation} answered {status}, which its description lacks"
        assert fits(Problem, json.loads(body)) is True, body
        return
    given = described.gives[status]
    shapes = given if isinstance(given, tuple) else (given,)
    media = [shape.type for shape in shapes if isinstance(shape, Media)]
    if content_type.partition(";")[0] in media:
        return
    plain = [shape for shape in shapes if not isinstance(shape, Media)]
    if None in plain:
        assert body == b"", (route.operation, status)
        return
    assert content_type == "application/json", (route.operation, status, content_type)
    results = [fits(shape, json.loads(body)) for shape in plain]
    assert True in results, f"{route.operation} {status} does not fit {plain}: {results} {body[:500]!r}"


def check_headers(path, headers):
    """Raise AssertionError where an answer has a header that web pages are not shown."""
    names = {name for name in headers if not name.startswith("access-control-")}
    assert names <= _READABLE or path.startswith("/internal/"), f"add to SHOWN: {names - _READABLE}"


async def check_response(response):
    """An httpx event hook."""
    await response.aread()
    request = response.request
    check_headers(request.url.path, response.headers)
    check(
        request.method,
        request.url.raw_path.partition(b"?")[0],
        response.status_code,
        response.headers.get("content-type", ""),
        response.content,
    )
