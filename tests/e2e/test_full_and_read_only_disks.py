"""A disk without room and a disk that cannot be written: clear errors, nothing half-written, and back again."""

import shutil
import time

import httpx
import pytest
from calls import Profile, assert_refused, ok
from processes import run_node
from small_disk import SmallDisk

BIG = bytes(range(256)) * 512


@pytest.fixture
def full_data(home, small_disk):
    """A node whose data directory is a small disk, with two profiles; `ann` is hot, `cold` only in the store."""
    disk: SmallDisk = small_disk(home.data_dir, size="12m")
    yield from serving(home, disk)


@pytest.fixture
def full_store(home, small_disk):
    """The same with the object store on a small disk of its own."""
    disk: SmallDisk = small_disk(home.bucket, size="12m")
    yield from serving(home, disk, UNSHIPPED_WAIT_S="0.2", UNSHIPPED_MAX_AGE_S="0.5")


def serving(home, disk, **env):
    node = home.start(**env)
    with httpx.Client(base_url=node.url, timeout=15) as client:
        ann, cold = Profile(client, "ann"), Profile(client, "cold", durable=True)
        for profile in (cold, ann):
            ok(profile.ingest("first"))
            ok(profile.put("a"))
            ok(profile.sql("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"))
        ok(client.post(f"{cold.db}/sync"))
        ok(client.post(f"{ann.db}/sync"))
        yield node, disk, ann, cold
    node.kill()


def go_cold(node, profile):
    """Stop the node and delete the profile's local files, so that its next use must restore it."""
    assert node.stop() == 0
    for owner in node.home.data_dir.glob("dbs/*/*/*/owner"):
        if f'"app--{profile.name}"' in owner.read_text():
            shutil.rmtree(owner.parent)


def attempts(profile):
    """One write of every kind."""
    return [
        profile.put("new"),
        profile.put("big", BIG),
        profile.ingest("new"),
        profile.sql("INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)"),
        profile.client.post(f"{profile.db}/memory/s/turns", json={"role": "user", "content": "new"}),
        profile.client.delete(f"{profile.db}/kv/n/a"),
    ]


def state(profile):
    client = profile.client
    return [
        ok(client.get(f"{profile.db}/kv/n")).json(),
        ok(profile.sql("SELECT x FROM t ORDER BY x")).json()["results"],
        ok(client.get(f"{profile.db}/memory/s/turns")).json(),
        profile.recall("first"),
        profile.recall("new"),
        ok(client.get(f"{profile.db}/branches")).json(),
    ]


def assert_still_serves(node, *profiles):
    assert node.alive
    with httpx.Client(base_url=node.url) as client:
        assert client.get("/health").text == "ok"
        assert client.get("/metrics").status_code == 200
        for profile in profiles:
            assert profile.recall("first") == ["first"]


def until(seconds, question):
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_writes_that_a_full_disk_refuses_change_nothing_and_work_again_with_room(full_data):
    node, disk, ann, cold = full_data
    before, txid = state(ann), ann.txid()
    disk.fill()

    refused = attempts(ann)

    for answer in refused:
        assert "disk" in assert_refused(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
    assert state(ann) == before
    assert ann.txid() == txid
    assert_still_serves(node, ann, cold)

    disk.make_room()
    for answer in attempts(ann):
        ok(answer)
    del ann.kept["a"]
    ann.assert_kept()
    assert ann.recall("new") == ["new"]
    ok(ann.client.post(f"{ann.db}/sync"))
    assert_still_serves(node, ann, cold)


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_wakes_and_first_writes_that_the_disk_refuses_change_nothing_and_work_again_later(full_data, kind):
    node, disk, ann, cold = full_data
    home = node.home
    go_cold(node, cold)
    node = home.start()
    client = httpx.Client(base_url=node.url, timeout=15)
    ann.client = cold.client = client
    new = Profile(client, "new")
    ok(ann.put("b"))  # hot before the disk refuses
    block(disk, kind)

    refused = [
        client.post(f"{cold.memory}/recall", json={"topic_key": "first"}),
        cold.put("c"),
        new.ingest("first"),
        client.post(f"{cold.db}/branches/main/rewind", json={"to": "1"}),
    ]

    if kind == "full":  # the catalog is open, and so still writable on a disk that turned read-only
        refused.append(client.post("/v1/databases", json={"name": "another"}))
    for answer in refused:
        assert_refused(answer, 503)
    assert_still_serves(node, ann)
    assert client.get("/v1/databases", params={"prefix": "another"}).json()["databases"] == []

    unblock(disk, kind)
    assert cold.recall("first") == ["first"]
    cold.assert_kept()
    ok(cold.put("c"))
    ok(new.ingest("first"))
    assert new.recall("first") == ["first"]
    ok(client.post("/v1/databases", json={"name": "another"}))
    ann.assert_kept()
    assert node.stop() == 0
    client.close()


def test_node_does_not_start_on_a_disk_that_it_cannot_write(home, small_disk):
    disk = small_disk(home.data_dir, size="4m")
    disk.read_only(True)

    ended = run_node(DATA_DIR=str(home.data_dir), LISTEN="127.0.0.1:0")

    assert ended.returncode == 2
    assert str(home.data_dir) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_node_that_starts_on_a_full_disk_recovers_what_was_left_once_there_is_room(full_data):
    node, disk, ann, cold = full_data
    ok(ann.put("tail"))
    node.kill()
    disk.fill()
    home = node.home

    node = home.start()

    with httpx.Client(base_url=node.url, timeout=15) as client:
        ann.client = cold.client = client
        assert "No space left" in assert_refused(ann.put("more"), 503)
        disk.make_room()
        ann.assert_kept()
        cold.assert_kept()
        ok(ann.put("more"))
    assert node.stop() == 0
    home.lose_disk()
    with httpx.Client(base_url=home.start().url) as client:
        ann.client = client
        ann.assert_kept()


def test_full_object_store_leaves_local_writes_and_makes_durable_ones_say_that_they_are_not(full_store):
    node, disk, ann, cold = full_store
    disk.fill()

    durable = ann.put("d", **{"memoturn-durability": "durable"})

    assert "not in object storage" in assert_refused(durable, 500, 503)
    assert durable.headers["memoturn-durability"] == "local"
    until(10, lambda: assert_refused_or_none(ann.put("l")))
    assert_refused(ann.client.post(f"{ann.db}/sync"), 503)
    assert_refused(ann.client.post(f"{ann.db}/branches", json={"name": "f"}), 503)
    assert_refused(Profile(ann.client, "new").ingest("first"), 503)
    assert_still_serves(node, ann, cold)
    assert ann.client.get("/ready").status_code in {200, 503}

    disk.make_room()
    until(15, lambda: ann.client.post(f"{ann.db}/sync").is_success)
    ann.kept["d"] = b"x"  # it was applied, as its answer said
    ann.assert_kept()
    ok(ann.client.post(f"{ann.db}/branches", json={"name": "f"}))
    ok(Profile(ann.client, "new").ingest("first"))
    assert node.stop() == 0
    node.home.lose_disk()
    node = node.home.start()
    with httpx.Client(base_url=node.url) as client:
        ann.client = client
        ann.assert_kept()


def assert_refused_or_none(answer):
    """Whether a write was refused because too much is unshipped already; until then it is taken."""
    if answer.is_success:
        time.sleep(0.05)
        return False
    assert_refused(answer, 429, 503)
    return True


def block(disk, kind):
    if kind == "full":
        disk.fill()
    else:
        disk.read_only(True)


def unblock(disk, kind):
    if kind == "full":
        disk.make_room()
    else:
        disk.read_only(False)
