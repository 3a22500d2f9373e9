"""What Memoturn keeps in etcd: keys, values, and the transactions on them. Nothing here asks anybody.

    {prefix}node/{node id}       {"address", "instance", "load"}                     with the node's lease
    {prefix}owner/{branch id}    {"node_id", "address", "database", "branch"}        with the node's lease
    {prefix}sync/{branch id}     {"epoch", "members": [{"node_id", "address"}]}      stays
    {prefix}lineage              an id, put by whoever finds none                    stays

An owner's epoch is the revision at which its key was last put, which only taking a branch does: etcd's revision grows with
every change of anything, so no key has to be kept for a branch that nobody owns.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from memoturnd.errors import CorruptionError
from memoturnd.seams.leases import Change, LiveNode, NodeLeft, Owner, Placed, SyncSet

_T = TypeVar("_T")


class NodeRecord(msgspec.Struct, frozen=True):
    """A node that is there. `instance` is the data directory's own id."""

    address: str
    instance: str
    load: float = 0.0


class OwnerRecord(msgspec.Struct, frozen=True):
    """Who holds a branch, and the branch's names for whoever routes."""

    node_id: str
    address: str
    database: str = ""
    branch: str = ""


class _Member(msgspec.Struct, frozen=True):
    node_id: str
    address: str


class _SyncRecord(msgspec.Struct, frozen=True):
    epoch: int
    members: tuple[_Member, ...]


class Entry(msgspec.Struct, frozen=True):
    """A key as it is now: its value, the revision that put it, and the lease that it goes with."""

    key: str
    value: bytes
    revision: int
    lease: str = ""


class Keys:
    """The keys below a prefix, as etcd's JSON takes them."""

    def __init__(self, prefix: str) -> None:
        self._nodes, self._owners, self._syncs = (f"{prefix}{kind}/" for kind in ("node", "owner", "sync"))
        self.lineage: Final = encoded(f"{prefix}lineage")
        """The key of what is another id once etcd was emptied or replaced."""

    def node(self, node_id: str) -> str:
        """Return the key of a node."""
        return encoded(self._nodes + node_id)

    def owner(self, branch_id: str) -> str:
        """Return the key of a branch's owner."""
        return encoded(self._owners + branch_id)

    def sync(self, branch_id: str) -> str:
        """Return the key of a branch's sync set."""
        return encoded(self._syncs + branch_id)

    @property
    def nodes(self) -> tuple[str, str]:
        """The range of all nodes."""
        return encoded(self._nodes), encoded(_after(self._nodes))

    @property
    def watched(self) -> tuple[str, str]:
        """The range of all nodes and owners, which stand side by side."""
        return encoded(self._nodes), encoded(_after(self._owners))

    def node_of(self, entry: Entry) -> LiveNode | None:
        """Return the node that a key stands for, None where it is another kind's."""
        if not entry.key.startswith(self._nodes):
            return None
        record = _read(entry, NodeRecord)
        return LiveNode(entry.key.removeprefix(self._nodes), record.address, record.load)

    def placed_of(self, entry: Entry) -> Placed | None:
        """Return the placement that a key stands for, None where it is another kind's."""
        if not entry.key.startswith(self._owners):
            return None
        record = _read(entry, OwnerRecord)
        return Placed(
            entry.key.removeprefix(self._owners), record.database, record.branch, owner_of(entry, record)
        )

    def change_of(self, event: Mapping[str, Any]) -> Change | None:
        """Return what an event of a watch tells; None where what was there before is not known any more."""
        if event.get("type") != "DELETE":
            entry = entry_of(event["kv"])
            return self.node_of(entry) or self.placed_of(entry)
        key = b64decode(event["kv"]["key"]).decode()
        if key.startswith(self._nodes):
            return NodeLeft(key.removeprefix(self._nodes))
        before = event.get("prev_kv")
        placed = None if before is None else self.placed_of(entry_of(before))
        return None if placed is None else Placed(placed.branch_id, placed.database, placed.branch, None)


def encoded(text: str | bytes) -> str:
    """Return text as bytes travel in etcd's JSON."""
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def entry_of(kv: Mapping[str, Any]) -> Entry:
    """Return a key as etcd tells of it."""
    return Entry(
        b64decode(kv["key"]).decode(),
        b64decode(kv.get("value", "")),
        int(kv["mod_revision"]),
        str(kv.get("lease", "")),
    )


def entries_of(answer: Mapping[str, Any]) -> list[Entry]:
    """Return the keys of a range's answer."""
    return [entry_of(kv) for kv in answer.get("kvs", ())]


def revision_of(answer: Mapping[str, Any]) -> int:
    """Return the revision as of which an answer was given."""
    return int(answer["header"]["revision"])


def owner_of(entry: Entry, record: OwnerRecord | None = None) -> Owner:
    """Return the owner that a key names. Raises CorruptionError."""
    record = record or _read(entry, OwnerRecord)
    return Owner(record.node_id, record.address, entry.revision)


