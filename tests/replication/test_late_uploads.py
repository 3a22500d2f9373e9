"""What was uploaded long ago is not named any more, and what is written again has another name."""

import pytest
from family import Family
from harness import ShiftedClock, node_on
from profiles import BY_HAND, everything, keys, manifest_of, put

from memoturnd.core import layout, manifest
from memoturnd.core.durability import Durability
from memoturnd.core.keyed import RECENT_LIMIT
from memoturnd.core.manifest import HistoryPage
from memoturnd.errors import RetryableError
from memoturnd.replication.archive import CHECKPOINTS, NAMED_WITHIN_S
from memoturnd.replication.compactor import SNAPSHOT_MARGIN_S
from memoturnd.seams.object_store import Committed
from memoturnd.stores.memory import MemoryStore

SNAPSHOT_WITHIN_S = 600 - SNAPSHOT_MARGIN_S
"""What the default grace leaves a snapshot."""


async def test_pages_and_runs_that_are_written_again_get_other_names():
    family = await Family().begin()
    ref = await family.upload()
    await family.checkpoints(RECENT_LIMIT)
    standing = await family.standing()

    pages = [await family.archive.write_page(standing.db, "b", (), (ref,)) for _ in range(2)]
    for _ in range(2):
        assert await family.archive.flush(CHECKPOINTS, standing) is not None

    assert pages[0].hash != pages[1].hash
    held = [await family.archive.page(standing.db, page) for page in pages]
    assert held == [HistoryPage((), (ref,), nonce=page.nonce) for page in held]
    assert len(await family.keys("/checkpoints/")) == 2


async def test_run_that_was_written_too_long_ago_is_not_named():
    family = await Family().begin()
    await family.checkpoints(RECENT_LIMIT)
    standing = await family.standing()
    change = await family.archive.flush(CHECKPOINTS, standing)

    family.later(NAMED_WITHIN_S)
    assert change(standing).checkpoint_runs
    family.later(1)

    assert change(standing) is standing


class Held:
    """A store that holds a manifest's swap up for so long that another version stands when it arrives."""

    def __init__(self, inner, clock):
        self.inner = inner
        self.clock = clock
        self.hold_s = 0.0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def put_if_match(self, key, data, etag):
        if self.hold_s and key.endswith("manifest.json"):
            self.clock.ahead_s += self.hold_s
            self.hold_s = 0.0
            blob = await self.inner.get(key)
            touched = manifest.encode(manifest.replace(manifest.decode(blob.data), commit_id="touched"))
            assert isinstance(await self.inner.put_if_match(key, touched, blob.etag), Committed)
        return await self.inner.put_if_match(key, data, etag)


async def test_segment_whose_swap_was_held_up_is_put_again_under_another_name(tmp_path):
    clock = ShiftedClock()
    store = Held(MemoryStore(clock), clock)
    async with node_on(
        tmp_path, store, clock=clock, **BY_HAND, WARM_AFTER_S="9999", COLD_AFTER_S="9999"
    ) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("k", "1"), durability=Durability.DURABLE)
        uuid = profile.ref.database.uuid
        for hold_s, names in ((SNAPSHOT_WITHIN_S - 60, 1), (SNAPSHOT_WITHIN_S + 1, 2)):
            before = set(await keys(store, "/segments/"))
            await profile.write(put("k", str(hold_s)))
            store.hold_s = hold_s
            if names == 2:
                with pytest.raises(RetryableError, match="took too long to be named"):
                    await node.branches.sync("a", "main")
            await node.branches.sync("a", "main")

            new = set(await keys(store, "/segments/")) - before
            last = layout.object_key(uuid, (await manifest_of(store, profile)).segments[-1])
            assert len(new) == names
            assert last in new
        assert (await profile.read(everything)).value == {"k": str(hold_s)}
