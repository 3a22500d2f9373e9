"""The cluster comes up, says who owns what, and a node whose connection is cut is still its owner after it."""

from cluster.harness import running_cluster
from cluster.load import Load


async def test_a_load_on_a_whole_cluster_is_explained(tmp_path):
    with running_cluster(tmp_path, nodes=2, gateways=0) as cluster:
        urls, token = [cluster.nodes[0].url], cluster.token(ns="app")
        async with Load(urls, token, ["app--a"], roles=("local", "durable", "reader")) as load:
            await load.acknowledged(20)
            assert cluster.owner_node("app--a") is cluster.nodes[0]
            cluster.cut("n1", "catalog")
            await load.acknowledged(20)
            cluster.recover()
            await load.stop()
            assert await load.verdict(takeovers=0) == []
        assert not load.lost
        assert cluster.nodes[1].stop() < 10
