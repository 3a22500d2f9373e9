"""A database below the memory model: documents, key-values, vectors, timelines, transcripts, SQL, branches. For a profile its name is `{namespace}--{profile}`."""

import os
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from memoturn._async.address import AsyncAddress
from memoturn._async.branches import AsyncBranches
from memoturn._async.changes import AsyncChanges
from memoturn._async.documents import AsyncCollection
from memoturn._async.erasures import AsyncErasures
from memoturn._async.files import save
from memoturn._async.http import AsyncHttp
from memoturn._async.key_values import AsyncKeyValues
from memoturn._async.timelines import AsyncTimeline
from memoturn._async.turns import AsyncTranscripts
from memoturn._async.vectors import AsyncVectors
from memoturn._core.files import Progress
from memoturn._core.paths import MAIN
from memoturn._core.positions import Place
from memoturn._core.sql import Statement, from_wire, to_wire
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


class AsyncDb(AsyncTranscripts, AsyncChanges):
    """One branch of a database; `spec` is `name` or `name@branch`.

    Reads and writes take the options of `memoturn.types.ReadOptions` and `WriteOptions`.
    """

    def __init__(self, http: AsyncHttp, spec: str) -> None:
        name, at, branch = spec.partition("@")
        self.spec = spec
        self.name = name if branch else spec
        self.branch_name = branch if at and branch else MAIN
        self._address = AsyncAddress(http, "v1", "db", spec, place=Place(self.name, self.branch_name))
        self._http = http
        self._database = self._address
        self._erasures = AsyncErasures(self._address)
        self._settings = AsyncAddress(http, "v1", "db", self.name, "settings")
        self.kv = AsyncKeyValues(self._address)
        """The key-values of this branch."""
        self.vectors = AsyncVectors(self._address)
        """The vectors of this branch."""
        self.branch = AsyncBranches(http, self.name)
        """The branches of the database, whichever one `spec` names."""

    def on_branch(self, branch: str) -> "AsyncDb":
        """Return the same database on another branch."""
        return AsyncDb(self._http, self.name if branch == MAIN else f"{self.name}@{branch}")

    @property
    def last_txid(self) -> int:
        """Newest txid of this branch in the client's answers so far; reads show it, or a later one."""
        return self._address.last_txid

    @property
    def last_durable_txid(self) -> int:
        """Newest txid of this branch that an answer so far reported to be in object storage."""
        return self._address.last_durable_txid

    def collection(self, name: str) -> AsyncCollection:
        """Return a collection of documents of this branch; nothing is sent and nothing is created."""
        return AsyncCollection(self._address, name)

    async def iter_collections(
        self, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> AsyncIterator[CollectionInfo]:
        """Yield the collections of documents by name."""
        async for row in self._address.pages("collections", "docs", most=limit, **options):
            yield cast("CollectionInfo", row)

    def timeline(self, name: str) -> AsyncTimeline:
        """Return a timeline of this branch; nothing is sent and nothing is created."""
        return AsyncTimeline(self._address, name)

    async def iter_timelines(
        self, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> AsyncIterator[TimelineInfo]:
        """Yield the timelines by name."""
        async for row in self._address.pages("timelines", "timelines", most=limit, **options):
            yield cast("TimelineInfo", row)

    async def get_settings(self) -> DatabaseSettings:
        """Return what is set for the database: the level that its writes wait for, by surface."""
        return cast("DatabaseSettings", (await self._settings.read("GET")).json())

    async def set_settings(self, settings: DatabaseSettings) -> DatabaseSettings:
        """Set everything that is set for the database, in place of what was; `{}` takes all back.

        `{"durability": {"default": "local", "docs/orders": "durable"}}`: names are `default`, a surface, or a part of
        one; the most specific one counts. Every branch goes by it. Raises InvalidRequestError.
        """
        return cast("DatabaseSettings", (await self._settings.write("PUT", body=dict(settings))).json())

    async def erase(
        self, *targets: ErasureTarget, grace_secs: int | None = None, **options: "Unpack[WriteOptions]"
    ) -> ErasureRequested:
        """Erase things of this database: out of the newest state at once, out of history after the grace time.

        Raises NotFoundError for a memory or topic that was never there, InvalidRequestError.
        """
        return await self._erasures.request(list(targets), grace_secs=grace_secs, **options)

    async def erasures(self) -> list[ErasureCoupon]:
        """Return every erasure of the database, the newest request first."""
        return [coupon async for coupon in self.iter_erasures()]

    def iter_erasures(self, *, limit: int | None = None) -> AsyncIterator[ErasureCoupon]:
        """Yield every erasure of the database, the newest request first."""
        return self._erasures.each(limit=limit)

    async def erasure(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        return await self._erasures.get(erasure_id)

    async def sql(
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
        answer = await self.batch(
            [(query, params)],
            at=at,
            min_txid=min_txid,
            consistency=consistency,
            durability=durability,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
        )
        return answer["results"][0]

    async def batch(
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
        answer = await self._address.sql(
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

    async def sync(self, txid: int | None = None) -> int:
        """Ship until `txid`, the head when None, is in object storage; return the durable txid."""
        answer = await self._address.write("POST", "sync", body=None if txid is None else {"txid": txid})
        return int(answer.json()["txid"])

    async def verify(
        self, *, deep: bool = False, seed: str | None = None, progress: Progress | None = None
    ) -> Verification:
        """Prove everything that object storage has of the database, or of the branch that `spec` names.

        A sample of states is restored, which `seed` chooses, or every one with `deep`. `progress` is called
        with how many objects and states are checked, of those known so far. Raises OverloadedError.
        """
        query = {"deep": deep, "seed": seed}
        async with self._address.lines("POST", "verify", query=query, min_txid=0) as events:
            return await _verified(events, progress)

    async def export(
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
        return await save(self._address, target, at=at, overwrite=overwrite, progress=progress)


async def _verified(events: AsyncIterator[dict[str, Any]], progress: Progress | None) -> Verification:
    findings: list[VerifyFinding] = []
    async for event in events:
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
