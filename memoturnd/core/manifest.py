"""The branch manifest and every transition of it, as pure functions (docs/formats.md).

One JSON object per branch names what the branch is made of. It changes only by compare-and-swap. It stays
small: older entries lie in immutable history pages, and checkpoints and pins beyond the latest in immutable
runs, which it names. Functions here see only the entries that are in the manifest they are given;
memoturnd.replication.archive brings those of the pages in where an older txid needs them. Each
transition takes the manifest as read and returns the next one, raises FencedError when a later epoch stands
in it, and is idempotent: applied to a manifest that already holds its effect it returns that manifest
unchanged, so that a swap whose outcome is unknown can simply be tried again. All of them stand in this one
file, long as it is, so that what may follow what is read in one place.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, cast

import msgspec

from memoturnd.core import keyed, versioned
from memoturnd.core.bounds import PAGE_SIZES, Count, Id
from memoturnd.core.keyed import RunRef
from memoturnd.core.sealed import sealed, unsealed
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    invariant,
)

FORMAT_VERSION = 2
CEILING_STEP = 1 << 16
"""Txids that an owner reserves ahead of its head, and so the size of the gap that a lost tail leaves."""
REWINDS_KEPT = 100
ERASURES_KEPT = 100
ObjectKind = Annotated[str, msgspec.Meta(pattern=r"^(segment|snapshot)\Z")]


class ObjectRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One immutable object. `branch` is the id of the branch whose folder holds it (forks share objects).

    Holds every txid from `min` to `max`; `prev` is the txid of the state that it applies to, 0 for none.
    `after` is the database checksum at `max` (16 hex digits), `hash` the name hash (32 hex digits), times
    are unix ms. A ref is a base, from which a restore can start, when it is a snapshot or `prev` is 0. A
    large snapshot has several parts, each with the pages of one range; they come and go together.
    """

    kind: ObjectKind
    branch: Id
    prev: Count
    min: Count
    max: Count
    epoch: Count
    hash: Id
    size_bytes: Count
    first_at: Count
    last_at: Count
    after: str
    upto: Count = 0
    """In a fork: the last txid of the object that belongs to it, where that is not `max`."""
    rounds: Count = 0
    """Rounds in it; 0 stands for one per txid from `min` to `max`."""
    first_page: Count = 0
    last_page: Count = 0
    """Of a part of a snapshot: the pages that it may hold. 0 for one that holds the whole file."""

    @property
    def is_thinned(self) -> bool:
        """Return whether only some of its txids can be restored: the others' rounds were joined to the next kept one."""
        return self.rounds not in {0, self.max - self.min + 1}

    @property
    def end(self) -> int:
        """Return the last txid of the object that belongs to the branch."""
        return self.upto or self.max

    @property
    def key_name(self) -> str:
        """Return the object's file name: txid range, epoch, content hash."""
        return f"{self.min:016d}-{self.max:016d}-{self.epoch:08d}-{self.hash}"

    @property
    def is_base(self) -> bool:
        """Return whether a restore can start from this object alone."""
        return self.kind == "snapshot" or self.prev == 0


class PageRef(msgspec.Struct, frozen=True):
    """One history page: entries of `min` to `max`, with wall times from `first_at` to `last_at` (unix ms).

    `branch` is the id of the branch whose folder holds the page, `hash` its name hash.
    """

    branch: Id
    min: Count
    max: Count
    hash: Id
    size_bytes: Count
    entries: Count
    first_at: Count
    last_at: Count

    @property
    def key_name(self) -> str:
        """Return the page's file name: txid range and content hash."""
        return f"{self.min:016d}-{self.max:016d}-{self.hash}"


class HistoryPage(msgspec.Struct, frozen=True):
    """The content of a history page: entries as they stood in the manifest, ascending by txid.

    The random `nonce` gives equal content another name, so that no name is used again.
    """

    snapshots: tuple[ObjectRef, ...]
    segments: tuple[ObjectRef, ...]
    format: int = FORMAT_VERSION
    nonce: str = ""

    @property
    def is_whole(self) -> bool:
        """Return whether the txids of every entry are in order."""
        return all(map(_is_whole, self.segments + self.snapshots))


class Parent(msgspec.Struct, frozen=True):
    """Where a branch was forked from."""

    branch_id: Id
    branch: str
    txid: Count


class Pin(msgspec.Struct, frozen=True):
    """A fork that needs this branch's objects up to `txid`; keyed by the fork's branch id."""

    branch: str
    txid: Count


class Checkpoint(msgspec.Struct, frozen=True):
    """A named restore point; `created_at` is unix ms."""

    txid: Count
    created_at: Count


