"""The load of the crash loop: concurrent writers that note in the model what they were promised."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from crash_model import BranchModel, Item, Overwrite

NAMESPACE = "crash"
BULK_BYTES = 400_000
BULK_KEYS = 6
_NOT_APPLIED = {409, 429, 503}
_UNKNOWN = {408}
_LEVEL = "memoturn-durability"


class Load:
    """One life of a node: everything that is sent to it until it is killed."""

    def __init__(self, url: str, life: int, rng: random.Random) -> None:
        self.life = life
        self.rng = rng
        self.counts: dict[str, int] = {}
        self.marks = {name: asyncio.Event() for name in ("first write", "rewind", "fork", "long log")}
        self.failures: list[str] = []
        self.unknown_forks: list[BranchModel] = []
        self.longest_log_bytes = 0
        self.gone = False
        self.killing = False
        # Idle connections go before the node would close them, so that none breaks while the node lives.
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=1)
        self.client = httpx.AsyncClient(base_url=url, timeout=15, limits=limits)
        self._number = 0

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    async def send(self, method: str, path: str, **request: object) -> httpx.Response | None:
        """Send a request; None when no answer came, which is what a kill does."""
        try:
            answer = await self.client.request(method, path, **request)
        except httpx.TransportError as error:
            if not self.killing:
                self.failures.append(f"{method} {path}: {error!r} while the node lived")
            self.gone = True
            return None
        if answer.status_code >= 500 and answer.status_code != 503 and _LEVEL not in answer.headers:
            self.failures.append(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def _headers(self, durable: bool) -> dict[str, str]:
        return {_LEVEL: "durable" if durable else "local"}

    def _settle(self, branch: BranchModel, write: Item | Overwrite, answer: httpx.Response | None) -> bool:
        """Note what the answer to a write promises; return whether it was applied."""
        if answer is None:
            return False
        if answer.status_code in {200, 201}:
            txid, durable_txid = (int(answer.headers[f"memoturn-{n}"]) for n in ("txid", "durable-txid"))
            branch.answered(txid, durable_txid)
            reached = answer.headers[_LEVEL]
            assert reached == "local" or durable_txid >= txid, dict(answer.headers)
            write.txid = txid
            self.count(reached)
            return True
        if _LEVEL in answer.headers or answer.status_code in _UNKNOWN:
            return False  # applied, but not as durable as was asked
        if answer.status_code not in _NOT_APPLIED:
            self.failures.append(f"{answer.request.url}: {answer.status_code} {answer.text}")
        write.refused = True
        self.count("refused")
        return False

    async def write(self, branch: BranchModel, writer: str, *, kind: str = "") -> bool:
        """Write something small, of a random kind unless given; return whether it was acknowledged."""
        self._number += 1
        durable = self.rng.random() < 0.3
        kind = kind or self.rng.choice(["kv", "kv", "sql", "memory", "turn"])
        if "@" in branch.spec and kind == "memory":
            kind = "kv"
        key, headers = f"{writer}-{self.life}.{self._number}", self._headers(durable)
        db = f"/v1/db/{branch.spec}"
        item = Item(parts=((kind, key),), life=self.life)
        match kind:
            case "kv":
                request = self.send("PUT", f"{db}/kv/load/{key}", content=value_of(key), headers=headers)
            case "sql":
                item.parts = (("sql_a", key), ("sql_b", key))
                stmts = [
                    {"q": "CREATE TABLE IF NOT EXISTS a (id TEXT PRIMARY KEY, life INTEGER)"},
                    {"q": "CREATE TABLE IF NOT EXISTS b (id TEXT PRIMARY KEY, life INTEGER)"},
                    {"q": "INSERT INTO a VALUES (?, ?)", "params": [key, self.life]},
                    {"q": "INSERT INTO b VALUES (?, ?)", "params": [key, self.life]},
                ]
                request = self.send("POST", f"{db}/sql", json={"stmts": stmts}, headers=headers)
            case "memory":
                item.parts = tuple(("memory", f"{key}.{part}") for part in range(2))
                memories = [{"type": "event", "summary": name} for _, name in item.parts]
                path = f"/v1/memory/{branch.spec.replace('--', '/')}/memories"
                request = self.send("POST", path, json={"memories": memories}, headers=headers)
            case _:
                turn = {"role": "user", "content": key}
                path = f"{db}/memory/{key.rpartition('.')[0]}/turns"
                request = self.send("POST", path, json=turn, headers=headers)
        branch.items.append(item)
        answer = await request
        applied = self._settle(branch, item, answer)
        if applied and kind == "memory" and answer is not None:
            item.memory_ids = tuple(result["id"] for result in answer.json()["results"])
        return applied

    # ---- the parts of the load, each until the node is gone

    async def steady(self, branch: BranchModel, writer: str, pause_s: float) -> None:
        """Small writes one after the other, with pauses up to `pause_s`."""
        while not self.gone:
            await self.write(branch, writer)
            await asyncio.sleep(self.rng.random() * pause_s)

    async def bursts(self, branch: BranchModel, writer: str) -> None:
        """Writes with long pauses between, in which the branch is closed and goes cold."""
        while not self.gone:
            for _ in range(5):
                await self.write(branch, writer)
            await asyncio.sleep(0.8 + self.rng.random())

    async def first_writes(self, branch: BranchModel) -> None:
        """Many first writes at once to a profile that does not exist yet."""
        await asyncio.sleep(self.rng.random() * 0.5)
        self.marks["first write"].set()
        async with asyncio.TaskGroup() as group:
            for index in range(4):
                group.create_task(self.write(branch, f"first{index}", kind="memory"))
        await self.write(branch, "second")

    async def bulk(self, branch: BranchModel, writer: int) -> None:
        """Large values over the same few keys, which make the log long and snapshots due."""
        while not self.gone:
            key = f"big-{writer}-{self.rng.randrange(BULK_KEYS)}"
            self._number += 1
            write = Overwrite(self.life * 1_000_000 + self._number)
            branch.overwrites.setdefault(key, []).append(write)
            headers = self._headers(durable=self.rng.random() < 0.05)
            path = f"/v1/db/{branch.spec}/kv/bulk/{key}"
            answer = await self.send("PUT", path, content=bulk_of(write.number), headers=headers)
            if not self._settle(branch, write, answer):
                await asyncio.sleep(0.01)

    async def history(self, branch: BranchModel, forked: Callable[[BranchModel], None]) -> None:
        """Forks, checkpoints, rewinds and their undoing, one at a time."""
        db, made = f"/v1/db/{branch.spec}", 0
        while not self.gone:
            await asyncio.sleep(0.02 + self.rng.random() * 0.2)
            kind = self.rng.choice(["fork", "rewind", "rewind", "undo", "checkpoint"])
            acked = [i.txid for i in branch.items[-40:] if i.txid is not None and not i.lost]
            if kind == "fork":
                made += 1
                await self._fork(branch, f"f{self.life}-{made}", forked)
            elif kind == "rewind" and acked:
                await self._rewind(branch, f"{db}/branches/main/rewind", self.rng.choice(acked))
            elif kind == "undo":
                await self._undo(branch, f"{db}/branches/main/rewind/undo")
            elif kind == "checkpoint":
                await self.send("POST", f"{db}/branches/main/checkpoint", json={"name": f"c{made}"})

    async def _fork(self, branch: BranchModel, name: str, forked: Callable[[BranchModel], None]) -> None:
        child = BranchModel(f"{branch.spec}@{name}", parent=branch)
        self.marks["fork"].set()
        answer = await self.send("POST", f"/v1/db/{branch.spec}/branches", json={"name": name})
        if answer is None:
            self.unknown_forks.append(child)
        elif answer.status_code == 201:
            self.count("fork")
            child.fork_txid = answer.json()["fork_txid"]
            child.seen_txid = child.durable_txid = child.floor_txid = child.fork_txid
            forked(child)

    async def _rewind(self, branch: BranchModel, path: str, txid: int) -> None:
        branch.rewind_sent = txid
        self.marks["rewind"].set()
        self._rewound(branch, await self.send("POST", path, json={"to": str(txid)}))

    async def _undo(self, branch: BranchModel, path: str) -> None:
        if branch.undo_txid is not None:
            branch.rewind_sent = branch.undo_txid
            self._rewound(branch, await self.send("POST", path))

    def _rewound(self, branch: BranchModel, answer: httpx.Response | None) -> None:
        if answer is None:
            return
        if answer.status_code == 200:
            body = answer.json()
            branch.rewinds.append((body["txid"], body["rewound_to"]))
            branch.answered(body["txid"], int(answer.headers["memoturn-durable-txid"]))
            assert answer.headers[_LEVEL] == "durable"
            self.count("rewind")
            branch.undo_txid = body["undo_txid"]
        branch.rewind_sent = None

    async def reads(self, branches: list[BranchModel]) -> None:
        """Wake random branches by reading them."""
        while not self.gone:
            await asyncio.sleep(self.rng.random() * 0.3)
            branch = self.rng.choice(branches)
            answer = await self.send("GET", f"/v1/db/{branch.spec}/kv/load?limit=1")
            if answer is not None and answer.status_code == 200:
                branch.noted(
                    int(answer.headers["memoturn-txid"]), int(answer.headers["memoturn-durable-txid"])
                )

    async def watch_logs(self, data_dir: Path) -> None:
        """Note how long the longest write-ahead log gets."""
        while not self.gone:
            for path in data_dir.glob("dbs/*/*/*/main.db-wal"):
                try:
                    self.longest_log_bytes = max(self.longest_log_bytes, path.stat().st_size)
                except OSError:
                    continue
            if self.longest_log_bytes > self.rng.choice([1 << 20, 16 << 20]):
                self.marks["long log"].set()
            await asyncio.sleep(0.02)

    async def run(self, parts: list[Awaitable[None]], until: Awaitable[None]) -> None:
        """Run the parts until `until` returns; raises what a part raised."""
        tasks = [asyncio.ensure_future(part) for part in parts]
        ending = asyncio.ensure_future(until)
        try:
            waiting = {ending, *tasks}
            while not ending.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {ending}:
                    task.result()
            ending.result()
            self.gone = True
            done, _ = await asyncio.wait(tasks, timeout=1)  # answers that were on their way count
            for task in done:
                task.result()
        finally:
            for task in (*tasks, ending):
                task.cancel()
            await asyncio.gather(*tasks, ending, return_exceptions=True)
            await self.client.aclose()
        assert not self.failures, self.failures[:5]


def value_of(key: str) -> bytes:
    """Return the value that a small key has."""
    return f"value of {key}".encode()


def bulk_of(number: int) -> bytes:
    """Return a large value that says its number and does not compress."""
    return number.to_bytes(8, "big") + random.Random(number).randbytes(BULK_BYTES)
