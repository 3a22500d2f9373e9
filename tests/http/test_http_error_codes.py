"""Every error code of the contract, by a real request to a real node that deserves it."""

import asyncio
from dataclasses import replace

import pytest
from http_calls import FACT, MEMORY, failure, ingest
from http_support import client_of, limits

from memoturnd.errors import InvariantError, MemoturnError, StoreUnavailableError
from memoturnd.http.app import create_app
from memoturnd.http.envelope import STATUS

DB = "/v1/db/app--ann"


async def not_found(client, node):
    return await client.get(f"{MEMORY}/memories/mem_0")


async def database_not_found(client, node):
    return await client.get("/v1/db/nothing/kv/ns/k")


async def branch_not_found(client, node):
    return await client.get("/v1/db/app--ann@none/kv/ns/k")


async def already_exists(client, node):
    return await client.post("/v1/databases", json={"name": "app"}) and await client.post(
        "/v1/databases", json={"name": "app"}
    )


async def changes_gone(client, node):
    return await client.get(f"{DB}/changes", params={"since": 10**9})


async def conflict(client, node):
    return await client.post(f"{DB}/branches/main/rewind", json={"to": "999999"})


async def invalid_request(client, node):
    return await client.post(f"{DB}/sql", json={"stmts": [{"q": "SELEC 1"}]})


async def forbidden(client, node):
    return await client.post(f"{DB}/sql", json={"stmts": [{"q": "SELECT * FROM __memoturn_kv"}]})


async def payload_too_large(client, node):
    return await client.post(f"{MEMORY}/recall", json={"query": "x" * (1 << 21)})


async def unsupported_media_type(client, node):
    return await client.post(f"{MEMORY}/recall", content=b"{}", headers={"content-type": "text/plain"})


async def precondition_failed(client, node):
    return await client.put(f"{DB}/kv/ns/k", content=b"x", headers={"if-match": '"none"'})


async def idempotency_key_reused(client, node):
    for body in (b"1", b"2"):
        answer = await client.put(f"{DB}/kv/ns/k", content=body, headers={"idempotency-key": "k"})
    return answer


async def method_not_allowed(client, node):
    return await client.patch(f"{DB}/sql")


async def unconfigured(client, node):
    node.models = replace(node.models, assistant=None)
    return await client.post(f"{MEMORY}/ask", json={"question": "what?"})


async def overloaded(client, node):
    async with client_of(create_app(node, limits(control_rate=0.001))) as narrow:
        answers = [await narrow.get("/v1/databases") for _ in range(3)]
    return answers[-1]


async def request_timeout(client, node):
    slow = asyncio.Event()

    async def never(*_args, **_more):
        await slow.wait()

    node.databases.list = never
    async with client_of(create_app(node, limits(request_timeout_s=0.05))) as hurried:
        return await hurried.get("/v1/databases")


async def unavailable(client, node):
    async def refuses(*_args, **_more):
        raise StoreUnavailableError("the bucket does not answer")

    node.branches.list = refuses
    return await client.get(f"{DB}/branches")


async def internal(client, node):
    async def breaks(*_args, **_more):
        raise InvariantError("a bug")

    node.branches.list = breaks
    return await client.get(f"{DB}/branches")


REQUESTS = {
    (404, "not_found"): not_found,
    (404, "database_not_found"): database_not_found,
    (404, "branch_not_found"): branch_not_found,
    (409, "already_exists"): already_exists,
    (410, "changes_gone"): changes_gone,
    (409, "conflict"): conflict,
    (400, "invalid_request"): invalid_request,
    (403, "forbidden"): forbidden,
    (413, "payload_too_large"): payload_too_large,
    (415, "unsupported_media_type"): unsupported_media_type,
    (412, "precondition_failed"): precondition_failed,
    (422, "idempotency_key_reused"): idempotency_key_reused,
    (405, "method_not_allowed"): method_not_allowed,
    (503, "unconfigured"): unconfigured,
    (429, "overloaded"): overloaded,
    (408, "request_timeout"): request_timeout,
    (503, "unavailable"): unavailable,
    (500, "internal"): internal,
}
ELSEWHERE = {
    (401, "unauthorized"),
    (421, "not_owner"),
    (500, "not_durable"),
    (500, "outcome_unknown"),
    (502, "internal"),
}
"""No route asks for a credential yet; the others are in test_http_routes.py and test_http_asking.py."""


@pytest.mark.parametrize(("status", "code"), REQUESTS)
async def test_each_code_is_answered_where_it_is_deserved(client, node, status, code):
    await ingest(client, FACT)

    answer = await REQUESTS[status, code](client, node)

    assert failure(answer) == (status, code)
    assert len(answer.json()["error"]) > 10


def test_no_code_is_left_out():
    codes = {(STATUS[kind], kind.code) for kind in STATUS if kind is not MemoturnError}

    assert codes <= REQUESTS.keys() | ELSEWHERE