class Rewind(msgspec.Struct, frozen=True):
    """A commit (`txid`) that made the state equal to that of `to_txid`; `from_txid` is the head before it."""

    txid: Count
    to_txid: Count
    from_txid: Count
    at: Count


class Erasure(msgspec.Struct, frozen=True):
    """History that was rewritten without what erasure `id` names: every state up to `txid`, at unix ms `at`.

    `objects` is how many objects and pages the manifest let go of for it.
    """

    id: Id
    txid: Count
    at: Count
    objects: Count


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that a branch is. See the field's docs in docs/formats.md; `commit_id` is new on every write."""

    format: int = FORMAT_VERSION
    db: Id
    branch_id: Id
    branch: str
    commit_id: str = ""
    created_at: Count
    expires_at: Count | None = None
    parent: Parent | None = None
    epoch: Count = 0
    owner: str = ""
    head_txid: Count = 0
    head_at: Count = 0
    head_checksum: str = "0" * 16
    txid_ceiling: Count = 0
    page_size: int = 4096
    pages: tuple[PageRef, ...] = ()
    snapshots: tuple[ObjectRef, ...] = ()
    segments: tuple[ObjectRef, ...] = ()
    checkpoints: dict[str, Checkpoint | None] = {}
    checkpoint_runs: tuple[RunRef, ...] = ()
    pins: dict[str, Pin | None] = {}
    pin_runs: tuple[RunRef, ...] = ()
    rewinds: tuple[Rewind, ...] = ()
    erasures: tuple[Erasure, ...] = ()
    drafts: tuple[PageRef, ...] = ()
    """Pages that name what a rewrite has written so far, so that the collector leaves it alone."""
    deleted_at: Count | None = None

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """Return every object that it names."""
        return self.segments + self.snapshots


Transition = Callable[["Manifest"], "Manifest"]
_end, _min = attrgetter("end"), attrgetter("min")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)
replace = msgspec.structs.replace


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's JSON, sealed with a checksum."""
    return sealed(_encoder.encode(manifest))


def decode(data: bytes) -> Manifest:
    """Return the manifest in `data`. Raises CorruptionError when it is cut off, newer, or contradicts itself."""
    manifest = versioned.read(
        lambda sealed_: _decoder.decode(unsealed(sealed_)),
        data,
        what="the branch manifest",
        newest=FORMAT_VERSION,
    )
    if manifest.format < FORMAT_VERSION:  # what is written next is of this version
        manifest = replace(manifest, format=FORMAT_VERSION)
    broken = manifest.page_size not in PAGE_SIZES or not all(map(_is_whole, manifest.objects))
    broken = broken or any(a.end > b.end for a, b in pairwise(manifest.snapshots))
    broken = broken or any(a.max > b.min for a, b in pairwise(manifest.pages))
    for a, b in pairwise(manifest.segments):
        if (a.upto or a.max) != b.prev:  # only behind a snapshot may a new run of segments start
            broken = broken or all(ref.max != b.prev for ref in manifest.snapshots)
    ends = [ref.end for ref in (*manifest.segments[-1:], *manifest.snapshots[-1:])]
    if broken or max(ends, default=0) != manifest.head_txid or manifest.head_txid > manifest.txid_ceiling:
        raise CorruptionError(f"the manifest of branch {manifest.branch_id} contradicts itself")
    return manifest


def decode_of(data: bytes, *, db: str, branch_id: str) -> Manifest:
    """Return the manifest in `data`, which stands under that branch's key. Raises CorruptionError for another's."""
    found = decode(data)
    if (found.db, found.branch_id) != (db, branch_id):
        raise CorruptionError(
            f"it is the manifest of branch {found.branch_id} of database {found.db}: somebody put it there"
        )
    return found


def _is_whole(ref: ObjectRef) -> bool:
    """Return whether an object's txids are in order."""
    return ref.prev < ref.min <= ref.end <= ref.max


# ---- queries


def contains(manifest: Manifest, txid: int) -> bool:
    """Return whether `txid` is a commit of the chain; where its object is thinned it may not be restorable."""
    return _segment_at(manifest, txid) is not None or bool(_snapshots_at_or_below(manifest, txid, exact=True))


