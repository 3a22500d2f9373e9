"""A real S3 server that is killed under load and comes back: what was acknowledged is there, and work goes on."""

import asyncio
import signal

import httpx
import msgspec
import pytest
from own_minio import running_minio
from processes import NodeHome
from servers import store_on

from memoturnd.errors import StoreUnavailableError
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import SystemClock, SystemRandomness


class Doc(msgspec.Struct, frozen=True):
    items: tuple[str, ...] = ()
    commit_id: str = ""


def adding(item):
    return lambda doc: msgspec.structs.replace(doc, items=tuple(dict.fromkeys((*doc.items, item))))


@pytest.fixture
def own_minio(servers, tmp_path):
    servers.get("minio")  # skips or fails where there is none
    with running_minio(tmp_path) as minio:
        yield minio


@pytest.mark.parametrize("client", ["aiobotocore", "obstore"])
async def test_store_killed_in_mid_flight_keeps_what_was_acknowledged(own_minio, client):
    url = own_minio.server.fresh_url()
    with store_on(own_minio.server, client, url) as store:
        doc = SwapFile(
            store,
            "v1/doc.json",
            encode=msgspec.json.encode,
            decode=lambda data: msgspec.json.decode(data, type=Doc),
            randomness=SystemRandomness(),
            clock=SystemClock(),
        )
        await doc.create(Doc())
        done, failed = [], []
        stopped = asyncio.Event()

        async def write():
            number = 0
            while not stopped.is_set():
                number += 1
                try:
                    await store.put(f"v1/segment-{number}", b"%d" % number)
                    await doc.update(adding(str(number)))
                    done.append(number)
                except StoreUnavailableError:
                    failed.append(number)
                    await asyncio.sleep(0.05)

        writing = asyncio.create_task(write())
        for _ in range(2):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_minio.kill)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(own_minio.start)
            before = len(done)
            async with asyncio.timeout(30):
                while len(done) < before + 5:  # noqa: ASYNC110 - a count is waited for
                    await asyncio.sleep(0.05)
        stopped.set()
        await writing
        await store.close()

    kept = own_minio.server.keys(url)
    items = msgspec.json.decode(kept["v1/doc.json"], type=Doc).items
    assert {str(number) for number in done} <= set(items)
    assert len(set(items)) == len(items)
    assert all(kept[f"v1/segment-{number}"] == b"%d" % number for number in done)


def remember(node, summary):
    answer = httpx.post(
        f"{node.url}/v1/memory/app/alice/memories",
        json={"memories": [{"type": "fact", "topic_key": summary, "summary": summary, "content": {}}]},
        timeout=15,
    )
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("client", ["aiobotocore", "obstore"])
def test_node_whose_bucket_hangs_takes_local_writes_and_stops_in_time(
    own_minio, tmp_path, monkeypatch, client
):
    """SIGSTOP: connections stay open and nothing is answered. What was written is shipped by the next start."""
    for name, value in own_minio.server.environment().items():
        monkeypatch.setenv(name, value)
    url = own_minio.server.fresh_url()
    with NodeHome(tmp_path / "home", OBJECT_STORE=url, S3_CLIENT=client) as home:
        node = home.start()
        remember(node, "before")
        own_minio.process.send_signal(signal.SIGSTOP)
        remember(node, "meanwhile")
        assert httpx.get(f"{node.url}/ready", timeout=15).status_code == 503
        assert httpx.get(f"{node.url}/health", timeout=15).status_code == 200
        assert node.stop() == 0
        assert "branches that are not shipped" in home.log()

        own_minio.process.send_signal(signal.SIGCONT)
        node = home.start()
        synced = httpx.post(f"{node.url}/v1/db/app--alice/sync", timeout=30)
        assert synced.status_code == 200, synced.text
        assert node.stop() == 0
        home.lose_disk()
        node = home.start()
        found = httpx.post(f"{node.url}/v1/memory/app/alice/recall", json={"query": "meanwhile"}, timeout=30)
        assert "meanwhile" in found.text
        assert node.stop() == 0
