"""One cluster for all tests of this room."""

from collections.abc import Iterator

import pytest

from cluster.harness import Cluster, running_cluster


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, two gateways, three members of etcd; leases of three seconds."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), members=3, ttl_s=3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_wired_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same, with wires between nodes and gateways."""
    with running_cluster(tmp_path_factory.mktemp("wired"), members=3, ttl_s=3, wired=True) as cluster:
        yield cluster


@pytest.fixture
def wired_cluster(shared_wired_cluster: Cluster) -> Iterator[Cluster]:
    """That one, whole, and mended behind the test."""
    yield shared_wired_cluster
    shared_wired_cluster.recover()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """That cluster, whole, and mended behind the test."""
    yield shared_cluster
    shared_cluster.recover()
