"""The protocol broken in one way each: the simulation must notice every one of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from gateway import routing
from memoturnd.core import compaction, garbage, layout, lineage, tails, wal
from memoturnd.core import manifest as manifests
from memoturnd.core import register as registers
from memoturnd.core.durability import Durability
from memoturnd.core.pages import page_hash
from memoturnd.core.recovery import Decision, Verdict
from memoturnd.core.retention import Thin
from memoturnd.core.retries import Asked, decide
from memoturnd.engine import replica, schema, takeover
from memoturnd.engine.branch import Branch
from memoturnd.engine.shared_branch import SharedBranch
from memoturnd.errors import FencedError, StoreUnavailableError
from memoturnd.replication import compactor
from memoturnd.replication.apply import GapError, Proven, follow
from memoturnd.replication.capture import Cursor
from memoturnd.replication.join import Joined, thin
from memoturnd.replication.shipper import Shipper
from memoturnd.replication.tail_store import TailStore
from memoturnd.seams.profile import Work
from simulation.run import Focus
from simulation.table import SharedLeases


@contextmanager
def skip_the_epoch_check() -> Iterator[None]:
    """Swap the manifest whoever owns it now."""
    with mock.patch.object(manifests, "check_owner", lambda manifest, _epoch: manifest):
        yield


@contextmanager
def acknowledge_before_the_swap() -> Iterator[None]:
    """Answer durable writes once the segment is put, before the manifest names it."""
    swap = Shipper._swap

    async def early(self: Shipper, transition: Any) -> None:
        if self._prepared is not None:
            self._landed(self._prepared.ref.max)
        await swap(self, transition)

    with mock.patch.object(Shipper, "_swap", early):
        yield


@contextmanager
def clean_up_on_an_unknown_outcome() -> Iterator[None]:
    """Delete the segment whose swap was not confirmed, and capture anew."""
    ship_next = Shipper._ship_next

    async def tidy(self: Shipper, *args: Any, **kwargs: Any) -> None:
        try:
            await ship_next(self, *args, **kwargs)
        except StoreUnavailableError:
            if self._prepared is not None:
                key = layout.object_key(self._uuid, self._prepared.ref)
                self._prepared = None
                await self._store.delete(key)
            raise

    with mock.patch.object(Shipper, "_ship_next", tidy):
        yield


@contextmanager
def resume_from_the_last_written_frame() -> Iterator[None]:
    """After a crash, go on behind the log's last commit instead of the manifest's head."""
    prove = takeover.prove

    def careless(conn: Any, wal_path: Any, *, page_size: int, txid: int, checksum: str) -> Any:
        proven = prove(conn, wal_path, page_size=page_size, txid=txid, checksum=checksum)
        head = schema.read_meta(conn).txid
        if proven is None or head == txid:
            return proven
        cursor, hashes = proven
        log = wal_path.read_bytes()
        header = wal.parse_header(log)
        assert header is not None
        start = cursor.position or header.start
        rounds = wal.committed_rounds(log[wal.offset_of(start, page_size) :], start, header)
        for round_ in rounds:
            changes = {pgno: page_hash(pgno, image) for pgno, image in round_.pages.items()}
            hashes.apply(changes, round_.db_size_pages)
        return Cursor(head, rounds[-1].end if rounds else start), hashes

    with mock.patch.object(takeover, "prove", careless):
        yield


@contextmanager
def ignore_the_ceiling() -> Iterator[None]:
    """Take over right behind the head, whatever the last owner may have used."""
    decide = takeover.decide

    def low(manifest: Any, local: Any) -> Decision:
        verdict, _ = decide(manifest, local)
        tail = local.txid if verdict is Verdict.TAIL else 0
        return Decision(verdict, max(manifest.head_txid, tail))

    with mock.patch.object(takeover, "decide", low):
        yield


@contextmanager
def fork_without_a_pin() -> Iterator[None]:
    """Make a fork of which its parent does not know."""
    with mock.patch.object(manifests, "pin", lambda manifest, *_: manifest):
        yield


@contextmanager
def fork_without_registering() -> Iterator[None]:
    """Make the manifest of a branch that is not in the register."""
    with mock.patch.object(registers, "renew_branch", lambda register, *_: register):
        yield


@contextmanager
def serve_before_the_epoch_is_raised() -> Iterator[None]:
    """Begin to write as soon as the lease is there."""
    take_over = takeover.take_over

    async def hasty(branch: Any) -> Any:
        manifest_file = branch.manifests

        async def pretend(transition: Any) -> Any:
            del manifest_file.update
            branch.services.spawn(later(transition))
            current = manifest_file.cached
            return transition(current)

        async def later(transition: Any) -> None:
            await branch.services.clock.sleep(0.05)
            try:
                await manifest_file.update(transition)
            except (FencedError, StoreUnavailableError) as error:
                branch.fenced(FencedError(str(error)))

        manifest_file.update = pretend
        try:
            return await take_over(branch)
        finally:
            manifest_file.__dict__.pop("update", None)

    with mock.patch.object(takeover, "take_over", hasty):
        yield


@contextmanager
def drop_a_diverged_tail() -> Iterator[None]:
    """Throw away commits that the chain went on without."""

    async def drop(*_: Any) -> None:
        return

    with mock.patch.object(takeover, "_keep_aside", drop):
        yield


@contextmanager
def name_a_segment_before_it_is_put() -> Iterator[None]:
    """Swap the manifest first, and put the segment behind it."""
    swap, put = Shipper._swap, Shipper._put

    async def nothing(self: Shipper, ref: Any, data: bytes) -> None:
        self.__dict__["late"] = (ref, data)

    async def first(self: Shipper, transition: Any) -> None:
        await swap(self, transition)
        if (late := self.__dict__.pop("late", None)) is not None:
            await put(self, *late)

    with mock.patch.object(Shipper, "_put", nothing), mock.patch.object(Shipper, "_swap", first):
        yield


@contextmanager
def compact_whoever_owns_the_branch() -> Iterator[None]:
    """Let a join that was begun before another node took the branch land all the same."""
    joined = compaction.joined

    def blind(current: Any, inputs: Any, output: Any, *, epoch: int) -> Any:
        del epoch
        return joined(current, inputs, output, epoch=current.epoch)

    with mock.patch.object(compaction, "joined", blind):
        yield


@contextmanager
def join_only_the_last_states() -> Iterator[None]:
    """Drop all rounds but the last of the segments that are joined, and name them all the same."""

    def lossy(parts: Any, refs: Any, writer: Any) -> Joined:
        everything = Thin(tuple(refs), frozenset(), 0, 2**53, 2**53)
        (output,) = thin(parts, everything, writer)
        return Joined(output.data, manifests.replace(output.ref, rounds=0))

    with mock.patch.object(compactor, "join", lossy):
        yield


@contextmanager
def collect_without_grace() -> Iterator[None]:
    """Delete what nothing names as soon as a pass sees it."""

    def hasty(_known: Any, listed: Any, reachable: Any, **_facts: Any) -> garbage.Verdict:
        unnamed = (r for r in listed if r.key not in reachable and garbage.is_collectable(r.key))
        return garbage.Verdict(tuple(unnamed), (), is_full=False)

    with mock.patch.object(garbage, "judge", hasty):
        yield


@contextmanager
def count_on_a_lease_beyond_its_deadline() -> Iterator[None]:
    """Take a session for good until the lease service says something else."""
    with mock.patch.object(SharedLeases, "holds", lambda self, lease: lease.session == str(self._session)):
        yield


@contextmanager
def take_over_without_tails() -> Iterator[None]:
    """Ask the members, and go on from the manifest's head."""
    with mock.patch.object(tails, "longest", return_value=[]):
        yield