def restore_plan(manifest: Manifest, txid: int) -> tuple[ObjectRef, ...]:
    """Return the objects that make up the state at `txid`: the newest base at or below it, then segments.

    A base may be several parts of a snapshot. Raises ConflictError when no such state can be restored.
    """
    if not contains(manifest, txid):
        raise unrestorable(manifest, txid)
    segments = manifest.segments
    base = _snapshots_at_or_below(manifest, txid)
    if not base and segments and segments[0].is_base:
        base = segments[:1]
    if not base:
        raise ConflictError(
            f"txid {txid} of branch {manifest.branch} is past retention; the oldest that is kept whole is newer"
        )
    at = base[0].end
    after = _segments_between(segments, at, txid)
    for ref in after:
        if ref.prev > at:
            raise CorruptionError(f"the chain of branch {manifest.branch_id} has a gap above txid {at}")
        at = ref.end
    return (*base, *after)


def plan_from(manifest: Manifest, start_txid: int, txid: int) -> tuple[ObjectRef, ...] | None:
    """Return the segments that lead from the state at `start_txid` to `txid`; None where none of the manifest's do.

    A thinned segment is only known to hold its last round: what lies within may be had from a snapshot alone.
    """
    at, after = start_txid, _segments_between(manifest.segments, start_txid, txid)
    for ref in after:
        if ref.prev > at:
            return None
        at = ref.end
    if after and after[-1].is_thinned and after[-1].end != txid:
        return None
    return after if at >= txid >= start_txid else None


def _segments_between(segments: tuple[ObjectRef, ...], at: int, txid: int) -> tuple[ObjectRef, ...]:
    """Return the segments with txids above `at` and up to `txid`."""
    if at >= txid:
        return ()
    return segments[bisect_right(segments, at, key=_end) : bisect_right(segments, txid, key=_min)]


def unrestorable(manifest: Manifest, txid: int) -> ConflictError:
    """Return the error for a txid without a state."""
    return ConflictError(
        f"txid {txid} of branch {manifest.branch} cannot be restored: it was never committed, was lost "
        f"with its node, or is past retention; the head is {manifest.head_txid}"
    )


def _segment_at(manifest: Manifest, txid: int) -> ObjectRef | None:
    """Return the segment that holds the round `txid`."""
    index = bisect_right(manifest.segments, txid, key=_min) - 1
    if index >= 0 and txid <= manifest.segments[index].end:
        return manifest.segments[index]
    return None


def _snapshots_at_or_below(manifest: Manifest, txid: int, *, exact: bool = False) -> tuple[ObjectRef, ...]:
    """Return every part of the newest snapshot of a state at or below `txid`."""
    snapshots = manifest.snapshots
    last = bisect_right(snapshots, txid, key=_end)
    if last == 0 or (exact and snapshots[last - 1].max != txid):
        return ()
    return snapshots[bisect_left(snapshots, snapshots[last - 1].end, key=_end) : last]


def rounds_since_base(manifest: Manifest) -> int:
    """Return how many rounds a restore of the head applies to the newest snapshot, or to nothing."""
    base = manifest.snapshots[-1].end if manifest.snapshots else 0
    behind = [ref for ref in manifest.segments if ref.end > base]
    return sum(ref.rounds or ref.end - max(base, ref.min - 1) for ref in behind)


def bytes_since_base(manifest: Manifest) -> tuple[int, int, int]:
    """Return (segments after the newest base, their bytes, the base's bytes): what a restore of the head reads."""
    if manifest.head_txid == 0:
        return 0, 0, 0
    plan = restore_plan(manifest, manifest.head_txid)
    base = [ref for ref in plan if ref.end == plan[0].end]
    after = plan[len(base) :]
    return len(after), sum(ref.size_bytes for ref in after), sum(ref.size_bytes for ref in base)


def base_txid(manifest: Manifest) -> int:
    """Return the txid of the newest base, 0 without one."""
    if manifest.snapshots:
        return manifest.snapshots[-1].end
    return manifest.segments[0].end if manifest.segments and manifest.segments[0].is_base else 0


# ---- transitions


def check_owner(manifest: Manifest, epoch: int) -> Manifest:
    """Return the manifest where `epoch` is that of its owner. Raises FencedError."""
    _alive(manifest)
    if manifest.epoch != epoch:
        raise FencedError(
            f"branch {manifest.branch} is owned under epoch {manifest.epoch} now, not {epoch}; "
            "send the request again"
        )
    return manifest


def _alive(manifest: Manifest) -> Manifest:
    if manifest.deleted_at is not None:
        raise FencedError(f"branch {manifest.branch} was deleted")
    return manifest


def delete(manifest: Manifest, *, at_ms: int) -> Manifest:
    """Return the manifest of a branch that is deleted: nothing is committed to it any more. Its objects stay for now."""
    return manifest if manifest.deleted_at is not None else replace(manifest, deleted_at=at_ms)


def undelete(manifest: Manifest) -> Manifest:
    """Return the manifest of a branch that was deleted and is there again."""
    return manifest if manifest.deleted_at is None else replace(manifest, deleted_at=None)


