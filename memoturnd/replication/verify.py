"""Verification of a database: everything that its register leads to is read, proven, and held against the rest.

It reads object storage and nothing else, takes no lease, and changes nothing. A branch may move on meanwhile:
what is missing counts as damage only if the manifest, read again, still names it; else the branch is begun
anew. Damage is reported as it is found, and what does not need the damaged object is verified all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from memoturnd.core import garbage, layout, manifest, register
from memoturnd.core.manifest import HistoryPage, Manifest
from memoturnd.core.names import MAIN_BRANCH
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.core.verification import RESTORE_A_COPY, Progress, Summary
from memoturnd.errors import MemoturnError
from memoturnd.replication.archive import BRANCHES
from memoturnd.replication.check import MISSING, Checker, Damage
from memoturnd.replication.ledger import Ledger, Report
from memoturnd.replication.verify_branch import BranchCheck, MovedOnError
from memoturnd.replication.verify_names import read_names
from memoturnd.replication.verify_states import Room, States
from memoturnd.seams.clock import Clock
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore

ATTEMPTS = 5
"""Times that a branch which moves on is begun before it is given up."""
KEYS_SHOWN = 20
"""Keys of unreachable objects that a summary lists."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is verified: a database, or one `branch` of it. `branches` are the ids by name that the catalog has.

    With `deep` every state is restored, else a sample that `seed` chooses.
    """

    uuid: str
    name: str
    written: bool
    branches: Mapping[str, str]
    branch: str | None
    deep: bool
    seed: str


class Verifier:
    """One verification. `folder` is an empty one for restored states; who made it removes it."""

    def __init__(
        self,
        scope: Scope,
        store: ObjectStore,
        executor: Executor,
        *,
        folder: Path,
        room: Room,
        stopping: Event,
        clock: Clock,
        report: Report,
    ) -> None:
        self._scope = scope
        self._store = store
        self._clock = clock
        self._ledger = Ledger(Checker(store, executor, scope.uuid), clock, report)
        self._states = States(store, executor, folder=folder, room=room, stopping=stopping)
        self._branches = 0

    @property
    def progress(self) -> Progress:
        """Return how far it is."""
        return self._ledger.progress

    async def run(self) -> Summary:
        """Verify, reporting findings and progress on the way; return the summary, which is not reported."""
        ledger, started_ms = self._ledger, self._clock.now_ms()
        unreachable: tuple[int | None, int | None, tuple[str, ...]] = None, None, ()
        try:
            for name, branch_id in (await self._register()).items():
                await self._branch(name, branch_id)
            if self._scope.branch is None and not ledger.is_blind:
                unreachable = await self._unreachable(started_ms)
        except MemoturnError as error:
            ledger.unfinished.append(f"the verification broke off: {error}")
        return Summary(
            outcome="damaged" if ledger.findings else "unfinished" if ledger.unfinished else "clean",
            deep=self._scope.deep,
            seed=self._scope.seed,
            branches=self._branches,
            objects=ledger.objects,
            bytes=ledger.checker.read_bytes,
            states=self._states.restored,
            findings=ledger.findings,
            damaged_objects=len(ledger.damaged),
            unreachable_objects=unreachable[0],
            unreachable_bytes=unreachable[1],
            unreachable_keys=unreachable[2],
            unfinished=tuple(ledger.unfinished),
        )

    # ---- the register

    async def _register(self) -> dict[str, str]:
        """Verify the register and its runs; return the ids of the branches to be verified, by name."""
        scope, ledger, key = self._scope, self._ledger, layout.register_key(self._scope.uuid)
        ledger.expect(1)
        ledger.name(key)
        found = await self._document()
        await ledger.step()
        if isinstance(found, Damage):
            if found == MISSING and not scope.written:
                return {}
            ledger.is_blind = True
            await ledger.tell(found.kind, "", key, found.what, (), RESTORE_A_COPY)
            return self._wanted(dict(scope.branches))
        if found.state != "live":
            ledger.unfinished.append(
                f"database {scope.name} is being {'imported' if found.state == 'importing' else 'deleted'}"
            )
            return {}
        names = await read_names(ledger, BRANCHES, found, self._run_damaged)
        live = {}
        for name, entry in sorted(names.items(), key=_age):
            if entry.deleted_at is None and not register.is_deleted_name(name):
                live[name] = entry.id
            elif scope.branch is None:
                await self._name_all(entry.id)
        return self._wanted({**scope.branches, **live} if ledger.is_blind else live)

    async def _document(self) -> Register | Damage:
        uuid = self._scope.uuid
        return await self._ledger.checker.document(
            layout.register_key(uuid), lambda data: register.decode_of(data, uuid=uuid)
        )

    async def _run_damaged(self, key: str, damage: Damage) -> None:
        """Tell of a run of branches, unless the register names it no more: then it was joined with another."""
        fresh = await self._document()
        if isinstance(fresh, Register) and damage == MISSING:
            named = {layout.run_key(fresh.uuid, run, BRANCHES.kind) for run in fresh.branch_runs}
            if key not in named:
                self._ledger.unfinished.append("the register moved on while it was read; verify again")
                return
        self._ledger.is_blind = True
        await self._ledger.tell(damage.kind, "", key, damage.what, (), RESTORE_A_COPY)

    def _wanted(self, branches: dict[str, str]) -> dict[str, str]:
        only = self._scope.branch
        return {name: branch_id for name, branch_id in branches.items() if only in {None, name}}

    # ---- branches

    async def _branch(self, name: str, branch_id: str) -> None:
        self._ledger.expect(1)
        for _ in range(ATTEMPTS):
            current = await self._manifest(name, branch_id)
            if current is None:
                break
            check = BranchCheck(
                self._store,
                self._ledger,
                self._states,
                current,
                deep=self._scope.deep,
                seed=f"{self._scope.seed}/{branch_id}",
            )
            try:
                await check.run()
            except MovedOnError:
                continue
            self._branches += 1
            break
        else:
            self._ledger.unfinished.append(
                f"branch {name} moved on {ATTEMPTS} times while it was verified; verify again when it is less busy"
            )
        await self._ledger.step()

    async def _manifest(self, name: str, branch_id: str) -> Manifest | None:
        """Return a branch's manifest; None where there is none to verify, told of if it is damaged."""
        uuid, ledger = self._scope.uuid, self._ledger
        key = layout.manifest_key(uuid, branch_id)
        ledger.name(key)
        ledger.see(key)
        found = await ledger.checker.document(
            key, lambda data: manifest.decode_of(data, db=uuid, branch_id=branch_id)
        )
        if isinstance(found, Manifest):
            return found if found.deleted_at is None else None
        if found == MISSING and not await self._was_made(name, branch_id):
            return None
        ledger.is_blind = True
        what = f"{found.what}; without it nothing of the branch can be restored"
        await ledger.tell(found.kind, name, key, what, (), RESTORE_A_COPY)
        return None

    async def _was_made(self, name: str, branch_id: str) -> bool:
        """Return whether a branch without a manifest once had one: it is still registered, and not just being made."""
        current = await self._document()
        if isinstance(current, Register):
            names = await read_names(self._ledger, BRANCHES, current, self._run_damaged)
            entry = names.get(name)
            if entry is None or entry.id != branch_id:
                return False
            if name != MAIN_BRANCH and not entry.is_new:
                return True
        async for _ in self._store.list(layout.branch_prefix(self._scope.uuid, branch_id)):
            return True
        return False

    # ---- what nothing names

    async def _name_all(self, branch_id: str) -> None:
        """Remember what a deleted branch names, which stays until garbage collection; nothing of it is verified."""
        uuid, ledger = self._scope.uuid, self._ledger
        ledger.name(layout.manifest_key(uuid, branch_id))
        found = await ledger.checker.document(layout.manifest_key(uuid, branch_id), manifest.decode)
        if isinstance(found, Damage):
            ledger.is_blind = ledger.is_blind or found != MISSING
            return
        for key in garbage.named_by_manifest(found):
            ledger.name(key)
        for page in found.pages:
            content = await ledger.checker.listed(
                layout.page_key(uuid, page), page.hash, page.size_bytes, HistoryPage
            )
            if isinstance(content, Damage):
                ledger.is_blind = True
                continue
            for key in garbage.named_by_page(uuid, content):
                ledger.name(key)

    async def _unreachable(self, before_ms: int) -> tuple[int, int, tuple[str, ...]]:
        """Return (number, bytes, some keys) of objects stored before `before_ms` that nothing names."""
        count = size_bytes = 0
        keys: list[str] = []
        prefix = layout.database_prefix(self._scope.uuid)
        async for info in self._store.list(prefix):
            is_object = info.key.count("/") > prefix.count("/")
            if info.modified_ms < before_ms and is_object and not self._ledger.is_named(info.key):
                count += 1
                size_bytes += info.size_bytes
                keys += [info.key][: KEYS_SHOWN - len(keys)]
        return count, size_bytes, tuple(keys)


def _age(one: tuple[str, RegisteredBranch]) -> tuple[bool, int, str]:
    """Put parents before their forks, whose shared history is then proven already."""
    name, entry = one
    return name != MAIN_BRANCH, entry.created_at, name
