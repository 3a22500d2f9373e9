"""Every row of the failure table under load: nothing is lost beyond its level, and writes go on in time."""

import pytest

from cluster.failures import FAULTS, UNSHIPPED_S, strike

SHORT = ("kill-unshipped", "pause", "cut-etcd", "wipe-etcd")
"""What every run of the tests does; the others are for `make soak`."""
INTERRUPTION_S = 3.0
"""Longest time without an acknowledged write where no lease has to end."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.soak) for name in FAULTS]
)
async def test_a_fault_loses_nothing_beyond_the_level_and_writes_go_on(request, name):
    fault = FAULTS[name]
    cluster = request.getfixturevalue("wired_cluster" if fault.wired else "cluster")
    outcome = await strike(cluster, fault, f"fault--{name}", ttl_s=cluster.ttl_s, warm_s=1.0)
    assert outcome.wrong == []
    assert not {"replicated", "durable"} & outcome.lost.keys()
    if fault.takeovers == 0:
        assert not outcome.lost
    assert sum(outcome.operations.values()) > 100
    if name in {"kill", "kill-unshipped"}:
        assert outcome.new_owner != outcome.owner
        late_s = UNSHIPPED_S if name == "kill-unshipped" else 0
        for level, outage in outcome.outages.items():
            waits_s = late_s if level == "durable" else 0
            assert outage.gap_s < cluster.ttl_s + 2 + waits_s, (level, outage)
    if name == "kill-unshipped":
        said = "replicated commits were found at other nodes"
        assert said in cluster.process(outcome.new_owner).log(), "nothing was unshipped: this proves nothing"
    if not fault.interrupts:
        for level, outage in outcome.outages.items():
            assert outage.gap_s < INTERRUPTION_S, (level, outage)


async def test_a_hand_over_shows_no_client_an_error(cluster):
    """Below a second, too, in the better of two: what else the machine does is measured with it."""
    gaps = []
    for number in range(2):
        database = f"fault--hand-over-{number}"
        outcome = await strike(cluster, FAULTS["term"], database, ttl_s=cluster.ttl_s, warm_s=1.0)
        assert outcome.wrong == []
        assert outcome.new_owner != outcome.owner
        assert not any(outage.errors for outage in outcome.outages.values()), outcome.outages
        gaps.append(max(outage.gap_s for outage in outcome.outages.values()))
        if gaps[-1] < 1:
            return
        cluster.recover()
    raise AssertionError(gaps)
