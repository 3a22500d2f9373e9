"""What is created, changed, rewound, deleted or revoked through one node or gateway is so through every other at once."""

import time
import uuid
from contextlib import ExitStack

import httpx
import pytest

from cluster.harness import Cluster

REVOKED_S = 5.0
"""How late a revocation may be known."""


class Everywhere:
    """Senders of one credential through every node and gateway, in turn."""

    def __init__(self, cluster: Cluster, stack: ExitStack, credential: str) -> None:
        self.senders = {p.name: stack.enter_context(cluster.client(p, credential)) for p in cluster.processes}

    def through(self, name: str) -> httpx.Client:
        return self.senders[name]

    def each(self, path: str, **headers: str) -> dict[str, httpx.Response]:
        """Ask everybody."""
        return {name: sender.get(path, headers=headers) for name, sender in self.senders.items()}


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def platform(cluster, stack):
    from cluster.harness import PLATFORM_KEY

    return Everywhere(cluster, stack, PLATFORM_KEY)


@pytest.fixture
def name():
    return f"d{uuid.uuid4().hex[:8]}"


@pytest.fixture
def tenant(cluster, stack, name):
    return Everywhere(cluster, stack, cluster.token(db=name))


def ok(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, (
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    )
    return answer


def statuses(answers: dict[str, httpx.Response]) -> dict[str, tuple[int, str]]:
    return {
        name: (answer.status_code, answer.json().get("code", "") if answer.is_error else answer.text)
        for name, answer in answers.items()
    }


def all_say(answers: dict[str, httpx.Response], status: int, said: str) -> None:
    found = statuses(answers)
    assert set(found.values()) == {(status, said)}, found


def test_a_database_is_made_written_read_and_deleted_through_different_ones(platform, tenant, name):
    key = f"/v1/db/{name}/kv/n/k"
    all_say(tenant.each(key), 404, "database_not_found")
    ok(platform.through("n1").post("/v1/databases", json={"name": name}))
    all_say(tenant.each(key), 404, "not_found")
    for number, sender in enumerate(tenant.senders.values()):
        ok(sender.put(key, content=str(number)))
        all_say(tenant.each(key), 200, str(number))
    ok(platform.through("n2").delete(f"/v1/databases/{name}"))
    late = {name: sender.put(key, content="late") for name, sender in tenant.senders.items()}
    for answers in (tenant.each(key), late):
        # A node that has heard already that the deletion ended the database's tokens says 403.
        assert set(statuses(answers).values()) <= {(404, "database_not_found"), (403, "forbidden")}


def test_a_name_that_is_made_anew_through_another_one_has_nothing_of_the_old(
    platform, tenant, name, cluster, stack
):
    key = f"/v1/db/{name}/kv/n/k"
    ok(platform.through("n1").post("/v1/databases", json={"name": name}))
    ok(tenant.through("g1").put(key, content="old"))
    ok(platform.through("n3").delete(f"/v1/databases/{name}"))
    ok(platform.through("n2").post("/v1/databases", json={"name": name}))
    time.sleep(1.1)  # tokens from before a deletion do not open the name again, and they count in seconds
    newer = Everywhere(cluster, stack, cluster.token(db=name))
    all_say(newer.each(key), 404, "not_found")
    ok(newer.through("g2").put(key, content="new"))
    all_say(newer.each(key), 200, "new")


def test_a_branch_is_made_written_rewound_and_deleted_through_different_ones(platform, tenant, name):
    ok(platform.through("g1").post("/v1/databases", json={"name": name}))
    key, at_dev = f"/v1/db/{name}/kv/n/k", f"/v1/db/{name}@dev/kv/n/k"
    first = int(ok(tenant.through("n1").put(key, content="one")).headers["memoturn-txid"])
    ok(tenant.through("n2").put(key, content="two"))
    ok(tenant.through("n3").post(f"/v1/db/{name}/branches", json={"name": "dev", "at": str(first)}))
    all_say(tenant.each(at_dev), 200, "one")
    ok(tenant.through("n1").put(at_dev, content="three"))
    all_say(tenant.each(at_dev), 200, "three")
    all_say(tenant.each(key), 200, "two")
    ok(tenant.through("n2").post(f"/v1/db/{name}/branches/main/rewind", json={"to": str(first)}))
    all_say(tenant.each(key), 200, "one")
    ok(tenant.through("g2").post(f"/v1/db/{name}/branches/main/rewind/undo"))
    all_say(tenant.each(key), 200, "two")
    ok(tenant.through("n1").delete(f"/v1/db/{name}/branches/dev"))
    all_say(tenant.each(at_dev), 404, "branch_not_found")
    for sender in tenant.senders.values():
        assert ok(sender.get(f"/v1/db/{name}/branches")).json()["branches"] == []


def test_replicas_follow_a_rewind_and_a_deletion(platform, tenant, name):
    ok(platform.through("n1").post("/v1/databases", json={"name": name}))
    key, cached = f"/v1/db/{name}/kv/n/k", {"Memoturn-Consistency": "cached"}
    first = int(ok(tenant.through("n1").put(key, content="one")).headers["memoturn-txid"])
    ok(tenant.through("n1").put(key, content="two"))
    within(2, lambda: all_say(tenant.each(key, **cached), 200, "two"))
    ok(tenant.through("n1").post(f"/v1/db/{name}/branches/main/rewind", json={"to": str(first)}))
    within(2, lambda: all_say(tenant.each(key, **cached), 200, "one"))
    ok(platform.through("n2").delete(f"/v1/databases/{name}"))
    within(2, lambda: all_say(tenant.each(key, **cached), 404, "database_not_found"))


def test_a_write_that_is_sent_again_through_another_one_is_applied_once(platform, tenant, name):
    ok(platform.through("n1").post("/v1/databases", json={"name": name}))
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    path = f"/v1/db/{name}/kv/n/count/increment"
    answers = [ok(sender.post(path, headers=headers)) for sender in tenant.senders.values()]
    assert {answer.json()["value"] for answer in answers} == {1}
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [
        None,
        *["true"] * (len(answers) - 1),
    ]


def test_a_revoked_token_opens_nothing_anywhere_within_seconds(platform, cluster, stack, name):
    ok(platform.through("n1").post("/v1/databases", json={"name": name}))
    minted = ok(platform.through("n2").post(f"/v1/databases/{name}/tokens", json={"scope": "write"})).json()
    bearer = Everywhere(cluster, stack, minted["token"])
    key = f"/v1/db/{name}/kv/n/k"
    ok(bearer.through("n3").put(key, content="x"))
    all_say(bearer.each(key), 200, "x")
    ok(platform.through("n1").delete(f"/v1/databases/{name}/tokens/{minted['id']}"))
    within(REVOKED_S, lambda: all_say(bearer.each(key), 403, "forbidden"))
    cached = {"Memoturn-Consistency": "cached"}
    within(REVOKED_S, lambda: all_say(bearer.each(key, **cached), 403, "forbidden"))


def within(seconds: float, check) -> None:
    """Check until it holds, at most so long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
