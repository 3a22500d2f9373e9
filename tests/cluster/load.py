"""Clients of a cluster, who record what they did and what they were told; and the verdict on it.

Each client sends through one of the given addresses, half of its writes with an `Idempotency-Key`, and has one role: it
writes at one level, or only reads, so that who waits for one level says nothing of another. In every database there are
registers of one level (`durable` or `replicated`), which are read, put and swapped, keys that are written once at `local`,
memories, and a bank whose transfers are one SQL batch each.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from histories import FOREVER, OK, History, Operation, by_key
from linearizability import violations
from prefixes import Books, bank_violations, local_violations, lost_runs

LEVELS = ("local", "replicated", "durable")
READER, CACHED = "reader", "cached"
ACCOUNTS = 5
OPENING = {f"a{number}": 100 for number in range(ACCOUNTS)}
KEY_OPERATIONS = 300
"""After so many operations a register is left for a new one: the checker's search is bounded."""
TIMEOUT_S = 15.0
EXPECTED = {"overloaded", "unavailable", "not_durable", "outcome_unknown", "request_timeout", "conflict"}
"""Codes of answers that faults may cause. `Memoturn-Applied: false` says which of them changed nothing."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What an answer said, or (`status` 0) that there was none."""

    status: int
    headers: dict[str, str]
    body: bytes
    json: Any = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        return str(self.json["code"]) if isinstance(self.json, dict) and "code" in self.json else "no answer"

    @property
    def txids(self) -> dict[str, int]:
        names = {"txid": "memoturn-txid", "durable_txid": "memoturn-durable-txid"}
        return {name: int(self.headers[header]) for name, header in names.items() if header in self.headers}


@dataclass
class Register:
    """One database's register of one level, as one client knows it."""

    generation: int = 0
    operations: int = 0
    seen: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """By client: the value and its etag as last read, of this generation."""


