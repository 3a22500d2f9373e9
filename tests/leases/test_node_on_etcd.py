"""Nodes as processes on one etcd: who they are, and what they say of their leases."""

import secrets
import shutil
import time

import httpx
import pytest
from etcd_server import fresh_prefix
from processes import NodeHome, run_node


@pytest.fixture
def cluster(etcd_url, postgres_url, tmp_path):
    """The settings that nodes of one cluster share."""
    return {
        "ETCD": etcd_url,
        "ETCD_PREFIX": fresh_prefix(),
        "LEASE_TTL_S": "2",
        "CATALOG": postgres_url,
        "OBJECT_STORE": f"file://{tmp_path / 'bucket'}",
        "CLUSTER_KEY": secrets.token_hex(16),
    }


def test_node_says_that_its_leases_answer(cluster, tmp_path):
    with NodeHome(tmp_path / "one", **cluster) as home:
        node = home.start()

        assert httpx.get(f"{node.url}/ready").json()["leases"] == "ok"
        assert node.stop() == 0


def test_name_is_one_nodes_and_stays_with_its_data_directory(cluster, tmp_path):
    with NodeHome(tmp_path / "one", **cluster, NODE_ID="n1") as home:
        node = home.start()
        second = run_node(DATA_DIR=str(tmp_path / "two"), LISTEN="127.0.0.1:0", NODE_ID="n1", **cluster)
        assert second.returncode == 2
        assert f"another node is there as 'n1', at {node.url}" in second.stderr

        node.kill()
        began_s = time.monotonic()
        again = home.start()
        assert "lease granted" in home.log()
        assert time.monotonic() - began_s < 10
        assert again.stop() == 0


def test_node_without_etcd_does_not_start(cluster, tmp_path):
    ended = run_node(
        DATA_DIR=str(tmp_path / "one"), LISTEN="127.0.0.1:0", **cluster | {"ETCD": "http://127.0.0.1:9"}
    )

    assert ended.returncode == 1
    assert "no endpoint of etcd answers" in ended.stderr
    assert "Traceback" not in ended.stderr
    shutil.rmtree(tmp_path / "one")
