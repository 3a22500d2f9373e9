"""The rendered environment is one that the programs take: parsed by their own code, and run as the pods would run it."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from etcd_server import fresh_prefix
from postgres_server import session_database

from chart.rendering import CLUSTER, OUTSIDE, Objects, merged, render
from chart.sandbox import Pod
from gateway.settings import GatewaySettings
from memoturnd.config import Settings


def secrets_of(objects: Objects) -> dict[str, dict[str, str]]:
    """What the chart generated, in plain text."""
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in one["data"].items()}
        for one in objects.of("Secret")
    }


EXTERNAL = {
    "keys": secrets_of(render())["memoturn-auth"],
    "catalog": {"CATALOG_URL": "postgresql://memoturn:secret@db.example:6432/memoturn"},
    "bucket": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    "etcd": {"ETCD_URL": "https://root:secret@etcd.example:2379"},
    "models": {"EMBED_API_KEY": "pa-1", "EXTRACT_API_KEY": "sk-1"},
}
"""Secrets as an operator has them for a real cluster."""


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"objectStorage": {"backend": "file"}},
        CLUSTER,
        OUTSIDE,
        merged(OUTSIDE, {"ai": {"existingSecret": "models"}, "server": {"persistAuthKey": True}}),
        merged(
            OUTSIDE, {"cluster": {"etcd": {"endpoints": "", "existingSecret": "etcd", "prefix": "/prod/"}}}
        ),
        {"ipFamily": "IPv6"},
    ],
)
def test_programs_take_the_environment(values, tmp_path, monkeypatch):
    monkeypatch.setattr("os.chown", lambda *_: None)
    objects = render(values)
    secrets = EXTERNAL | secrets_of(objects)
    ip = "2001:db8::7" if values.get("ipFamily") else "192.0.2.7"

    for part in ("dataplane", "control-plane", "migrate"):
        if part in objects.pods():
            env = Pod(tmp_path, tmp_path, objects, part, "memoturn-0", secrets).env(ip=ip)
            settings = Settings.from_env(env, is_tty=False)
            assert settings.auth == ("off" if part == "migrate" else "on")
            if part != "migrate":
                assert settings.node_id == "memoturn-0"
                assert settings.advertise == f"http://{'[' + ip + ']' if ':' in ip else ip}:8080"
    if "gateway" in objects.pods():
        env = Pod(tmp_path, tmp_path, objects, "gateway", "memoturn-gateway-x", secrets).env(ip=ip)
        assert GatewaySettings.from_env(env, is_tty=False).auth == "on"


# ---- run


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bucket_of(server) -> tuple[dict, dict]:
    """Values that name the tests' own bucket, and the secret for it."""
    prefix = server.fresh_url().rpartition("/")[2]
    where = {
        "bucket": server.bucket,
        "region": server.region,
        "endpoint": server.endpoint,
        "existingSecret": "bucket",
    }
    return (
        {"objectStorage": {"backend": "s3", "prefix": prefix, "s3": where}},
        {"AWS_ACCESS_KEY_ID": server.access, "AWS_SECRET_ACCESS_KEY": server.secret},
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token_of(url: str, keys: dict[str, str]) -> str:
    made = httpx.post(
        f"{url}/v1/namespaces/app/tokens",
        json={"scope": "write", "expires_in": 3600},
        headers=bearer(keys["PLATFORM_KEY"]),
    )
    assert made.status_code < 300, made.text
    return made.json()["token"]


def ingest(url: str, token: str, profile: str = "alice", **headers: str) -> None:
    memory = {"type": "fact", "topic_key": "diet", "summary": "Alice is vegan"}
    answer = httpx.post(
        f"{url}/v1/memory/app/{profile}/memories",
        json={"memories": [memory]},
        headers=bearer(token) | headers,
        timeout=20,
    )
    assert answer.status_code == 201, answer.text


def recalled(url: str, token: str, profile: str = "alice") -> list[str]:
    answer = httpx.post(
        f"{url}/v1/memory/app/{profile}/recall", json={"topic_key": "diet"}, headers=bearer(token), timeout=20
    )
    assert answer.status_code == 200, answer.text
    return [one["summary"] for one in answer.json()["memories"]]


def check_mcp(pod: Pod, gateway: str, token: str) -> None:
    """Its container finds the gateways, and passes on the token that it is shown."""
    pod.addresses["http://memoturn:8080"] = gateway
    pod.start()
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    accepts = {"Accept": "application/json, text/event-stream"}

    assert httpx.post(f"{pod.url}/mcp", json=call, headers=accepts).status_code == 401
    opened = httpx.post(f"{pod.url}/mcp", json=call, headers=accepts | bearer(token), timeout=20)
    assert opened.status_code == 200, opened.text
    assert pod.stop() == 0, pod.log()


def test_a_node_alone_survives_its_pod(pods, installed, s3_server, started):
    """As `scripts/kind-smoke` does it: ingest, delete the pod with its disk, same data with the same token."""
    store, bucket = bucket_of(s3_server)
    objects = render(store)
    keys = secrets_of(objects)["memoturn-auth"]
    node = Pod(
        pods / "alone",
        installed,
        objects,
        "dataplane",
        "memoturn-0",
        secrets_of(objects) | {"bucket": bucket},
    )
    started.callback(node.kill)

    node.start()
    assert httpx.get(f"{node.url}/v1/databases").status_code == 401
    token = token_of(node.url, keys)
    ingest(node.url, token)
    assert node.stop() == 0, node.log()
    node.make()
    node.start()

    assert recalled(node.url, token) == ["Alice is vegan"]
    assert {path.name for path in (node.folder / "data").iterdir()} >= {"registry.db", "dbs"}


@pytest.mark.timeout(240)
def test_a_cluster_survives_the_death_of_a_pod(
    pods, installed, s3_server, etcd_url, postgres_server, started
):
    store, bucket = bucket_of(s3_server)
    values = {
        "cluster": {
            "leaseTtlSecs": 2,
            "etcd": {"enabled": True, "endpoints": etcd_url, "prefix": fresh_prefix()},
        },
        "catalog": {"existingSecret": "catalog"},
        "dataplane": {"replicas": 2},
        "gateway": {"enabled": True},
        "controlPlane": {"enabled": True},
        "mcp": {"enabled": True},
    }
    objects = render(store, values)
    keys = secrets_of(objects)["memoturn-auth"]
    catalog = started.enter_context(session_database(postgres_server))
    secrets = secrets_of(objects) | {"bucket": bucket, "catalog": {"CATALOG_URL": catalog}}
    names = {
        "migrate": ["memoturn-migrate"],
        "dataplane": ["memoturn-0", "memoturn-1"],
        "gateway": ["memoturn-gateway-x"],
        "control-plane": ["memoturn-control-x"],
        "mcp": ["memoturn-mcp-x"],
    }
    made = {
        name: Pod(pods / "cluster", installed, objects, part, name, secrets)
        for part, all_names in names.items()
        for name in all_names
    }
    for pod in made.values():
        started.callback(pod.kill)

    assert made["memoturn-migrate"].run() == 0, made["memoturn-migrate"].log()
    for name in ("memoturn-0", "memoturn-1", "memoturn-gateway-x", "memoturn-control-x"):
        made[name].start(wait=False)
    for name in ("memoturn-0", "memoturn-1", "memoturn-control-x", "memoturn-gateway-x"):
        made[name].wait()
    gateway = made["memoturn-gateway-x"].url
    token = token_of(made["memoturn-control-x"].url, keys)
    for number in range(4):
        ingest(gateway, token, f"p{number}", **{"Memoturn-Durability": "durable"})
    there = httpx.get(f"{gateway}/v1/cluster", headers=bearer(keys["PLATFORM_KEY"])).json()
    assert {(one["node_id"], one["address"]) for one in there["nodes"]} == {
        (name, made[name].url) for name in names["dataplane"]
    }
    check_mcp(made["memoturn-mcp-x"], gateway, token)

    made["memoturn-0"].kill()
    made["memoturn-0"].make()
    made["memoturn-0"].start()

    for number in range(4):
        assert recalled(gateway, token, f"p{number}") == ["Alice is vegan"]
    running = ("memoturn-1", "memoturn-0", "memoturn-gateway-x", "memoturn-control-x")
    for name in running:
        made[name].end()
    for name in running:
        assert made[name].ended() == 0, made[name].log()
