"""An erasure by a real process that is killed again and again: history ends without what was erased, and whole."""

import asyncio
import time

import httpx
from calls import Profile, ok
from erased import files_with

from memoturnd.core import layout, segment
from memoturnd.core import manifest as manifests
from memoturnd.replication.archive import Archive
from memoturnd.stores.local import LocalStore

MARK = "zq4711secret"
KILLS_S = (0.5, 1.4)
DONE_S = 60
COMMITS = 60


async def reachable_with(bucket, marker):
    """Return the reachable objects of a store in a folder that hold the marker in a page, and how many there are."""
    store, found, count = LocalStore(bucket), [], 0
    try:
        archive = Archive(store)
        for path in bucket.glob("v1/*/branches/*/manifest.json"):
            whole = await archive.whole(manifests.decode(path.read_bytes()))
            for ref in whole.objects:
                key = layout.object_key(whole.db, ref)
                part = segment.decode((await store.get(key)).data, name_hash=ref.hash)
                count += 1
                if any(marker in image for _, image in part.numbered_images(range(part.page_count))):
                    found.append(key)
    finally:
        await store.close()
    return found, count


def test_an_erasure_goes_on_wherever_its_process_was_killed(home):
    node = home.start()
    with httpx.Client(base_url=node.url, timeout=30) as client:
        ann = Profile(client, "ann")
        for n in range(COMMITS):
            item = {"type": "fact", "topic_key": "secret", "summary": f"{MARK} number {n}", "content": n}
            ok(client.post(f"{ann.memory}/memories", json={"memories": [item]}))
            ann.put(f"k{n}", f"stays {n}".encode())
            if n == COMMITS // 2:
                ok(client.post(f"{ann.db}/branches", json={"name": "fork"}))
        ok(client.post(f"{ann.db}/sync"))
        txid = ann.txid()
        body = {"topic_key": "secret", "type": "fact", "grace_secs": 0}
        erasure = ok(client.post(f"{ann.memory}/erasures", json=body)).json()["erasure_id"]
    for pause_s in KILLS_S:
        time.sleep(pause_s)
        node.kill()
        home.lose_disk()  # the catalog too: what waits is found in the store
        node = home.start()
    deadline = time.monotonic() + DONE_S
    with httpx.Client(base_url=node.url, timeout=30) as client:
        ann = Profile(client, "ann")
        while "rewritten_at" not in (coupon := ok(client.get(f"{ann.memory}/erasures/{erasure}")).json()):
            assert time.monotonic() < deadline, coupon
            time.sleep(0.2)
        assert coupon["status"] == "rewriting"
        assert len(coupon["memory_ids"]) == COMMITS
        early = ok(client.get(f"{ann.db}/kv/n/k3", params={"at": str(txid)}))
        assert early.content == b"stays 3"
        assert client.get(f"{ann.memory}/memories", params={"at": str(txid)}).json()["memories"] == []
        assert '"outcome":"clean"' in ok(client.post(f"{ann.db}/verify")).text
    assert node.stop() == 0
    found, count = asyncio.run(reachable_with(home.bucket, MARK.encode()))
    assert (found, count > 2) == ([], True)
    assert files_with(home.data_dir, MARK.encode()) == []
