"""States that only a kill at the right instant leaves behind, made by hand."""

import asyncio
import json

import httpx
import pytest
from calls import Profile, assert_refused, ok

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.core import register
from memoturnd.seams.catalog import Database

NAMES = ("ann", "bob", "cid")


@pytest.fixture
def shipped(home):
    """A stopped node's object store with three profiles in it, and no disk."""
    node = home.start()
    with httpx.Client(base_url=node.url) as client:
        for name in NAMES:
            ok(Profile(client, name, durable=True).ingest("first"))
        ok(client.post("/v1/databases", json={"name": "never-written"}))
    assert node.stop() == 0
    home.lose_disk()
    return home


def test_catalog_whose_rebuild_was_cut_off_is_rebuilt_at_the_next_start(shipped):
    known = register.decode(next(shipped.bucket.glob("v1/*/database.json")).read_bytes())
    first = Database(known.name, known.uuid, known.branches["main"].id, known.created_at, written=True)

    async def begin():
        catalog = SqliteCatalog(shipped.data_dir / "registry.db")
        await catalog.create_database(first)
        await catalog.close()

    shipped.data_dir.mkdir()
    asyncio.run(begin())

    for _ in range(2):  # and the next start finds nothing left to do
        node = shipped.start()
        with httpx.Client(base_url=node.url) as client:
            listed = [row["name"] for row in ok(client.get("/v1/databases")).json()["databases"]]
            assert listed == [*(f"app--{name}" for name in NAMES), "never-written"]
            for name in NAMES:
                assert Profile(client, name).recall("first") == ["first"]
        assert node.stop() == 0


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_fork_that_was_cut_off_before_its_manifest_can_be_seen_deleted_and_made_again(shipped, disk):
    node = shipped.start()
    with httpx.Client(base_url=node.url) as client:
        ann = Profile(client, "ann")
        for name in ("f", "g"):
            ok(client.post(f"{ann.db}/branches", json={"name": name}))
    assert node.stop() == 0
    for path in shipped.bucket.glob("v1/*/branches/*/manifest.json"):
        if json.loads(path.read_bytes())["branch"] in {"f", "g"}:
            path.unlink()
    if disk == "lost":
        shipped.lose_disk()
    node = shipped.start()

    with httpx.Client(base_url=node.url) as client:
        ann = Profile(client, "ann")
        listed = [row["branch"] for row in ok(client.get(f"{ann.db}/branches")).json()["branches"]]
        assert listed == ["f", "g"]
        assert_refused(client.get(f"{ann.db}@f/kv/n/a"), 404)
        ok(client.post(f"{ann.db}/branches", json={"name": "f"}))
        ok(client.delete(f"{ann.db}/branches/g"))
        ok(client.put(f"{ann.db}@f/kv/n/a", content=b"x"))
        assert_refused(client.post(f"{ann.db}/branches", json={"name": "f"}), 409)
        listed = [row["branch"] for row in ok(client.get(f"{ann.db}/branches")).json()["branches"]]
        assert listed == ["f"]
    assert node.stop() == 0