def touch(manifest: Manifest) -> Manifest:
    """Return the same as another version, so that a swap which was prepared on the one before cannot land."""
    return replace(manifest)


def tombstone(*, db: str, branch_id: str, branch: str, parent: Parent | None, at_ms: int) -> Manifest:
    """Return what is put in the place of a manifest that a cut-off fork never made, so that none can be made there."""
    return Manifest(
        db=db, branch_id=branch_id, branch=branch, parent=parent, created_at=at_ms, deleted_at=at_ms
    )


def is_tombstone(manifest: Manifest) -> bool:
    """Return whether it stands in the place of a manifest that was never made: there is no branch to bring back."""
    return manifest.deleted_at == manifest.created_at and not (manifest.head_txid or manifest.objects)


def own(manifest: Manifest, *, epoch: int, owner: str, start_txid: int) -> Manifest:
    """Return the manifest under a new owner (a random token), who commits only above `start_txid`.

    Raises FencedError.
    """
    if _alive(manifest).owner == owner:
        return manifest
    if manifest.epoch >= epoch:
        raise FencedError(f"branch {manifest.branch} already has epoch {manifest.epoch}, not below {epoch}")
    ceiling = max(manifest.txid_ceiling, start_txid + CEILING_STEP)
    return replace(manifest, epoch=epoch, owner=owner, txid_ceiling=ceiling, drafts=())


def raise_ceiling(manifest: Manifest, *, epoch: int, txid: int) -> Manifest:
    """Return the manifest with room to commit above `txid`. Raises FencedError."""
    check_owner(manifest, epoch)
    return replace(manifest, txid_ceiling=max(manifest.txid_ceiling, txid + CEILING_STEP))


def release(manifest: Manifest, *, epoch: int, start_txid: int) -> Manifest:
    """Return the manifest as a clean owner leaves it, who committed only above `start_txid` and shipped it all.

    Raises FencedError.
    """
    check_owner(manifest, epoch)
    used_txid = max(manifest.head_txid, start_txid)
    if manifest.txid_ceiling == used_txid:
        return manifest
    return replace(manifest, txid_ceiling=used_txid)


def append_segments(manifest: Manifest, refs: tuple[ObjectRef, ...], *, epoch: int) -> Manifest:
    """Return the manifest with the next segments of the chain. Raises FencedError, ConflictError on a gap."""
    check_owner(manifest, epoch)
    if (manifest.head_txid, manifest.head_checksum) == (refs[-1].max, refs[-1].after):
        return manifest  # it has landed, perhaps as an earlier try under another name
    if refs[0].prev != manifest.head_txid:
        raise ConflictError(
            f"segment {refs[0].min}..{refs[0].max} of branch {manifest.branch} follows txid {refs[0].prev}, "
            f"but the head is {manifest.head_txid}"
        )
    return replace(
        manifest,
        segments=manifest.segments + refs,
        head_txid=refs[-1].max,
        head_at=refs[-1].last_at,
        head_checksum=refs[-1].after,
        txid_ceiling=max(manifest.txid_ceiling, refs[-1].max + CEILING_STEP),
    )


def add_snapshot(manifest: Manifest, refs: tuple[ObjectRef, ...], *, epoch: int) -> Manifest:
    """Return the manifest with a snapshot (all its parts) of a state in its chain, or of one above its head.

    A snapshot above the head starts a new run of segments: what lies between was committed but could not be
    captured round by round. Raises FencedError.
    """
    check_owner(manifest, epoch)
    first = refs[0]
    if _snapshots_at_or_below(manifest, first.max, exact=True):
        return manifest
    index = bisect_right(manifest.snapshots, first.max, key=_end)
    grown = replace(manifest, snapshots=(*manifest.snapshots[:index], *refs, *manifest.snapshots[index:]))
    if first.max <= manifest.head_txid:
        return grown
    return replace(
        grown,
        head_txid=first.max,
        head_at=first.last_at,
        head_checksum=first.after,
        txid_ceiling=max(manifest.txid_ceiling, first.max + CEILING_STEP),
    )


def record_rewind(manifest: Manifest, rewind: Rewind, *, epoch: int) -> Manifest:
    """Return the manifest with a rewind noted, so that it can be undone. Raises FencedError."""
    check_owner(manifest, epoch)
    if rewind in manifest.rewinds:
        return manifest
    return replace(manifest, rewinds=(*manifest.rewinds, rewind)[-REWINDS_KEPT:])


