"""Wrong settings of a bucket: said at start, with the next step, and without a secret. On a real server."""

import httpx
import pytest
from processes import NodeHome, free_port, run_node
from servers import store_on

from memoturnd.errors import ConfigurationError, StoreRefusedError, StoreUnavailableError
from memoturnd.stores.open import probe

CLIENTS = ["aiobotocore", "obstore"]
SECRET = "sesame-open-sesame-open-sesame-open-0001"

WRONG = [  # (settings that are wrong, what the error names)
    ({"AWS_SECRET_ACCESS_KEY": SECRET}, "AWS_SECRET_ACCESS_KEY"),
    ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
    ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials"),
    ({"AWS_ENDPOINT_URL": "localhost:9000"}, "AWS_ENDPOINT_URL must be"),
    ({"AWS_ENDPOINT_URL": f"http://me:{SECRET}@127.0.0.1:99999"}, "AWS_ENDPOINT_URL must be"),
    ({"AWS_CA_BUNDLE": "/none/such.pem"}, "AWS_CA_BUNDLE"),
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("wrong", "named"), WRONG)
async def test_wrong_setting_is_named_at_start_without_secrets(s3_server, client, wrong, named):
    with store_on(s3_server, client, **wrong) as store:
        with pytest.raises(ConfigurationError, match=named) as caught:
            await probe(store)
        await store.close()

    for secret in (SECRET, s3_server.secret):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("client", CLIENTS)
async def test_missing_bucket_is_named_at_start_and_never_looks_like_an_empty_store(s3_server, client):
    with store_on(s3_server, client, "s3://no-such-bucket-anywhere/p") as store:
        with pytest.raises(ConfigurationError, match=r"no-such-bucket-anywhere.*NoSuchBucket.*make it"):
            await probe(store)
        with pytest.raises(StoreRefusedError):
            await store.get("v1/k")
        with pytest.raises(StoreRefusedError):
            await store.get_range("v1/k", 0, 1)
        with pytest.raises(StoreRefusedError):
            await store.put("v1/k", b"")
        with pytest.raises(StoreRefusedError):
            await store.put_if_match("v1/k", b"", '"e"')
        with pytest.raises(StoreRefusedError):
            assert [row async for row in store.list("")] == []
        await store.close()


@pytest.mark.parametrize("client", CLIENTS)
async def test_endpoint_where_nothing_listens_is_unavailable(s3_server, client):
    with store_on(s3_server, client, AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}") as store:
        with pytest.raises(StoreUnavailableError, match=r"no connection to .*check"):
            await probe(store)
        await store.close()


@pytest.mark.parametrize(
    ("environment", "code", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, 2, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 1, "no connection to http://127.0.0.1:1"),
    ],
)
def test_node_ends_at_start_with_one_line_and_no_secret(
    s3_server, tmp_path, monkeypatch, environment, code, says
):
    for name, value in s3_server.environment(**environment).items():
        monkeypatch.setenv(name, value)

    ended = run_node(
        DATA_DIR=str(tmp_path),
        LISTEN=f"127.0.0.1:{free_port()}",
        OBJECT_STORE=s3_server.fresh_url(),
        LOG_LEVEL="debug",
    )

    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_node_on_a_bucket_says_nothing_secret_in_its_log(s3_server, tmp_path, monkeypatch, client):
    """At level debug, through a start, a readiness probe, a write and a stop."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    url = s3_server.fresh_url()
    with NodeHome(tmp_path / "home", OBJECT_STORE=url, S3_CLIENT=client, LOG_LEVEL="debug") as home:
        node = home.start()
        answer = httpx.post(
            f"{node.url}/v1/memory/app/alice/memories",
            json={"memories": [{"type": "fact", "topic_key": "t", "summary": "s", "content": {"a": 1}}]},
            headers={"memoturn-durability": "durable"},
            timeout=15,
        )
        assert answer.status_code == 201, answer.text
        assert answer.headers["memoturn-durability"] == "durable"
        assert node.stop() == 0

        log = home.log()
    assert "memoturnd is up" in log
    assert s3_server.secret not in log
    assert s3_server.access not in log
    assert any(key.endswith("/manifest.json") for key in s3_server.keys(url))
