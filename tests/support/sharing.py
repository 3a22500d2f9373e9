"""Several nodes in one process, on one store, one catalog and one table of leases that end when a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import node_on

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.errors import RetryableError
from memoturnd.http.call import Call
from memoturnd.http.route import Route
from memoturnd.http.routes import ROUTES
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.node import Node
from memoturnd.seams.leases import Lease, Owner
from memoturnd.stores.memory import MemoryStore


class EndingLeases(LocalLeases):
    """A node's leases, all of one session. `lapse` lets the node's own deadline pass, `expire` the session as well."""

    def __init__(self, node_id: str, table: LeaseTable) -> None:
        super().__init__(node_id, f"http://{node_id}:1", table)
        self.session = 1
        self.lapsed = False
        self.down = False

    def lapse(self) -> None:
        """Let the node not know any more that its session lasts."""
        self.lapsed = True

    def expire(self) -> None:
        """Let the session end, so that others may own what this node did."""
        self.lapse()
        for branch_id, placed in list(self._table.placed.items()):
            if placed.owner is not None and placed.owner.node_id == self._node_id:
                self._drop(branch_id)

    def _answer(self) -> None:
        if self.down:
            raise RetryableError("the lease service does not answer (a test)")

    async def acquire(self, branch_id: str, *, database: str = "", branch: str = "") -> Lease:
        self._answer()
        if self.lapsed:
            self.lapsed, self.session = False, self.session + 1
        lease = await super().acquire(branch_id, database=database, branch=branch)
        return replace(lease, session=str(self.session))

    async def owner_of(self, branch_id: str) -> Owner | None:
        self._answer()
        return await super().owner_of(branch_id)

    async def release(self, lease: Lease) -> None:
        self._answer()
        owner = self._table.owner(lease.branch_id)
        if owner is not None and (owner.node_id, owner.epoch) == (lease.node_id, lease.epoch):
            self._drop(lease.branch_id)

    def holds(self, lease: Lease) -> bool:
        return not self.lapsed and lease.session == str(self.session)


class Wires:
    """Hands what nodes ask of one another to the other node's routes. `cut` are names of nodes that do not answer."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.cut: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    async def ask(
        self,
        address: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout_s: float,
    ) -> bytes:
        """See memoturnd.seams.peers."""
        await asyncio.sleep(0)
        name = address.removeprefix("http://").removesuffix(":1")
        if name in self.cut or name not in self.nodes:
            raise RetryableError(f"{name} does not answer")
        route, params = _route_of(path)
        self.asked.append((name, path.rsplit("/", 1)[1]))
        sent = {k.lower().encode(): v.encode() for k, v in (headers or {}).items()}
        call = Call(self.nodes[name], params, sent, b"")
        call.body = body
        async with asyncio.timeout(timeout_s):
            return (await route.handler(call)).body


def _route_of(path: str) -> tuple[Route, dict[str, str]]:
    parts = path.split("/")
    for route in ROUTES:
        known = route.template.split("/")
        if route.method == "POST" and len(known) == len(parts):
            fits = [k == p or k.startswith("{") for k, p in zip(known, parts, strict=True)]
            if all(fits) and route.template.startswith("/internal"):
                return route, {k[1:-1]: p for k, p in zip(known, parts, strict=True) if k.startswith("{")}
    raise AssertionError(path)


class _OneOfMany:
    """A catalog that several nodes use: none of them closes it."""

    def __init__(self, inner: SqliteCatalog) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def close(self) -> None:
        """Leave it open."""


@dataclass
class Sharing:
    """What the nodes share, and each node's leases by its name."""

    folder: Path
    store: MemoryStore
    stack: AsyncExitStack
    env: dict[str, str]
    catalog: _OneOfMany
    table: LeaseTable = field(default_factory=LeaseTable)
    wires: Wires = field(default_factory=Wires)
    leases: dict[str, EndingLeases] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)

    async def start(self, name: str, *, stack: AsyncExitStack | None = None, **options: object) -> Node:
        """Start a node; it stops with `stack`, the test's own without it."""
        leases = self.leases[name] = EndingLeases(name, self.table)
        env = {**self.env, "NODE_ID": name, "ADVERTISE": f"http://{name}:1"}
        running = node_on(
            self.folder / name,
            options.pop("store", self.store),
            leases=leases,
            catalog=self.catalog,
            peers=self.wires,
            **env,
            **options,
        )
        node = self.nodes[name] = await (stack or self.stack).enter_async_context(running)
        self.wires.nodes[name] = node
        return node

    def owner(self, branch: object) -> str | None:
        """Return the name of the node that the table has as a branch's owner."""
        owner = self.table.owner(branch.branch_id)
        return None if owner is None else owner.node_id


@asynccontextmanager
async def sharing(folder: Path, *names: str, **env: str) -> AsyncIterator[Sharing]:
    """Run nodes of these names that share everything; `env` are their settings without the prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = SqliteCatalog(folder / "registry.db")
    try:
        async with AsyncExitStack() as stack:
            shared = Sharing(folder, MemoryStore(), stack, env, _OneOfMany(inner))
            for name in names:
                await shared.start(name)
            yield shared
    finally:
        await inner.close()
