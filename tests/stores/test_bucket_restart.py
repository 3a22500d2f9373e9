"""A real S3 server that is killed under load and comes back: what was acknowledged is there, and work goes on."""

import asyncio
import importlib.machinery
import importlib.util
import os
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import msgspec
import pytest
from minio import Minio
from processes import free_port
from servers import SCRIPT, S3Server, store_on

from memoturnd.errors import StoreUnavailableError
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import SystemClock, SystemRandomness


class Doc(msgspec.Struct, frozen=True):
    items: tuple[str, ...] = ()
    commit_id: str = ""


def adding(item):
    return lambda doc: msgspec.structs.replace(doc, items=tuple(dict.fromkeys((*doc.items, item))))


class OwnMinio:
    """A MinIO of this test alone, on a fixed port, so that it can be killed and started on the same data."""

    def __init__(self, folder, binary):
        self.port = free_port()
        self.command = [binary, "server", str(folder / "data"), "--address", f"127.0.0.1:{self.port}"]
        self.command += ["--console-address", f"127.0.0.1:{free_port()}"]
        self.environment = {"MINIO_ROOT_USER": "own", "MINIO_ROOT_PASSWORD": "own-minio-secret"}
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command,
            env=os.environ | self.environment | {"MINIO_BROWSER": "off"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/minio/health/cluster", timeout=2):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("MinIO did not come up")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def server(self):
        witness = Minio(f"127.0.0.1:{self.port}", "own", "own-minio-secret", secure=False, region="us-east-1")
        return S3Server(
            "MinIO",
            f"http://127.0.0.1:{self.port}",
            "own",
            "own-minio-secret",
            "us-east-1",
            "bucket",
            witness,
        )


@pytest.fixture
def own_minio(servers, tmp_path):
    servers.get("minio")  # skips or fails where there is none
    loader = importlib.machinery.SourceFileLoader("memoturn_services", str(SCRIPT))
    services = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(services)
    try:
        binary = services.go_binary("minio", services.MINIO, quick=True)
    except services.UnavailableError as error:
        pytest.skip(str(error))
    with running(OwnMinio(tmp_path, str(binary))) as minio:
        yield minio


@contextmanager
def running(minio):
    minio.start()
    try:
        minio.server.witness.make_bucket("bucket")
        yield minio
    finally:
        minio.kill()


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
