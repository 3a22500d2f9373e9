"""Requests made from the API's own description, against a real node: every answer is one that it describes.

Bodies and values that fit the description and such that do not; names are mostly those of a profile that is there.
"""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from processes import NodeHome
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from memoturnd.http import openapi
from memoturnd.http.routes import ROUTES

KNOWN = {
    "ns": "app",
    "profile": "ann",
    "db": "app--ann",
    "branch": "main",
    "session": "s",
    "sid": "s",
    "coll": "c",
    "id": "one",
    "key": "k",
    "path": "n",
    "seq": "1",
    "topic_key": "t",
    "timeline": "calls",
    "name": "n",
    "tenant": "other",
    "uuid": "0" * 32,
    "branch_id": "0" * 16,
}
NO_FUZZ = {"/v1/databases/{db}/import"}
"""Takes a file, which has tests of its own."""
SCHEMA = schemathesis.openapi.from_dict(
    openapi.document(route for route in ROUTES if route.template not in NO_FUZZ)
)


def no_server_error(_context, response, _case):
    """No 5xx but that of a feature which this node does not have."""
    assert response.status_code < 500 or (response.status_code, response.json()["code"]) == (
        503,
        "unconfigured",
    )


CHECKS = (
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with NodeHome(tmp_path_factory.mktemp("fuzz"), CONTROL_RATE="100000") as home:
        node = home.start()
        with httpx.Client(base_url=node.url) as client:
            memory = {
                "type": "fact",
                "topic_key": "t",
                "summary": "known",
                "embedding": [1, 0, 0],
                "session_id": "s",
            }
            assert client.post("/v1/memory/app/ann/memories", json={"memories": [memory]}).status_code == 201
            assert client.put("/v1/db/app--ann/kv/app/k", content=b"1").status_code == 200
            turn = {"role": "user", "content": "x"}
            assert client.post("/v1/db/app--ann/memory/s/turns", json=turn).status_code == 201
            row = {"key": "k", "at": 1, "data": {"n": 1}}
            assert client.post("/v1/db/app--ann/timelines/calls/rows", json=row).status_code == 201
        yield node.url


@SCHEMA.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_described(case, url):
    limits = case.operation.path.endswith("/quotas")
    destroys = case.method == "DELETE" and case.operation.path == "/v1/databases/{db}"
    for name in case.path_parameters or {}:
        case.path_parameters[name] = "other" if destroys or limits else KNOWN[name]
    case.call_and_validate(base_url=url, checks=CHECKS)
