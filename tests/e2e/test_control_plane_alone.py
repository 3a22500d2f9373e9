"""`memoturn-control serve`: the directory as a process of its own, beside data-plane nodes that share its catalog."""

import subprocess
import sys
import time

import httpx
import pytest
from postgres_server import own_postgres
from processes import NodeHome, RunningNode, environment, free_port

from control_plane.catalogs.postgres import open_postgres

KEY = "cluster-key-of-the-tests"


class Cluster:
    """A Postgres, a folder as the bucket, one data-plane node and a control plane."""

    def __init__(self, folder, server):
        self.folder = folder
        self.server = server
        self.home = NodeHome(folder / "node", CATALOG=server.url, OBJECT_STORE=f"file://{folder / 'bucket'}")
        self.home.folder.mkdir(parents=True)

    def start_node(self, **env):
        port = free_port()
        return self.home.start(
            port=port, NODE_ID="data", ADVERTISE=f"http://127.0.0.1:{port}", **{"CLUSTER_KEY": KEY, **env}
        )

    def start_control(self, **env):
        port = free_port()
        settings = {
            "DATA_DIR": str(self.folder / "control"),
            "OBJECT_STORE": self.home.object_store,
            "LISTEN": f"127.0.0.1:{port}",
            "CATALOG": self.server.url,
            "CLUSTER_KEY": KEY,
            "LOG_FORMAT": "json",
            **env,
        }
        with self.home.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "control_plane", "serve"],
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        control = RunningNode(process, f"http://127.0.0.1:{port}", self.home)
        self.home.nodes.append(control)
        control.wait_until_ready()
        return control


@pytest.fixture
def cluster(tmp_path):
    with own_postgres() as server:
        migrated = subprocess.run(
            [sys.executable, "-m", "control_plane", "migrate"],
            env=environment(CATALOG=server.url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert migrated.returncode == 0, migrated.stderr
        cluster = Cluster(tmp_path, server)
        with cluster.home:
            yield cluster


def test_control_plane_serves_the_directory_and_leaves_profiles_to_nodes(cluster):
    control, node = cluster.start_control(), cluster.start_node()

    made = httpx.post(f"{control.url}/v1/databases", json={"name": "notes"})
    assert made.status_code == 201, made.text
    assert httpx.put(f"{node.url}/v1/db/notes/kv/n/k", content=b"v").is_success
    assert [row["name"] for row in httpx.get(f"{control.url}/v1/databases").json()["databases"]] == ["notes"]
    assert httpx.get(f"{control.url}/v1/db/notes/kv/n/k").status_code == 404
    assert httpx.get(f"{control.url}/health").text == "ok"
    assert "memoturn_catalog_up 1.0" in httpx.get(f"{control.url}/metrics").text
    described = httpx.get(f"{control.url}/openapi.json").json()["paths"]
    assert "/v1/databases" in described
    beside = {"/v1/db/{db}/settings"}  # the directory keeps them
    assert not [
        path for path in described if path.startswith(("/v1/db/", "/internal")) and path not in beside
    ]
    uuid = made.json()["uuid"]
    files = cluster.home.data_dir / "dbs" / uuid[:2] / uuid
    assert files.exists()

    deleted = httpx.delete(f"{control.url}/v1/databases/notes", timeout=30)

    assert deleted.status_code == 204, deleted.text
    assert not [path for path in files.rglob("*") if path.is_file()]
    assert httpx.get(f"{node.url}/v1/db/notes/kv/n/k").status_code == 404
    assert httpx.get(f"{control.url}/v1/databases").json()["databases"] == []
    assert (control.stop(), node.stop()) == (0, 0)


def test_deletion_without_a_node_that_does_it_is_refused_and_changes_nothing(cluster):
    control = cluster.start_control()
    httpx.post(f"{control.url}/v1/databases", json={"name": "notes"})

    refused = httpx.delete(f"{control.url}/v1/databases/notes")

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "no data-plane node" in refused.json()["error"]
    assert len(httpx.get(f"{control.url}/v1/databases").json()["databases"]) == 1
    node = cluster.start_node()
    node.kill()  # its entry stays for a while
    refused = httpx.delete(f"{control.url}/v1/databases/notes")
    assert refused.status_code == 503
    assert "does not answer" in refused.json()["error"]
    node = cluster.start_node()
    assert httpx.delete(f"{control.url}/v1/databases/notes", timeout=30).status_code == 204


def test_node_with_another_cluster_key_does_nothing_for_the_control_plane(cluster):
    control = cluster.start_control()
    node = cluster.start_node(CLUSTER_KEY="another-key-of-the-cluster")
    httpx.post(f"{control.url}/v1/databases", json={"name": "notes"})

    refused = httpx.delete(f"{control.url}/v1/databases/notes")

    assert refused.status_code == 502
    assert "MEMOTURN_CLUSTER_KEY" in refused.json()["error"]
    assert KEY not in refused.text + cluster.home.log()
    assert len(httpx.get(f"{node.url}/v1/databases").json()["databases"]) == 1


async def test_catalog_lists_data_plane_nodes_while_they_are_there_and_no_control_plane(cluster):
    control, node = cluster.start_control(), cluster.start_node()
    catalog = await open_postgres(cluster.server.url)

    [listed] = await catalog.list_nodes(0)
    assert (listed.id, listed.address) == ("data", node.url)
    assert abs(listed.seen_at - time.time() * 1000) < 60_000
    node.stop()
    assert await catalog.list_nodes(0) == []
    control.stop()
    await catalog.close()


def test_a_catalog_in_a_file_is_not_served_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "control_plane", "serve"],
        env=environment(DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "MEMOTURN_CATALOG=postgresql://" in done.stderr