class Load:
    """Clients of some databases, from `run` until `stop`.

    `roles` are those of the clients, in turn: a level, READER, or CACHED for what replicas may answer.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token: str,
        databases: Sequence[str],
        *,
        seed: int = 0,
        clients: int = 10,
        roles: Sequence[str] = (*LEVELS, READER, CACHED),
        path: Path | None = None,
        pause_s: float = 0.01,
    ) -> None:
        self.history = History(path)
        self.unexpected: list[str] = []
        self.refusals: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        """Acknowledged writes that are not there any more, by the level that they were acknowledged at; known with the verdict."""
        self._urls, self._token, self._databases = urls, token, databases
        self._random = random.Random(seed)
        self._clients, self._roles, self._pause_s = clients, roles, pause_s
        self._levels = [role for role in roles if role not in {"local", READER, CACHED}]
        self._registers = {(db, level): Register() for db in databases for level in self._levels}
        self._books: list[tuple[str, Books]] = []
        self._stopped = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = iter(range(1 << 40))

    # ---- running

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=1),
        )
        for database in self._databases:
            await self._open(database)
        self._tasks = [
            asyncio.create_task(
                self._client(
                    f"c{number}",
                    self._urls[number // len(self._roles) % len(self._urls)],
                    self._roles[number % len(self._roles)],
                )
            )
            for number in range(self._clients)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._session is not None:
            await self._session.close()
        self.history.close()

    async def stop(self) -> None:
        """Let every client finish what it has sent."""
        self._stopped.set()
        done, waiting = await asyncio.wait(self._tasks, timeout=TIMEOUT_S + 5) if self._tasks else ((), ())
        for task in waiting:
            task.cancel()
        for task in done:
            task.result()
        self._tasks = []

    async def acknowledged(self, count: int = 1, *, within_s: float = 30, kind: str = "write") -> None:
        """Return once so many more writes were acknowledged."""
        wanted = self._count(kind) + count
        deadline = time.monotonic() + within_s
        while self._count(kind) < wanted:
            assert time.monotonic() < deadline, f"no {count} writes within {within_s} s: {self.refusals}"
            await asyncio.sleep(0.02)

    def _count(self, kind: str) -> int:
        return sum(o.outcome == OK and o.kind == kind for o in self.history.operations)

    async def _client(self, name: str, url: str, role: str) -> None:
        rng = random.Random(self._random.random())
        while not self._stopped.is_set():
            database, draw = rng.choice(self._databases), rng.random()
            if role == READER and (draw < 0.3 or not self._levels):
                await self._look(name, url, database, rng)
            elif role == CACHED:
                await self._read_cached(name, url, database, rng.choice(self._levels))
            elif role == READER:
                await self._read(name, url, database, rng.choice(self._levels))
            elif draw < 0.15:
                await self._transfer(name, url, database, role, rng)
            elif draw < 0.25:
                await self._ingest(name, url, database, role, rng)
            elif role == "local":
                await self._local_put(name, url, database, rng)
            else:
                await self._on_register(name, url, database, role, rng)
            await asyncio.sleep(self._pause_s * rng.random() * 2)

    # ---- what clients do

    def _register(self, database: str, level: str) -> tuple[Register, str]:
        """Count one more operation of the register of that level, and return it with its key."""
        register = self._registers[database, level]
        register.operations += 1
        if register.operations > KEY_OPERATIONS:
            register.generation, register.operations = register.generation + 1, 1
            register.seen.clear()
        return register, f"{level}-{register.generation}"

    async def _read(self, name: str, url: str, database: str, level: str) -> None:
        register, key = self._register(database, level)
        generation = register.generation
        operation = self.history.call(name, "read", f"{database}/{key}", level=READER)
        sent = await self._send("GET", f"{url}/v1/db/{database}/kv/r/{key}")
        if not sent.ok and sent.code != "not_found":
            self._refuse(operation, sent)
            return
        value = sent.body.decode() if sent.ok else None
        self.history.ok(operation, value, **sent.txids)
        if generation == register.generation:
            register.seen[name] = (value, sent.headers.get("etag"))

    async def _read_cached(self, name: str, url: str, database: str, level: str) -> None:
        """Read what a replica has: it may be older than what was acknowledged, so it proves nothing of the register."""
        key = f"{level}-{self._registers[database, level].generation}"
        operation = self.history.call(name, CACHED, f"{database}/{key}", level=CACHED)
        headers = {"Memoturn-Consistency": "cached"}
        sent = await self._send("GET", f"{url}/v1/db/{database}/kv/r/{key}", headers=headers)
        if sent.ok or sent.code == "not_found":
            self.history.ok(operation, **sent.txids)
        else:
            self._refuse(operation, sent)

    async def _on_register(self, name: str, url: str, database: str, level: str, rng: random.Random) -> None:
        draw = rng.random()
        if draw < 0.3 or name not in self._registers[database, level].seen:
            await self._read(name, url, database, level)
            return
        register, key = self._register(database, level)
        path, generation = f"/v1/db/{database}/kv/r/{key}", register.generation
        new = f"{name}.{next(self._numbers)}"
        headers = self._write_headers(level, rng)
        if draw < 0.7 or name not in register.seen:
            operation = self.history.call(name, "write", f"{database}/{key}", new, level=level)
        else:
            value, etag = register.seen[name]
            operation = self.history.call(name, "cas", f"{database}/{key}", (value, new), level=level)
            headers |= {"If-None-Match": "*"} if etag is None else {"If-Match": etag}
        sent = await self._send("PUT", f"{url}{path}", data=new.encode(), headers=headers)
        if sent.code == "precondition_failed":
            self.history.failed(operation, **sent.txids)
            register.seen.pop(name, None)
        elif self._settle(operation, sent) and generation == register.generation:
            register.seen[name] = (new, sent.headers.get("etag"))

    async def _local_put(self, name: str, url: str, database: str, rng: random.Random) -> None:
        value = f"{name}.{next(self._numbers)}"
        operation = self.history.call(name, "write", f"local/{database}", value, level="local")
        path = f"/v1/db/{database}/kv/l/{value}"
        headers = self._write_headers("local", rng)
        self._settle(operation, await self._send("PUT", f"{url}{path}", data=b"x", headers=headers))

    async def _transfer(self, name: str, url: str, database: str, level: str, rng: random.Random) -> None:
        transfer = f"{name}.{next(self._numbers)}"
        source, target = rng.sample(sorted(OPENING), 2)
        amount = rng.randint(1, 5)
        move = "update accounts set balance = balance + ? where id = ?"
        body = {
            "stmts": [
                {"q": move, "params": [-amount, source]},
                {"q": move, "params": [amount, target]},
                {
                    "q": "insert into ledger values (?, ?, ?, ?)",
                    "params": [transfer, source, target, amount],
                },
            ]
        }
        operation = self.history.call(name, "write", f"bank/{database}", transfer, level=level)
        headers = self._write_headers(level, rng)
        self._settle(
            operation, await self._send("POST", f"{url}/v1/db/{database}/sql", json=body, headers=headers)
        )

    async def _ingest(self, name: str, url: str, database: str, level: str, rng: random.Random) -> None:
        topic = f"{name}-{next(self._numbers)}"
        body = {"memories": [{"type": "fact", "topic_key": topic, "summary": topic}]}
        operation = self.history.call(name, "write", f"memory/{database}", topic, level=level)
        headers = self._write_headers(level, rng)
        path = self._memory(database)
        self._settle(operation, await self._send("POST", f"{url}{path}/memories", json=body, headers=headers))

    async def _look(self, name: str, url: str, database: str, rng: random.Random) -> None:
        if rng.random() < 0.5:
            operation = self.history.call(name, "recall", f"memory/{database}", level=READER)
            path = self._memory(database)
            sent = await self._send("POST", f"{url}{path}/recall", json={"query": name, "k": 3})
            if sent.ok:
                self.history.ok(operation, len(sent.json["memories"]), **sent.txids)
            else:
                self._refuse(operation, sent)
            return
        operation = self.history.call(name, "books", f"bank/{database}", level=READER)
        sent = await self._send("POST", f"{url}/v1/db/{database}/sql", json=BOOKS)
        if sent.ok:
            self._books.append((database, books_of(sent.json)))
            self.history.ok(operation, **sent.txids)
        else:
            self._refuse(operation, sent)

    # ---- answers

    async def _send(self, method: str, url: str, **request: Any) -> Sent:
        assert self._session is not None
        try:
            async with self._session.request(method, url, **request) as answer:
                body = await answer.read()
                headers = {key.lower(): value for key, value in answer.headers.items()}
                is_json = headers.get("content-type", "").startswith("application/json")
                return Sent(answer.status, headers, body, await answer.json() if is_json and body else None)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Sent(0, {}, repr(error).encode())

    def _settle(self, operation: Operation, sent: Sent) -> bool:
        if not sent.ok:
            self._refuse(operation, sent)
            return False
        reached = sent.headers.get("memoturn-durability", "")
        self.history.ok(operation, level=reached, **sent.txids)
        if reached not in LEVELS or LEVELS.index(reached) < LEVELS.index(operation.level):
            self.unexpected.append(
                f"{operation.kind} {operation.key} asked for {operation.level}, got {reached!r}"
            )
        return True

    def _refuse(self, operation: Operation, sent: Sent) -> None:
        """Note what an answer that is no success says of the operation."""
        self.refusals[f"{sent.status} {sent.code}"] += 1
        said = sent.body[:300].decode(errors="replace")
        told = {"status": sent.status, "code": sent.code, "said": said, **sent.txids}
        if sent.headers.get("memoturn-applied") == "false":
            self.history.failed(operation, **told)
        else:
            self.history.unknown(operation, **told)
        if sent.status and sent.code not in EXPECTED:
            self.unexpected.append(f"{operation.kind} {operation.key}: {sent.status} {said}")

    def _write_headers(self, level: str, rng: random.Random) -> dict[str, str]:
        headers = {"Memoturn-Durability": level}
        if rng.random() < 0.5:
            headers["Idempotency-Key"] = uuid.uuid4().hex
        return headers

    @staticmethod
    def _memory(database: str) -> str:
        namespace, _, profile = database.partition("--")
        return f"/v1/memory/{namespace}/{profile}"

    # ---- before and after

    async def _open(self, database: str) -> None:
        """Make the profile by its first memory, and the bank, for good."""
        first = self.history.call("opening", "write", f"memory/{database}", "opening", level="durable")
        memory = {"type": "fact", "topic_key": "opening", "summary": "opening"}
        sent = await self._until_ok(
            "POST",
            f"{self._memory(database)}/memories",
            json={"memories": [memory]},
            headers={"Memoturn-Durability": "durable", "Idempotency-Key": uuid.uuid4().hex},
        )
        self._settle(first, sent)
        rows = [{"q": "insert into accounts values (?, ?)", "params": [a, n]} for a, n in OPENING.items()]
        made = [
            {"q": "create table accounts (id text primary key, balance integer)"},
            {"q": "create table ledger (id text, source text, target text, amount integer)"},
        ]
        sent = await self._until_ok(
            "POST",
            f"/v1/db/{database}/sql",
            json={"stmts": [*made, *rows]},
            headers={"Memoturn-Durability": "durable", "Idempotency-Key": uuid.uuid4().hex},
        )
        assert sent.ok

    async def _until_ok(self, method: str, path: str, *, within_s: float = 40, **request: Any) -> Sent:
        deadline = time.monotonic() + within_s
        while True:
            sent = await self._send(method, f"{self._urls[0]}{path}", **request)
            if sent.ok:
                return sent
            assert time.monotonic() < deadline, f"{path}: {sent.status} {sent.body!r}"
            await asyncio.sleep(0.1)

    async def verdict(self, *, takeovers: int) -> list[str]:
        """Return everything that is wrong, once the load has stopped and the cluster has recovered.

        `takeovers` is how often a branch may have changed its owner without a tail.
        """
        found = list(self.unexpected)
        found += [str(v) for v in violations(counted(self.history.operations))]
        keyed = by_key(self.history.operations)
        for database in self._databases:
            there = await self._listed(f"/v1/db/{database}/kv/l", "keys")
            found += self._lost(keyed.get(f"local/{database}", []), set(there), takeovers)
            memories = await self._listed(f"{self._memory(database)}/memories", "memories")
            found += self._lost(
                keyed.get(f"memory/{database}", []), {m["summary"] for m in memories}, takeovers
            )
            sent = await self._until_ok("POST", f"/v1/db/{database}/sql", json=BOOKS)
            books, transfers = books_of(sent.json), keyed.get(f"bank/{database}", [])
            found += bank_violations(OPENING, books)
            found += self._lost(transfers, {t[0] for t in books.transfers}, takeovers)
            for name, seen in self._books:
                if name == database:
                    found += bank_violations(OPENING, seen)
        return found

    def _lost(self, operations: Sequence[Operation], survivors: set[Any], takeovers: int) -> list[str]:
        key = operations[0].key if operations else ""
        acknowledged = [o for o in operations if o.kind == "write" and o.outcome == OK]
        for run in lost_runs(acknowledged, survivors):
            self.lost.update(o.told["level"] for o in run)
        return [f"{key}: {what}" for what in local_violations(operations, survivors, takeovers)]

    async def _listed(self, path: str, name: str) -> list[Any]:
        found: list[Any] = []
        cursor = ""
        while True:
            page = f"{path}?limit=500" + (f"&cursor={cursor}" if cursor else "")
            sent = await self._until_ok("GET", page)
            found += sent.json[name]
            cursor = sent.json.get("next_cursor")
            if not cursor:
                return found

    # ---- times

    def outage(self, since_s: float, *, kinds: Iterable[str] = ("write", "cas"), level: str = "") -> "Outage":
        """Return how long none of these succeeded, and what was refused, from `since_s` on."""
        wanted = [
            o
            for o in self.history.operations
            if o.kind in kinds and (not level or o.level == level) and o.told.get("told_s", 0) >= since_s
        ]
        ends = sorted(o.return_s for o in wanted if o.outcome == OK)
        errors = Counter(
            f"{o.told['status']} {o.told['code']}" for o in wanted if o.outcome != OK and "status" in o.told
        )
        gaps = [(later - earlier, later) for earlier, later in zip([since_s, *ends], ends, strict=False)]
        longest = max(gaps, default=(FOREVER, FOREVER))
        slowest = max((o.return_s - o.call_s for o in wanted if o.outcome == OK), default=0.0)
        return Outage(longest[0], longest[1] - since_s, slowest, errors)


@dataclass(frozen=True, slots=True)
class Outage:
    """`gap_s`: the longest time without a success; `until_s`: when that ended, from the fault on; `slowest_s`: the longest
    success; `errors`: the answers that were none, by status and code.
    """

    gap_s: float
    until_s: float
    slowest_s: float
    errors: Counter[str]


BOOKS = {
    "stmts": [
        {"q": "select id, balance from accounts"},
        {"q": "select id, source, target, amount from ledger"},
    ]
}


def books_of(answer: Any) -> Books:
    """Return the books that an answer to BOOKS shows."""
    balances, transfers = (result["rows"] for result in answer["results"])
    return Books(dict(map(tuple, balances)), [tuple(row) for row in transfers])


def counted(operations: Iterable[Operation]) -> list[Operation]:
    """Return the operations of registers whose answers promise something for good.

    A read of a commit that is not durable yet shows what a takeover may lose, and its answer says so: it counts if its
    txid is disclosed as durable, or the value that it shows was acknowledged before it returned. So does what made
    a swap fail.
    """
    registers = [o for o in operations if o.kind in {"read", "cas"} or (o.kind == "write" and "/" in o.key)]
    registers = [o for o in registers if o.key.partition("/")[0] not in {"local", "memory", "bank"}]
    acknowledged_s = {
        (o.key, o.value[1] if o.kind == "cas" else o.value): o.return_s
        for o in registers
        if o.kind != "read" and o.outcome == OK
    }

    def counts(o: Operation) -> bool:
        if o.kind == "cas":
            return o.outcome != "fail"
        if o.kind == "write" or o.result is None:
            return True
        if o.told.get("durable_txid", -1) >= o.told.get("txid", FOREVER):
            return True
        return acknowledged_s.get((o.key, o.result), FOREVER) <= o.return_s

    return [o for o in registers if counts(o)]
