"""A node under load is killed with SIGKILL again and again; nothing that it acknowledged may be missing.

With the disk alive every acknowledged write must be there; every third life begins without the disk, and
everything durable must be there. Txids only grow. At the end each branch is restored from the object store
alone, is whole by SQLite's own check, and shows exactly what the model says.

The seed is printed with a failure; CRASH_SEED=... makes the same choices again (a kill never falls on the
same instruction twice).
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import httpx
import pytest
from crash_load import NAMESPACE, Load, bulk_of, value_of
from crash_model import BranchModel, Item, Part
from processes import NodeHome, RunningNode
from servers import settings_of

from memoturnd.core import manifest, register
from memoturnd.core.register import Register
from memoturnd.replication.restore import restore
from memoturnd.seams.executor import InlineExecutor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore
from memoturnd.stores.open import open_store

DISK_LOST_EVERY = 3
OLDER_LIVES = 2
"""Earlier lives whose writes are looked at again after each crash, chosen at random; at the end it is all."""
OLDER_BRANCHES = 8


class PatientTransport(httpx.AsyncBaseTransport):
    """Sends again what a busy node turned away: right after a start it is recovering, perhaps in a small pool."""

    def __init__(self, inner: httpx.AsyncHTTPTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(100):
            answer = await self._inner.handle_async_request(request)
            if answer.status_code not in {429, 503}:
                return answer
            await answer.aread()
            await asyncio.sleep(0.1)
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


class CrashLoop:
    """One run of the loop: the models of all branches, and the nodes that come and go."""

    def __init__(self, home: NodeHome, seed: int) -> None:
        self.home = home
        self.rng = random.Random(seed)
        self.steady = [BranchModel(f"{NAMESPACE}--steady{i}") for i in range(2)]
        self.bulk = BranchModel(f"{NAMESPACE}--bulk")
        self.nap = BranchModel(f"{NAMESPACE}--nap")
        self.others: list[BranchModel] = []
        self.unknown_forks: list[BranchModel] = []
        self.counts: dict[str, int] = {}
        self.longest_log_bytes = 0

    @property
    def branches(self) -> list[BranchModel]:
        return [*self.steady, self.bulk, self.nap, *self.others]

    async def life(self, number: int) -> None:
        """Start a node on what the last one left, check what it owes, put it under load, kill it."""
        disk_lost = number > 0 and number % DISK_LOST_EVERY == 0
        if disk_lost:
            self.home.lose_disk()
        if number > 0 and self.rng.random() < 0.3:
            self._die_while_starting()
        node = self.home.start(**self._settings())
        async with self._client(node) as client:
            if number > 0:
                await self._settle(client, number, disk_lost=disk_lost)
        await self._load(node, number)

    def _settings(self) -> dict[str, str]:
        choose = self.rng.choice
        return {
            "SHIP_INTERVAL_MS": choose(["5", "50", "500", "2000"]),
            "SYNC": choose(["normal", "normal", "full"]),
            "WARM_AFTER_S": choose(["0.1", "0.5"]),
            "COLD_AFTER_S": "0.5",
            "HOT_CAP": choose(["4", "50000", "50000"]),
            "LOG_LEVEL": "warning",
        }

    def _die_while_starting(self) -> None:
        node = self.home.start(wait=False, **self._settings())
        time.sleep(0.3 + 0.5 * self.rng.random())
        node.kill()

    @asynccontextmanager
    async def _client(self, node: RunningNode) -> AsyncIterator[httpx.AsyncClient]:
        transport = PatientTransport(httpx.AsyncHTTPTransport())
        async with httpx.AsyncClient(transport=transport, base_url=node.url, timeout=15) as client:
            yield client

    # ---- load

    async def _load(self, node: RunningNode, number: int) -> None:
        load = Load(node.url, number, self.rng)
        if number == 0:
            for branch in self.branches:
                assert await load.write(branch, "maker", kind="memory")
        fresh = [BranchModel(f"{NAMESPACE}--fresh{number}-{i}") for i in range(2)]
        older = self.rng.sample(self.others, min(2, len(self.others)))
        forks = [b for b in self.others if b.parent is not None][-2:]
        self.others += fresh
        parts = [load.steady(b, f"w{i}", 0.02) for b in self.steady for i in range(2)]
        parts += [load.steady(b, "late", 0.1) for b in {*older, *forks}]
        parts += [load.first_writes(b) for b in fresh]
        parts += [
            load.bursts(self.nap, "nap"),
            load.history(self.steady[1], self.others.append),
            load.reads(self.branches),
            load.watch_logs(self.home.data_dir),
        ]
        if self.rng.random() < 0.6:
            parts += [load.bulk(self.bulk, writer) for writer in range(2)]
        try:
            await load.run(parts, self._kill(node, load))
        finally:
            self.unknown_forks += load.unknown_forks
            self.longest_log_bytes = max(self.longest_log_bytes, load.longest_log_bytes)
            for what, count in load.counts.items():
                self.counts[what] = self.counts.get(what, 0) + count

    async def _kill(self, node: RunningNode, load: Load) -> None:
        """Kill the node at a random time, or right after something that is worth interrupting was sent."""
        rng = self.rng
        moment = rng.choice(["time", "time", "late", "rewind", "first write", "fork", "long log"])
        match moment:
            case "time":
                await asyncio.sleep(0.05 + 1.2 * rng.random())
            case "late":  # long enough to go warm and cold in
                await asyncio.sleep(1.5 + 2 * rng.random())
            case _:
                if moment != "first write":
                    await asyncio.sleep(0.5 * rng.random())
                    load.marks[moment].clear()
                try:
                    await asyncio.wait_for(load.marks[moment].wait(), 1.5)
                except TimeoutError:
                    moment = f"no {moment}"
                await asyncio.sleep(0.03 * rng.random())
        self.counts[f"killed: {moment}"] = self.counts.get(f"killed: {moment}", 0) + 1
        load.killing = True
        node.kill()

    # ---- what must hold

    async def _settle(self, client: httpx.AsyncClient, number: int, *, disk_lost: bool) -> None:
        """Compare what the restarted node serves with what the models promise."""
        await self._settle_forks(client)
        branches = self.branches
        if not disk_lost and len(branches) > 2 * OLDER_BRANCHES:
            recent = [b for b in branches[:-OLDER_BRANCHES] if any(i.life == number - 1 for i in b.items)]
            older = self.rng.sample(branches, OLDER_BRANCHES)
            branches = list({id(b): b for b in (*branches[-OLDER_BRANCHES:], *recent, *older)}.values())
        for branch in branches:
            await self._settle_branch(client, branch, number, disk_lost=disk_lost)

    async def _settle_forks(self, client: httpx.AsyncClient) -> None:
        """Learn which forks without an answer exist; one that was only half made can be made again."""
        unknown, self.unknown_forks = self.unknown_forks, []
        for child in unknown:
            db, _, name = child.spec.partition("@")
            listed = (await get(client, f"/v1/db/{db}/branches"))["branches"]
            txids = [row["fork_txid"] for row in listed if row["branch"] == name]
            if not txids or (await client.get(f"/v1/db/{child.spec}/kv/load?limit=1")).status_code == 404:
                # Made anew it would start at a state that is not settled yet; that it can be made is enough.
                answer = await client.post(f"/v1/db/{db}/branches", json={"name": name})
                assert answer.status_code == 201, answer.text
                continue
            (child.fork_txid,) = txids
            self.others.append(child)

    async def _settle_branch(
        self, client: httpx.AsyncClient, branch: BranchModel, number: int, *, disk_lost: bool
    ) -> None:
        answer = await client.get(f"/v1/db/{branch.spec}/kv/load?limit=1")
        if answer.status_code == 404 and not branch.acknowledged:
            self.others = [other for other in self.others if other is not branch]
            return
        assert answer.status_code == 200, f"{branch.spec}: {answer.status_code} {answer.text}"
        branch.settle(int(answer.headers["memoturn-txid"]), disk_lost=disk_lost)
        lives = {number - 1, *(self.rng.randrange(number) for _ in range(OLDER_LIVES))}
        if branch.rewind_sent is not None:
            lives = set(range(number))
        items = [item for item, _ in branch.expected() if item.life in lives]
        found = await self._found(client, branch, items)
        if branch.rewind_sent is not None and branch.resolve_rewind(found):
            self.counts["rewind without an answer"] = self.counts.get("rewind without an answer", 0) + 1
        check(branch, found, lives)
        for key in branch.overwrites:
            answer = await client.get(f"/v1/db/{branch.spec}/kv/bulk/{key}")
            check_value(branch, key, answer.content if answer.status_code == 200 else None)

    async def _found(self, client: httpx.AsyncClient, branch: BranchModel, items: list[Item]) -> set[Part]:
        """Return which parts of `items` the node serves."""
        db, found = f"/v1/db/{branch.spec}", set[Part]()
        writers = {(kind, key.rpartition(".")[0]) for item in items for kind, key in item.parts}
        for kind, writer in sorted(writers):
            if kind == "kv":
                keys = (await get(client, f"{db}/kv/load?prefix={writer}.&limit=1000"))["keys"]
                found |= {("kv", key) for key in keys}
                for key in self.rng.sample(keys, min(3, len(keys))):
                    assert (await client.get(f"{db}/kv/load/{key}")).content == value_of(key)
            elif kind == "turn":
                turns = (await get(client, f"{db}/memory/{writer}/turns?last=1000"))["turns"]
                found |= {("turn", turn["content"]) for turn in turns}
                assert [turn["seq"] for turn in turns] == list(range(1, len(turns) + 1)), writer
        if any(kind == "sql_a" for kind, _ in writers):
            for table in "ab":
                for life in {item.life for item in items}:
                    rows = await client.post(
                        f"{db}/sql",
                        json={"stmts": [{"q": f"SELECT id FROM {table} WHERE life = ?", "params": [life]}]},
                    )
                    if rows.status_code == 200:
                        found |= {(f"sql_{table}", key) for (key,) in rows.json()["results"][0]["rows"]}
                    else:
                        assert "no such table" in rows.text
        name, _, at = branch.spec.partition("@")
        for item in items:
            for part, memory_id in zip(item.parts, item.memory_ids, strict=False):
                path = f"/v1/memory/{name.replace('--', '/')}/memories/{memory_id}"
                answer = await client.get(path, params={"branch": at} if at else {})
                if answer.status_code == 200:
                    # An id is made of type, topic and content: once lost, another summary may take it.
                    theirs = answer.json()["summary"] == part[1]
                    assert theirs or item.lost
                    found |= {part} if theirs else set()
        return found

    async def finish(self, number: int) -> None:
        """Ship everything, stop well, and compare restored copies with everything that was ever promised."""
        node = self.home.start()
        async with self._client(node) as client:
            await self._settle(client, number, disk_lost=False)
            for branch in self.branches:
                answer = await client.post(f"/v1/db/{branch.spec}/sync")
                assert answer.status_code == 200, f"{branch.spec}: {answer.status_code} {answer.text}"
                assert answer.json()["durable_txid"] >= branch.seen_txid
        assert node.stop() == 0
        self.home.lose_disk()
        store = open_store(self.home.object_store)
        try:
            copies = {spec: path async for spec, path in self._restored(store)}
        finally:
            await store.close()
        for branch in self.branches:
            if branch.spec in copies:
                check_copy(branch, copies[branch.spec])
            else:
                assert not branch.acknowledged, f"{branch.spec} is not in the object store"

    async def _restored(self, store: ObjectStore) -> AsyncIterator[tuple[str, Path]]:
        """Yield (spec, file) of every branch in the object store, restored."""
        folder = self.home.folder / "copies"
        folder.mkdir()
        async for info in store.list("v1/"):
            if not info.key.endswith("/database.json"):
                continue
            known: Register = register.decode((await store.get(info.key)).data)
            for name, entry in known.branches.items():
                assert not name.startswith("recovered-"), f"{known.name}: a tail did not fit its branch"
                try:
                    blob = await store.get(f"v1/{known.uuid}/branches/{entry.id}/manifest.json")
                except ObjectMissingError:
                    continue  # a fork that was cut off half way, or main before its first write
                current = manifest.decode(blob.data)
                if current.head_txid == 0:
                    continue
                path = folder / f"{entry.id}.db"
                await restore(store, current, current.head_txid, path, executor=InlineExecutor(), fsync=False)
                yield known.name if name == "main" else f"{known.name}@{name}", path


def check(branch: BranchModel, found: set[Part], lives: set[int] | None = None) -> None:
    """Assert that what was found of the writes of `lives` (None: of all) is what the model says."""
    for item, must in branch.expected():
        if lives is not None and item.life not in lives:
            continue
        there = [part in found for part in item.parts]
        if item.parts[0][0] == "memory" and not item.memory_ids and lives is not None:
            continue  # without its id, only a restored copy shows it
        assert len(set(there)) == 1, f"{branch.spec}: {item} is half there"
        assert must is None or there[0] == must, (
            f"{branch.spec}: {item} is {'there' if there[0] else 'missing'}; rewinds {branch.rewinds}, "
            f"forked at {branch.fork_txid}, durable {branch.durable_txid}"
        )


def check_value(branch: BranchModel, key: str, value: bytes | None) -> None:
    """Assert that an overwritten key has one of the values that it may have, whole."""
    number = 0 if value is None else int.from_bytes(value[:8], "big")
    assert value is None or value == bulk_of(number), f"{branch.spec}: {key} is torn"
    assert number in branch.allowed_numbers(key), f"{branch.spec}: {key} is {number}"


def check_copy(branch: BranchModel, path: Path) -> None:
    """Assert that a restored file is whole, and shows what the model says."""
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert conn.execute("PRAGMA integrity_check").get == "ok", branch.spec
        check(branch, found_in(conn))
        for key in branch.overwrites:
            row = conn.execute("SELECT v FROM __memoturn_kv WHERE ns = 'bulk' AND k = ?", (key,)).fetchone()
            check_value(branch, key, row[0] if row else None)
    finally:
        conn.close()


def found_in(conn: apsw.Connection) -> set[Part]:
    """Return every part that a file holds."""
    queries = {
        "kv": "SELECT k FROM __memoturn_kv WHERE ns = 'load'",
        "turn": "SELECT json_extract(content, '$') FROM __memoturn_messages",
        "memory": "SELECT summary FROM __memoturn_memories",
    }
    for table in "ab":
        if conn.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (table,)).get:
            queries[f"sql_{table}"] = f"SELECT id FROM {table}"
    return {(kind, key) for kind, query in queries.items() for (key,) in conn.execute(query)}


async def get(client: httpx.AsyncClient, path: str) -> dict[str, list]:
    answer = await client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
    return answer.json()


def say(*what: object) -> None:
    print(*what, flush=True)  # noqa: T201 - the seed, for whoever reads a failure


async def crash_loop(folder: Path, lives: int, **env: str) -> CrashLoop:
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"CRASH_SEED={seed}")
    with NodeHome(folder, **env) as home:
        loop = CrashLoop(home, seed)
        for number in range(lives):
            try:
                await loop.life(number)
            except BaseException as error:
                error.add_note(f"in life {number} of CRASH_SEED={seed}; files are in {folder}")
                raise
        await loop.finish(lives)
        say(dict(sorted(loop.counts.items())), f"longest log {loop.longest_log_bytes >> 20} MiB")
        assert "Traceback" not in home.log()
        assert "unexpectedly" not in home.log()
        shutil.rmtree(folder)
        return loop


@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_missing_after_kill_9(tmp_path):
    loop = await crash_loop(tmp_path / "home", 10)

    assert loop.counts["durable"] > 0
    assert loop.counts["local"] > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_nothing_acknowledged_is_missing_after_kill_9_a_hundred_times(tmp_path):
    loop = await crash_loop(tmp_path / "home", 100)

    assert loop.counts["rewind"] > 10
    assert loop.counts["fork"] > 10
    assert loop.longest_log_bytes > 16 << 20


@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_missing_after_kill_9_with_a_real_bucket(tmp_path, s3_server):
    with settings_of(s3_server):
        loop = await crash_loop(tmp_path / "home", 4, OBJECT_STORE=s3_server.fresh_url())

    assert loop.counts["durable"] > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("client", ["aiobotocore", "obstore"])
async def test_nothing_acknowledged_is_missing_after_kill_9_for_long_with_a_real_bucket(
    tmp_path, s3_server, client
):
    with settings_of(s3_server):
        loop = await crash_loop(tmp_path / "home", 50, OBJECT_STORE=s3_server.fresh_url(), S3_CLIENT=client)

    assert loop.counts["fork"] > 5
