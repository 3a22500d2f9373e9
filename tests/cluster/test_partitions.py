"""Real partitions: every node and gateway on a host of its own, whose packets are dropped."""

import pytest

from cluster.failures import Fault, strike
from cluster.harness import running_cluster

PARTITIONS = [
    Fault(
        "partition",
        "the owner's host is cut off from everything",
        lambda cluster, owner: cluster.spaces.isolate(owner.name),
        1,
        4,
        takeovers=1,
    ),
    Fault(
        "partition-gateways",
        "the owner's host and those of the gateways do not reach one another",
        lambda cluster, owner: [cluster.spaces.cut(owner.name, g.name) for g in cluster.gateways],
        0,
        4,
    ),
    Fault(
        "partition-nodes",
        "the owner's host and those of the other nodes do not reach one another",
        lambda cluster, owner: [
            cluster.spaces.cut(owner.name, node.name) for node in cluster.nodes if node is not owner
        ],
        0,
        4,
    ),
    Fault(
        "partition-services",
        "the owner's host reaches neither etcd nor bucket nor catalog, and is reached",
        lambda cluster, owner: cluster.spaces.cut(owner.name, "services"),
        1,
        4,
        takeovers=1,
    ),
]


@pytest.mark.soak
async def test_partitions_lose_nothing_beyond_the_level(tmp_path):
    with running_cluster(tmp_path, ttl_s=3, in_namespaces=True) as cluster:
        for number, fault in enumerate(PARTITIONS):
            outcome = await strike(cluster, fault, f"part--{number}", ttl_s=3, warm_s=1.0, seed=number)
            assert outcome.wrong == [], fault.name
            assert not {"replicated", "durable"} & outcome.lost.keys(), fault.name
