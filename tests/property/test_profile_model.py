"""One profile against a plain-dict model, through everything that can happen to it.

After every step, on every branch: the live state is the model's, and each retained txid restores to exactly
the state that the model had at it. Txids are never used twice, whatever is lost.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import apsw
import pytest
from harness import node_on
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from memoturnd.core import compaction, keyed, layout
from memoturnd.core import manifest as manifests
from memoturnd.core.durability import Durability
from memoturnd.core.manifest import Manifest, contains
from memoturnd.core.revisions import parse
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError, StoreUnavailableError
from memoturnd.node import Node
from memoturnd.replication.archive import CHECKPOINTS
from memoturnd.replication.restore import restore
from memoturnd.seams.executor import InlineExecutor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore
from memoturnd.stores.memory import MemoryStore

State = dict[str, str]
EAGER = [
    (compaction, "JOIN_SEGMENTS", 2),
    (compaction, "PAGE_ENTRIES", 3),
    (compaction, "SNAPSHOT_SPACING_BYTES", 3000),
    (compaction, "SNAPSHOT_MARGIN_BYTES", 0),
    (keyed, "RECENT_LIMIT", 2),
]
"""Bounds under which short histories are compacted, paged and flushed too."""
KEYS = ["a", "b", "c", "d"]
WRITES = {"put", "put_if_absent", "put_if_match", "delete"}


class CutStore:
    """A store whose cable can be pulled, for a process that is gone."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.cut = False
        self.under_way = 0

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise StoreUnavailableError("the cable is pulled")
        request = getattr(self.inner, name)
        if name not in WRITES:
            return request

        async def counted(*arguments: Any) -> Any:
            self.under_way += 1
            try:
                return await request(*arguments)
            finally:
                self.under_way -= 1

        return counted

    async def pull(self) -> None:
        """Pull the cable, and return when what was sent before has landed."""
        self.cut = True
        while self.under_way:  # noqa: ASYNC110 - a few milliseconds
            await asyncio.sleep(0.001)


class Driver:
    """Keeps a node running in one task, and runs coroutines on its loop one at a time."""

    def __init__(self, data_dir: Path, store: CutStore) -> None:
        self.data_dir = data_dir
        self.store = store
        self.loop = asyncio.new_event_loop()
        self._jobs: asyncio.Queue[tuple[Callable[[Node], Awaitable[Any]], asyncio.Future[Any]] | None] = (
            asyncio.Queue()
        )
        self._task = self.loop.create_task(self._serve())

    @property
    def bucket(self) -> ObjectStore:
        """The store without its cable, usable on this driver's loop."""
        return self.store.inner

    async def _serve(self) -> None:
        async with node_on(
            self.data_dir, self.store, SHIP_INTERVAL_MS="60000", UNSHIPPED_MAX_AGE_S="600"
        ) as node:
            while (job := await self._jobs.get()) is not None:
                work, done = job
                try:
                    done.set_result(await work(node))
                except Exception as error:  # noqa: BLE001 - whatever it raised is the caller's
                    done.set_exception(error)
            if self.store.cut:
                for branch in node.tiers.hot():
                    async with branch._transition:
                        if branch.owned is not None:
                            await branch.owned.shipper.compactor.stop()
                        branch.close_connections()

    def run(self, work: Callable[[Node], Awaitable[Any]]) -> Any:
        done: asyncio.Future[Any] = self.loop.create_future()
        self._jobs.put_nowait((work, done))
        self.loop.run_until_complete(asyncio.wait([done, self._task], return_when=asyncio.FIRST_COMPLETED))
        if self._task.done():
            self._task.result()
        return done.result()

    def stop(self) -> None:
        self._jobs.put_nowait(None)
        self.loop.run_until_complete(self._task)
        self.loop.run_until_complete(self.store.inner.close())
        self.loop.close()


class BranchModel:
    """What a branch must hold."""

    def __init__(self, history: dict[int, State]) -> None:
        self.history = history
        self.used = set(history)
        self.rewound_from: tuple[int, int] | None = None

    @property
    def head(self) -> int:
        return max(self.history)

    @property
    def state(self) -> State:
        return self.history[self.head]


