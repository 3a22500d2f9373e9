"""Verifications and drills of a node: how many run, what they take, and what they leave."""

import asyncio
import json
from contextlib import aclosing

import pytest
from harness import node_on
from profiles import BY_HAND, keys, put
from ruins import At

from memoturnd.config import Settings
from memoturnd.core.durability import Durability
from memoturnd.errors import (
    BranchNotFoundError,
    ConfigurationError,
    DatabaseNotFoundError,
    OverloadedError,
    StoreUnavailableError,
)
from memoturnd.stores.memory import MemoryStore


class Held(MemoryStore):
    """A store whose reads of segments and snapshots wait until they may go on."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.waiting = 0

    async def get_range(self, key, start, length):
        self.waiting += 1
        await self.go.wait()
        self.waiting -= 1
        return await super().get_range(key, start, length)


async def written(node, name):
    await node.databases.create(name)
    profile = await node.profile(name)
    for n in range(5):
        await profile.write(put(f"k{n}", "v"), durability=Durability.DURABLE)
    return profile


async def lines_of(lines):
    """Return a verification's events, and give back its place."""
    try:
        async with aclosing(lines.chunks()) as chunks:
            return [json.loads(chunk) async for chunk in chunks]
    finally:
        lines.close()


def begin(node, name, **changes):
    return node.verifications.begin(name, None, **{"deep": False, "seed": "s", **changes})


async def test_events_are_lines_and_the_last_one_is_the_summary(tmp_path):
    async with node_on(tmp_path / "node", MemoryStore(), **BY_HAND) as node:
        await written(node, "p")

        events = await lines_of(await begin(node, "p", seed=None, deep=True))

        assert events[-1]["event"] == "summary"
        assert events[-1]["outcome"] == "clean"
        assert events[-1]["states"] == 6, "the first commit made the tables"
        assert events[-1]["seed"]
        assert not list((tmp_path / "node" / "verify").iterdir())


async def test_database_that_was_never_written_is_clean(tmp_path):
    async with node_on(tmp_path / "node", MemoryStore(), **BY_HAND) as node:
        await node.databases.create("p")

        (summary,) = await lines_of(await begin(node, "p"))

        assert (summary["outcome"], summary["branches"], summary["objects"]) == ("clean", 0, 0)


async def test_unknown_database_or_branch_is_not_found_and_takes_no_place(tmp_path):
    async with node_on(tmp_path / "node", MemoryStore(), **BY_HAND) as node:
        await written(node, "p")
        for _ in range(3):
            with pytest.raises(DatabaseNotFoundError):
                await begin(node, "q")
            with pytest.raises(BranchNotFoundError):
                await node.verifications.begin("p", "gone", deep=False, seed=None)

        assert (await lines_of(await begin(node, "p")))[-1]["outcome"] == "clean"


async def test_one_verification_of_a_database_and_two_of_a_node_run_at_once(tmp_path):
    async with node_on(tmp_path / "node", MemoryStore(), **BY_HAND) as node:
        for name in ("a", "b", "c"):
            await written(node, name)
        first, second = await begin(node, "a"), await begin(node, "b")

        with pytest.raises(OverloadedError, match="being verified already"):
            await begin(node, "a")
        with pytest.raises(OverloadedError, match="2 verifications"):
            await begin(node, "c")
        first.close()
        first.close()
        assert (await lines_of(await begin(node, "c")))[-1]["outcome"] == "clean"
        await lines_of(second)
        assert b'memoturn_sheds_total{reason="verifications"} 2.0' in node.metrics.render()


async def test_progress_is_told_while_nothing_moves_and_who_leaves_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.engine.verifying.HEARTBEAT_S", 0.01)
    store = Held()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        profile = await written(node, "p")
        await profile.close()
        store.go.clear()
        lines = await begin(node, "p")
        before = len(asyncio.all_tasks())

        async with aclosing(lines.chunks()) as chunks:
            seen = [json.loads(await anext(chunks)) for _ in range(3)]
            assert store.waiting
        lines.close()

        assert all(event["event"] == "progress" for event in seen)
        assert seen[-1]["checked"] < seen[-1]["of"]
        assert len(asyncio.all_tasks()) <= before, "nothing of it runs on"
        assert not list((tmp_path / "node" / "verify").iterdir())
        store.go.set()
        assert (await lines_of(await begin(node, "p")))[-1]["outcome"] == "clean"


