"""What a verification has found and seen so far: findings, progress, and which objects are named and proven."""

import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from memoturnd.core.manifest import ObjectRef, replace
from memoturnd.core.verification import Event, Finding, FindingKind, Progress, TxidRange
from memoturnd.replication.check import Checker
from memoturnd.seams.clock import Clock

PROGRESS_S = 0.5
Report = Callable[[Event], Awaitable[None]]


class Ledger:
    """The books of one verification. Of every key and entry 16 bytes are remembered."""

    def __init__(self, checker: Checker, clock: Clock, report: Report) -> None:
        self.checker = checker
        self.findings = 0
        self.damaged: set[str] = set()
        """Keys with a finding."""
        self.unfinished: list[str] = []
        self.is_blind = False
        """Whether a document that names objects could not be read, so that what is unreachable is not known."""
        self._clock = clock
        self._report = report
        self._checked = self._of = 0
        self._told: set[tuple[str, str, str]] = set()
        self._named: set[bytes] = set()
        self._objects: set[bytes] = set()
        self._proven: set[bytes] = set()
        self._reported_s = clock.monotonic_s()

    async def tell(
        self, kind: FindingKind, branch: str, key: str, what: str, lost: tuple[TxidRange, ...], todo: str
    ) -> None:
        """Report a finding, once."""
        if (branch, key, what) in self._told:
            return
        self._told.add((branch, key, what))
        self.findings += 1
        self.damaged.add(key)
        await self._report(Finding(kind, branch, key, what, lost, todo))

    # ---- progress

    def expect(self, more: int) -> None:
        """Count what will be checked."""
        self._of += more

    async def step(self, done: int = 1) -> None:
        """Count what was checked, and report progress now and then."""
        self._checked += done
        now_s = self._clock.monotonic_s()
        if now_s - self._reported_s >= PROGRESS_S:
            self._reported_s = now_s
            await self._report(self.progress)

    @property
    def progress(self) -> Progress:
        """Return how far the verification is."""
        return Progress(self._checked, max(self._of, self._checked), self.checker.read_bytes)

    # ---- what is named

    def name(self, key: str) -> None:
        """Remember that something names the key."""
        self._named.add(_digest(key.encode()))

    def is_named(self, key: str) -> bool:
        """Return whether something names the key."""
        return _digest(key.encode()) in self._named

    def see(self, key: str) -> None:
        """Count an object that was read."""
        self._objects.add(_digest(key.encode()))

    @property
    def objects(self) -> int:
        """Return how many objects were read."""
        return len(self._objects)

    # ---- what is proven

    def prove(self, refs: list[ObjectRef]) -> None:
        """Remember entries whose objects are whole, and follow from those before them in their branch."""
        self._proven.update(map(_entry, refs))

    def is_proven(self, ref: ObjectRef) -> bool:
        """Return whether the entry is, in a branch that was verified before."""
        return _entry(ref) in self._proven


def _entry(ref: ObjectRef) -> bytes:
    return _digest(msgspec.json.encode(replace(ref, upto=0)))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
