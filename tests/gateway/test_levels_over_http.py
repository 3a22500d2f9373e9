"""Level `replicated` between nodes that ask one another over HTTP."""

import httpx
from node_support import cluster

KEY = "k" * 32


async def test_replicated_write_is_on_the_other_nodes_disk_when_it_is_answered(tmp_path):
    env = {"CLUSTER_KEY": KEY, "SHIP_INTERVAL_MS": "60000", "UNSHIPPED_MAX_AGE_S": "600"}
    async with cluster(tmp_path, "n1", "n2", **env) as nodes, httpx.AsyncClient() as client:
        one, two = nodes.nodes["n1"], nodes.nodes["n2"]
        assert (await client.post(f"{one.url}/v1/databases", json={"name": "d"})).status_code == 201

        async def put(value):
            answer = await client.put(
                f"{one.url}/v1/db/d/kv/n/k", content=value, headers={"memoturn-durability": "replicated"}
            )
            return answer.headers["memoturn-durability"]

        assert await put(b"1") == "replicated"
        (held,) = two.node.tails.store.held()
        assert await put(b"2" * 400_000) == "replicated"
        (grown,) = two.node.tails.store.held()
        assert grown.last_txid == held.last_txid + 1
        assert list((tmp_path / "n2" / "tails").iterdir())
        await client.post(f"{one.url}/v1/db/d/sync")
        await one.node.tell_tails()
        assert two.node.tails.store.size_bytes == 0


async def test_tails_are_closed_to_whoever_has_not_the_cluster_key(tmp_path):
    async with cluster(tmp_path, "n1", CLUSTER_KEY=KEY) as nodes, httpx.AsyncClient() as client:
        url = nodes.nodes["n1"].url
        for path in ("tail", "tail/read", "tail/forget"):
            answer = await client.post(f"{url}/internal/replica/{path}", headers={"x-memoturn-internal": "x"})
            assert answer.status_code == 401
        headers = {"x-memoturn-internal": KEY, "memoturn-epoch": "1", "memoturn-db-uuid": "0" * 32}
        for branch_id in ("", "..", "a/b", "../../x", "a" * 65):
            answer = await client.post(
                f"{url}/internal/replica/tail",
                content=b"x",
                headers={**headers, "memoturn-branch-id": branch_id, "memoturn-tail-begins": "1"},
            )
            assert answer.status_code == 400, branch_id
        unknown = {**headers, "memoturn-branch-id": "x"}
        assert (await client.post(f"{url}/internal/replica/tail/read", headers=unknown)).status_code == 404
        assert (await client.post(f"{url}/internal/replica/tail", headers=unknown)).status_code == 409
        for path in ("tail", "tail/read", "tail/forget"):
            odd = {**unknown, "memoturn-epoch": "-1"}
            assert (await client.post(f"{url}/internal/replica/{path}", headers=odd)).status_code == 400
