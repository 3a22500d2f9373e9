"""What is created, changed, rewound, deleted or revoked through one node is so through every other at once.

Each operation is sent to one node while a third owns the branch, with commits that are not shipped, and is looked at
through the other two. `each_way` takes turns.
"""

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from node_support import cluster

NAMES = ("n1", "n2", "n3")
KEY = "kv/n/k"
PLATFORM_KEY = "platform-key-of-the-tests"
CLUSTER_KEY = "cluster-key-of-the-tests"


class Node:
    """A sender of one credential to one node."""

    def __init__(self, client, url, credential):
        self.client, self.url = client, url
        self.headers = {"Authorization": f"Bearer {credential}"} if credential else {}

    async def ask(self, method, path, status=None, **more):
        headers = {**self.headers, **more.pop("headers", {})}
        answer = await self.client.request(method, self.url + path, headers=headers, **more)
        assert answer.is_success if status is None else answer.status_code == status, (
            f"{method} {path}: {answer.status_code} {answer.text}"
        )
        return answer

    async def put(self, spec, value, status=None, **headers):
        return await self.ask("PUT", f"/v1/db/{spec}/{KEY}", status, content=value, headers=headers)

    async def get(self, spec, status=None):
        return (await self.ask("GET", f"/v1/db/{spec}/{KEY}", status)).text


ENV = {
    "CLUSTER_KEY": CLUSTER_KEY,
    "SHIP_INTERVAL_MS": "60000",
    "UNSHIPPED_MAX_AGE_S": "600",
    "CONTROL_RATE": "1000",
}


@pytest.fixture
async def made(tmp_path):
    async with cluster(tmp_path, *NAMES, **ENV) as made, httpx.AsyncClient(timeout=20) as client:
        made.client, made.is_guarded = client, False
        yield made


@pytest.fixture
async def guarded(tmp_path):
    """The same with authentication."""
    env = {**ENV, "AUTH": "on", "PERSIST_AUTH_KEY": "1", "PLATFORM_KEY": PLATFORM_KEY}
    async with cluster(tmp_path, *NAMES, **env) as made, httpx.AsyncClient(timeout=20) as client:
        made.client, made.is_guarded = client, True
        yield made


async def each_way(made, *, write=True):
    """Yield, three times: the node that is asked, the owner of a new database, and the two that are not asked."""
    for at in range(3):
        asked, owner, third = (NAMES[(at + n) % 3] for n in range(3))
        db = f"db{at}"
        made_of = lambda name: Node(made.client, made.nodes[name].url, PLATFORM_KEY)  # noqa: E731
        created = await made_of(third).ask("POST", "/v1/databases", json={"name": db})
        minted = {"token": "", "id": ""}
        if made.is_guarded:
            path = f"/v1/databases/{db}/tokens"
            minted = (await made_of(third).ask("POST", path, json={"scope": "admin"})).json()
        senders = {name: Node(made.client, made.nodes[name].url, minted["token"]) for name in NAMES}
        if write:
            await senders[owner].put(db, "one")
            assert owner_of(made, db) == owner
        yield SimpleNamespace(
            db=db,
            uuid=created.json()["uuid"],
            asked=senders[asked],
            owner=senders[owner],
            others=[senders[owner], senders[third]],
            platform=made_of(asked),
            token_id=minted["id"],
            names=(asked, owner, third),
        )


def owner_of(made, db, branch="main"):
    """The name of the node that owns a branch."""
    for placed in made.table.placed.values():
        if (placed.database.rsplit("/", 1)[-1], placed.branch) == (db, branch) and placed.owner is not None:
            return placed.owner.node_id
    return None


async def all_read(case, said, spec=None):
    for sender in (*case.others, case.asked):
        assert await sender.get(spec or case.db) == said


async def all_miss(case, code, spec=None):
    for sender in (*case.others, case.asked):
        answer = await sender.ask("GET", f"/v1/db/{spec or case.db}/{KEY}", 404)
        assert answer.json()["code"] == code
        answer = await sender.put(spec or case.db, "late", 404)
        assert answer.json()["code"] == code


