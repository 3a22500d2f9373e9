"""What the node asks of object storage is counted by kind of request, and in bytes."""

import asyncio

import pytest
from harness import node_on
from prometheus_client.parser import text_string_to_metric_families

from memoturnd.core.durability import Durability
from memoturnd.metrics import STORE_OPERATIONS, Metrics
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.object_store import ObjectMissingError
from memoturnd.stores.counted import CountedStore
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


def scraped(metrics, name):
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name == name:
            return {"/".join(s.labels.values()): s.value for s in family.samples if s.value}
    raise AssertionError(name)


async def test_each_operation_counts_once_with_its_bytes():
    metrics = Metrics()
    store = CountedStore(MemoryStore(), metrics)

    await store.put("a", b"12345")
    created = await store.put_if_absent("b", b"123")
    await store.put_if_match("b", b"12", created.etag)
    await store.put_if_match("b", b"1", created.etag)  # lost, and paid for all the same
    await store.get("a")
    await store.get_range("a", 1, 3)
    assert [row.key async for row in store.list("")] == ["a", "b"]
    await store.delete("a")

    expected = {
        "put": 1,
        "put_if_absent": 1,
        "put_if_match": 2,
        "get": 1,
        "get_range": 1,
        "list": 1,
        "delete": 1,
    }
    assert store.usage.requests == expected
    assert (store.usage.sent_bytes, store.usage.received_bytes) == (5 + 3 + 2 + 1, 5 + 3)
    ended = {f"{name}/ok": 1 for name in expected} | {"put_if_match/lost": 1}
    assert scraped(metrics, "memoturn_store_requests") == ended
    assert scraped(metrics, "memoturn_store_bytes") == {"sent": 11, "received": 8}


async def test_usage_of_a_stretch_is_a_difference():
    store = CountedStore(MemoryStore(), Metrics())
    await store.put("a", b"12345")
    before = store.usage

    await store.put("b", b"1")

    stretch = store.usage - before
    assert stretch.requests == dict.fromkeys(STORE_OPERATIONS, 0) | {"put": 1}
    assert stretch.sent_bytes == 1
    assert before.requests["put"] == 1


@pytest.mark.parametrize(("objects", "requests"), [(0, 1), (1000, 1), (1001, 2), (2500, 3)])
async def test_listing_counts_once_per_thousand_objects(objects, requests):
    inner = MemoryStore()
    for number in range(objects):
        await inner.put(f"k{number}", b"")
    store = CountedStore(inner, Metrics())

    assert len([row async for row in store.list("")]) == objects
    assert store.usage.requests["list"] == requests


class Stuck(MemoryStore):
    async def put_if_match(self, *_):
        await asyncio.sleep(60)


async def test_failed_requests_count_too():
    faults = [Fault(FaultKind.STATUS_503, {"put"}), Fault(FaultKind.LOST_REPLY, {"put_if_absent"})]
    metrics = Metrics()
    store = CountedStore(FaultyStore(MemoryStore(), SystemClock(), faults), metrics)

    with pytest.raises(Exception, match="503"):
        await store.put("a", b"1")
    with pytest.raises(ObjectMissingError):
        await store.get("a")
    await store.put_if_absent("b", b"1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await CountedStore(Stuck(), metrics).put_if_match("b", b"1", "etag")

    ended = {"put/failed": 1, "get/missing": 1, "put_if_absent/unknown": 1, "put_if_match/unknown": 1}
    assert scraped(metrics, "memoturn_store_requests") == ended
    assert 'memoturn_store_request_seconds_count{operation="get"} 1.0' in metrics.render().decode()
    assert store.usage.requests["put"] == 1
    assert store.usage.requests["get"] == 1


async def test_node_tells_what_it_asked_of_its_store(tmp_path):
    """Guard: memoturnd.node.running counts what TimedStore passes on."""
    async with node_on(tmp_path, MemoryStore()) as node:
        before = node.store_usage
        await node.databases.create("p")
        profile = await node.profile("p")
        await profile.write(
            lambda conn, now: (conn.execute("CREATE TABLE t(x)").fetchall(), True),
            durability=Durability.DURABLE,
        )
        spent = node.store_usage - before

    assert spent.requests["put"] >= 1
    assert spent.requests["put_if_match"] + spent.requests["put_if_absent"] >= 2
    assert spent.sent_bytes > 0
