"""The audit log of a node: takes events, keeps them on disk, and puts them into the chains of their streams.

    await log.reserve()            room for an event, before anything is done that will need it
    log.append(stream, event)      written down before the answer leaves
    log.release()

What has no room waits, and is refused then: nothing is done that could not be written down.
"""

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import structlog

from memoturnd.audit.chains import Chain, ChainLostError
from memoturnd.audit.ends import Ends
from memoturnd.audit.ports import Sign
from memoturnd.audit.spool import Intent, Spool
from memoturnd.core import audit
from memoturnd.core.audit import Event, Place, Waiting
from memoturnd.errors import ConfigurationError, MemoturnError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import ObjectStore

EVENTS_LIMIT: Final = 100_000
EVENT_BYTES: Final = 1024
"""What an event is taken to need until it is known."""
PARALLEL: Final = 8
"""Streams that are flushed at once."""
CHAINS_KEPT: Final = 4096
STOP_S: Final = 3.0
_LOOK_AGAIN_S: Final = 0.5
_log = structlog.get_logger(__name__)


class _Names(msgspec.Struct):
    """The file `chain`: what this data directory's chains are called, and were before."""

    chain: str
    before: str | None = None


class AuditLog:
    """The log. `start` comes first, `run` works until it is cancelled, `close` flushes what it can."""

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        *,
        node: str,
        sign: Sign | None,
        clock: Clock,
        randomness: Randomness,
        metrics: Metrics,
        flush_ms: int,
        limit_bytes: int,
        wait_s: float,
        fsync: bool,
    ) -> None:
        self.node = node
        self.taken = 0
        """Events taken since the start, those of an earlier process included."""
        self._store = store
        self._folder = folder
        self._sign = sign
        self._clock = clock
        self._randomness = randomness
        self._metrics = metrics
        self._flush_s = flush_ms / 1000
        self._limit_bytes = limit_bytes
        self._wait_s = wait_s
        self._spool = Spool(folder, fsync=fsync)
        self._ends = Ends(folder)
        self._names = _Names("")
        self._chains: OrderedDict[str, Chain] = OrderedDict()
        self._waiting: dict[str, deque[tuple[Waiting, int]]] = {}
        self._found: dict[str, int] = {}
        self._of_file: dict[int, int] = {}
        self._count = 0
        self._bytes = 0
        self._reserved = 0
        self._denied = 0
        self._number = 0
        self._spool_error: str | None = None
        self._roomy = asyncio.Event()
        self._wanted = asyncio.Event()
        self._flushing = asyncio.Lock()
        metrics.audit_spool_limit_bytes.set(limit_bytes)
        metrics.before_scrape(self._measure)

    # ---- taking events

    async def reserve(self) -> None:
        """Take room for an event, to be given back by `release`. Raises RetryableError when there is none in time."""
        if not self._has_room():
            await self._wait_for_room()
        self._reserved += 1

    def release(self) -> None:
        """Give the room back."""
        self._reserved -= 1

    def _has_room(self) -> bool:
        events = self._count + self._reserved
        size_bytes = self._bytes + EVENT_BYTES * self._reserved
        return self._spool_error is None and events < EVENTS_LIMIT and size_bytes < self._limit_bytes

    async def _wait_for_room(self) -> None:
        self._metrics.audit_waits.inc()
        try:
            async with asyncio.timeout(self._wait_s):
                while True:
                    self._try_disk()
                    if self._has_room():
                        return
                    self._wanted.set()
                    self._roomy.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            await self._roomy.wait()
        except TimeoutError as error:
            self._metrics.audit_refused.inc()
            raise RetryableError(self._full()) from error

    def _full(self) -> str:
        if self._spool_error is not None:
            return (
                f"what is audited cannot be done now: the node cannot write audit events to its disk ({self._spool_error}); "
                "free space there, then send it again"
            )
        return (
            f"what is audited cannot be done now: {self._count} audit events wait for object storage, which takes none; "
            "send it again once it answers"
        )

    def _try_disk(self) -> None:
        if self._spool_error is None:
            return
        try:
            self._spool.probe()
        except OSError as error:
            self._spool_error = error.strerror or str(error)
        else:
            self._spool_error = None

    def next_id(self, at_ms: int) -> str:
        """Return a new event's id."""
        self._number += 1
        return audit.event_id(at_ms, self._number)

    def append(self, stream: str, event: Event) -> None:
        """Take an event, and write it down.

        Where the disk refuses, it is kept in memory alone and flushed from there, and no further place is given.
        """
        waiting = audit.waiting(event)
        try:
            self._spool.append(stream, waiting.body)
        except OSError as error:
            self._spool_error = error.strerror or str(error)
            self._metrics.audit_spool_failures.inc()
            _log.error("an audit event is only in memory", error=self._spool_error)
        self._take(stream, waiting, self._spool.number)
        self._metrics.audit_events[event.outcome].inc()
        if self._count >= audit.OBJECT_EVENTS:
            self._wanted.set()

    def _take(self, stream: str, waiting: Waiting, file: int) -> None:
        self._waiting.setdefault(stream, deque()).append((waiting, file))
        self._of_file[file] = self._of_file.get(file, 0) + 1
        self._count += 1
        self.taken += 1
        self._bytes += len(waiting.body)

    # ---- flushing

    def start(self) -> int:
        """Take up what an earlier process left, and return how many events that are.

        A disk that takes nothing does not end the start: what is audited is refused until it does. Raises ConfigurationError
        for a spool that cannot be read.
        """
        self._number = int(self._randomness.hex(4), 16)
        try:
            found = self._spool.open()
        except OSError as error:
            raise ConfigurationError(
                f"the audit spool {self._folder} cannot be read: {error.strerror or error}; let this user read it"
            ) from error
        try:
            self._spool.probe()
            self._ends.open()
        except OSError as error:
            self._spool_error = error.strerror or str(error)
            _log.error("the disk takes no audit events; what is audited is refused", error=self._spool_error)
        self._names = self._read_names()
        for row in found:
            self._take(row.stream, row.event, row.file)
            self._found[row.stream] = self._found.get(row.stream, 0) + 1
        if found:
            _log.info("audit events of an earlier process are flushed", events=len(found))
        else:
            self._trim()
        return len(found)

    async def run(self) -> None:
        """Flush at every interval, and as soon as there is enough, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            self._tell_denied()
            try:
                flushed = not self._waiting or await self.flush()
            except Exception:  # noqa: BLE001 - the boundary of a background task: its events stay in the spool
                _log.exception("audit events could not be flushed; it is tried again")
                flushed = False
            if not flushed:
                await self._clock.sleep(self._flush_s)

    async def flush(self, stream: str | None = None) -> bool:
        """Put all that waits, or what waits of one stream, into object storage; False where some of it could not be."""
        async with self._flushing:
            gate = asyncio.Semaphore(PARALLEL)
            streams = list(self._waiting) if stream is None else [stream] * (stream in self._waiting)

            async def one(name: str) -> bool:
                async with gate:
                    return await self._flush_stream(name)

            self._spool.rotate()
            done = await asyncio.gather(*(one(name) for name in streams))
            self._trim()
            return all(done)

    async def _flush_stream(self, stream: str) -> bool:
        upto = len(self._waiting[stream])
        while stream in self._waiting and upto > 0:
            try:
                upto -= await self._flush_batch(stream)
            except ChainLostError as error:
                _log.error("an audit chain was changed by somebody else", stream=stream, error=str(error))
                self._metrics.audit_chains_lost.inc()
                self._begin_again(stream, error.place)
            except (MemoturnError, OSError) as error:
                self._metrics.audit_flush_failures.inc()
                _log.warning("audit events could not be flushed yet", stream=stream, error=str(error))
                return False
        return True

    async def _flush_batch(self, stream: str) -> int:
        chain = await self._chain(stream)
        self._leave_out(stream, await chain.open())
        rows = self._waiting.get(stream)
        if not rows:
            return 0
        events = [event for event, _ in islice(rows, audit.OBJECT_EVENTS + 1)]
        intent = self._spool.intents.get(stream)
        count = await chain.flush(events, intent, lambda new: self._write_down(stream, new))
        self._remember(stream, chain.end)
        self._drop(stream, count)
        self._spool.intents.pop(stream, None)
        self._metrics.audit_objects.inc()
        return count

    def _remember(self, stream: str, end: Place) -> None:
        try:
            self._ends.put(stream, end)
        except OSError as error:  # it is of use for what comes later; what was flushed is flushed
            _log.warning("how far an audit chain goes is only in memory", error=str(error))

    def _write_down(self, stream: str, intent: Intent) -> None:
        try:
            self._spool.intend(stream, intent)
        except (
            OSError
        ) as error:  # the events themselves can be read again; at worst an object stays beside the chain
            _log.warning("an audit object is put without a note of it", error=str(error))

    def _leave_out(self, stream: str, last_event: str) -> None:
        """Drop what an earlier process has flushed, of what it left in the spool."""
        found = self._found.pop(stream, 0)
        rows = self._waiting[stream]
        for index in range(min(found, len(rows)) - 1, -1, -1):
            if rows[index][0].id == last_event:
                self._drop(stream, index + 1)
                return

    def _drop(self, stream: str, count: int) -> None:
        rows = self._waiting[stream]
        for _ in range(count):
            event, file = rows.popleft()
            self._of_file[file] -= 1
            self._count -= 1
            self._bytes -= len(event.body)
        if not rows:
            del self._waiting[stream]
        self._roomy.set()

    def _trim(self) -> None:
        """Remove the files of which nothing waits any more, the oldest first, so that none is read without its successors."""
        try:
            if not self._count:
                self._spool.empty()
                self._of_file.clear()
                return
            for number in sorted(self._of_file):
                if self._of_file[number] or number == self._spool.number:
                    break
                self._spool.drop(number)
                del self._of_file[number]
        except OSError as error:
            _log.warning("the audit spool could not be trimmed", error=str(error))

    # ---- chains

    async def _chain(self, stream: str) -> Chain:
        chain = self._chains.get(stream)
        if chain is None:
            chain = self.open_chain(stream, self._names.chain, await self._before(stream))
            self._chains[stream] = chain
            if len(self._chains) > CHAINS_KEPT:
                self._chains.popitem(last=False)
        self._chains.move_to_end(stream)
        return chain

    def open_chain(self, stream: str, name: str, follows: Place | None = None) -> Chain:
        """Return a chain, this node's or another one's."""
        return Chain(
            self._store,
            stream,
            name,
            node=self.node,
            follows=follows,
            remembered=self._ends.get(stream),
            sign=self._sign,
            clock=self._clock,
            randomness=self._randomness,
        )

    async def _before(self, stream: str) -> Place | None:
        """Return where this data directory's earlier chain of the stream was, as far as it is known."""
        end = self._ends.get(stream)
        if end is not None and end.chain != self._names.chain:
            return end
        before = self._names.before
        if before is None:
            return None
        head = await self.head(stream, before)
        return None if head is None else Place(before, head.seq, head.hash)

    async def head(self, stream: str, chain: str) -> audit.Head | None:
        """Return the head of a chain, None where it is not there or not readable."""
        try:
            data = (await self._store.get(audit.head_key(stream, chain))).data
            return audit.decode_head(data, stream=stream, chain=chain)
        except RetryableError:
            raise
        except MemoturnError:
            return None

    def _begin_again(self, stream: str, place: Place | None) -> None:
        """Go on under a new name: the chains that had the old one are somebody else's, or were changed."""
        if place is not None:
            self._remember(stream, place)
        if stream in self._chains and self._chains[stream].name == self._names.chain:
            self._names = _Names(self._new_name(), self._names.chain)
            try:
                self._write_names(self._names)
            except OSError as error:  # the next start goes back to the old name, and finds out again
                _log.error("the new name of the audit chains is not on disk", error=str(error))
        self._chains.pop(stream, None)

    def _new_name(self) -> str:
        return f"{self.node.lstrip('.') or 'node'}.{self._randomness.hex(4)}"

    def _read_names(self) -> _Names:
        path = self._folder / "chain"
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Names)
        except FileNotFoundError:
            pass
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("the name of this node's audit chains is lost; new ones begin", error=str(error))
        except OSError as error:
            _log.error(
                "the name of this node's audit chains cannot be read; new ones begin", error=str(error)
            )
        names = _Names(self._new_name())
        try:
            self._write_names(names)
        except OSError as error:  # the next start begins new chains again
            _log.warning("the name of this node's audit chains is not on disk", error=str(error))
        return names

    def _write_names(self, names: _Names) -> None:
        path = self._folder / "chain"
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(names))
        temporary.replace(path)

    # ---- stopping

    def let_go(self) -> None:
        """Close the files; what was not flushed stays in them for the next start."""
        self._spool.close()
        self._ends.close()

    async def close(self) -> None:
        """Flush what can be flushed within `STOP_S`; the rest stays in the spool, for the next start."""
        self._tell_denied()
        try:
            async with asyncio.timeout(STOP_S):
                await self.flush()
        except TimeoutError:
            pass
        if self._count:
            _log.warning("stopped with audit events that are not in object storage; the spool keeps them",
                         events=self._count)  # fmt: skip
        self.let_go()

    def count_denied(self) -> None:
        """Count a request without a valid credential that gets no event of its own: they are told together."""
        self._denied += 1

    def _tell_denied(self) -> None:
        if not self._denied:
            return
        count, self._denied = self._denied, 0
        now_ms = self._clock.now_ms()
        self.append(
            audit.PLATFORM,
            Event(
                v=audit.VERSION,
                id=self.next_id(now_ms),
                ts=now_ms,
                node=self.node,
                ns=audit.PLATFORM,
                action="auth.denied",
                outcome="denied",
                count=count,
                actor=audit.Actor("anonymous"),
            ),
        )

    @property
    def waiting(self) -> int:
        """How many events are not in object storage yet."""
        return self._count

    def waits(self, stream: str) -> bool:
        """Return whether events of a stream are not in object storage yet."""
        return stream in self._waiting

    def knows(self, stream: str) -> bool:
        """Return whether this node has written to a stream of late."""
        return stream in self._chains or stream in self._waiting

    def _measure(self) -> None:
        oldest_ms = min((rows[0][0].ts for rows in self._waiting.values()), default=None)
        now_ms = self._clock.now_ms()
        self._metrics.audit_lag_seconds.set(0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000)
        self._metrics.audit_waiting_events.set(self._count)
        self._metrics.audit_spool_bytes.set(self._spool.size_bytes)
