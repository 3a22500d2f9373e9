# Made of _async/memory.py by scripts/unasync: change that one.
"""A memory profile: typed memories that are ingested, recalled, forked and rewound as one unit."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from memoturn._core.bodies import given, listed, moment
from memoturn._core.files import Progress
from memoturn._core.paths import MAIN
from memoturn._core.positions import Place
from memoturn._sync.address import Address
from memoturn._sync.asking import Asking
from memoturn._sync.branches import Branches
from memoturn._sync.changes import Changes
from memoturn._sync.database import Db
from memoturn._sync.erasures import Erasures
from memoturn._sync.files import save, send_lines
from memoturn._sync.http import Http
from memoturn._sync.models import Models
from memoturn._sync.turns import Transcripts
from memoturn._sync.upkeep import Upkeep
from memoturn.errors import DatabaseNotFoundError
from memoturn.types import (
    At,
    Checkpoint,
    Decay,
    ErasureCoupon,
    ErasureRequested,
    ErasureTarget,
    Exported,
    Fork,
    Fusion,
    IngestItem,
    IngestResult,
    Memory,
    MemoryImported,
    MemoryType,
    Moment,
    ReadOptions,
    RecallResult,
    Rewind,
    Session,
    Weights,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class MemoryProfile(Upkeep, Models, Asking, Transcripts, Changes):
    """One branch of a profile. It is created by its first ingest.

    Reads and writes take the options of `memoturn.types.ReadOptions` and `WriteOptions`.
    """

    def __init__(
        self, http: Http, namespace: str, profile: str, *, branch: str = MAIN, source: str | None = None
    ) -> None:
        self.namespace = namespace
        self.profile = profile
        self.branch = branch
        self._http = http
        self._source = source
        database = f"{namespace}--{profile}"
        self._address = Address(
            http, "v1", "memory", namespace, profile, place=Place(database, branch), branch=branch
        )
        self._spec = database if branch == MAIN else f"{database}@{branch}"
        self._database = Address(http, "v1", "db", self._spec, place=Place(database, branch))
        self._erasures = Erasures(self._address)
        self._branches = Branches(http, database)

    @property
    def last_txid(self) -> int:
        """Newest txid of this branch in the client's answers so far; reads show it, or a later one."""
        return self._address.last_txid

    @property
    def last_durable_txid(self) -> int:
        """Newest txid of this branch that an answer so far reported to be in object storage."""
        return self._address.last_durable_txid

    @property
    def db(self) -> Db:
        """The database below the profile, on the same branch: its key-values, documents, SQL."""
        return Db(self._http, self._spec)

    def on_branch(self, branch: str) -> "MemoryProfile":
        """Return the same profile on another branch."""
        return MemoryProfile(self._http, self.namespace, self.profile, branch=branch, source=self._source)

    def ingest(
        self,
        memories: Iterable[IngestItem],
        *,
        on_error: Literal["fail", "skip"] = "fail",
        **options: "Unpack[WriteOptions]",
    ) -> IngestResult:
        """Store up to 1000 memories as one commit; the outcomes are in the order of the items.

        Items without a `source` get the client's. What is wrong with one of them stores none of them and raises
        InvalidRequestError; with `on_error="skip"` it leaves out that one, whose outcome has the `error`.
        """
        body: dict[str, Any] = {"memories": [self._whole(item) for item in memories]}
        if on_error != "fail":
            body["on_error"] = on_error
        answer = self._address.write("POST", "memories", body=body, **options)
        return cast("IngestResult", answer.stamped())

    def recall(
        self,
        query: str | None = None,
        *,
        embedding: Sequence[float] | None = None,
        embedding_model: str | None = None,
        topic_key: str | None = None,
        types: Sequence[MemoryType] | None = None,
        session_id: str | None = None,
        source: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        k: int = 8,
        include_superseded: bool = False,
        include_turns: bool = False,
        include_context: bool = False,
        weights: Weights | None = None,
        decay: Decay | None = None,
        min_score: float | None = None,
        pinned_first: bool = False,
        fusion: Fusion | None = None,
        explain: bool = False,
        **options: "Unpack[ReadOptions]",
    ) -> RecallResult:
        """Return up to `k` memories, best first, found by any of `query`, `embedding` and `topic_key`.

        The filters `types`, `session_id`, `source`, `since` and `until` (when a memory was stored, both included)
        narrow what is looked at. `weights` and `decay` say what counts how much, `min_score` leaves out what
        scores less, `fusion="reference"` ranks as the original did. With `explain` each hit says what each
        channel adds to its score, with `include_context` what surrounds it; `include_turns` finds turns, too.
        An unknown profile recalls nothing. Raises InvalidRequestError when none of the three is given.
        """
        body = given(
            query=query,
            embedding=listed(embedding),
            embedding_model=embedding_model,
            topic_key=topic_key,
            types=listed(types),
            session_id=session_id,
            source=source,
            since=moment(since),
            until=moment(until),
            k=k,
            include_superseded=include_superseded or None,
            include_turns=include_turns or None,
            include_context=include_context or None,
            weights=weights,
            decay=decay,
            min_score=min_score,
            pinned_first=pinned_first or None,
            fusion=fusion,
            explain=explain or None,
        )
        answer = self._address.read("POST", "recall", body=body, **options)
        return cast("RecallResult", answer.stamped())

    def get(self, memory_id: str, **options: "Unpack[ReadOptions]") -> Memory | None:
        """Return a memory with its neighbours in the topic's chain, None when there is none of that id, or no profile."""
        try:
            answer = self._address.find("GET", "memories", memory_id, **options)
        except DatabaseNotFoundError:
            return None
        return None if answer is None else cast("Memory", answer.json())

    def forget(self, memory_id: str, **options: "Unpack[WriteOptions]") -> bool:
        """Remove a memory and mend its topic's chain; False when there is none of that id, or no such profile."""
        try:
            return self._address.remove("memories", memory_id, **options)
        except DatabaseNotFoundError:
            return False

    def sessions(self, *, limit: int = 100, **options: "Unpack[ReadOptions]") -> list[Session]:
        """Return up to `limit` sessions, the most recently active first."""
        answer = self._address.read("GET", "sessions", query={"limit": limit}, **options)
        return cast("list[Session]", answer.json()["sessions"])

    def iter_sessions(
        self, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> Iterator[Session]:
        """Yield the sessions, the most recently active first; one that is active meanwhile moves to the front."""
        for row in self._address.pages("sessions", "sessions", most=limit, **options):
            yield cast("Session", row)

    def end_session(self, session_id: str, *, turns: bool = False, **options: "Unpack[WriteOptions]") -> None:
        """Delete a session and its tasks, with `turns` also its transcript; no error when it is unknown."""
        self._address.write("DELETE", "sessions", session_id, query={"turns": turns}, **options)

    def erase(
        self,
        *,
        memory_id: str | None = None,
        topic_key: str | None = None,
        type: Literal["fact", "instruction"] | None = None,  # noqa: A002 - the field's name
        session_id: str | None = None,
        turns: bool = False,
        memories: bool = False,
        targets: Sequence[ErasureTarget] = (),
        grace_secs: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> ErasureRequested:
        """Erase a memory, a topic of a type, or a session (with `turns` its transcript, with `memories` all that it
        told), or several `targets`: out of the newest state at once, out of history after the grace time.

        Raises NotFoundError for a memory or topic that was never there, InvalidRequestError.
        """
        asked = {
            "memory_id": memory_id,
            "topic_key": topic_key,
            "type": type,
            "session_id": session_id,
            "turns": turns or None,
            "memories": memories or None,
        }
        one = cast("ErasureTarget", {name: value for name, value in asked.items() if value is not None})
        wanted = [*([one] if one or not targets else []), *targets]
        return self._erasures.request(wanted, grace_secs=grace_secs, **options)

    def erasures(self) -> list[ErasureCoupon]:
        """Return every erasure of the profile, the newest request first."""
        return [coupon for coupon in self.iter_erasures()]

    def iter_erasures(self, *, limit: int | None = None) -> Iterator[ErasureCoupon]:
        """Yield every erasure of the profile, the newest request first."""
        return self._erasures.each(limit=limit)

    def erasure(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        return self._erasures.get(erasure_id)

    def export_memory(
        self,
        target: "str | os.PathLike[str] | BinaryIO",
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Exported:
        """Save the memory of this branch as lines of JSON: memories with their history, vectors, sessions, turns.

        `target` is a path, under which the file appears whole or not at all, or a file that is open for bytes.
        Raises FileExistsError, unless `overwrite`; DatabaseNotFoundError for a profile that was never written.
        """
        return save(self._address, target, overwrite=overwrite, progress=progress, **options)

    def import_memory(
        self,
        source: "str | os.PathLike[str]",
        *,
        replace: bool = False,
        progress: Progress | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> MemoryImported:
        """Store what `export_memory` saved as one commit, with its ids, times, versions and vectors, or nothing of it.

        Raises ConflictError for a profile that has memory already, unless it is to be replaced, which a rewind
        undoes; InvalidRequestError, which names the line; OSError when the file cannot be read.
        """
        return send_lines(self._address, source, replace=replace, progress=progress, **options)

    def checkpoint(self, name: str, **options: "Unpack[WriteOptions]") -> Checkpoint:
        """Name the head of this branch; see `Branches.checkpoint`."""
        return self._branches.checkpoint(self.branch, name, **options)

    def rewind(self, to: At, **options: "Unpack[WriteOptions]") -> Rewind:
        """Bring back the state of a revision; see `Branches.rewind`."""
        return self._branches.rewind(self.branch, to, **options)

    def undo_rewind(self, **options: "Unpack[WriteOptions]") -> Rewind:
        """Take the last rewind of this branch back; see `Branches.undo`."""
        return self._branches.undo(self.branch, **options)

    def fork(
        self,
        branch: str,
        *,
        from_branch: str | None = None,
        at: At | None = None,
        ttl: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> Fork:
        """Fork this branch, or `from_branch`; see `Branches.create`. Use it with `on_branch`."""
        return self._branches.create(
            branch, from_branch=from_branch or self.branch, at=at, ttl=ttl, **options
        )

    def _whole(self, item: IngestItem) -> IngestItem:
        # The id of a memory is that of its content: without one, all facts of a topic would be the same memory.
        whole: IngestItem = {"content": {"summary": item.get("summary")}, **item}
        if self._source is not None and item.get("source") is None:
            whole["source"] = self._source
        return whole
