"""Requests of the end-to-end tests, and what must hold of every refusal."""

from typing import Any

import httpx


def assert_refused(answer: httpx.Response, *statuses: int) -> str:
    """Assert one of these statuses and the error envelope; return the error's text."""
    assert answer.status_code in statuses, f"{answer.request.url}: {answer.status_code} {answer.text}"
    body = answer.json()
    assert set(body) == {"error", "code"}, body
    assert body["error"]
    assert body["code"]
    assert "Traceback" not in body["error"]
    return str(body["error"])


def ok(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text}"
    return answer


class Profile:
    """A profile `app/{name}` over HTTP, and what was acknowledged to it."""

    def __init__(self, client: httpx.Client, name: str, *, durable: bool = False) -> None:
        self.client = client
        self.name = name
        self.db = f"/v1/db/app--{name}"
        self.memory = f"/v1/memory/app/{name}"
        self.level = {"memoturn-durability": "durable"} if durable else {}
        self.kept: dict[str, bytes] = {}

    def ingest(self, summary: str, **request: Any) -> httpx.Response:
        item = {"type": "fact", "topic_key": summary, "summary": summary}
        return self.client.post(
            f"{self.memory}/memories", json={"memories": [item]}, headers=self.level, **request
        )

    def put(self, key: str, value: bytes = b"x", **headers: str) -> httpx.Response:
        answer = self.client.put(f"{self.db}/kv/n/{key}", content=value, headers={**self.level, **headers})
        if answer.is_success:
            self.kept[key] = value
        return answer

    def sql(self, *statements: str) -> httpx.Response:
        stmts = [{"q": q} for q in statements]
        return self.client.post(f"{self.db}/sql", json={"stmts": stmts}, headers=self.level)

    def recall(self, topic: str) -> list[str]:
        answer = ok(self.client.post(f"{self.memory}/recall", json={"topic_key": topic}))
        return [hit["summary"] for hit in answer.json()["memories"]]

    def txid(self) -> int:
        return int(ok(self.client.get(f"{self.db}/kv/n?limit=1")).headers["memoturn-txid"])

    def assert_kept(self) -> None:
        """Assert that the keys are those that were acknowledged, with their values."""
        keys = ok(self.client.get(f"{self.db}/kv/n?limit=1000")).json()["keys"]
        assert keys == sorted(self.kept)
        for key, value in self.kept.items():
            assert self.client.get(f"{self.db}/kv/n/{key}").content == value, key
