"""The API's description: whole, valid, and served. That answers fit it, every other test here sees to."""

import json

import pytest
from conformance import check, fits

from memoturnd.http import openapi
from memoturnd.http.describe import description_of
from memoturnd.http.route import Body
from memoturnd.http.routes import ROUTES
from memoturnd.http.shapes import Problem


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_every_route_is_described(route):
    described = description_of(route.handler)

    assert described is not None
    assert described.gives
    assert all(status < 400 for status in described.gives)
    assert (described.takes is not None) <= (route.body in (Body.SMALL, Body.LARGE))
    assert (route.handler.__doc__ or "").strip()


async def test_description_is_served_with_every_route_in_it(client):
    served = (await client.get("/openapi.json")).json()

    assert served == json.loads(json.dumps(openapi.document(ROUTES)))
    assert served["openapi"].startswith("3.1.")
    listed = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    assert listed == {(route.method, route.template) for route in ROUTES}


def references(value):
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k == "$ref")
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_reference_leads_somewhere_and_operations_have_names_of_their_own():
    document = openapi.document(ROUTES)
    schemas = document["components"]["schemas"]
    operations = [o for methods in document["paths"].values() for o in methods.values()]

    assert {r.rpartition("/")[2] for r in references(document)} <= schemas.keys()
    assert len({o["operationId"] for o in operations}) == len(operations)
    for operation in operations:
        names = [(p["in"], p["name"]) for p in operation["parameters"]]
        assert len(set(names)) == len(names)


def test_the_headers_of_a_route_are_among_its_parameters():
    paths = openapi.document(ROUTES)["paths"]

    def headers(path, method):
        return {p["name"] for p in paths[path][method]["parameters"] if p["in"] == "header"}

    assert headers("/v1/databases", "post") == headers("/v1/databases/{db}", "delete") == {"Idempotency-Key"}
    assert headers("/v1/databases", "get") == set()
    assert headers("/v1/db/{db}/docs/{coll}/find", "post") == {
        "Memoturn-Min-Txid",
        "Memoturn-Consistency",
        "Memoturn-At",
    }
    memories = "/v1/memory/{ns}/{profile}/memories"
    assert headers(memories, "post") == {"Memoturn-Branch", "Memoturn-Durability", "Idempotency-Key"}
    assert headers(memories, "get") == {
        "Memoturn-Branch",
        "Memoturn-Min-Txid",
        "Memoturn-Consistency",
        "Memoturn-At",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", b"/v1/databases", 200, {"name": "a", "uuid": "b", "tenant": "t", "created_at": 1}),
        ("POST", b"/v1/databases", 201, {"name": "a", "uuid": "b", "tenant": "t"}),
        ("POST", b"/v1/databases", 201, {"name": "a", "uuid": "b", "tenant": "t", "created_at": "1"}),
        (
            "POST",
            b"/v1/databases",
            201,
            {"name": "a", "uuid": "b", "tenant": "t", "created_at": 1, "more": 1},
        ),
        ("POST", b"/v1/databases", 402, {"error": "x", "code": "unauthorized"}),
        ("POST", b"/v1/databases", 409, {"error": "x"}),
    ],
)
def test_an_answer_that_the_description_lacks_is_noticed(method, path, status, body):
    with pytest.raises(AssertionError):
        check(method, path, status, "application/json", json.dumps(body).encode())


def test_an_answer_that_fits_passes():
    check(
        "POST",
        b"/v1/databases",
        201,
        "application/json",
        b'{"name":"a","uuid":"b","tenant":"t","created_at":1}',
    )
    assert fits(Problem, {"error": "x", "code": "y"}) is True
