"""Reading the past of a real node: under a crowd, through a kill, and on a disk without room."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from calls import Profile, assert_refused, ok


def past_files(home):
    return [path for path in (home.data_dir / "past").rglob("*") if path.is_file()]


def large(client, name="ann", *, megabytes=24):
    """A profile of some megabytes that do not compress, and a txid from its past."""
    profile = Profile(client, name, durable=True)
    ok(profile.ingest("first"))
    for number in range(megabytes // 4):
        ok(profile.put(f"big{number}", os.urandom(4 << 20)))
    ok(profile.put("k", b"before"))
    txid = profile.txid()
    ok(profile.put("k", b"after"))
    return profile, txid


@pytest.mark.parametrize("after_s", [0.03, 0.1, 0.3])
def test_kill_while_past_states_are_made_leaves_nothing_that_stays(home, after_s):
    node = home.start()
    with httpx.Client(base_url=node.url, timeout=30) as client:
        profile, txid = large(client)
        assert node.stop() == 0
    node = home.start()

    def read(back):
        try:
            return httpx.get(f"{node.url}{profile.db}/kv/n/k?at={txid - back}", timeout=30).status_code
        except httpx.HTTPError:
            return None

    with ThreadPoolExecutor(4) as crowd:
        reads = [crowd.submit(read, back) for back in range(4)]
        time.sleep(after_s)
        node.kill()
        assert all(r.result() in {None, 200, 404} for r in reads)

    node = home.start()
    assert past_files(home) == []
    with httpx.Client(base_url=node.url, timeout=30) as client:
        profile.client = client
        assert client.get(f"{profile.db}/kv/n/k?at={txid}").content == b"before"
        assert client.get(f"{profile.db}/kv/n/k").content == b"after"
        profile.assert_kept()
    assert node.stop() == 0
    assert past_files(home) == []


def test_crowd_that_reads_the_past_gets_it_or_is_told_to_come_back(home):
    node = home.start()
    with httpx.Client(base_url=node.url) as client:
        profile = Profile(client, "ann", durable=True)
        ok(profile.ingest("first"))
        first, *_ = [ok(profile.put("k", b"%d" % n)).json()["txid"] for n in range(50)]
    limits = httpx.Limits(max_connections=50)
    with (
        httpx.Client(base_url=node.url, limits=limits, timeout=30) as client,
        ThreadPoolExecutor(50) as crowd,
    ):
        ready = threading.Barrier(50)

        def read(n):
            ready.wait()
            return client.get(f"{profile.db}/kv/n/k", headers={"memoturn-at": str(n)})

        same = list(crowd.map(lambda _: read(first + 7), range(50)))
        different = list(crowd.map(lambda n: read(first + n), range(50)))

    assert {(a.status_code, a.content, a.headers["memoturn-txid"]) for a in same} == {
        (200, b"7", str(first + 7))
    }
    for n, answer in enumerate(different):
        if answer.status_code == 200:
            assert (answer.content, answer.headers["memoturn-txid"]) == (b"%d" % n, str(first + n))
        else:
            assert_refused(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
    assert sum(a.status_code == 200 for a in different) >= 10
    assert node.stop() == 0


def test_full_disk_refuses_what_has_to_be_made_and_leaves_nothing_of_it(home, small_disk):
    disk = small_disk(home.data_dir, size="64m")
    node = home.start()
    with httpx.Client(base_url=node.url, timeout=30) as client:
        profile, txid = large(client, megabytes=12)
        ok(client.post(f"{profile.db}/sync"))
        disk.fill()

        text = assert_refused(client.get(f"{profile.db}/kv/n/k?at={txid}"), 503)
        assert "make room" in text
        assert past_files(home) == []
        assert client.get(f"{profile.db}/kv/n/k").content == b"after"

        disk.make_room()
        assert client.get(f"{profile.db}/kv/n/k?at={txid}").content == b"before"
        assert len(past_files(home)) == 1


def test_budget_of_the_disk_holds_while_the_past_is_read(home):
    node = home.start(DISK_BUDGET_BYTES=str(8 << 20))
    with httpx.Client(base_url=node.url, timeout=30) as client:
        profile, txid = large(client, megabytes=4)
        for back in range(3):
            ok(client.get(f"{profile.db}/kv/n?at={txid - back}"))
        deadline = time.monotonic() + 5
        while sum(path.stat().st_size for path in past_files(home)) > 8 << 20 and time.monotonic() < deadline:
            time.sleep(0.05)

        assert sum(path.stat().st_size for path in past_files(home)) <= 8 << 20
        assert client.get(f"{profile.db}/kv/n/k?at={txid}").content == b"before"
