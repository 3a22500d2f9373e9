"""The metrics: names by convention, a help text each, a series count that the program fixes."""

import asyncio
import contextlib

import pytest
from harness import HandClock
from prometheus_client.parser import text_string_to_metric_families

from memoturnd.metrics import Metrics, watch_loop_lag

EXPECTED = {
    "memoturn_http_request_seconds",
    "memoturn_http_in_flight_requests",
    "memoturn_http_in_flight_limit_requests",
    "memoturn_http_waiting_requests",
    "memoturn_http_waiting_limit_requests",
    "memoturn_http_body_bytes",
    "memoturn_http_body_limit_bytes",
    "memoturn_sheds",
    "memoturn_event_loop_lag_seconds",
    "memoturn_commit_rounds",
    "memoturn_commit_group_requests",
    "memoturn_commit_seconds",
    "memoturn_write_queue_depth",
    "memoturn_write_queue_capacity",
    "memoturn_txid_ceiling_waits",
    "memoturn_unshipped_bytes",
    "memoturn_unshipped_branch_bytes",
    "memoturn_unshipped_branch_limit_bytes",
    "memoturn_unshipped_age_seconds",
    "memoturn_unshipped_age_limit_seconds",
    "memoturn_ships",
    "memoturn_ship_seconds",
    "memoturn_segment_bytes",
    "memoturn_manifest_largest_bytes",
    "memoturn_recovered_branches",
    "memoturn_wakes",
    "memoturn_wake_seconds",
    "memoturn_branches",
    "memoturn_hot_handles",
    "memoturn_hot_handles_limit",
    "memoturn_disk_bytes",
    "memoturn_disk_budget_bytes",
}


def families(metrics):
    """The families by name."""
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def test_every_metric_is_there_with_a_help_text():
    found = families(Metrics())

    assert set(found) >= EXPECTED
    assert all(family.documentation.endswith(".") for family in found.values())


def test_counters_end_in_total_and_carry_only_labels_of_the_program():
    metrics = Metrics()
    metrics.request_timer("/v1/db/{db}/sql", "POST", "2xx")(0.001)

    found = families(metrics)

    labels = {label for family in found.values() for sample in family.samples for label in sample.labels}
    assert labels == {
        "route",
        "step",
        "method",
        "status",
        "reason",
        "outcome",
        "tier",
        "le",
        "operation",
        "direction",
        "surface",
        "effect",
    }
    for family in found.values():
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


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
