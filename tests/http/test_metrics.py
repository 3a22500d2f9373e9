"""The metrics: names by convention, a help text each, a series count that the program fixes."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from harness import HandClock
from http_calls import ingest
from metric_support import of_each_process
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import GatewayMetrics
from memoturnd import __version__
from memoturnd.http.routes import ROUTES
from memoturnd.metrics import Metrics, watch_loop_lag


def families(metrics):
    """The families by name."""
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


# ---- names


ALL = {name: family for process in of_each_process().values() for name, family in process.items()}
PREFIXES = {
    "node": ("memoturn_",),
    "control": ("memoturn_",),
    "gateway": ("memoturn_gateway_",),
    "workers": ("memoturn_workers_",),
    "mcp": ("memoturn_mcp_",),
}
SHARED = ("process_", "memoturn_build_info", "memoturn_event_loop_lag_seconds")
UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = re.compile(r"_(ms|milliseconds|us|s|minutes|hours|days|kb|mb|kib|mib|percent|byte|second)(_|$)")
LABELS = {"route", "method", "status", "reason", "outcome", "tier", "operation", "direction", "surface", "effect", "step", "ending", "channel", "kind", "tool"}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_names_follow_the_conventions(name):
    """Those that `promtool check metrics` holds them to, and the project's own."""
    kind, labels, text = ALL[name]

    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    assert name.startswith(("memoturn_", "process_"))
    assert name.endswith("_total") == (kind == "counter")
    assert (
        not re.search(r"_(counter|gauge|histogram|summary|count|sum|bucket|info)$", name)
        or name == "memoturn_build_info"
    )
    assert not OTHER_UNITS.search(name)
    assert not any(f"_{unit}_" in name for unit in UNITS) or name.endswith(("_total", "_seconds", "_bytes"))
    assert kind != "histogram" or name.endswith(("_seconds", "_bytes", "_requests"))
    assert not any(f"_{label}" in name for label in labels if label not in {"status", "method"})
    assert text.endswith(".")


@pytest.mark.parametrize("process", PREFIXES)
def test_names_say_whose_they_are(process):
    assert all(name.startswith((*PREFIXES[process], *SHARED)) for name in of_each_process()[process])


def test_labels_are_those_of_the_program():
    found = {label for _, labels, _ in ALL.values() for label in labels}

    assert found - {"version", "python", "process"} == LABELS


