"""Several nodes in one process that ask one another, die with their disks, and go on without knowing better."""

import shutil
from contextlib import AsyncExitStack

from harness import node_on
from profiles import BY_HAND, Cable

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.core.tails import FORGET_PATH, PUSH_PATH, READ_PATH
from memoturnd.errors import FencedError, RetryableError
from memoturnd.http import tails
from memoturnd.http.call import Call
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.stores.memory import MemoryStore

HANDLERS = {PUSH_PATH: tails.push, READ_PATH: tails.read, FORGET_PATH: tails.forget}


class TestedLeases(LocalLeases):
    """A node's leases; a `blind` node does not know that it was replaced."""

    __test__ = False
    blind = False

    def holds(self, lease):
        return self.blind or super().holds(lease)

    async def record_sync_set(self, lease, members):
        owner = self._table.owner(lease.branch_id)
        if owner is None or (owner.node_id, owner.epoch) != (lease.node_id, lease.epoch):
            raise FencedError("the lease is another's")
        await super().record_sync_set(lease, members)


class SharedCatalog:
    """A catalog that no single node closes."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def close(self):
        pass


class Cluster:
    """Nodes by name; `cut` are those that no other node reaches."""

    def __init__(self, tmp_path, **env):
        self.folder = tmp_path
        self.env = {**BY_HAND, **env}
        self.store = MemoryStore()
        self.table = LeaseTable()
        self.catalog = SqliteCatalog(tmp_path / "registry.db")
        self.nodes, self.cables, self.leases, self.cut = {}, {}, {}, set()
        self.asked = []
        self.before = None
        """Awaited with (path, name of the node) before a node is asked."""
        self._stacks = {}

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for name in list(self.nodes):
            await self.stop(name)
        await self.catalog.close()

    async def start(self, *names):
        for name in names:
            stack = self._stacks[name] = AsyncExitStack()
            self.cables[name] = Cable(self.store)
            self.leases[name] = TestedLeases(name, f"http://{name}", self.table)
            self.nodes[name] = await stack.enter_async_context(
                node_on(
                    self.folder / name,
                    self.cables[name],
                    leases=self.leases[name],
                    catalog=SharedCatalog(self.catalog),
                    peers=self,
                    NODE_ID=name,
                    **self.env,
                )
            )

    async def stop(self, name):
        del self.nodes[name]
        await self._stacks.pop(name).aclose()
        await self.leases[name].close()

    async def kill(self, name, *, disk_too=True):
        """End a node as `kill -9` would, and let its leases run out."""
        node = self.nodes[name]
        self.cables[name].cut = True
        kept = self.folder / f"{name}-kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder / name, kept)
        for branch in node.tiers.hot():
            if branch.owned is not None:
                await branch.owned.shipper.compactor.stop()
            branch.close_connections()
            branch._conn = branch.owned = None
        await self.stop(name)
        shutil.rmtree(self.folder / name)
        if not disk_too:
            kept.rename(self.folder / name)

    def replace(self, name):
        """Let a node's leases run out without its knowing."""
        self.leases[name].blind = True
        for branch_id, placed in list(self.table.placed.items()):
            if placed.owner.node_id == name:
                del self.table.placed[branch_id]

    async def ask(self, address, path, *, body=b"", headers=None, timeout_s):
        name = address.removeprefix("http://")
        self.asked.append((path, name))
        if self.before is not None:
            await self.before(path, name)
        if name in self.cut or name not in self.nodes:
            raise RetryableError(f"{name} does not answer")
        call = Call(self.nodes[name], {}, {k.lower().encode(): v.encode() for k, v in headers.items()}, b"")
        call.body = body
        return (await HANDLERS[path](call)).body

    async def profile(self, name, db="p"):
        return await self.nodes[name].profile(db)

    def members(self):
        """Return the names in the only sync set that there is."""
        (found,) = self.table.sync_sets.values()
        return {node.node_id for node in found.members}