class ProfileMachine(RuleBasedStateMachine):
    branches = Bundle("branches")

    def __init__(self) -> None:
        super().__init__()
        self.bounds = pytest.MonkeyPatch()
        for module, name, value in EAGER:
            self.bounds.setattr(module, name, value)
        self.folder = Path(tempfile.mkdtemp(prefix="memoturn-model-"))
        self.bucket = MemoryStore()
        self.lives = 0
        self.models = {"main": BranchModel({0: {}})}
        self.checkpoints: dict[tuple[str, str], int] = {}
        self.driver = self.boot(self.folder / "node-0")
        self.run(lambda node: node.databases.create("p"))

    def boot(self, data_dir: Path) -> Driver:
        return Driver(data_dir, CutStore(self.open_bucket()))

    def open_bucket(self) -> ObjectStore:
        """Return the one bucket of all lives; each driver closes what it got."""
        return self.bucket

    def run(self, work: Callable[[Node], Awaitable[Any]]) -> Any:
        return self.driver.run(work)

    def teardown(self) -> None:
        try:
            self.verification_finds_nothing()
            self.driver.stop()
        finally:
            self.bounds.undo()
            shutil.rmtree(self.folder, ignore_errors=True)

    def name(self, pick: int) -> str:
        return sorted(self.models)[pick % len(self.models)]

    def committed(self, branch: str, txid: int, state: State) -> None:
        model = self.models[branch]
        assert txid > model.head
        assert txid not in model.used, "a txid was used twice"
        if model.head == 0 and state:  # the round before made the reserved tables
            assert txid - 1 not in model.used
            model.history[txid - 1] = {}
            model.used.add(txid - 1)
        model.history[txid] = state
        model.used.add(txid)

    # ---- what clients do

    @rule(pick=st.integers(0, 5), key=st.sampled_from(KEYS), value=st.text(max_size=5), durable=st.booleans())
    def write(self, pick: int, key: str, value: str, durable: bool) -> None:
        branch = self.name(pick)

        async def work(node: Node) -> Any:
            return await (await node.profile("p", branch)).write(
                put(key, value), durability=Durability.DURABLE if durable else Durability.LOCAL
            )

        written = self.run(work)
        self.committed(branch, written.txid, {**self.models[branch].state, key: value})
        assert written.durable or not durable

    @rule(
        pick=st.integers(0, 5),
        values=st.lists(st.text(max_size=3), min_size=2, max_size=6),
        bad=st.integers(0, 5),
    )
    def write_together_one_failing(self, pick: int, values: list[str], bad: int) -> None:
        branch = self.name(pick)

        async def work(node: Node) -> Any:
            profile = await node.profile("p", branch)
            ops = [
                profile.write(put_then_fail("a") if i == bad % len(values) else put(KEYS[i % 4], value))
                for i, value in enumerate(values)
            ]
            return await asyncio.gather(*ops, return_exceptions=True)

        results = self.run(work)
        assert isinstance(results[bad % len(values)], RuntimeError)
        done = [(r.txid, i) for i, r in enumerate(results) if not isinstance(r, RuntimeError)]
        assert done == sorted(done), "writes land in the order in which they were sent"
        state = dict(self.models[branch].state)
        for txid, i in done:
            state[KEYS[i % 4]] = values[i]
            if txid == self.models[branch].head:
                self.models[branch].history[txid] = dict(state)
            else:
                self.committed(branch, txid, dict(state))

    @rule(pick=st.integers(0, 5))
    def failing_write_changes_nothing(self, pick: int) -> None:
        branch = self.name(pick)

        async def work(node: Node) -> Any:
            profile = await node.profile("p", branch)
            try:
                await profile.write(put_then_fail("b"))
            except RuntimeError:
                return profile.txid
            raise AssertionError("the write did not fail")

        txid = self.run(work)
        model = self.models[branch]
        if model.head == 0:  # opening it for writing made the reserved tables
            self.committed(branch, txid, {})
        assert txid == model.head

    @rule(pick=st.integers(0, 5))
    def write_many_pages(self, pick: int) -> None:
        branch = self.name(pick)

        def op(conn: apsw.Connection, _now_ms: int) -> tuple[None, bool]:
            conn.execute("CREATE TABLE IF NOT EXISTS filler (x)")
            conn.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) "
                "INSERT INTO filler SELECT randomblob(3000) FROM n"
            )
            return None, True

        async def work(node: Node) -> Any:
            return await (await node.profile("p", branch)).write(op)

        txid = self.run(work).txid
        if self.models[branch].head == 0:
            self.committed(branch, txid - 1, {})
        self.committed(branch, txid, self.models[branch].state)

    @rule(pick=st.integers(0, 5), name=st.sampled_from(["cp-x", "cp-y"]))
    def checkpoint(self, pick: int, name: str) -> None:
        branch = self.name(pick)
        made = self.run(lambda node: node.branches.checkpoint("p", branch, name))
        if self.models[branch].head == 0:
            self.committed(branch, made.txid, {})
        assert made.txid == self.models[branch].head
        self.checkpoints[branch, name] = made.txid

    @rule(pick=st.integers(0, 5))
    def ship(self, pick: int) -> None:
        branch = self.name(pick)
        durable_txid = self.run(lambda node: node.branches.sync("p", branch))
        assert durable_txid == self.models[branch].head

    @rule(pick=st.integers(0, 5))
    def compact(self, pick: int) -> None:
        """Let compaction run until nothing is due."""
        branch = self.name(pick)

        async def work(node: Node) -> None:
            owned = await (await node.profile("p", branch)).own()
            await owned.shipper.ship()
            while (job := owned.shipper.compactor.running) is not None:
                await asyncio.wait([job])
                await owned.shipper.ship()

        before = self.models[branch].head
        self.run(work)
        if before == 0:
            txid = self.run(lambda node: node.branches.sync("p", branch))
            self.committed(branch, txid, {})

    @rule(pick=st.integers(0, 5), at=st.integers(0, 50))
    def fork(self, pick: int, at: int) -> None:
        if len(self.models) >= 4:
            return
        branch, name = self.name(pick), f"f{len(self.models)}"
        model = self.models[branch]
        txids = [t for t in sorted(model.history) if t > 0]
        if not txids:
            return
        self.run(lambda node: node.branches.sync("p", branch))
        txid = txids[at % len(txids)]
        made = self.run(lambda node: node.branches.create("p", name, from_branch=branch, at=str(txid)))
        assert made.fork_txid == txid
        self.models[name] = BranchModel({t: s for t, s in model.history.items() if t <= txid})

    @rule(pick=st.integers(0, 5), at=st.integers(0, 50), by_count=st.booleans())
    def look_back(self, pick: int, at: int, by_count: bool) -> None:
        branch = self.name(pick)
        model = self.models[branch]
        txids = [t for t in sorted(model.history) if t > 0]
        if not txids:
            return
        txid = txids[at % len(txids)]
        revision = f"head~{len(txids) - 1 - at % len(txids)}" if by_count else str(txid)

        async def work(node: Node) -> Any:
            return await (await node.past("p", branch, parse(revision))).read(dump)

        seen = self.run(work)
        assert (seen.value, seen.txid) == (model.history[txid], txid), f"{branch} at {revision}"

    @rule(pick=st.integers(0, 5), at=st.integers(0, 50))
    def rewind(self, pick: int, at: int) -> None:
        branch = self.name(pick)
        model = self.models[branch]
        txids = [t for t in sorted(model.history) if t > 0]
        if not txids:
            return
        txid = txids[at % len(txids)]
        before = model.head
        rewound = self.run(lambda node: node.branches.rewind("p", branch, str(txid)))
        assert rewound.undo_txid == before
        self.committed(branch, rewound.txid, model.history[txid])
        model.rewound_from = rewound.txid, before

    @rule(pick=st.integers(0, 5))
    def undo(self, pick: int) -> None:
        branch = self.name(pick)
        model = self.models[branch]

        async def work(node: Node) -> Any:
            profile = await node.profile("p", branch)
            try:
                return await node.branches.undo_rewind("p", branch), profile.txid
            except ConflictError:
                return None, profile.txid

        undone, txid = self.run(work)
        if model.rewound_from is None or model.rewound_from[0] != model.head:
            assert undone is None
            if model.head == 0:
                self.committed(branch, txid, {})
            return
        _, back_to = model.rewound_from
        before = model.head
        self.committed(branch, undone.txid, model.history[back_to])
        model.rewound_from = undone.txid, before

    # ---- what happens to the node

    @rule(pick=st.integers(0, 5))
    def evict(self, pick: int) -> None:
        branch = self.name(pick)

        async def work(node: Node) -> Any:
            profile = await node.profile("p", branch)
            return await node.tiers.evict(profile), profile.files.exists()

        evicted, exists = self.run(work)
        assert evicted
        assert not exists

    @rule(pick=st.integers(0, 5))
    def close_to_warm(self, pick: int) -> None:
        branch = self.name(pick)

        async def work(node: Node) -> Any:
            return await (await node.profile("p", branch)).close()

        assert self.run(work)

    @rule()
    def restart(self) -> None:
        self.driver.stop()
        self.driver = self.boot(self.driver.data_dir)

    @rule()
    def kill(self) -> None:
        """As by kill -9: the files stay as they are, nothing is shipped or closed."""
        self.lives += 1
        data_dir = self.folder / f"node-{self.lives}"
        shutil.copytree(self.driver.data_dir, data_dir)
        self.driver.store.cut = True
        self.driver.stop()
        self.driver = self.boot(data_dir)

    @rule()
    def lose_the_disk(self) -> None:
        """Everything durable comes back; what was only local is gone, and its txids are not used again."""
        heads = self.run(self.heads_at_the_end)
        for branch, model in self.models.items():
            model.history = {t: s for t, s in model.history.items() if t <= heads[branch]} or {0: {}}
        self.lives += 1
        self.driver.stop()
        self.driver = self.boot(self.folder / f"node-{self.lives}")
        if "p" not in [d.name for d in self.run(lambda node: node.databases.list())]:
            assert set(self.models) == {"main"}
            assert heads["main"] == 0
            self.models["main"].used.clear()
            self.run(lambda node: node.databases.create("p"))

    async def heads_at_the_end(self, node: Node) -> dict[str, int]:
        """Cut the node off, and return the head of each branch in the bucket: nothing lands any more."""
        refs = {branch: (await node.profile("p", branch)).ref for branch in self.models}
        store = self.driver.store
        await store.pull()
        heads = {}
        for branch, ref in refs.items():
            key = layout.manifest_key(ref.database.uuid, ref.branch_id)
            try:
                heads[branch] = manifests.decode((await store.inner.get(key)).data).head_txid
            except ObjectMissingError:
                heads[branch] = 0
        return heads

    # ---- what must hold

    def manifest(self, branch: str) -> Manifest | None:
        """Return the branch's manifest as it stands, with the entries of its history pages in it."""

        async def work(node: Node) -> Manifest | None:
            profile = await node.profile("p", branch)
            file = node._services.manifest_file(profile.ref.database.uuid, profile.ref.branch_id)
            current = await file.load()
            return await node._services.archive.whole(current) if current is not None else None

        return self.run(work)

    def verification_finds_nothing(self) -> None:
        """Whatever has happened, what the store has is whole: every state restores, and nothing contradicts itself."""

        async def work(node: Node) -> list[dict[str, Any]]:
            lines = await node.verifications.begin("p", None, deep=True, seed=None)
            try:
                async with aclosing(lines.chunks()) as chunks:
                    return [json.loads(chunk) async for chunk in chunks]
            finally:
                lines.close()

        *events, summary = self.run(work)
        assert [event for event in events if event["event"] == "finding"] == []
        assert (summary["outcome"], summary["unfinished"]) == ("clean", [])

    @invariant()
    def live_states_are_the_models(self) -> None:
        for branch, model in self.models.items():

            async def work(node: Node, branch: str = branch) -> Any:
                return await (await node.profile("p", branch)).read(dump)

            seen = self.run(work)
            assert seen.value == model.state, branch
            assert seen.txid == model.head

    @invariant()
    def every_retained_txid_restores_exactly(self) -> None:
        for branch, model in self.models.items():
            manifest = self.manifest(branch)
            if manifest is None:
                continue
            named = self.run(lambda node, m=manifest: node._services.archive.all(CHECKPOINTS, m))
            for (name, checkpoint), txid in self.checkpoints.items():
                if name == branch and txid <= manifest.head_txid:
                    assert named[checkpoint].txid == txid
            for txid, state in model.history.items():
                if 0 < txid <= manifest.head_txid:
                    assert contains(manifest, txid), f"{branch} lost txid {txid}"
                    assert self.restored(manifest, txid) == state, f"{branch} at txid {txid}"

    def restored(self, manifest: Manifest, txid: int) -> State:
        path = self.folder / "restored.db"
        work = restore(self.driver.bucket, manifest, txid, path, executor=InlineExecutor(), fsync=False)
        self.driver.loop.run_until_complete(work)
        conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=256)
        try:
            assert conn.execute("PRAGMA integrity_check").get == "ok"
            return dump(conn, 0)
        finally:
            conn.close()
            for leftover in path.parent.glob("restored.db*"):
                leftover.unlink()


def put(key: str, value: str) -> Callable[[apsw.Connection, int], tuple[None, bool]]:
    def op(conn: apsw.Connection, _now_ms: int) -> tuple[None, bool]:
        conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', ?, ?)", (key, value))
        return None, True

    return op


def put_then_fail(key: str) -> Callable[[apsw.Connection, int], tuple[None, bool]]:
    def op(conn: apsw.Connection, now_ms: int) -> tuple[None, bool]:
        put(key, "must not stay")(conn, now_ms)
        raise RuntimeError("failed on purpose")

    return op


def dump(conn: apsw.Connection, _now_ms: int) -> State:
    return dict(conn.execute("SELECT k, v FROM __memoturn_kv").fetchall())


TestProfile = ProfileMachine.TestCase
TestProfile.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