async def test_client_that_leaves_while_the_events_pile_up_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.engine.verifying._EVENTS_WAITING", 1)
    store = MemoryStore()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        await (await written(node, "p")).close()
        for key in await keys(store, "/segments/"):
            store._write(key, store._objects[key].blob.data[:-1] + b"x")
        lines = await begin(node, "p")
        before = len(asyncio.all_tasks())

        async with asyncio.timeout(5):
            async with aclosing(lines.chunks()) as chunks:
                await anext(chunks)
                while not lines._events._putters:  # noqa: ASYNC110 - a full queue has no event
                    await asyncio.sleep(0.001)
            lines.close()

            assert len(asyncio.all_tasks()) <= before, "nothing of it runs on"
            events = await lines_of(await begin(node, "p"))
        findings = [event for event in events if event["event"] == "finding"]
        assert len(findings) == events[-1]["findings"] > 3, "who stays is told all of it, in its turn"
        assert events[-1]["outcome"] == "damaged"


async def test_state_without_room_on_the_disk_leaves_it_unfinished(tmp_path):
    async with node_on(tmp_path / "node", MemoryStore(), DISK_BUDGET_BYTES=str(1 << 20), **BY_HAND) as node:
        profile = await written(node, "p")
        await profile.write(put("large", "x" * (1 << 20)), durability=Durability.DURABLE)

        summary = (await lines_of(await begin(node, "p")))[-1]

        assert summary["outcome"] == "unfinished"
        assert "MEMOTURN_DISK_BUDGET_BYTES" in summary["unfinished"][0]
        assert {await node.drill.run() for _ in range(80)} == {"ok", "failed"}


async def test_verification_goes_on_beside_writes_ships_and_compaction(tmp_path):
    """A branch that is written all the time is never taken for damaged."""
    async with node_on(tmp_path / "node", MemoryStore(), SHIP_INTERVAL_MS="1") as node:
        profile = await written(node, "p")
        stop = asyncio.Event()

        async def write():
            n = 0
            while not stop.is_set():
                await profile.write(
                    put(f"k{n % 50}", "x" * 500),
                    durability=Durability.DURABLE if n % 5 == 0 else Durability.LOCAL,
                )
                n += 1
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        for deep in (False, True, False, True):
            events = await lines_of(await begin(node, "p", deep=deep))
            assert [event for event in events if event["event"] == "finding"] == []
            assert events[-1]["outcome"] == "clean", events[-1]["unfinished"]
        stop.set()
        await writing


# ---- the drill


async def test_drill_restores_one_state_and_counts_it(tmp_path):
    clock = At()
    async with node_on(tmp_path / "node", MemoryStore(), clock=clock, **BY_HAND) as node:
        assert await node.drill.run() == "skipped"
        await written(node, "p")
        await node.branches.create("p", "f")

        assert [await node.drill.run() for _ in range(10)] == ["ok"] * 10

        shown = node.metrics.render()
        assert b'memoturn_drill_total{outcome="ok"} 10.0' in shown
        assert b'memoturn_drill_total{outcome="skipped"} 1.0' in shown
        assert node.metrics.drill_last_success_seconds._value.get() == clock.now_ms() / 1000
        assert not list((tmp_path / "node" / "verify").iterdir())


async def test_drill_names_the_damaged_object_in_the_log(tmp_path, capsys):
    store = MemoryStore()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        await written(node, "p")
        segments = await keys(store, "/segments/")
        for key in segments:
            data = store._objects[key].blob.data
            store._write(key, data[:-1] + bytes([data[-1] ^ 1]))

        assert await node.drill.run() == "damaged"

        assert b'memoturn_drill_total{outcome="damaged"} 1.0' in node.metrics.render()
        assert b"memoturn_drill_last_success_timestamp_seconds 0.0" in node.metrics.render()
    logged = "".join(capsys.readouterr())
    assert any(key in logged for key in segments)


async def test_drill_that_meets_a_store_that_is_away_has_failed_and_the_node_goes_on(tmp_path):
    store = Held()
    async with node_on(tmp_path / "node", store, **BY_HAND) as node:
        await written(node, "p")

        async def away(_key):
            raise StoreUnavailableError("away")

        store.get = away
        assert await node.drill.run() == "failed"


async def test_drill_runs_by_itself_every_interval_and_never_at_0(tmp_path):
    for interval_s, drills in (("1", 1), ("0", 0)):
        async with node_on(
            tmp_path / interval_s, MemoryStore(), DRILL_INTERVAL_S=interval_s, **BY_HAND
        ) as node:
            await written(node, "p")
            await asyncio.sleep(1.5)
            assert (node.metrics.drills["ok"]._value.get() >= 1) == bool(drills)


def test_interval_below_a_second_is_refused():
    with pytest.raises(ConfigurationError, match="MEMOTURN_DRILL_INTERVAL_S"):
        Settings.from_env({"MEMOTURN_DRILL_INTERVAL_S": "0.5"})
