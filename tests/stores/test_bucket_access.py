"""A bucket behind TLS and behind a policy: what a node needs, and that it needs no more."""

import json
import re
from pathlib import Path

import httpx
import pytest
from own_minio import running_minio
from processes import NodeHome
from servers import store_on

from memoturnd.errors import ConfigurationError, StoreUnavailableError
from memoturnd.stores.open import probe

CLIENTS = ["aiobotocore", "obstore"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "object-stores.md"
NODE_SECRET = "node-secret-of-the-policy"


@pytest.mark.parametrize("client", CLIENTS)
async def test_tls_is_checked_against_the_bundle(servers, tmp_path, client):
    servers.get("minio")
    with running_minio(tmp_path, tls=True) as minio:
        with store_on(minio.server, client, AWS_CA_BUNDLE=str(minio.certificate)) as store:
            await probe(store)
            await store.put("v1/k", b"over tls")
            await store.close()
        with store_on(minio.server, client) as store:
            with pytest.raises(StoreUnavailableError, match="connection"):
                await probe(store)
            with pytest.raises(StoreUnavailableError):
                await store.put("v1/k", b"never")
            await store.close()


def policy_of_the_documentation(bucket: str, prefix: str) -> dict:
    [text] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return json.loads(text.replace("BUCKET", bucket).replace("PREFIX", prefix))


@pytest.fixture
def policed_minio(servers, tmp_path):
    servers.get("minio")
    with running_minio(tmp_path) as minio:
        minio.add_user("node", NODE_SECRET, policy_of_the_documentation("bucket", "mine"))
        yield minio


def remember(node, summary):
    answer = httpx.post(
        f"{node.url}/v1/memory/app/alice/memories",
        json={"memories": [{"type": "fact", "topic_key": summary, "summary": summary, "content": {}}]},
        headers={"memoturn-durability": "durable"},
        timeout=15,
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["memoturn-durability"] == "durable"


@pytest.mark.parametrize("client", CLIENTS)
def test_policy_of_the_documentation_is_enough_for_a_node(policed_minio, tmp_path, monkeypatch, client):
    """Through a start on nothing, writes, a lost disk with its catalog, and a deleted database."""
    server = policed_minio.server
    for name, value in server.environment(
        AWS_ACCESS_KEY_ID="node", AWS_SECRET_ACCESS_KEY=NODE_SECRET
    ).items():
        monkeypatch.setenv(name, value)
    with NodeHome(tmp_path / "home", OBJECT_STORE="s3://bucket/mine", S3_CLIENT=client) as home:
        node = home.start()
        remember(node, "likes tea")
        assert node.stop() == 0
        home.lose_disk()
        node = home.start()
        remember(node, "likes cake")
        listed = httpx.get(f"{node.url}/v1/databases", timeout=15).json()
        assert node.stop() == 0

    assert "app--alice" in json.dumps(listed)
    assert server.keys("s3://bucket/mine")


@pytest.mark.parametrize("client", CLIENTS)
async def test_policy_of_the_documentation_shuts_out_the_rest_of_the_bucket(policed_minio, client):
    changes = {"AWS_ACCESS_KEY_ID": "node", "AWS_SECRET_ACCESS_KEY": NODE_SECRET}
    with store_on(policed_minio.server, client, "s3://bucket/other", **changes) as store:
        with pytest.raises(ConfigurationError, match=r"403 AccessDenied.*docs/object-stores.md"):
            await probe(store)
        await store.close()
    assert policed_minio.server.keys("s3://bucket/other") == {}