async def test_a_database_is_there_deleted_and_back(made):
    async for case in each_way(made):
        await all_read(case, "one")
        folder = made.folder / case.names[1] / "dbs" / case.uuid[:2] / case.uuid
        assert any(path.is_file() for path in folder.rglob("*"))
        await case.platform.ask("DELETE", f"/v1/databases/{case.db}")
        await all_miss(case, "database_not_found")
        async with asyncio.timeout(5):
            # Nobody is told when its files have gone.
            while owner_of(made, case.db) or any(path.is_file() for path in folder.rglob("*")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await case.platform.ask("POST", f"/v1/databases/{case.db}/undelete")
        await all_read(case, "one")


async def test_a_database_that_nobody_has_written_is_there(made):
    async for case in each_way(made, write=False):
        await all_read_missing(case)
        await case.platform.ask("DELETE", f"/v1/databases/{case.db}")
        await all_miss(case, "database_not_found")


async def all_read_missing(case):
    for sender in (*case.others, case.asked):
        answer = await sender.ask("GET", f"/v1/db/{case.db}/{KEY}", 404)
        assert answer.json()["code"] == "not_found"


async def test_writes_checkpoints_and_rewinds(made):
    async for case in each_way(made):
        base = f"/v1/db/{case.db}/branches/main"
        first = int((await case.asked.put(case.db, "two")).headers["memoturn-txid"])
        await all_read(case, "two")
        await case.asked.ask("POST", f"{base}/checkpoint", json={"name": "then"})
        for sender in case.others:
            (found,) = (await sender.ask("GET", f"{base}/checkpoints")).json()["checkpoints"]
            assert (found["checkpoint"], found["txid"]) == ("then", first)
        await case.asked.put(case.db, "three")
        await all_read(case, "three")
        await case.asked.ask("POST", f"{base}/rewind", json={"to": "then"})
        await all_read(case, "two")
        await case.asked.ask("POST", f"{base}/rewind/undo")
        await all_read(case, "three")
        await case.asked.ask("DELETE", f"{base}/checkpoints/then")
        for sender in case.others:
            assert (await sender.ask("GET", f"{base}/checkpoints")).json()["checkpoints"] == []
        assert owner_of(made, case.db) == case.names[1]


async def test_forks_and_their_deletion(made):
    async for case in each_way(made):
        dev, branches = f"{case.db}@dev", f"/v1/db/{case.db}/branches"
        await case.asked.ask("POST", branches, json={"name": "dev"})
        for sender in case.others:
            assert [b["branch"] for b in (await sender.ask("GET", branches)).json()["branches"]] == ["dev"]
        await all_read(case, "one", dev)
        await case.owner.put(dev, "two")
        assert owner_of(made, case.db, "dev") == case.names[1]
        await all_read(case, "two", dev)

        # A fork of another branch than the path names, which a third node owns.
        await case.asked.ask("POST", branches, json={"name": "more", "from": "dev"})
        await all_read(case, "two", f"{case.db}@more")

        await case.asked.ask("DELETE", f"{branches}/dev")
        await all_miss(case, "branch_not_found", dev)
        await case.asked.ask("POST", f"{branches}/dev/undelete")
        await all_read(case, "two", dev)
        await case.asked.ask("DELETE", f"{branches}/dev")
        await case.asked.ask("POST", branches, json={"name": "dev"})  # another one of that name
        await all_read(case, "one", dev)
        await all_read(case, "one")


async def test_settings_govern_every_node(made):
    async for case in each_way(made):
        path, rules = f"/v1/db/{case.db}/settings", {"durability": {"default": "durable"}}
        await case.asked.ask("PUT", path, json=rules)
        for sender in (*case.others, case.asked):
            assert (await sender.ask("GET", path)).json()["durability"]["default"] == "durable"
            written = await sender.put(case.db, "two")
            assert written.headers["memoturn-durability"] == "durable"


async def test_policies_and_quotas_are_shown_by_every_node(made):
    async for case in each_way(made, write=False):
        ns = f"app{case.db}"
        await case.platform.ask(
            "PUT", f"/v1/namespaces/{ns}/policy", json={"policy": {"task_ttl_max_secs": 600}}
        )
        await case.platform.ask("PUT", f"/v1/namespaces/{ns}/quotas", json={"databases": 1})
        for name in case.names[1:]:
            other = Node(made.client, made.nodes[name].url, PLATFORM_KEY)
            policy = (await other.ask("GET", f"/v1/namespaces/{ns}/policy")).json()["policy"]
            assert policy["task_ttl_max_secs"] == 600
            quotas = (await other.ask("GET", f"/v1/namespaces/{ns}/quotas")).json()["quotas"]
            assert quotas["databases"] == 1
        body = {"memories": [{"type": "fact", "content": "a", "summary": "a", "topic_key": "t"}]}
        for number, sender in enumerate(case.others):
            path = f"/v1/memory/{ns}/p{number}/memories"
            await sender.ask("POST", path, (201, 429)[number], json=body)


async def test_a_revoked_token_opens_nothing_within_seconds(guarded):
    async for case in each_way(guarded):
        await all_read(case, "one")
        await case.platform.ask("DELETE", f"/v1/databases/{case.db}/tokens/{case.token_id}")
        await asyncio.sleep(2.2)
        for sender in (*case.others, case.asked):
            await sender.ask("GET", f"/v1/db/{case.db}/{KEY}", 403)
            await sender.put(case.db, "late", 403)


async def test_a_copy_follows_its_owner_over_http(made):
    async for case in each_way(made):
        reader, cached = case.asked, {"Memoturn-Consistency": "cached"}
        await reader.ask("GET", f"/v1/db/{case.db}/{KEY}", headers=cached, status=404)
        pushed = made.nodes[case.names[0]].node.metrics.replica_steps["pushed"]
        before = pushed._value.get()
        async with asyncio.timeout(5):
            number = 0
            while pushed._value.get() == before:
                number += 1
                await case.owner.put(case.db, str(number), **{"Memoturn-Durability": "durable"})
                read = await made.client.get(f"{reader.url}/v1/db/{case.db}/{KEY}", headers=cached)
        assert int(read.headers["memoturn-replica-age-ms"]) < 5000
