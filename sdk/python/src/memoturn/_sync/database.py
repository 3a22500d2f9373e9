# Made of _async/database.py by scripts/unasync: change that one.
"""A database below the memory model: documents, key-values, vectors, timelines, transcripts, SQL, branches. For a profile its name is `{namespace}--{profile}`."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from memoturn._core.files import Progress
from memoturn._core.paths import MAIN
from memoturn._core.positions import Place
from memoturn._core.sql import Statement, from_wire, to_wire
from memoturn._sync.address import Address
from memoturn._sync.branches import Branches
from memoturn._sync.changes import Changes
from memoturn._sync.documents import Collection
from memoturn._sync.erasures import Erasures
from memoturn._sync.files import save
from memoturn._sync.http import Http
from memoturn._sync.key_values import KeyValues
from memoturn._sync.timelines import Timeline
from memoturn._sync.turns import Transcripts
from memoturn._sync.vectors import Vectors
from memoturn.errors import UnknownOutcomeError
from memoturn.types import (
    At,
    CollectionInfo,
    Consistency,
    DatabaseSettings,
    Durability,
    ErasureCoupon,
    ErasureRequested,
    ErasureTarget,
    Exported,
    ReadOptions,
    SqlBatchResult,
    SqlResult,
    SqlValue,
    TimelineInfo,
    Verification,
    VerifyFinding,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Db(Transcripts, Changes):
    """One branch of a database; `spec` is `name` or `name@branch`.

    Reads and writes take the options of `memoturn.types.ReadOptions` and `WriteOptions`.
    """

    def __init__(self, http: Http, spec: str) -> None:
        name, at, branch = spec.partition("@")
        self.spec = spec
        self.name = name if branch else spec
        self.branch_name = branch if at and branch else MAIN
        self._address = Address(http, "v1", "db", spec, place=Place(self.name, self.branch_name))
        self._http = http
        self._database = self._address
        self._erasures = Erasures(self._address)
        self._settings = Address(http, "v1", "db", self.name, "settings")
        self.kv = KeyValues(self._address)
        """The key-values of this branch."""
        self.vectors = Vectors(self._address)
        """The vectors of this branch."""
        self.branch = Branches(http, self.name)
        """The branches of the database, whichever one `spec` names."""

    def on_branch(self, branch: str) -> "Db":
        """Return the same database on another branch."""
        return Db(self._http, self.name if branch == MAIN else f"{self.name}@{branch}")

    @property
    def last_txid(self) -> int:
        """Newest txid of this branch in the client's answers so far; reads show it, or a later one."""
        return self._address.last_txid

    @property
    def last_durable_txid(self) -> int:
        """Newest txid of this branch that an answer so far reported to be in object storage."""
        return self._address.last_durable_txid

    def collection(self, name: str) -> Collection:
        """Return a collection of documents of this branch; nothing is sent and nothing is created."""
        return Collection(self._address, name)

    def iter_collections(
        self, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> Iterator[CollectionInfo]:
        """Yield the collections of documents by name."""
        for row in self._address.pages("collections", "docs", most=limit, **options):
            yield cast("CollectionInfo", row)

    def timeline(self, name: str) -> Timeline:
        """Return a timeline of this branch; nothing is sent and nothing is created."""
        return Timeline(self._address, name)

    def iter_timelines(
        self, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> Iterator[TimelineInfo]:
        """Yield the timelines by name."""
        for row in self._address.pages("timelines", "timelines", most=limit, **options):
            yield cast("TimelineInfo", row)

    def get_settings(self) -> DatabaseSettings:
        """Return what is set for the database: the level that its writes wait for, by surface."""
        return cast("DatabaseSettings", (self._settings.read("GET")).json())

    def set_settings(self, settings: DatabaseSettings) -> DatabaseSettings:
        """Set everything that is set for the database, in place of what was; `{}` takes all back.

        `{"durability": {"default": "local", "docs/orders": "durable"}}`: names are `default`, a surface, or a part of
        one; the most specific one counts. Every branch goes by it. Raises InvalidRequestError.
        """
        return cast("DatabaseSettings", (self._settings.write("PUT", body=dict(settings))).json())

    def erase(
        self, *targets: ErasureTarget, grace_secs: int | None = None, **options: "Unpack[WriteOptions]"
    ) -> ErasureRequested:
        """Erase things of this database: out of the newest state at once, out of history after the grace time.

        Raises NotFoundError for a memory or topic that was never there, InvalidRequestError.
        """
        return self._erasures.request(list(targets), grace_secs=grace_secs, **options)

    def erasures(self) -> list[ErasureCoupon]:
        """Return every erasure of the database, the newest request first."""
        return [coupon for coupon in self.iter_erasures()]

    def iter_erasures(self, *, limit: int | None = None) -> Iterator[ErasureCoupon]:
        """Yield every erasure of the database, the newest request first."""
        return self._erasures.each(limit=limit)

    def erasure(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        return self._erasures.get(erasure_id)

    def sql(
        self,
        query: str,
        params: Sequence[SqlValue] = (),
        *,
        at: At | None = None,
        min_txid: int | None = None,
        consistency: Consistency | None = None,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> SqlResult:
        """Run one statement in a transaction of its own; see `batch`."""
        answer = self.batch(
            [(query, params)],
            at=at,
            min_txid=min_txid,
            consistency=consistency,
            durability=durability,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
        )
        return answer["results"][0]

    def batch(
        self,
        statements: Sequence[Statement],
        *,
        at: At | None = None,
        min_txid: int | None = None,
        consistency: Consistency | None = None,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> SqlBatchResult:
        """Run statements as one transaction: all of them, or none. With `at` they read that past state.

        Raises InvalidRequestError on a SQL error or transaction control, ForbiddenError for reserved tables.
        """
        stmts = [{"q": query, "params": [to_wire(value) for value in params]} for query, params in statements]
        answer = self._address.sql(
            {"stmts": stmts},
            at=at,
            min_txid=min_txid,
            consistency=consistency,
            durability=durability,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
        )
        stamped = answer.stamped()
        for result in stamped["results"]:
            result["rows"] = [[from_wire(value) for value in row] for row in result["rows"]]
        return cast("SqlBatchResult", stamped)

    def sync(self, txid: int | None = None) -> int:
        """Ship until `txid`, the head when None, is in object storage; return the durable txid."""
        answer = self._address.write("POST", "sync", body=None if txid is None else {"txid": txid})
        return int(answer.json()["txid"])

    def verify(
        self, *, deep: bool = False, seed: str | None = None, progress: Progress | None = None
    ) -> Verification:
        """Prove everything that object storage has of the database, or of the branch that `spec` names.

        A sample of states is restored, which `seed` chooses, or every one with `deep`. `progress` is called
        with how many objects and states are checked, of those known so far. Raises OverloadedError.
        """
        query = {"deep": deep, "seed": seed}
        with self._address.lines("POST", "verify", query=query, min_txid=0) as events:
            return _verified(events, progress)

    def export(
        self,
        target: "str | os.PathLike[str] | BinaryIO",
        *,
        at: At | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Exported:
        """Save a state of this branch, the head without `at`, as one plain SQLite file.

        `target` is a path, under which the file appears whole or not at all, or a file that is open for
        bytes. Raises FileExistsError, unless `overwrite`; BranchNotFoundError; ConflictError for a state
        that cannot be restored.
        """
        return save(self._address, target, at=at, overwrite=overwrite, progress=progress)


def _verified(events: Iterator[dict[str, Any]], progress: Progress | None) -> Verification:
    findings: list[VerifyFinding] = []
    for event in events:
        kind = event.pop("event", None)
        if kind == "progress" and progress is not None:
            progress(event["checked"], event["of"])
        elif kind == "finding":
            findings.append(cast("VerifyFinding", event))
        elif kind == "summary":
            return cast("Verification", {**event, "findings": findings})
    raise UnknownOutcomeError(
        "the verification ended before its summary; the node may be stopping: verify again",
        code="unknown_outcome",
    )
