"""One chain in object storage: an object for each batch of events, then the head that names it, by compare-and-swap.

The bytes of an object follow from the head and the events, and its key is written down before it is put. So whatever
happens between the two writes, the same object is put again and the head moves once.
"""

import base64
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from memoturnd.audit.ports import Sign
from memoturnd.audit.spool import Intent
from memoturnd.core import audit
from memoturnd.core.audit import Head, Kept, Link, Place, Waiting
from memoturnd.errors import ConflictError, CorruptionError, InvariantError, StoreUnavailableError
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import Committed, ObjectMissingError, ObjectStore


class ChainLostError(ConflictError):
    """The head is not what this process left: somebody else writes to the chain, or has changed it.

    `place` is the last place that this process knows of.
    """

    def __init__(self, message: str, place: Place | None) -> None:
        super().__init__(message)
        self.place = place


class Chain:
    """The chain of one stream, written by this process alone."""

    def __init__(
        self,
        store: ObjectStore,
        stream: str,
        chain: str,
        *,
        node: str,
        follows: Place | None,
        remembered: Place | None = None,
        sign: Sign | None,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self.stream = stream
        self.name = chain
        self._store = store
        self._node = node
        self._follows = follows
        self._remembered = remembered
        self._sign = sign
        self._clock = clock
        self._known: Head | None = None
        self._file = SwapFile(
            store,
            audit.head_key(stream, chain),
            encode=audit.encode_head,
            decode=partial(audit.decode_head, stream=stream, chain=chain),
            randomness=randomness,
            clock=clock,
        )

    async def open(self) -> str:
        """Read the head, once; return the id of the last event that is in the chain, empty for none.

        Raises ChainLostError for a head that is damaged, or behind what this data directory remembers;
        StoreUnavailableError.
        """
        if self._known is None:
            try:
                head = await self._file.load()
            except CorruptionError as error:
                raise ChainLostError(str(error), None) from error
            self._check(head)
            self._known = head or audit.begun(
                self.stream, self.name, self._node, self._clock.now_ms(), self._follows
            )
        return self._known.last_event

    def _check(self, head: Head | None) -> None:
        end = self._remembered
        if end is None or end.chain != self.name:
            return
        seq, line = (0, "") if head is None else (head.seq, head.hash)
        if seq < end.seq or (seq == end.seq and line != end.hash):
            raise ChainLostError(f"{self._file.key} goes up to event {seq}, and went up to {end.seq}", end)

    @property
    def end(self) -> Place:
        """Where the chain has come to, once something was flushed."""
        return Place(self.name, self._head.seq, self._head.hash)

    async def flush(
        self, events: Sequence[Waiting], intent: Intent | None, write_down: Callable[[Intent], None]
    ) -> int:
        """Put the first of `events` as one object, move the head behind it, and return how many those were.

        After a failure the next call puts the same object. Raises ChainLostError, StoreUnavailableError.
        """
        await self.open()
        number = self._head.objects + 1
        if intent is None or (intent.chain, intent.number) != (self.name, number):
            key = audit.object_key(self.stream, self.name, number, events[0].ts)
            intent = Intent(self.name, number, audit.first_batch(events), key)
            write_down(intent)
        batch = events[: intent.count]
        data, link = audit.chained(batch, self._head.link)
        await self._put(intent.key, data)
        try:
            await self._move(intent.key, link, batch[-1].id)
        except ChainLostError:
            await self._store.delete(intent.key)  # its events are still waiting, and go into another chain
            raise
        return len(batch)

    async def _put(self, key: str, data: bytes) -> None:
        """Put an object where none is. Raises ChainLostError where another one stands, StoreUnavailableError."""
        result = await self._store.put_if_absent(key, data)
        if isinstance(result, Committed):
            return
        try:
            standing = (await self._store.get(key)).data
        except ObjectMissingError as error:
            raise StoreUnavailableError(f"putting {key} did not come to an end; it is tried again") from error
        if standing != data:
            raise ChainLostError(f"{key} was put by somebody else", self._place(self._head))

    async def _move(self, key: str, link: Link, last_event: str) -> None:
        before = self._head

        def move(head: Head) -> Head:
            if head.last_key == key and head.link == link:
                return head  # an earlier attempt has landed
            if head.link != before.link:
                raise ChainLostError(f"{self._file.key} was changed by somebody else", self._place(before))
            return self._signed(
                audit.moved(
                    head,
                    link,
                    key=key,
                    last_event=last_event,
                    node=self._node,
                    at_ms=self._clock.now_ms(),
                )
            )

        try:
            if before.objects or await self._exists():
                self._known = await self._file.update(move)
                return
            if not await self._file.create(move(before)):
                raise ChainLostError(f"{self._file.key} was made by somebody else", None)
        except ObjectMissingError as error:
            raise ChainLostError(f"{self._file.key} is gone", self._place(before)) from error
        except CorruptionError as error:
            raise ChainLostError(str(error), self._place(before)) from error
        self._known = self._file.cached

    async def _exists(self) -> bool:
        """Return whether the head stands: an attempt to create it may have landed without an answer."""
        return await self._file.load() is not None

    def _signed(self, head: Head) -> Head:
        if self._sign is None:
            return msgspec.structs.replace(head, alg="none", key_id=None, sig=None)
        named = msgspec.structs.replace(head, alg="Ed25519")
        key_id, signature = self._sign(audit.signed_part(named))
        return msgspec.structs.replace(named, key_id=key_id, sig=base64.b64encode(signature).decode())

    async def head(self) -> Head:
        """Return the head as it stands. Raises CorruptionError, StoreUnavailableError."""
        head = await self._file.load(fresh=True)
        if head is None:
            raise CorruptionError(f"{self._file.key} is gone")
        return head

    async def keep_from(self, kept: Kept) -> None:
        """Let the kept part begin at `kept`, where that is later; an empty day leaves the day."""

        def move(head: Head) -> Head:
            if (kept.object, kept.day) <= (head.kept.object, head.kept.day):
                return head
            whole = msgspec.structs.replace(kept, day=kept.day or head.kept.day)
            return self._signed(msgspec.structs.replace(head, kept=whole))

        await self._file.update(move)

    @property
    def _head(self) -> Head:
        if self._known is None:
            raise InvariantError("a chain is used before it was opened")
        return self._known

    def _place(self, head: Head) -> Place | None:
        return Place(self.name, head.seq, head.hash) if head.objects else None
