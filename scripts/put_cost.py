"""What one PUT of 16 KiB costs the client: processor time and latency, for each S3 client, on a real server.

    eval "$(scripts/services start minio)"
    .venv/bin/python scripts/put_cost.py

Prints a Markdown row per client and kind of request. The server is the one of MEMOTURN_TEST_S3_ENDPOINT.
"""

import asyncio
import os
import secrets
import sys
import time
from urllib.parse import urlsplit

import uvloop
from minio import Minio

from memoturnd.seams.object_store import Committed, ObjectStore
from memoturnd.stores.open import open_store

SIZE_BYTES = 16 * 1024
REQUESTS = 2000
WARM_UP = 200
BUCKET = "put-cost"


async def plain(store: ObjectStore, requests: int, at_once: int) -> list[float]:
    """Put `requests` objects, `at_once` at a time, and return the seconds that each took."""
    took: list[float] = []
    numbers = iter(range(requests))
    data = secrets.token_bytes(SIZE_BYTES)

    async def work() -> None:
        for number in numbers:
            began = time.perf_counter()
            await store.put(f"v1/{number}", data)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return took


async def swaps(store: ObjectStore, requests: int, at_once: int) -> list[float]:
    """The same with swaps, each worker of an object of its own."""
    took: list[float] = []
    numbers = iter(range(requests))

    async def work() -> None:
        key = f"v1/swapped-{secrets.token_hex(8)}"
        last = await store.put_if_absent(key, b"")
        for _ in numbers:
            assert isinstance(last, Committed)
            data = secrets.token_bytes(SIZE_BYTES)
            began = time.perf_counter()
            last = await store.put_if_match(key, data, last.etag)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return took


async def measure() -> None:
    """Measure both clients and print the rows."""
    print("| client | request | at once | client CPU per request | p50 | p99 | requests per second |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for client in ("aiobotocore", "obstore"):
        for name, load in (("PUT", plain), ("swap", swaps)):
            for at_once in (1, 16):
                store = open_store(f"s3://{BUCKET}/{secrets.token_hex(4)}", s3_client=client)
                await load(store, WARM_UP, at_once)
                cpu, began = time.process_time(), time.perf_counter()
                took = sorted(await load(store, REQUESTS, at_once))
                cpu, elapsed = time.process_time() - cpu, time.perf_counter() - began
                await store.close()
                p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
                print(
                    f"| {client} | {name} | {at_once} | {cpu / REQUESTS * 1e3:.2f} ms | {p50 * 1e3:.1f} ms | "
                    f"{p99 * 1e3:.1f} ms | {REQUESTS / elapsed:.0f} |",
                    flush=True,
                )


def main() -> int:
    """Set the standard settings from those of the tests, make a bucket, and measure."""
    given = {
        name: os.environ.get(f"MEMOTURN_TEST_S3_{name}", "")
        for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")
    }
    if not given["ENDPOINT"]:
        print(__doc__, file=sys.stderr)
        return 2
    os.environ |= {
        "AWS_ENDPOINT_URL": given["ENDPOINT"],
        "AWS_ACCESS_KEY_ID": given["ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": given["SECRET_KEY"],
    }
    parts = urlsplit(given["ENDPOINT"])
    admin = Minio(parts.netloc, given["ACCESS_KEY"], given["SECRET_KEY"], secure=parts.scheme == "https")
    if not admin.bucket_exists(BUCKET):
        admin.make_bucket(BUCKET)
    uvloop.run(measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
