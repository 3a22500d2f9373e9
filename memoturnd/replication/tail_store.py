"""The tails that this node holds for owners: their commits, until object storage has them.

    {folder}/{branch id}/state                        who the branch is, and the highest epoch that was answered
    {folder}/{branch id}/{epoch}-{prev}-{max}.segment a piece, as the owner under `epoch` sent it
    {folder}/{branch id}/{...}.stranded               a piece that nobody asked for, of an owner that was replaced

Whoever has been answered under an epoch is remembered on the disk before the answer, and nobody below it is answered
again: an owner that was replaced gets no acknowledgement from a node whose tail its successor has read. Only a tail's
beginning is taken of a branch that is not known here, so that what was forgotten needs no memory.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from memoturnd.core import segment
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.tails import Push
from memoturnd.disk import sync_folder
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    DiskFullError,
    FencedError,
    NotFoundError,
    OverloadedError,
    RetryableError,
)
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock
from memoturnd.seams.executor import Executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_INLINE_BYTES: Final = 128 * 1024
_PIECE: Final = ".segment"
_STRANDED: Final = ".stranded"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_log = structlog.get_logger(__name__)


class State(msgspec.Struct, frozen=True):
    """The content of `state`. `read_by` is the highest epoch of a takeover that the tail was given to."""

    uuid: str
    epoch: int
    read_by: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    epoch: int
    prev: int
    max: int
    size_bytes: int

    @property
    def name(self) -> str:
        return f"{self.epoch:016d}-{self.prev:016d}-{self.max:016d}{_PIECE}"


@dataclass(slots=True)
class _Tail:
    """What is held of one branch."""

    folder: Path
    state: State
    pieces: dict[str, _Piece] = field(default_factory=dict)
    stranded_bytes: int = 0
    last_txid: int = 0
    """The txid behind the last piece of the owner under `state.epoch`."""
    heard_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces.values()) + self.stranded_bytes


@dataclass(frozen=True, slots=True)
class HeldTail:
    """A tail that is held here, for those who look after them."""

    branch_id: str
    uuid: str
    last_txid: int
    epoch: int
    """The owner's under which all of it was sent or read; 0 where there is no such one."""
    heard_s: float
    is_stranded: bool