def test_every_process_says_what_it_is():
    assert '{process="node",' in Metrics().render().decode()
    assert '{process="control",' in Metrics(process="control").render().decode()
    told = GatewayMetrics().render().decode()
    assert re.search(
        rf'memoturn_build_info{{process="gateway",python="3.*",version="{__version__}"}} 1.0', told
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system tells it by other means")
def test_the_process_is_measured():
    found = {
        name: family.samples[0].value
        for name, family in families(Metrics()).items()
        if name.startswith("process_")
    }

    assert found["process_resident_memory_bytes"] > 10 << 20
    assert 3 <= found["process_open_fds"] <= found["process_max_fds"]
    assert found["process_cpu_seconds"] > 0
    assert abs(found["process_start_time_seconds"] - began()) < 2


def began():
    """When this process began, by the age of its folder in /proc."""
    return Path("/proc/self").stat().st_ctime


# ---- bounds


async def series_of(client):
    return {line.rpartition(" ")[0] for line in (await client.get("/metrics")).text.splitlines()}


async def hammer(client, numbers):
    for n in numbers:
        name, headers = f"app--p{n}", {"memoturn-tenant": f"t{n}", "memoturn-request-id": f"r{n}"}
        await client.post(f"/v1/memory/ns{n}/p{n}/memories", json={"memories": [{"type": "fact", "topic_key": f"k{n}", "summary": f"s{n}"}]})  # fmt: skip
        await client.post(
            f"/v1/memory/ns{n}/p{n}/recall", json={"query": f"s{n}", "topic_key": f"k{n}", "embedding": [n]}
        )
        await client.get(f"/v1/db/{name}/kv/ns{n}/key{n}", headers=headers)
        await client.get(f"/nowhere/{n}", headers={"authorization": f"Bearer {n}"})
        await client.request(f"METHOD{n}", f"/v1/db/{name}/kv/ns{n}/key{n}")
        await client.put(f"/v1/db/{name}/docs/c{n}/{n}", content=b"{", headers={"idempotency-key": f"k{n}"})


async def test_no_number_of_names_makes_more_series(client):
    await series_of(client)
    await hammer(client, range(3))
    few = await series_of(client)
    await hammer(client, range(3, 300))

    assert await series_of(client) == few
    assert len(few) < 2000


def test_the_series_of_all_routes_and_answers_have_a_bound():
    """Every route with every class of statuses: what a scrape costs at the very most."""
    metrics = Metrics()
    for route in ROUTES:
        for status in range(2, 6):
            metrics.request_timer(route.template, route.method, f"{status}xx")(0.001)

    assert len(metrics.render().splitlines()) < 12_000


# ---- what is measured


async def test_a_recall_is_measured_by_channel(client, node):
    await ingest(client, {"type": "fact", "topic_key": "diet", "summary": "vegan", "embedding": [1, 0]})
    for _ in range(2):
        body = {"query": "vegan", "topic_key": "diet", "embedding": [1, 0]}
        await client.post("/v1/memory/app/ann/recall", json=body)

    told = node.metrics.render().decode()
    for channel in ("topic", "keyword", "vector"):
        assert f'memoturn_recall_seconds_count{{channel="{channel}"}} 2.0' in told
    assert 'memoturn_recall_cache_reads_total{outcome="hit"} 1.0' in told
    assert 'memoturn_recall_cache_reads_total{outcome="miss"} 1.0' in told


def test_no_series_tells_when_another_was_created():
    metrics = Metrics()
    metrics.request_timer("/v1/db/{db}/sql", "POST", "2xx")(0.001)

    assert b"_created" not in metrics.render()


def test_two_nodes_of_one_process_measure_apart():
    one, other = Metrics(), Metrics()

    one.commit_rounds.inc()

    assert b"memoturn_commit_rounds_total 1.0" in one.render()
    assert b"memoturn_commit_rounds_total 0.0" in other.render()


def test_gauges_are_refreshed_before_a_scrape():
    metrics = Metrics()
    metrics.before_scrape(lambda: metrics.disk_bytes.set(7))

    assert b"memoturn_disk_bytes 7.0" in metrics.render()


async def test_a_scrape_lets_requests_through_and_says_what_a_rendering_does():
    metrics, turns = Metrics(), 0
    metrics.before_scrape(lambda: metrics.disk_bytes.set(7))
    for route in ROUTES:
        metrics.request_timer(route.template, route.method, "2xx")(0.001)

    scraping = asyncio.create_task(metrics.scrape())
    while not scraping.done():
        await asyncio.sleep(0)
        turns += 1

    told = [
        [line for line in text.splitlines() if not line.startswith(b"process_")]
        for text in (await scraping, metrics.render())
    ]
    assert told[0] == told[1]
    assert b"memoturn_disk_bytes 7.0" in told[0]
    assert turns > len(told[0]) / 300


async def test_loop_lag_is_what_a_timer_is_late_by():
    class LateClock(HandClock):
        async def sleep(self, seconds):
            self.at_s += seconds + 0.03
            await asyncio.sleep(0)

    metrics = Metrics()
    watching = asyncio.create_task(watch_loop_lag(metrics, LateClock()))
    await asyncio.sleep(0.01)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching

    lag = {
        sample.name: sample.value for sample in families(metrics)["memoturn_event_loop_lag_seconds"].samples
    }
    count = lag["memoturn_event_loop_lag_seconds_count"]
    assert count > 0
    assert lag["memoturn_event_loop_lag_seconds_sum"] == pytest.approx(0.03 * count)
