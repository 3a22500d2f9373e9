"""What an operator sees of a cluster, whichever node is asked, and whichever does not answer."""

import asyncio

import httpx
import pytest
from node_support import cluster

from memoturnd import clustering
from memoturnd.clustering import NODES_LIMIT
from memoturnd.core.cluster_wire import PLACEMENTS_LIMIT
from memoturnd.seams.leases import LiveNode

KEY = {"CLUSTER_KEY": "shown-by-nodes"}


@pytest.fixture
async def nodes(tmp_path):
    async with cluster(tmp_path, "a", "b", **KEY) as made:
        yield made


@pytest.fixture
async def http():
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


async def written(http, node, *names):
    """Make databases that `node` owns, with a key each, and return their branch ids by name."""
    ids = {}
    for name in names:
        await http.post(f"{node.url}/v1/databases", json={"name": name})
        put = await http.put(f"{node.url}/v1/db/{name}/kv/app/k", content=b"1")
        assert put.status_code < 300, put.text
        ids[name] = (await http.get(f"{node.url}/v1/db/{name}/placement")).json()["branch_id"]
    return ids


async def test_every_node_shows_the_same_cluster(nodes, http):
    a, b = nodes.nodes["a"], nodes.nodes["b"]
    await written(http, a, "one", "two")
    await written(http, b, "three")

    seen = [(await http.get(f"{node.url}/v1/cluster")).json() for node in (a, b)]

    for shown in seen:
        assert [(node["node_id"], node["address"], node["silent"]) for node in shown["nodes"]] == [
            ("a", a.url, False),
            ("b", b.url, False),
        ]
        assert [node["state"]["owned"] for node in shown["nodes"]] == [2, 1]
        assert [node["state"]["tiers"]["hot"] for node in shown["nodes"]] == [2, 1]
        assert [node["state"]["warm_up"] for node in shown["nodes"]] == ["done", "done"]
        assert {(one["database"], one["branch"], one["node_id"]) for one in shown["placements"]} == {
            ("one", "main", "a"),
            ("two", "main", "a"),
            ("three", "main", "b"),
        }
        assert all(one["epoch"] > 0 and one["standing"]["txid"] > 0 for one in shown["placements"])
        assert shown["next_cursor"] is None


async def test_placements_come_in_pages_over_all_nodes(nodes, http):
    a, b = nodes.nodes["a"], nodes.nodes["b"]
    ids = {**await written(http, a, "a1", "a2", "a3"), **await written(http, b, "b1", "b2")}

    found, cursor, pages = [], None, 0
    while cursor is not None or pages == 0:
        params = {"limit": 2, **({} if cursor is None else {"cursor": cursor})}
        page = (await http.get(f"{a.url}/v1/cluster", params=params)).json()
        assert len(page["placements"]) <= 2
        found += [one["branch_id"] for one in page["placements"]]
        cursor, pages = page["next_cursor"], pages + 1

    assert found == sorted(ids.values())
    assert pages == 3


async def test_node_that_does_not_answer_is_listed_as_silent(nodes, http, monkeypatch):
    monkeypatch.setattr(clustering, "ASK_S", 0.3)
    a = nodes.nodes["a"]
    await written(http, a, "one")

    async def silence(reader, writer):
        await reader.read(10)
        await asyncio.sleep(1)
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        nodes.table.nodes["silent"] = LiveNode("silent", f"http://127.0.0.1:{port}", 0.5)
        nodes.table.nodes["gone"] = LiveNode("gone", "http://127.0.0.1:9")

        shown = (await http.get(f"{a.url}/v1/cluster")).json()
        await asyncio.sleep(1)

    by_name = {node["node_id"]: node for node in shown["nodes"]}
    assert [name for name, node in by_name.items() if node["silent"]] == ["gone", "silent"]
    assert "does not answer" in by_name["silent"]["problem"]
    assert by_name["silent"]["load"] == 0.5
    assert "state" not in by_name["gone"]
    assert by_name["b"]["state"]["owned"] == 0
    assert [one["database"] for one in shown["placements"]] == ["one"]


async def test_placement_of_a_database_names_its_owner_from_any_node(nodes, http):
    a, b = nodes.nodes["a"], nodes.nodes["b"]
    ids = await written(http, a, "one")
    owner = nodes.table.owner(ids["one"])

    for node in (a, b):
        answer = await http.get(f"{node.url}/v1/db/one/placement")
        shown = answer.json()
        assert shown["owner"] == {"node_id": "a", "address": a.url, "epoch": owner.epoch}
        assert (shown["database"], shown["branch"], shown["sync_set"]) == ("one", "main", None)
        assert shown["standing"]["tier"] == "hot"
        assert shown["standing"]["txid"] > 0


async def test_database_that_nobody_owns_has_no_owner(nodes, http):
    b = nodes.nodes["b"]
    await http.post(f"{b.url}/v1/databases", json={"name": "new"})

    shown = (await http.get(f"{b.url}/v1/db/new/placement")).json()

    assert (shown["owner"], shown["standing"]) == (None, None)
    assert (await http.get(f"{b.url}/v1/db/none/placement")).status_code == 404
    assert (await http.get(f"{b.url}/v1/db/new@draft/placement")).status_code == 404


async def test_owner_that_is_gone_is_named_all_the_same(nodes, http):
    a, b = nodes.nodes["a"], nodes.nodes["b"]
    ids = await written(http, a, "one")
    placed = nodes.table.placed[ids["one"]]
    nodes.table.placed[ids["one"]] = type(placed)(
        placed.branch_id,
        placed.database,
        placed.branch,
        type(placed.owner)("gone", "http://127.0.0.1:9", placed.owner.epoch),
    )

    shown = (await http.get(f"{b.url}/v1/db/one/placement")).json()

    assert shown["owner"]["node_id"] == "gone"
    assert shown["standing"] is None


async def test_node_without_a_key_tells_of_itself_alone(tmp_path, http):
    async with cluster(tmp_path, "a", "b", with_key=False) as made:
        a = made.nodes["a"]
        await written(http, a, "one")

        shown = (await http.get(f"{a.url}/v1/cluster")).json()

        assert [node["silent"] for node in shown["nodes"]] == [False, True]
        assert "cluster key" in shown["nodes"][1]["problem"]
        assert shown["nodes"][0]["state"]["lease_left_ms"] is None
        assert [one["database"] for one in shown["placements"]] == ["one"]


@pytest.mark.parametrize(
    "body", [b'{"limit": 1001}', b'{"limit": -1}', b'{"after": "%s"}' % (b"x" * 65), b"[]", b"{"]
)
async def test_node_is_not_asked_for_more_than_it_tells(nodes, http, body):
    answer = await http.post(
        f"{nodes.nodes['a'].url}/internal/cluster/status",
        content=body,
        headers={"Content-Type": "application/json", "X-Memoturn-Internal": KEY["CLUSTER_KEY"]},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert PLACEMENTS_LIMIT == 1000


async def test_cluster_of_more_nodes_than_are_asked_shows_the_first(nodes, http, monkeypatch):
    monkeypatch.setattr(clustering, "NODES_LIMIT", 1)
    assert NODES_LIMIT > 1

    shown = (await http.get(f"{nodes.nodes['b'].url}/v1/cluster")).json()

    assert [node["node_id"] for node in shown["nodes"]] == ["a"]