class TailStore:
    """The tails in one folder, at most `limit_bytes` of them. With `fsync` a piece survives power loss."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool,
        limit_bytes: int,
        clock: Clock,
        executor: Executor,
        metrics: Metrics,
    ) -> None:
        self._folder = folder
        self._fsync = fsync
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._executor = executor
        self._metrics = metrics
        self._tails: dict[str, _Tail] = {}
        self._unknown = asyncio.Lock()
        """Held for whatever concerns a branch of which nothing is here yet."""
        self.size_bytes = 0
        """Bytes of all that is held."""
        for found in folder.iterdir() if folder.exists() else ():
            tail = _load(found, clock.monotonic_s())
            if tail is None:
                _log.error("a tail cannot be read and is dropped", folder=str(found))
                shutil.rmtree(found, ignore_errors=True)
            else:
                self._tails[found.name] = tail
                self.size_bytes += tail.size_bytes

    def __len__(self) -> int:
        return len(self._tails)

    def held(self) -> list[HeldTail]:
        """Return what is held."""
        return [_held(branch_id, tail) for branch_id, tail in list(self._tails.items())]

    async def push(self, push: Push, data: bytes) -> None:
        """Keep a piece (none where `data` is empty) and let go of what object storage has, before this returns.

        Raises FencedError where a later owner was answered, ConflictError where it does not follow on what is here,
        InvalidRequestError, CorruptionError, OverloadedError, DiskFullError.
        """
        piece = _piece_of(push, data)
        if data and self.size_bytes + len(data) > self._limit_bytes:
            raise OverloadedError(f"this node holds {self.size_bytes} bytes of tails, and takes no more")
        async with self._locked(push.branch_id) as tail:
            if tail is None and not push.begins:
                raise ConflictError("no tail of the branch is here: send the whole of it")
            if tail is not None and push.epoch < tail.state.epoch:
                self._metrics.tails_refused.inc()
                raise FencedError(
                    f"the branch has an owner under epoch {tail.state.epoch}: yours is replaced"
                )
            if not push.begins and tail is not None:
                follows = piece is None or piece.prev <= max(tail.last_txid, push.durable_txid)
                if push.epoch != tail.state.epoch or not follows:
                    raise ConflictError(
                        "the piece does not follow on the tail that is here: send the whole of it"
                    )
            if len(data) <= _INLINE_BYTES and not self._fsync:
                self._keep(push, piece, data)
            else:
                await self._executor.run(lambda: self._keep(push, piece, data))

    async def read(self, branch_id: str, epoch: int) -> list[bytes]:
        """Return every piece that is held of a branch, for its new owner under `epoch`; no earlier one is answered again.

        Raises NotFoundError where nothing was ever held, which a member of a set that lost its disk says, FencedError.
        """
        async with self._locked(branch_id) as tail:
            if tail is None:
                raise NotFoundError("no tail of the branch is here, nor was one that this node remembers")
            if epoch < tail.state.epoch:
                raise FencedError(
                    f"the branch has an owner under epoch {tail.state.epoch}: yours is replaced"
                )
            held = tail
            try:
                return await self._executor.run(lambda: self._read(held, epoch))
            except OSError as error:
                raise RetryableError(
                    f"a tail in {self._folder} cannot be read ({error.strerror}); check the data directory"
                ) from error

    async def forget(self, branch_id: str, epoch: int) -> None:
        """Let go of a branch whose owner under `epoch` has everything in object storage. Raises FencedError.

        What an earlier owner left that this one never read is kept aside.
        """
        async with self._locked(branch_id) as tail:
            if tail is None:
                return
            if epoch < tail.state.epoch:
                raise FencedError(
                    f"the branch has an owner under epoch {tail.state.epoch}: yours is replaced"
                )
            held = tail
            await self._executor.run(lambda: self._forget(branch_id, held, epoch))

    async def drop_pieces(self, branch_id: str, *, heard_s: float) -> None:
        """Let go of what object storage has, unless somebody was heard of since; who was answered stays known."""
        async with self._locked(branch_id) as tail:
            if tail is not None and tail.heard_s <= heard_s:
                held = tail
                landed = Push(held.state.uuid, branch_id, held.state.epoch, INTEGER_MAX)
                await self._executor.run(lambda: self._prune(held, landed))

    async def drop_stranded(self, before_ms: int) -> None:
        """Let go of what was sent before a wall time and is kept aside."""
        for branch_id, known in list(self._tails.items()):
            if known.stranded_bytes:
                async with self._locked(branch_id) as tail:
                    if tail is not None:
                        held = tail
                        await self._executor.run(lambda held=held: self._drop_stranded(held, before_ms))  # type: ignore[misc]

    async def drop(self, branch_id: str, *, heard_s: float) -> None:
        """Let go of what nobody needs any more, unless somebody was heard of since."""
        async with self._locked(branch_id) as tail:
            if tail is not None and tail.heard_s <= heard_s:
                held = tail
                await self._executor.run(lambda: self._remove(branch_id, held))

    @asynccontextmanager
    async def _locked(self, branch_id: str) -> "AsyncIterator[_Tail | None]":
        """Hold what there is of a branch, so that nothing else touches it."""
        tail = self._tails.get(branch_id)
        if tail is None:
            async with self._unknown:
                if branch_id not in self._tails:
                    yield None
                    return
            tail = self._tails[branch_id]
        async with tail.lock:
            yield self._tails.get(branch_id)

    # ---- on the disk

    def _keep(self, push: Push, piece: _Piece | None, data: bytes) -> None:
        tail = self._tails.get(push.branch_id)
        try:
            if tail is None:
                folder = self._folder / push.branch_id
                folder.mkdir(parents=True, exist_ok=True)
                if self._fsync:
                    sync_folder(self._folder)
                tail = _Tail(folder, State(push.uuid, 0))
            if push.epoch > tail.state.epoch:
                self._note(tail, State(push.uuid, push.epoch, tail.state.read_by))
                tail.last_txid = 0
            self._tails[push.branch_id] = tail
            if piece is not None:
                _write(tail.folder / piece.name, data, fsync=self._fsync)
                self._drop_covered(tail, piece)
                self._count(tail, piece, 1)
                tail.last_txid = piece.max
            tail.heard_s = self._clock.monotonic_s()
            self._prune(tail, push)
        except OSError as error:
            raise DiskFullError(
                f"the data directory refused a tail in {self._folder}: {error.strerror}; make room or mend it"
            ) from error

    def _prune(self, tail: _Tail, push: Push) -> None:
        """Let go of what is in object storage. What another owner left that this one never read is kept aside."""
        for name, piece in list(tail.pieces.items()):
            if piece.max > push.durable_txid:
                continue
            if push.epoch in {piece.epoch, tail.state.read_by}:
                (tail.folder / name).unlink(missing_ok=True)
                self._count(tail, piece, -1)
            else:
                (tail.folder / name).rename(tail.folder / (name + _STRANDED))
                del tail.pieces[name]
                tail.stranded_bytes += piece.size_bytes
                self._metrics.tails_stranded.inc()

    def _drop_covered(self, tail: _Tail, new: _Piece) -> None:
        """Let go of what an owner has sent again in a larger piece, as it does with each beginning."""
        for name, piece in list(tail.pieces.items()):
            covered = piece.epoch == new.epoch and new.prev <= piece.prev and piece.max <= new.max
            if covered and name != new.name:
                (tail.folder / name).unlink(missing_ok=True)
                self._count(tail, piece, -1)

    def _forget(self, branch_id: str, tail: _Tail, epoch: int) -> None:
        self._prune(tail, Push(tail.state.uuid, branch_id, epoch, INTEGER_MAX))
        if not tail.stranded_bytes:
            self._remove(branch_id, tail)

    def _drop_stranded(self, tail: _Tail, before_ms: int) -> None:
        for entry in list(os.scandir(tail.folder)):
            found = entry.stat()
            if entry.name.endswith(_STRANDED) and found.st_mtime_ns < before_ms * 1_000_000:
                Path(entry.path).unlink(missing_ok=True)
                tail.stranded_bytes -= found.st_size
                self.size_bytes -= found.st_size
                _log.error("commits that their branch went on without are dropped", file=entry.path)

    def _read(self, tail: _Tail, epoch: int) -> list[bytes]:
        if tail.state.read_by != epoch:
            if epoch > tail.state.epoch:
                tail.last_txid = 0
            self._note(tail, State(tail.state.uuid, epoch, epoch))
        tail.heard_s = self._clock.monotonic_s()
        return [(tail.folder / name).read_bytes() for name in sorted(tail.pieces)]

    def _note(self, tail: _Tail, state: State) -> None:
        path, data = tail.folder / "state", msgspec.json.encode(state)
        try:
            _write(path, data, fsync=self._fsync)
        except OSError as error:
            if error.errno not in _NO_ROOM or not path.exists():
                raise
            # Else what is held here could not be given to anybody: acknowledged commits would be lost to a full disk.
            _overwrite(path, data, fsync=self._fsync)
        tail.state = state

    def _count(self, tail: _Tail, piece: _Piece, sign: int) -> None:
        before = tail.pieces.pop(piece.name, None)
        self.size_bytes -= 0 if before is None else before.size_bytes
        if sign > 0:
            tail.pieces[piece.name] = piece
            self.size_bytes += piece.size_bytes

    def _remove(self, branch_id: str, tail: _Tail) -> None:
        size_bytes = tail.size_bytes
        with suppress(FileNotFoundError):
            for entry in list(os.scandir(tail.folder)):
                Path(entry.path).unlink(missing_ok=True)
            tail.folder.rmdir()
        self.size_bytes -= size_bytes
        self._tails.pop(branch_id, None)


def _held(branch_id: str, tail: _Tail) -> HeldTail:
    pieces, state = list(tail.pieces.values()), tail.state
    is_read = state.read_by == state.epoch or all(piece.epoch == state.epoch for piece in pieces)
    return HeldTail(
        branch_id,
        state.uuid,
        max((piece.max for piece in pieces), default=0),
        state.epoch if is_read else 0,
        tail.heard_s,
        tail.stranded_bytes > 0,
    )


def _piece_of(push: Push, data: bytes) -> _Piece | None:
    """Return the piece in `data`, proven whole. Raises CorruptionError."""
    if not data:
        return None
    found = segment.decode(data)
    if found.kind is not segment.Kind.SEGMENT or found.epoch != push.epoch:
        raise CorruptionError("a tail is made of the segments of the owner that sends it")
    return _Piece(push.epoch, found.prev_txid, found.rounds[-1].txid, len(data))


def _load(folder: Path, now_s: float) -> _Tail | None:
    """Return what an earlier process left of a branch, None where it is nothing of use."""
    try:
        state = msgspec.json.decode((folder / "state").read_bytes(), type=State)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None
    tail = _Tail(folder, state, heard_s=now_s)
    for name, size_bytes in _files(folder):
        numbers = name.removesuffix(_STRANDED).removesuffix(_PIECE).split("-")
        if name.endswith(_STRANDED):
            tail.stranded_bytes += size_bytes
        elif name.endswith(_PIECE) and all(map(str.isdigit, numbers)):
            epoch, prev, last = map(int, numbers)
            tail.pieces[name] = _Piece(epoch, prev, last, size_bytes)
    tail.last_txid = max((p.max for p in tail.pieces.values() if p.epoch == state.epoch), default=0)
    return tail


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for entry in os.scandir(folder):
        yield entry.name, entry.stat().st_size


def _write(path: Path, data: bytes, *, fsync: bool) -> None:
    """Put a file in its place as a whole: one that is sent again must not damage the one that is there. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # what there is room for is needed
        raise
    if fsync:
        sync_folder(path.parent)


def _overwrite(path: Path, data: bytes, *, fsync: bool) -> None:
    """Write JSON over that of a file, which takes no new block where it is short enough for one. Raises OSError."""
    with path.open("r+b", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        file.write(data.ljust(size_bytes))
        if fsync:
            os.fsync(file.fileno())
