"""Looks for what was erased: in every reachable object, unpacked, and in every file of a node's disk."""

from memoturnd.core import layout, segment
from memoturnd.core import manifest as manifests
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError
from memoturnd.replication.archive import BRANCHES, Archive
from memoturnd.replication.restore import restore
from memoturnd.seams.executor import InlineExecutor


async def registered(node, uuid):
    """Return {name: manifest} of every registered branch."""
    services = node._services
    register = await services.register_file(uuid).load()
    found = await Archive(services.store).all(BRANCHES, register)
    each = {name: await services.manifest_file(uuid, entry.id).load() for name, entry in found.items()}
    return {name: standing for name, standing in each.items() if standing is not None}


async def objects_with(node, uuid, marker):
    """Return the keys of reachable objects that hold the marker in one of their pages, and how many there are."""
    services, found, seen = node._services, set(), set()
    for standing in (await registered(node, uuid)).values():
        whole = await Archive(services.store).whole(standing)
        for ref in whole.objects:
            key = layout.object_key(uuid, ref)
            if key in seen:
                continue
            seen.add(key)
            part = segment.decode((await services.store.get(key)).data, name_hash=ref.hash)
            if any(marker in image for _, image in part.numbered_images(range(part.page_count))):
                found.add(key)
    return found, len(seen)


def files_with(folder, marker):
    """Return the files below a folder that hold the marker."""
    return [path for path in folder.rglob("*") if path.is_file() and marker in path.read_bytes()]


async def states(store, standing, folder, look, *, step=1):
    """Return {txid: look(connection)} of every state of the branch that can be restored, each proven by SQLite.

    With a `step` of n only of every n-th txid.
    """
    archive, found = Archive(store), {}
    folder.mkdir(parents=True, exist_ok=True)
    assert manifests.decode(manifests.encode(standing)) == standing
    for txid in range(1, standing.head_txid + 1, step):
        path = folder / "state.db"
        try:
            reaching = await archive.reaching(standing, txid)
            await restore(store, reaching, txid, path, executor=InlineExecutor(), fsync=False)
        except ConflictError:
            continue
        conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=256)
        assert conn.execute("PRAGMA integrity_check", can_cache=False).get == "ok", txid
        found[txid] = look(conn)
        conn.close()
        for leftover in folder.glob("state.db*"):
            leftover.unlink()
    return found