@contextmanager
def repeat_writes_without_a_key() -> Iterator[None]:
    """Let gateways send a write again whose answer was lost, whatever it carries."""

    def eager(asked: Asked, *args: Any, **options: Any) -> Any:
        return decide(Asked(asked.reads, True, asked.replayable), *args, **options)

    with mock.patch.object(routing, "decide", eager):
        yield


@contextmanager
def say_of_a_lost_write_that_it_was_not_applied() -> Iterator[None]:
    """Let gateways forget that an earlier attempt got no answer."""

    def forgetful(*args: Any, lost: bool = False, **options: Any) -> Any:
        del lost
        return decide(*args, **options)

    with mock.patch.object(routing, "decide", forgetful):
        yield


@contextmanager
def keep_no_fence() -> Iterator[None]:
    """Let a member give its tail to a new owner, and go on keeping what the old one sends."""

    def open_to_all(_self: Any, tail: Any, _epoch: int) -> list[bytes]:
        return [(tail.folder / name).read_bytes() for name in sorted(tail.pieces)]

    with mock.patch.object(TailStore, "_read", open_to_all):
        yield


@contextmanager
def apply_whatever_is_pushed() -> Iterator[None]:
    """Let a copy put what its owner pushes on what is here, whether it follows or not."""

    def blind(txid: int, hashes: Any, segments: Any) -> Proven:
        try:
            return follow(txid, hashes, segments)
        except GapError:
            return Proven(segments[-1].rounds[-1], hashes)

    with mock.patch.object(replica, "follow", blind):
        yield


