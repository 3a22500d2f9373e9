"""A real node that is killed while it rewrites history: either chain stands, and the next lives finish the new one."""

import asyncio
import random
import time

import httpx
from erased import files_with, states
from processes import NodeHome

from memoturnd.core import layout, manifest, segment
from memoturnd.replication.archive import Archive
from memoturnd.stores.open import open_store

MARK = b"zq4711secret"
DB = "/v1/db/ann"
KILLS = 5
MOST_S = 2.5
FINISH_S = 60.0


def rows(conn):
    return {k: bytes(v) for k, v in conn.execute("SELECT k, v FROM __memoturn_kv")}


def fill(client, rng, commits):
    """Commit small values, some of them secret, many of which are changed and deleted later."""
    for n in range(commits):
        secret = rng.random() < 0.3
        path = f"{DB}/kv/ns/{'secret' if secret else 'k'}{rng.randrange(30)}"
        if rng.random() < 0.2:
            assert client.delete(path).status_code in {200, 204, 404}
        else:
            text = (MARK if secret else b"open") * rng.choice((1, 5, 300))
            assert client.put(path, content=b"%d" % n + text).status_code == 200


async def looked_at(home, folder, *, step=1):
    """Return (manifest, {txid: rows}, keys of reachable objects with the mark) as the bucket has them."""
    store = open_store(home.object_store)
    try:
        keys = [info.key async for info in store.list("v1/") if info.key.endswith("/manifest.json")]
        (key,) = keys
        standing = manifest.decode((await store.get(key)).data)
        found = []
        for ref in (await Archive(store).whole(standing)).objects:
            name = layout.object_key(standing.db, ref)
            part = segment.decode((await store.get(name)).data, name_hash=ref.hash)
            if any(MARK in image for _, image in part.numbered_images(range(part.page_count))):
                found.append(name)
        return standing, await states(store, standing, folder, rows, step=step), found
    finally:
        await store.close()


def test_history_is_the_old_one_or_the_new_one_whenever_the_node_is_killed(tmp_path):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    settings = {"MAINTENANCE_INTERVAL_S": "1", "SHIP_INTERVAL_MS": "50", "LOG_LEVEL": "warning"}
    with NodeHome(tmp_path / "home", **settings) as home:
        node = home.start()
        with httpx.Client(base_url=node.url, timeout=30) as client:
            assert client.post("/v1/databases", json={"name": "ann"}).status_code == 201
            fill(client, rng, 200)
        assert node.stop() == 0
        before, known, holding = asyncio.run(looked_at(home, tmp_path / "s"))
        assert holding
        left = {
            t: {k: v for k, v in state.items() if not k.startswith("secret")} for t, state in known.items()
        }

        node = home.start()
        target = {"kv": {"ns": "ns", "prefix": "secret"}, "grace_secs": 0}
        answer = httpx.post(f"{node.url}{DB}/erasures", json=target, timeout=30)
        assert answer.status_code == 202, answer.text
        coupon = f"{DB}/erasures/{answer.json()['erasure_id']}"
        outcomes = []
        for _ in range(KILLS):
            time.sleep(rng.random() * MOST_S)
            node.kill()
            standing, found, _ = asyncio.run(looked_at(home, tmp_path / "s", step=9))
            expected = left if standing.erasures else known
            assert {t for t in known if t % 9 == 1} <= found.keys(), f"seed {seed}"
            assert {t: s for t, s in found.items() if t in known} == {
                t: expected[t] for t in found if t in known
            }
            outcomes.append(bool(standing.erasures))
            if rng.random() < 0.3:
                home.lose_disk()
            node = home.start()
        deadline_s = time.monotonic() + FINISH_S
        while "rewritten_at" not in httpx.get(node.url + coupon, timeout=30).json():
            assert time.monotonic() < deadline_s, home.log()[-3000:]
            time.sleep(0.2)
        assert httpx.put(f"{node.url}{DB}/kv/ns/more", content=b"1").status_code == 200
        assert node.stop() == 0

        standing, found, holding = asyncio.run(looked_at(home, tmp_path / "s"))
        assert holding == []
        assert {t: state for t, state in found.items() if t in known} == left, f"seed {seed}"
        assert files_with(home.data_dir, MARK) == []
        assert sorted(outcomes) == outcomes, "what was erased does not come back"
        assert found[standing.head_txid]["more"] == b"1"
        assert before.head_txid < standing.head_txid
