"""Objects that are damaged, cut off or gone: the branch concerned says so and names them, the others go on."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from calls import Profile, assert_refused, ok


@pytest.fixture
def shipped(home):
    """A stopped node's object store with two profiles in it, and no disk."""
    node = home.start()
    with httpx.Client(base_url=node.url) as client:
        for name in ("ann", "bob"):
            profile = Profile(client, name, durable=True)
            ok(profile.ingest("first"))
            ok(profile.put("a"))
    assert node.stop() == 0
    home.lose_disk()
    return home


def database_of(home, name):
    """The folder of a profile's objects."""
    for path in home.bucket.glob("v1/*/database.json"):
        if json.loads(path.read_bytes())["name"] == f"app--{name}":
            return path.parent
    raise AssertionError(name)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def remove(path):
    path.unlink()


def every_use(profile):
    """Reads and writes of every kind that need the profile's state."""
    client = profile.client
    return [
        client.post(f"{profile.memory}/recall", json={"topic_key": "first"}),
        client.get(f"{profile.db}/kv/n/a"),
        profile.put("b"),
        profile.ingest("second"),
        profile.sql("SELECT 1"),
        profile.sql("CREATE TABLE t (x)"),
        client.get(f"{profile.db}/memory/s/turns"),
        client.post(f"{profile.db}/branches/main/rewind", json={"to": "1"}),
    ]


DAMAGE = {
    "flipped bit in a segment": ("branches/*/*/*-*-*", flip),
    "segment cut off": ("branches/*/*/*-*-*", cut),
    "segment gone": ("branches/*/*/*-*-*", remove),
    "flipped bit in a manifest": ("branches/*/manifest.json", flip),
    "manifest cut off": ("branches/*/manifest.json", cut),
    "manifest gone": ("branches/*/manifest.json", remove),
}


@pytest.mark.parametrize(("pattern", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_object_is_named_by_its_branch_and_others_are_served(shipped, pattern, damage):
    folder = database_of(shipped, "ann")
    good = {path: path.read_bytes() for path in folder.glob(pattern)}
    for path in good:
        damage(path)
    names = [str(path.relative_to(shipped.bucket)) for path in good]
    node = shipped.start()
    with httpx.Client(base_url=node.url) as client:
        ann, bob = Profile(client, "ann"), Profile(client, "bob")

        for answer in every_use(ann):
            text = assert_refused(answer, 500)
            assert any(name in text for name in names), text

        bob.kept = {"a": b"x"}
        bob.assert_kept()
        ok(bob.put("b"))
        ok(client.post(f"{bob.db}/sync"))
        assert client.get("/ready").status_code == 200
        assert client.get("/health").status_code == 200

        for path, data in good.items():  # a copy is put back: no restart is needed
            path.write_bytes(data)
        ann.kept = {"a": b"x"}
        ann.assert_kept()
        ok(ann.put("b"))
    assert node.stop() == 0


def test_manifest_that_is_cut_off_under_an_open_branch_stops_only_its_shipping(shipped):
    node = shipped.start(UNSHIPPED_WAIT_S="0.1", UNSHIPPED_MAX_AGE_S="60")
    with httpx.Client(base_url=node.url, timeout=20) as client:
        ann, bob = Profile(client, "ann"), Profile(client, "bob", durable=True)
        ann.kept = {"a": b"x"}
        ok(ann.put("b", **{"memoturn-durability": "durable"}))
        (manifest,) = database_of(shipped, "ann").glob("branches/*/manifest.json")
        good = manifest.read_bytes()
        manifest.write_bytes(good[:100])

        text = assert_refused(client.post(f"{ann.db}/branches", json={"name": "f"}), 500, 503)
        ok(ann.put("c"))
        ok(bob.put("b"))

        assert manifest.name in text
        ann.assert_kept()
        manifest.write_bytes(good)
        ok(client.post(f"{ann.db}/sync"))
    assert node.stop() == 0
    shipped.lose_disk()
    with httpx.Client(base_url=shipped.start().url) as client:
        ann.client = client
        ann.assert_kept()


def test_object_store_that_is_taken_away_and_comes_back_costs_nothing_acknowledged(shipped):
    node = shipped.start(UNSHIPPED_WAIT_S="0.1", UNSHIPPED_MAX_AGE_S="60")
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=node.url, timeout=20) as client:
        ann, bob = Profile(client, "ann"), Profile(client, "bob")
        ann.kept = {"a": b"x"}
        ok(ann.put("b"))
        ok(client.post(f"{ann.db}/sync"))
        away = shipped.bucket.rename(shipped.bucket.with_name("away"))

        waiting = pool.submit(ann.put, "c", **{"memoturn-durability": "durable"})
        ok(ann.put("d"))
        refused = [
            client.post(f"{ann.db}/sync"),
            client.post(f"{ann.db}/branches", json={"name": "f"}),
            bob.put("b"),
            client.post(f"{bob.memory}/recall", json={"topic_key": "first"}),
        ]

        for answer in refused:
            assert_refused(answer, 500, 503)
        assert not waiting.done()
        assert client.get("/health").status_code == 200
        shutil.rmtree(shipped.bucket, ignore_errors=True)  # what the node made meanwhile
        away.rename(shipped.bucket)
        assert ok(waiting.result()).headers["memoturn-durability"] == "durable"
        ok(client.post(f"{ann.db}/sync"))
        ann.assert_kept()
        ok(bob.put("b"))
        assert bob.recall("first") == ["first"]
    assert node.stop() == 0
    shipped.lose_disk()
    with httpx.Client(base_url=shipped.start().url) as client:
        ann.client = client
        ann.assert_kept()


def test_damaged_register_and_catalog_export_are_logged_and_the_node_starts_without_them(shipped):
    register = database_of(shipped, "ann") / "database.json"
    register.write_bytes(register.read_bytes()[:-5])
    changes = list(shipped.bucket.glob("v1/_catalog/changes/*"))
    for path in changes:
        path.write_bytes(b"[{")
    node = shipped.start()
    with httpx.Client(base_url=node.url) as client:
        assert Profile(client, "bob").recall("first") == ["first"]
        assert [row["name"] for row in client.get("/v1/databases").json()["databases"]] == ["app--bob"]
    assert str(register.relative_to(shipped.bucket)) in shipped.log()
    for path in changes:
        assert path.name in shipped.log()
    assert node.stop() == 0


def test_damaged_register_of_a_known_database_is_named(shipped):
    node = shipped.start()
    register = database_of(shipped, "ann") / "database.json"
    register.write_bytes(register.read_bytes()[:-5])
    with httpx.Client(base_url=node.url) as client:
        ann = Profile(client, "ann")

        answer = client.post(f"{ann.db}/branches", json={"name": "f"})

        assert str(register.relative_to(shipped.bucket)) in assert_refused(answer, 500)
        assert ann.recall("first") == ["first"]
        ok(ann.put("b"))
