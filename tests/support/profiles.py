"""Small ops on a profile, and looks behind its back: at the store, at the disk, at a restored past."""

import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
from harness import node_on

from memoturnd.core import layout, manifest
from memoturnd.core.pages import PageHashes
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import StoreUnavailableError
from memoturnd.replication.capture import Capture, Cursor
from memoturnd.replication.restore import restore
from memoturnd.seams.executor import InlineExecutor

BY_HAND = {"SHIP_INTERVAL_MS": "60000", "UNSHIPPED_MAX_AGE_S": "600"}
"""Settings under which nothing is shipped unless the test says so."""


def put(key, value):
    def op(conn, _now_ms):
        conn.execute(
            "INSERT INTO __memoturn_kv(ns, k, v) VALUES ('t', ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v",
            (key, value),
        )
        return None, True

    return op


def get(key):
    return lambda conn, _now_ms: (
        conn.execute("SELECT v FROM __memoturn_kv WHERE ns = 't' AND k = ?", (key,)).get
    )


def everything(conn, _now_ms=0):
    return dict(conn.execute("SELECT k, v FROM __memoturn_kv WHERE ns = 't' ORDER BY k"))


class Cable:
    """A store whose cable can be pulled, for a process that is gone or cut off."""

    def __init__(self, inner):
        self.inner = inner
        self.cut = False

    def __getattr__(self, name):
        if self.cut:
            raise StoreUnavailableError("the cable is pulled")
        return getattr(self.inner, name)


@asynccontextmanager
async def killed(data_dir, store, copy, **env):
    """Run a node, and leave in `copy` its disk as a `kill -9` at the end of the block would."""
    cable = Cable(store)
    async with node_on(data_dir, cable, **env) as node:
        yield node
        cable.cut = True
        shutil.copytree(data_dir, copy)
        for branch in node.tiers.hot():
            if branch.owned is not None:
                await branch.owned.shipper.compactor.stop()
            branch.close_connections()
            branch._conn = branch.owned = None


async def manifest_of(store, branch):
    """Return the branch's manifest as it stands in the store."""
    blob = await store.get(layout.manifest_key(branch.ref.database.uuid, branch.ref.branch_id))
    return manifest.decode(blob.data)


async def keys(store, part=""):
    """Return the keys of all objects whose key contains `part`."""
    return [info.key async for info in store.list("v1/") if part in info.key]


async def restored(store, standing, txid, folder: Path):
    """Return all key-values of the state at `txid`, restored from the store alone and checked by SQLite."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{standing.branch_id}-{txid}.db"
    await restore(store, standing, txid, path, executor=InlineExecutor(), fsync=False)
    conn = open_connection(str(path), read_only=True, sync="normal", cache_kib=64)
    try:
        assert conn.execute("PRAGMA integrity_check", can_cache=False).get == "ok"
        return everything(conn)
    finally:
        conn.close()


def retained(standing):
    """Return every txid that the manifest claims to restore."""
    return [t for t in range(1, standing.head_txid + 1) if manifest.contains(standing, t)]


def checkpoint_behind_the_back(branch):
    """Move the whole log into the database file, as nobody but the shipper may."""
    frames, done = branch.conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    assert frames == done


class ProfileLog:
    """A profile file whose rounds the test commits, and a capture on its log."""

    def __init__(self, path):
        self.path = path
        self.conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=64)
        self.txid = self.frames = 0
        self.at_ms = 1000
        self.conn.set_wal_hook(self.grew)
        self.capture = self.new_capture(Cursor(0, None), PageHashes())
        self.commit(schema.create)

    def grew(self, _conn, _name, frames):
        self.frames = frames
        return apsw.SQLITE_OK

    def new_capture(self, cursor, hashes):
        return Capture(f"{self.path}-wal", page_size=4096, cursor=cursor, hashes=hashes)

    def commit(self, work, *, txid=None):
        self.conn.execute("BEGIN IMMEDIATE")
        work(self.conn)
        self.txid = self.txid + 1 if txid is None else txid
        self.at_ms += 1
        schema.write_meta(self.conn, self.txid, self.at_ms, 1)
        self.conn.execute("COMMIT")

    def put(self, key, value, *, txid=None):
        self.commit(lambda conn: put(key, value)(conn, 0), txid=txid)

    def read(self):
        return self.capture.read(head_txid=self.txid, log_frames=self.frames)

    def land(self):
        batch = self.read()
        self.capture.landed(batch)
        return [round_.txid for round_ in batch.rounds]

    def checkpoint(self):
        frames, done = self.conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return frames == done

    def close(self):
        self.capture.close()
        self.conn.close()
