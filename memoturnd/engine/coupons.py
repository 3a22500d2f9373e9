"""Where the coupons of erasures are kept: one compare-and-swap object each, outside of the databases' own prefixes."""

from collections.abc import Sequence
from functools import partial

from memoturnd.core import erasures, layout
from memoturnd.core.erasures import Coupon
from memoturnd.errors import CorruptionError, NotFoundError
from memoturnd.replication import few_at_once
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import ObjectStore

_SUFFIX = ".json"


class Coupons:
    """The coupons of all databases, by the database's uuid."""

    def __init__(self, store: ObjectStore, clock: Clock, randomness: Randomness) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness

    def file(self, uuid: str, erasure_id: str) -> SwapFile[Coupon]:
        """Return the coupon of an erasure as a compare-and-swap file."""
        return SwapFile(
            self._store,
            layout.erasure_key(uuid, erasure_id),
            encode=erasures.encode,
            decode=partial(_decode_of, uuid=uuid, erasure_id=erasure_id),
            randomness=self._randomness,
            clock=self._clock,
        )

    async def get(self, uuid: str, erasure_id: str) -> Coupon:
        """Return a coupon. Raises NotFoundError, CorruptionError, StoreUnavailableError."""
        found = await self.file(uuid, erasure_id).load() if erasures.is_id(erasure_id) else None
        if found is None:
            raise NotFoundError(f"no erasure {erasure_id[:64]!a} of this database was ever requested")
        return found

    async def ids(self, uuid: str) -> list[str]:
        """Return the ids of a database's erasures, the newest request first."""
        prefix = layout.erasures_prefix(uuid)
        found = [info.key.removeprefix(prefix) async for info in self._store.list(prefix)]
        ids = (name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))
        return sorted(filter(erasures.is_id, ids), reverse=True)

    async def page(self, uuid: str, *, before: str | None, limit: int) -> list[Coupon]:
        """Return up to `limit` coupons of a database older than the id `before`, the newest first."""
        ids = [id_ for id_ in await self.ids(uuid) if before is None or id_ < before]
        return await self._load(uuid, ids[:limit])

    async def create(self, file: SwapFile[Coupon], coupon: Coupon) -> None:
        """Keep a new coupon, noted before as one that waits, so that it is found again whatever is lost."""
        await self._store.put(layout.waiting_erasure_key(coupon.uuid, coupon.id), b"{}")
        await file.create(coupon)

    async def waiting(self, uuid: str) -> list[Coupon]:
        """Return the coupons of erasures that something is still to be done for, the oldest first."""
        prefix = layout.waiting_erasures_prefix(uuid)
        ids = [info.key.rpartition("/")[2] async for info in self._store.list(prefix)]
        return await self._load(uuid, sorted(ids))

    async def _load(self, uuid: str, ids: Sequence[str]) -> list[Coupon]:
        """Return the coupons that are there, several read at a time: a policy may make each forgetting an erasure."""
        found: dict[str, Coupon] = {}

        async def one(id_: str) -> None:
            coupon = await self.file(uuid, id_).load()
            if coupon is not None:
                found[id_] = coupon

        await few_at_once.together(ids, one)
        return [found[id_] for id_ in ids if id_ in found]

    async def note_releasing(self, coupon: Coupon) -> None:
        """Note that every node has to let go of its copies of the coupon's database."""
        await self._store.put(layout.releasing_erasure_key(coupon.uuid, coupon.id), b"{}")

    async def note_rewritten(self, uuid: str) -> int:
        """Note that the history of a database was rewritten, for nodes that are away and keep files of it.

        Returns when that was, in unix ms by the store's clock; 0 where its listing does not say.
        """
        key = f"{layout.rewritten_databases_prefix()}{uuid}"
        await self._store.put(key, b"{}")
        return max([info.modified_ms async for info in self._store.list(key)], default=0)

    async def rewritten(self) -> dict[str, int]:
        """Return by uuid when the history of a database was last rewritten, in unix ms by the store's clock."""
        prefix = layout.rewritten_databases_prefix()
        return {info.key.removeprefix(prefix): info.modified_ms async for info in self._store.list(prefix)}

    async def releasing(self) -> list[SwapFile[Coupon]]:
        """Return the coupons for which nodes have to let go of their copies, of all databases."""
        prefix = layout.releasing_erasures_prefix()
        found = [info.key.removeprefix(prefix).split("/") async for info in self._store.list(prefix)]
        return [self.file(*parts) for parts in found]

    async def forget_waiting(self, coupon: Coupon) -> None:
        """Note that an erasure waits no more, and that no node has to let go of anything for it."""
        await self._store.delete(layout.releasing_erasure_key(coupon.uuid, coupon.id))
        await self._store.delete(layout.waiting_erasure_key(coupon.uuid, coupon.id))

    async def databases_waiting(self) -> set[str]:
        """Return the uuids of databases that have erasures which are not completed."""
        prefix = layout.waiting_erasures_prefix()
        return {info.key.removeprefix(prefix).partition("/")[0] async for info in self._store.list(prefix)}


def _decode_of(data: bytes, *, uuid: str, erasure_id: str) -> Coupon:
    found = erasures.decode(data)
    if (found.uuid, found.id) != (uuid, erasure_id):
        raise CorruptionError(
            f"it is the coupon of {found.id} of database {found.uuid}: somebody put it there"
        )
    return found
