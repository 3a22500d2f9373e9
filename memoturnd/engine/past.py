"""Past states: files that hold a branch as it was at a txid, made when they are read and kept while there is room.

A txid is never used twice, so what (branch id, txid) stands for never changes: a state that was made once
serves everybody until the disk is needed. Whoever asks while it is being made waits for the same work. The
files are opened as immutable, without locks, log or shared memory (so one may also be copied while it is
read, to begin a later state with), and go with the process: what an earlier one left is removed at start.
"""

import asyncio
import shutil
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import apsw
import structlog

from memoturnd.core.manifest import Manifest
from memoturnd.engine import schema
from memoturnd.engine.admission import Admission, Key, Places
from memoturnd.engine.branch import Branch
from memoturnd.engine.budget import within_deadline
from memoturnd.engine.connection import ProfileConnection, open_connection, open_immutable
from memoturnd.engine.files import refused
from memoturnd.engine.rounds import translate
from memoturnd.engine.services import Services
from memoturnd.errors import (
    BranchNotFoundError,
    CorruptionError,
    InvariantError,
    MemoturnError,
    OverloadedError,
    RetryableError,
    invariant,
)
from memoturnd.replication.restore import Restored, Start, restore
from memoturnd.seams.profile import ReadOp, Work

T = TypeVar("T")
MADE_AT_ONCE = 2
MADE_WAITING = 8
"""Past states of one profile that are made at once, and that wait for it; beyond them 429."""
ASKER_AT_ONCE = 4
ASKER_WAITING = 16
"""The same of one token, whatever profiles it asks for."""
NODE_AT_ONCE = 8
"""Past states that a node makes at once."""
IDLE_READERS = 16
"""Connections to past states that are kept open without use."""
_CACHE_KIB = 64
_log = structlog.get_logger(__name__)


class PastState:
    """One past state. Its file is whole once it is `made`; `error` says why it cannot be had (any more)."""

    def __init__(self, branch_id: str, txid: int, path: Path) -> None:
        self.key = (branch_id, txid)
        self.path = path
        self.users = 0
        self.used_s = 0.0
        self.at_ms = 0
        """Wall time of its commit, in unix ms: what is read in it expires by this clock."""
        self.size_bytes = 0
        self.restored: Restored | None = None
        """Its pages, where the file is just what was restored, so that a later state may begin with it."""
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self.made = False
        self.error: MemoturnError | None = None


def admission_keys(branch: Branch, asker: str) -> tuple[Key, ...]:
    """Return under which keys the making of a past state is counted; `asker` is empty for whoever is not counted."""
    profile = Key("profile", branch.ref.database.uuid)
    return (Key("token", asker), profile) if asker else (profile,)


