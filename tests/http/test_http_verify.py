"""The route of verification: lines of JSON as they come, and what is refused before there are any."""

import json

import pytest
from http_support import client_of, limits

from memoturnd.http.app import create_app

FACT = {"memories": [{"type": "event", "summary": "a"}]}


@pytest.fixture
async def written(client):
    for name in ("ann", "bob", "eve"):
        answer = await client.post(
            f"/v1/memory/app/{name}/memories", json=FACT, headers={"memoturn-durability": "durable"}
        )
        assert answer.status_code == 201
    return client


def lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("query", ["", "?deep=true", "?seed=abc"])
async def test_answer_is_lines_of_json_that_end_with_the_summary(written, query):
    answer = await written.post(f"/v1/db/app--ann/verify{query}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "content-length" not in answer.headers
    summary = lines(answer)[-1]
    assert (summary["event"], summary["outcome"], summary["branches"]) == ("summary", "clean", 1)
    assert summary["deep"] is ("deep" in query)
    assert summary["seed"] == "abc" or "seed" not in query


async def test_branch_is_verified_alone(written):
    assert (await written.post("/v1/db/app--ann/branches", json={"name": "f"})).status_code == 201

    async def branches(spec):
        return lines(await written.post(f"/v1/db/{spec}/verify"))[-1]["branches"]

    assert [await branches(spec) for spec in ("app--ann", "app--ann@main", "app--ann@f")] == [2, 1, 1]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("app--nobody/verify", 404, "database_not_found"),
        ("app--ann@gone/verify", 404, "branch_not_found"),
        ("app--ann/verify?seed=", 400, "invalid_request"),
        ("app--ann/verify?seed=a-b", 400, "invalid_request"),
        (f"app--ann/verify?seed={'a' * 65}", 400, "invalid_request"),
        ("app--ann/verify?deep=maybe", 400, "invalid_request"),
        ("app--ann/verify?at=1", 400, "invalid_request"),
        ("App/verify", 400, "invalid_request"),
    ],
)
async def test_wrong_request_is_refused_and_takes_no_place(written, path, status, code):
    for _ in range(3):
        answer = await written.post(f"/v1/db/{path}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    assert lines(await written.post("/v1/db/app--ann/verify"))[-1]["outcome"] == "clean"


async def test_third_verification_at_once_says_when_to_come_back(node, written):
    held = [
        await node.verifications.begin(f"app--{name}", None, deep=False, seed=None) for name in ("ann", "bob")
    ]
    async with client_of(create_app(node, limits())) as client:
        for name in ("ann", "eve"):
            answer = await client.post(f"/v1/db/app--{name}/verify")
            assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
        for one in held:
            one.close()
        assert lines(await client.post("/v1/db/app--eve/verify"))[-1]["outcome"] == "clean"