def has_erased(manifest: Manifest, ids: Collection[str]) -> bool:
    """Return whether history was rewritten for each of these erasures."""
    return {erasure.id for erasure in manifest.erasures}.issuperset(ids)


def draft(manifest: Manifest, page: PageRef, *, owner: str) -> Manifest:
    """Return the manifest with one more page of what a rewrite under that ownership has written. Raises FencedError."""
    if manifest.owner != owner:
        raise FencedError(f"branch {manifest.branch} has another owner now; send the request again")
    return manifest if page in manifest.drafts else replace(manifest, drafts=(*manifest.drafts, page))


def drop_drafts(manifest: Manifest) -> Manifest:
    """Return the manifest without what a rewrite that did not come to its end has written."""
    return replace(manifest, drafts=()) if manifest.drafts else manifest


def rewritten(manifest: Manifest, seen: Manifest, made: Manifest, erasures: tuple[Erasure, ...]) -> Manifest:
    """Return the manifest with the history of `made` in place of that of `seen`, and the erasures recorded.

    Unchanged where other objects stand in it by now. Raises FencedError where it has another owner.
    """
    if (manifest.epoch, manifest.owner) != (seen.epoch, seen.owner):
        raise FencedError(
            f"branch {manifest.branch} changed hands while it was rewritten; send the request again"
        )
    if _history(manifest) != _history(seen):
        return manifest
    known = {erasure.id for erasure in erasures}
    return replace(
        manifest,
        pages=made.pages,
        snapshots=made.snapshots,
        segments=made.segments,
        head_checksum=made.head_checksum,
        erasures=(*(e for e in manifest.erasures if e.id not in known), *erasures)[-ERASURES_KEPT:],
        drafts=(),
    )


def _history(manifest: Manifest) -> tuple[object, ...]:
    return manifest.pages, manifest.snapshots, manifest.segments, manifest.head_txid


def set_checkpoint(manifest: Manifest, name: str, checkpoint: Checkpoint) -> Manifest:
    """Return the manifest with a named restore point; a name that exists moves."""
    return replace(manifest, checkpoints={**manifest.checkpoints, name: checkpoint})


def delete_checkpoint(manifest: Manifest, name: str) -> Manifest:
    """Return the manifest without the restore point, which may lie in a run."""
    return replace(manifest, checkpoints=keyed.without(manifest.checkpoints, manifest.checkpoint_runs, name))


def pin(manifest: Manifest, fork_id: str, pin_: Pin) -> Manifest:
    """Return the parent's manifest with the pin that a fork places before it exists. Raises FencedError."""
    return replace(_alive(manifest), pins={**manifest.pins, fork_id: pin_})


def unpin(manifest: Manifest, fork_id: str) -> Manifest:
    """Return the parent's manifest without a fork's pin."""
    return replace(manifest, pins=keyed.without(manifest.pins, manifest.pin_runs, fork_id))


def fork(
    parent: Manifest,
    *,
    branch_id: str,
    branch: str,
    txid: int,
    head_at: int,
    head_checksum: str,
    created_at: int,
    expires_at: int | None,
) -> Manifest:
    """Return the manifest of a new branch whose state is the parent's at `txid` (0: an empty one).

    It names the parent's objects and history pages up to `txid`; no data moves. The parent's own entries
    must reach down to the base of `txid`. `head_at` and `head_checksum` (16 hex digits) are those of the
    round `txid`.
    """
    if txid:
        restore_plan(parent, txid)
    segments = parent.segments[: bisect_right(parent.segments, txid, key=_min)]
    if segments and segments[-1].end > txid:
        segments = (*segments[:-1], replace(segments[-1], upto=txid))
    return Manifest(
        db=parent.db,
        branch_id=branch_id,
        branch=branch,
        created_at=created_at,
        expires_at=expires_at,
        parent=Parent(parent.branch_id, parent.branch, txid),
        head_txid=txid,
        head_at=head_at,
        head_checksum=head_checksum,
        txid_ceiling=txid,
        page_size=parent.page_size,
        pages=tuple(page for page in parent.pages if page.max <= txid),
        snapshots=parent.snapshots[: bisect_right(parent.snapshots, txid, key=_end)],
        segments=segments,
        erasures=parent.erasures,
    )


def round_ref(manifest: Manifest, txid: int) -> ObjectRef:
    """Return the object that holds the round `txid`, which must be restorable: rather a snapshot of just that state."""
    at = _snapshots_at_or_below(manifest, txid, exact=True)
    ref = at[0] if at else _segment_at(manifest, txid)
    invariant(ref is not None, "a restorable txid is in some object", txid=txid, branch=manifest.branch_id)
    return cast("ObjectRef", ref)
