"""Rewriting of histories that retention has thinned: random lives, and every way to a state that is left of them."""

import asyncio
import contextlib
import random

import pytest
from erased import objects_with, states
from harness import node_on
from profiles import BY_HAND, everything, put

from memoturnd.core import compaction
from memoturnd.core import manifest as manifests
from memoturnd.core.durability import Durability
from memoturnd.core.retention import Windows
from memoturnd.errors import ConflictError
from memoturnd.replication.archive import Archive
from memoturnd.replication.restore import restore
from memoturnd.replication.retention import Retention
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore

HOUR_MS = 3_600_000
WINDOWS = Windows(fine_ms=6 * HOUR_MS, coarse_ms=48 * HOUR_MS, grain_ms=3 * HOUR_MS)
MARK = b"4711-is-the-secret"


class At(SystemClock):
    at_ms = 1_000 * 24 * HOUR_MS

    def now_ms(self):
        return self.at_ms


def erase(conn):
    before = conn.total_changes()
    conn.execute("DELETE FROM __memoturn_kv WHERE k LIKE 'secret%'")
    return conn.total_changes() - before


def without(state):
    return {k: v for k, v in state.items() if not k.startswith("secret")}


async def life(node, clock, rng, rounds):
    """Live at random: commits over hours, ships, joins, snapshots, checkpoints, forks, rewinds, retention."""
    services = node._services
    retention = Retention(
        services.store, services.archive, InlineExecutor(), clock, services.randomness, WINDOWS
    )
    await node.databases.create("p")
    names = ["main"]
    for n in range(rounds):
        branch = await node.profile("p", rng.choice(names))
        clock.at_ms += rng.randrange(2 * HOUR_MS)
        secret = rng.random() < 0.3
        key = f"{'secret' if secret else 'k'}{rng.randrange(9)}"
        text = (MARK if secret else b"open") + rng.randbytes(1) * rng.choice((1, 60, 700, 9000))
        if rng.random() < 0.25:
            await branch.write(
                lambda c, _, key=key: (c.execute("DELETE FROM __memoturn_kv WHERE k = ?", (key,)), True)
            )
        else:
            await branch.write(put(key, text))
        dice = rng.random()
        if dice < 0.6:
            await branch.owned.shipper.ship()
        if dice < 0.04:
            await branch.owned.shipper.snapshot()
        elif dice < 0.08:
            await node.branches.checkpoint("p", branch.ref.name, f"c{n}")
        elif dice < 0.11 and len(names) < 4:
            await node.branches.create("p", f"f{n}", from_branch=branch.ref.name)
            names.append(f"f{n}")
        elif dice < 0.14 and branch.txid > 3:
            with contextlib.suppress(ConflictError):  # that state is thinned away
                await node.branches.rewind("p", branch.ref.name, str(rng.randrange(1, branch.txid)))
        elif dice < 0.3:
            await retention.apply(branch.manifests)
        while branch.owned is not None and (job := branch.owned.shipper.compactor.running) is not None:
            await asyncio.wait([job])
            await branch.owned.shipper.ship()
    for name in names:
        await node.branches.sync("p", name)
    return names


async def every_way(store, standing, folder):
    """Return {txid: state} as reached from each base that leads there, which must all come to the same."""
    whole, found = await Archive(store).whole(standing), {}
    for base in sorted({ref.end for ref in whole.snapshots} | {0}):
        cut = manifests.replace(whole, snapshots=tuple(ref for ref in whole.snapshots if ref.end == base))
        for txid in range(max(base, 1), standing.head_txid + 1):
            path = folder / "way.db"
            try:
                made = await restore(store, cut, txid, path, executor=InlineExecutor(), fsync=False)
            except ConflictError:
                continue
            found.setdefault(txid, set()).add(made.hashes.checksum)
            path.unlink()
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_random_life_is_the_same_without_the_rows(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(compaction, "PAGE_ENTRIES", 8)
    monkeypatch.setattr(compaction, "SNAPSHOT_MARGIN_BYTES", 20_000)
    rng, store, clock = random.Random(seed), MemoryStore(), At()
    (tmp_path / "s").mkdir()
    async with node_on(tmp_path / "node", store, clock=clock, PITR_RETENTION_SECS="0", **BY_HAND) as node:
        names = await life(node, clock, rng, 120)
        uuid = (await node.databases.get("p")).uuid
        before, ways = {}, {}
        for name in names:
            standing = await (await node.profile("p", name)).manifests.load(fresh=True)
            before[name] = await states(store, standing, tmp_path / "s", everything)
            ways[name] = await every_way(store, standing, tmp_path / "s")
        assert (await objects_with(node, uuid, MARK))[0]
        rng.shuffle(names)  # a fork before its parent as well

        for name in names:
            await node.rewriter.rewrite(await node.profile("p", name), erase, ["e1"])

        assert (await objects_with(node, uuid, MARK))[0] == set()
        for name in names:
            branch = await node.profile("p", name)
            standing = await branch.manifests.load()
            after = await states(store, standing, tmp_path / "s", everything)
            assert after == {t: without(state) for t, state in before[name].items()}
            again = await every_way(store, standing, tmp_path / "s")
            assert again.keys() == ways[name].keys()
            assert {len(sums) for sums in again.values()} == {1}, "each base leads to the same states"
            await branch.write(put("after", b"1"), durability=Durability.DURABLE)
            assert (await node.rewriter.rewrite(branch, erase, ["e1"]))[2:] == (0, 0)
    assert sum(map(len, before.values())) > 60