def node_record(entry: Entry) -> NodeRecord:
    """Return what a node has said of itself. Raises CorruptionError."""
    return _read(entry, NodeRecord)


def sync_set_of(entry: Entry) -> SyncSet:
    """Return the set that a key holds. Raises CorruptionError."""
    record = _read(entry, _SyncRecord)
    return SyncSet(record.epoch, tuple(LiveNode(one.node_id, one.address) for one in record.members))


def sync_value(epoch: int, members: Sequence[LiveNode]) -> str:
    """Return the value of a sync set's key."""
    record = _SyncRecord(epoch, tuple(_Member(one.node_id, one.address) for one in members))
    return encoded(msgspec.json.encode(record))


def take(key: str, record: OwnerRecord, lease: str) -> dict[str, Any]:
    """Return the transaction that takes a branch where nobody has it; else it reads.

    What this node has already is taken again at its revision (`take_over`): a copy of this that a paused server comes to
    late must not put another epoch in the place of the one that the node goes by.
    """
    put = _put(key, encoded(msgspec.json.encode(record)), lease)
    return _if([{"target": "CREATE", "key": key, "create_revision": "0"}], [put], [_get(key)])


def take_over(key: str, record: OwnerRecord | NodeRecord, lease: str, *, revision: int) -> dict[str, Any]:
    """Return the transaction that puts a key in the place of what was put at `revision` (0: of nothing); else it reads."""
    put = _put(key, encoded(msgspec.json.encode(record)), lease)
    return _if([_is_at(key, revision)], [put], [_get(key)])


def put_own(key: str, record: NodeRecord, lease: str) -> dict[str, Any]:
    """Return the transaction that changes a key which is of this lease."""
    put = _put(key, encoded(msgspec.json.encode(record)), lease)
    return _if([{"target": "LEASE", "key": key, "lease": lease}], [put], [])


def begin_lineage(key: str, lineage_id: str) -> dict[str, Any]:
    """Return the transaction that puts the lineage where there is none; else it reads."""
    put = _put(key, encoded(lineage_id), None)
    return _if([{"target": "CREATE", "key": key, "create_revision": "0"}], [put], [_get(key)])


def read(key: str, *, lineage_key: str, lineage_id: str) -> dict[str, Any]:
    """Return the transaction that reads a key where the lineage is this one."""
    return _if([{"target": "VALUE", "key": lineage_key, "value": encoded(lineage_id)}], [_get(key)], [])


def give_back(key: str, lease: str, *, revision: int) -> dict[str, Any]:
    """Return the transaction that removes a key if it still is what was put at `revision` under this lease.

    The revision alone does not tell: those of an etcd that was emptied begin anew.
    """
    is_ours = {"target": "LEASE", "key": key, "lease": lease}
    return _if([_is_at(key, revision), is_ours], [{"request_delete_range": {"key": key}}], [])


def note_sync(owner_key: str, key: str, value: str | None, *, revision: int, seen: int) -> dict[str, Any]:
    """Return the transaction that sets or (None) removes a sync set while the owner is who was put at `revision`; else it
    reads the owner.

    It replaces only what was put at `seen` (0: nothing): a copy of it that a paused server comes to later undoes nothing.
    """
    change = {"request_delete_range": {"key": key}} if value is None else _put(key, value, None)
    return _if([_is_at(owner_key, revision), _is_at(key, seen)], [change], [_get(owner_key)])


def found_by(answer: Mapping[str, Any]) -> Entry | None:
    """Return the key that a transaction read instead of changing it."""
    for response in answer.get("responses", ()):
        for kv in response.get("response_range", {}).get("kvs", ()):
            return entry_of(kv)
    return None


def was_done(answer: Mapping[str, Any]) -> bool:
    """Return whether a transaction changed what it was to change."""
    return bool(answer.get("succeeded"))


def _is_at(key: str, revision: int) -> dict[str, Any]:
    return {"target": "MOD", "key": key, "mod_revision": str(revision)}


def _if(compare: list[Any], then: list[Any], otherwise: list[Any]) -> dict[str, Any]:
    return {"compare": compare, "success": then, "failure": otherwise}


def _put(key: str, value: str, lease: str | None) -> dict[str, Any]:
    return {"request_put": {"key": key, "value": value, **({} if lease is None else {"lease": lease})}}


def _get(key: str) -> dict[str, Any]:
    return {"request_range": {"key": key}}


def _after(prefix: str) -> str:
    """Return the first key behind all that begin with `prefix`, which ends with a slash."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _read(entry: Entry, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(entry.value, type=kind)
    except msgspec.MsgspecError as error:
        raise CorruptionError(
            f"the key {entry.key} of etcd holds what is not Memoturn's: {error}; give every cluster a MEMOTURN_ETCD_PREFIX of its own"
        ) from error
