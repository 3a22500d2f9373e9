"""A memory profile: typed memories that are ingested, recalled, forked and rewound as one unit."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from memoturn._http import Http, Position, path
from memoturn.branches import MAIN, Branches
from memoturn.erasures import Erasures
from memoturn.errors import BranchNotFoundError, NotFoundError
from memoturn.types import (
    At,
    Checkpoint,
    Durability,
    ErasureCoupon,
    ErasureRequested,
    ErasureTarget,
    Fork,
    IngestItem,
    IngestResult,
    Memory,
    MemoryType,
    RecallResult,
    Rewind,
    Session,
)


class MemoryProfile:
    """One branch of a profile. It is created by its first ingest.

    Reads take `min_txid`: the answer shows that txid or a later one, else PreconditionFailedError after
    2 seconds of waiting. They take `at`, a revision, and then answer what they would have answered at that
    commit. Writes take `durability`: with `durable` they return once object storage has them.
    """

    def __init__(
        self, http: Http, namespace: str, profile: str, *, branch: str = MAIN, source: str | None = None
    ) -> None:
        self.namespace = namespace
        self.profile = profile
        self.branch = branch
        self._http = http
        self._source = source
        self._position = Position()
        self._erasures = Erasures(
            http, ("v1", "memory", namespace, profile), self._position, None if branch == MAIN else branch
        )
        self._branches = Branches(http, f"{namespace}--{profile}", self._position, branch)

    @property
    def last_txid(self) -> int:
        """Newest txid of this branch in the answers so far; as `min_txid` it makes a read see them all."""
        return self._position.txid

    @property
    def last_durable_txid(self) -> int:
        """Newest txid of this branch that an answer so far reported to be in object storage."""
        return self._position.durable_txid

    def on_branch(self, branch: str) -> "MemoryProfile":
        """Return the same profile on another branch."""
        return MemoryProfile(self._http, self.namespace, self.profile, branch=branch, source=self._source)

    def ingest(self, memories: Iterable[IngestItem], *, durability: Durability | None = None) -> IngestResult:
        """Store up to 1000 memories as one commit; the outcomes are in the order of the items.

        Items without a `source` get the client's. Raises InvalidRequestError, and then nothing is stored.
        """
        items = [self._with_source(item) for item in memories]
        answer = self._http.request(
            "POST",
            self._path("memories"),
            body={"memories": items},
            branch=self._query,
            durability=durability,
        )
        return cast("IngestResult", self._position.see(answer).stamped())

    def recall(
        self,
        query: str | None = None,
        *,
        embedding: Sequence[float] | None = None,
        topic_key: str | None = None,
        types: Sequence[MemoryType] | None = None,
        session_id: str | None = None,
        source: str | None = None,
        k: int = 8,
        include_superseded: bool = False,
        include_turns: bool = False,
        explain: bool = False,
        min_txid: int | None = None,
        at: At | None = None,
    ) -> RecallResult:
        """Return up to `k` memories, best first, found by any of `query`, `embedding` and `topic_key`.

        With `explain` each hit says its rank in every channel. An unknown profile recalls nothing.
        Raises InvalidRequestError when none of the three is given.
        """
        asked = {
            "query": query,
            "embedding": None if embedding is None else list(embedding),
            "topic_key": topic_key,
            "types": None if types is None else list(types),
            "session_id": session_id,
            "source": source,
            "include_superseded": include_superseded or None,
            "include_turns": include_turns or None,
            "explain": explain or None,
        }
        body: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        answer = self._http.request(
            "POST", self._path("recall"), body={**body, "k": k}, branch=self._query, min_txid=min_txid, at=at
        )
        return cast("RecallResult", self._position.see(answer).stamped())

    def get(self, memory_id: str, *, min_txid: int | None = None, at: At | None = None) -> Memory | None:
        """Return a memory with its neighbours in the topic's chain, None when there is none of that id."""
        try:
            answer = self._http.request(
                "GET", self._path("memories", memory_id), branch=self._query, min_txid=min_txid, at=at
            )
        except BranchNotFoundError:
            raise
        except NotFoundError:
            return None
        return cast("Memory", self._position.see(answer).json())

    def forget(self, memory_id: str, *, durability: Durability | None = None) -> bool:
        """Remove a memory and mend its topic's chain; False when there is none of that id."""
        try:
            answer = self._http.request(
                "DELETE", self._path("memories", memory_id), branch=self._query, durability=durability
            )
        except BranchNotFoundError:
            raise
        except NotFoundError:
            return False
        self._position.see(answer)
        return True

    def sessions(
        self, *, limit: int = 100, min_txid: int | None = None, at: At | None = None
    ) -> list[Session]:
        """Return up to `limit` sessions, the most recently active first."""
        answer = self._http.request(
            "GET",
            self._path("sessions"),
            query={"limit": limit},
            branch=self._query,
            min_txid=min_txid,
            at=at,
        )
        return cast("list[Session]", self._position.see(answer).json()["sessions"])

    def end_session(
        self, session_id: str, *, turns: bool = False, durability: Durability | None = None
    ) -> None:
        """Delete a session and its tasks, with `turns` also its transcript; no error when it is unknown."""
        answer = self._http.request(
            "DELETE",
            self._path("sessions", session_id),
            query={"turns": "true" if turns else None},
            branch=self._query,
            durability=durability,
        )
        self._position.see(answer)

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
        return self._erasures.request(wanted, grace_secs=grace_secs)

    def erasures(self) -> list[ErasureCoupon]:
        """Return every erasure of the profile, the newest request first."""
        return list(self._erasures.each())

    def erasure(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        return self._erasures.get(erasure_id)

    def checkpoint(self, name: str) -> Checkpoint:
        """Name the head of this branch; see `Branches.checkpoint`."""
        return self._branches.checkpoint(self.branch, name)

    def rewind(self, to: At) -> Rewind:
        """Bring back the state of a revision; see `Branches.rewind`."""
        return self._branches.rewind(self.branch, to)

    def undo_rewind(self) -> Rewind:
        """Take the last rewind of this branch back; see `Branches.undo`."""
        return self._branches.undo(self.branch)

    def fork(
        self,
        branch: str,
        *,
        from_branch: str | None = None,
        at: At | None = None,
        ttl: int | None = None,
    ) -> Fork:
        """Fork this branch, or `from_branch`; see `Branches.create`. Use it with `on_branch`."""
        return self._branches.create(branch, from_branch=from_branch or self.branch, at=at, ttl=ttl)

    @property
    def _query(self) -> str | None:
        return None if self.branch == MAIN else self.branch

    def _path(self, *rest: str) -> str:
        return path("v1", "memory", self.namespace, self.profile, *rest)

    def _with_source(self, item: IngestItem) -> IngestItem:
        if self._source is None or item.get("source") is not None:
            return item
        return {**item, "source": self._source}