@contextmanager
def answer_without_a_look_behind_the_commit() -> Iterator[None]:
    """Look at the lease before a write, and not again before its answer."""

    async def hasty(self: Any, op: Any, *, durability: Any = Durability.LOCAL, work: Any = Work.POINT) -> Any:
        self.users += 1
        try:
            if not self.holds():
                await self.own()
            return await Branch.write(self, op, durability=durability, work=work)
        finally:
            self.leave()

    with mock.patch.object(SharedBranch, "write", hasty):
        yield


@contextmanager
def believe_a_lease_service_that_lost_its_memory() -> Iterator[None]:
    """Take a branch of which nobody knows an owner, whoever may still act on a forgotten lease."""
    with mock.patch.object(lineage, "is_forgotten", return_value=False):
        yield


MUTANTS: dict[str, Callable[[], Any]] = {
    mutant.__name__: mutant
    for mutant in (
        skip_the_epoch_check,
        acknowledge_before_the_swap,
        clean_up_on_an_unknown_outcome,
        resume_from_the_last_written_frame,
        ignore_the_ceiling,
        fork_without_a_pin,
        fork_without_registering,
        serve_before_the_epoch_is_raised,
        drop_a_diverged_tail,
        name_a_segment_before_it_is_put,
        compact_whoever_owns_the_branch,
        join_only_the_last_states,
        collect_without_grace,
        count_on_a_lease_beyond_its_deadline,
        take_over_without_tails,
        repeat_writes_without_a_key,
        say_of_a_lost_write_that_it_was_not_applied,
        keep_no_fence,
        apply_whatever_is_pushed,
        answer_without_a_look_behind_the_commit,
        believe_a_lease_service_that_lost_its_memory,
    )
}
PROVOKED_BY = {
    "compact_whoever_owns_the_branch": Focus(("cut_leases",), ("write_local", "write_durable"), think=0.3),
    "keep_no_fence": Focus(("pause",), ("write_replicated",)),
    "apply_whatever_is_pushed": Focus(("cut_nodes",), ("write_local", "read_cached"), think=0.3),
    "answer_without_a_look_behind_the_commit": Focus(("pause",), ("write_local", "write_durable")),
    "believe_a_lease_service_that_lost_its_memory": Focus(("wipe_leases",), ("write_local", "read")),
}
"""What brings about within seconds what few histories of everything have in them."""
OF_GARBAGE = {"collect_without_grace"}
"""Those that only long histories can notice."""