class PastStates:
    """The past states of one node. `room_bytes` says how much disk they may take as things stand."""

    def __init__(self, services: Services, *, room_bytes: Callable[[], int]) -> None:
        self.size_bytes = 0
        self._services = services
        self._folder = services.branches_folder.parent / "past"
        self._room_bytes = room_bytes
        # Least recently used first.
        self._states: OrderedDict[tuple[str, int], PastState] = OrderedDict()
        places = {
            "profile": Places(MADE_AT_ONCE, MADE_WAITING),
            "token": Places(ASKER_AT_ONCE, ASKER_WAITING),
        }
        self._admission = Admission("past states", places)
        self._node_gate = asyncio.Semaphore(NODE_AT_ONCE)
        self._readers = _Readers()
        self._closed = False

    # ---- start and stop

    async def start(self) -> None:
        """Remove what an earlier process left."""
        await self._services.executor.run(lambda: shutil.rmtree(self._folder, ignore_errors=True))

    async def close(self) -> None:
        """Stop what is being made, and remove everything; whoever waits gets a RetryableError."""
        self._closed = True
        await self._drop(list(self._states.values()), RetryableError("the node is stopping; send it again"))
        await self.start()

    # ---- reading

    def has(self, branch: Branch, txid: int) -> bool:
        """Return whether the state is here, or being made."""
        return (branch.ref.branch_id, txid) in self._states

    @asynccontextmanager
    async def hold(
        self, branch: Branch, txid: int, current: Manifest | None, *, asker: str = ""
    ) -> AsyncIterator[PastState]:
        """Hold a state, so that it stays; where it is not here it is made from what the manifest `current` names.

        `asker` is the token that asks, if any. Raises OverloadedError when too many are being made for it or the profile, CorruptionError naming a damaged
        object, StoreUnavailableError, DiskFullError, BranchNotFoundError for a deleted branch.
        """
        outcomes = self._services.metrics.past_reads
        state = self._states.get((branch.ref.branch_id, txid))
        if state is None:
            invariant(
                current is not None, "a past state that is not here needs a manifest", branch=branch.ref
            )
            state = self._begin(branch, txid, cast("Manifest", current), asker)
            outcomes["miss"].inc()
        else:
            outcomes["hit" if state.made else "shared"].inc()
        state.users += 1
        try:
            if state.task is not None and not state.task.done():
                await asyncio.wait([state.task])  # it goes on when this request is cancelled
            if state.error is not None:
                raise state.error
            yield state
        finally:
            state.users -= 1
            self._left(state)

    async def read(self, state: PastState, op: ReadOp[T], work: Work) -> T:
        """Run `op` on a held state, in a pool, at the state's own wall time; a user's on a connection of its own."""
        services, is_user = self._services, work.is_users

        def run() -> T:
            conn = open_immutable(state.path, cache_kib=_CACHE_KIB) if is_user else self._readers.take(state)
            try:
                deadlines = services.writer_settings.deadlines
                return within_deadline(conn, deadlines, lambda: op(conn, state.at_ms))
            finally:
                if is_user:
                    conn.close()
                else:
                    self._readers.give(state, conn)

        try:
            return await (services.user_executor if is_user else services.executor).run(run)
        except (apsw.CantOpenError, apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
            if state.error is not None:  # it was dropped under the read, with its branch
                raise state.error from error
            again = RetryableError(f"{state.path} cannot be read ({error}): it is made anew; send it again")
            await self._drop([state], again)
            raise again from error

    def _left(self, state: PastState) -> None:
        state.used_s = self._services.clock.monotonic_s()
        if self._states.get(state.key) is state:
            self._states.move_to_end(state.key)
            if not state.users and not state.begun:
                self._discard(
                    state, RetryableError("whoever asked for the past state has left; send it again")
                )

    # ---- making

    def _begin(self, branch: Branch, txid: int, current: Manifest, asker: str) -> PastState:
        services = self._services
        if self._closed:
            raise RetryableError("the node is stopping; send it again")
        if branch.is_gone:
            raise BranchNotFoundError(f"{branch.ref} was deleted")
        keys = admission_keys(branch, asker)
        try:
            self._admission.enter(keys)
        except OverloadedError:
            services.metrics.shed["past_states"].inc()
            raise
        branch_id = branch.ref.branch_id
        path = self._folder / f"{branch_id}-{txid}-{services.randomness.hex(4)}" / "state.db"
        state = self._states[branch_id, txid] = PastState(branch_id, txid, path)
        state.task = services.spawn(self._make(state, branch, current, keys))
        state.task.add_done_callback(lambda _: self._ended(state, keys))
        return state

    async def _make(self, state: PastState, branch: Branch, current: Manifest, keys: tuple[Key, ...]) -> None:
        """Make the file, in turn. Raises nothing: what goes wrong is left in the state, for who waits."""
        try:
            async with self._admission.turn(keys), self._node_gate:
                state.begun = True
                with self._services.metrics.past_seconds.time():
                    await self._restore(state, branch, current)
            self.size_bytes += state.size_bytes
            state.made = True
            await self._trim()
        except MemoturnError as error:
            state.error = BranchNotFoundError(f"{branch.ref} was deleted") if branch.is_gone else error
        except Exception as error:  # noqa: BLE001 - the boundary of a task of the node's: a bug must not stop it
            _log.exception("past state not made", branch=str(branch.ref), txid=state.key[1])
            state.error = InvariantError(f"the past state of {branch.ref} was not made: {error!r}")

    async def _restore(self, state: PastState, branch: Branch, current: Manifest) -> None:
        services, txid = self._services, state.key[1]
        try:
            state.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(state.path.parent, error) from error
        restored = await branch.manifests.with_newest(current, lambda m: self._restore_file(state, m))
        state.at_ms, migrated = await services.executor.run(lambda: _settle(state.path, txid))
        state.size_bytes = state.path.stat().st_size
        state.restored = None if migrated else restored

    async def _restore_file(self, state: PastState, current: Manifest) -> Restored:
        """Restore the file, beginning with the nearest state below it that is here, where that reads less."""
        services, (branch_id, txid) = self._services, state.key
        below = [
            s
            for (other, at), s in self._states.items()
            if other == branch_id and at < txid and s.restored is not None
        ]
        nearest = max(below, key=lambda s: s.key[1], default=None)
        if nearest is None or nearest.restored is None:
            start = None
        else:
            start = Start(nearest.path, nearest.restored)
            nearest.users += 1  # it stays as long as it is copied

        async def made(start: Start | None) -> Restored:
            return await restore(
                services.store,
                await services.archive.reaching(current, txid),
                txid,
                state.path,
                executor=services.executor,
                fsync=False,
                start=start,
            )

        try:
            return await made(start)
        except CorruptionError:
            if start is None:
                raise
            return await made(None)  # other objects may hold it: the shortcut goes through a damaged one
        finally:
            if nearest is not None:
                nearest.users -= 1

    def _ended(self, state: PastState, keys: tuple[Key, ...]) -> None:
        """Give the place back, and clean up behind a state that was not made; it may not even have begun."""
        self._admission.leave(keys)
        if not state.made:
            state.error = state.error or RetryableError(
                "the making of the past state was stopped; send it again"
            )
            self._forget(state)
            _remove(state.path)

    async def _trim(self) -> None:
        while self._oldest() is not None and self.size_bytes > max(0, self._room_bytes()):
            await self.drop_oldest()

    # ---- leaving

    @property
    def oldest_s(self) -> float | None:
        """Return when the longest unused state was last used, by the monotonic clock; None where all are in use."""
        oldest = self._oldest()
        return oldest.used_s if oldest is not None else None

    @property
    def counts(self) -> tuple[int, int]:
        """Return (states that are here, states that are being made or wait for it)."""
        made = sum(state.made for state in self._states.values())
        return made, len(self._states) - made

    async def drop_oldest(self) -> None:
        """Remove the state that was unused longest."""
        oldest = self._oldest()
        if oldest is not None:
            await self._drop([oldest], RetryableError("the past state was dropped; send it again"))

    async def drop_unused(self, before_s: float) -> None:
        """Remove the states that nobody has used since a moment of the monotonic clock."""
        while (oldest_s := self.oldest_s) is not None and oldest_s < before_s:
            await self.drop_oldest()

    async def forget(self, branch_id: str) -> None:
        """Remove every state of a deleted branch, those in use too; whoever waits gets a BranchNotFoundError."""
        states = [state for state in self._states.values() if state.key[0] == branch_id]
        await self._drop(states, BranchNotFoundError("the branch was deleted"))

    async def let_go(self, branch_id: str) -> None:
        """Remove every state of a branch whose history was rewritten, those in use too: they are made anew."""
        states = [state for state in self._states.values() if state.key[0] == branch_id]
        await self._drop(states, RetryableError("history was rewritten meanwhile; send it again"))

    def _oldest(self) -> PastState | None:
        return next((state for state in self._states.values() if state.made and not state.users), None)

    def _discard(self, state: PastState, error: MemoturnError) -> None:
        """Take a state out. One that is being made cleans up behind itself; the file of another stays for a moment."""
        state.error = state.error or error
        self._forget(state)
        if state.task is not None and not state.made:
            state.task.cancel()

    def _forget(self, state: PastState) -> None:
        if self._states.get(state.key) is state:
            del self._states[state.key]
            if state.made:
                self.size_bytes -= state.size_bytes

    async def _drop(self, states: list[PastState], error: MemoturnError) -> None:
        for state in states:
            self._discard(state, error)
            self._readers.close(state)
        made = [state.path for state in states if state.made]
        await self._services.executor.run(lambda: _remove(*made))  # to its end, whoever is cancelled
        making = [state.task for state in states if state.task is not None and not state.made]
        if making:
            await asyncio.wait(making)


class _Readers:
    """Connections to past states that nobody uses right now. Threads take and give them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[PastState, ProfileConnection]] = []
        """Least recently used first."""

    def take(self, state: PastState) -> ProfileConnection:
        """Return a connection to the state's file, opened where none is idle. Raises apsw.Error."""
        with self._lock:
            for at in reversed(range(len(self._idle))):
                if self._idle[at][0] is state:
                    return self._idle.pop(at)[1]
        return open_immutable(state.path, cache_kib=_CACHE_KIB)

    def give(self, state: PastState, conn: ProfileConnection) -> None:
        """Keep the connection for the next read; close the one that was unused longest where there are too many."""
        with self._lock:
            if state.error is None:
                self._idle.append((state, conn))
                conn = self._idle.pop(0)[1] if len(self._idle) > IDLE_READERS else conn
            kept = any(conn is idle for _, idle in self._idle)
        if not kept:
            conn.close()

    def close(self, state: PastState) -> None:
        """Close the idle connections to a state."""
        with self._lock:
            closing = [conn for other, conn in self._idle if other is state]
            self._idle = [pair for pair in self._idle if pair[0] is not state]
        for conn in closing:
            conn.close()


def _settle(path: Path, txid: int) -> tuple[int, bool]:
    """Bring a restored file to the newest schema; return (wall time of its commit in unix ms, whether that changed it)."""
    conn = open_immutable(path, cache_kib=_CACHE_KIB)
    try:
        meta = schema.read_meta(conn)
    finally:
        conn.close()
    schema.check_version(meta)
    invariant(meta.txid == txid, "a restored state carries its txid", path=path, txid=meta.txid)
    is_older = meta.schema_version < schema.SCHEMA_VERSION
    if is_older:
        _migrate(path, meta)
    return meta.at_ms, is_older


def _migrate(path: Path, meta: schema.Meta) -> None:
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=_CACHE_KIB)
    try:
        conn.execute("BEGIN IMMEDIATE")
        schema.migrate(conn, meta)
        conn.execute("COMMIT")
        conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        raise translate(error) from error
    finally:
        conn.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _remove(*paths: Path) -> None:
    """Remove states' folders, with what a restore or a migration that was cut off left in them."""
    for path in paths:
        shutil.rmtree(path.parent, ignore_errors=True)
