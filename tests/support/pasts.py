"""Looks at the past of a node: states by revision, the files that they take, and a store that takes its time."""

from profiles import everything, put

from memoturnd.core import revisions
from memoturnd.core.durability import Durability
from memoturnd.stores.faulty import Fault, FaultKind


async def at(node, revision, *, branch="main", db="a"):
    return await node.past(db, branch, revisions.parse(str(revision)))


async def state(node, revision, *, branch="main"):
    return (await (await at(node, revision, branch=branch)).read(everything)).value


async def with_values(node, count=3, *, db="a"):
    """Write the key x once per commit, durably, and return the txids."""
    await node.databases.create(db)
    profile = await node.profile(db)
    return [(await profile.write(put("x", str(n)), durability=Durability.DURABLE)).txid for n in range(count)]


def files(tmp_path):
    """All that is there of past states, folders that hold nothing included."""
    return [path for path in (tmp_path / "past").rglob("*") if path.is_file() or not any(path.iterdir())]


def slow_gets(latency_s):
    return Fault(FaultKind.LATENCY, {"get"}, times=None, latency_s=latency_s)
