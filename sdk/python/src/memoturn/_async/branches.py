"""The branches of one database: forks, checkpoints, rewinds. All of it is durable when it returns."""

import builtins  # its classes have methods named `list`
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from memoturn._async.address import AsyncAddress
from memoturn._async.http import AsyncHttp
from memoturn._core.paths import MAIN, QueryValue, revision
from memoturn._core.positions import Place
from memoturn.types import (
    At,
    BranchInfo,
    Checkpoint,
    CheckpointInfo,
    Fork,
    PastRewind,
    RestorePoint,
    Rewind,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncBranches:
    """The branches of one database."""

    def __init__(self, http: AsyncHttp, database: str) -> None:
        self._http = http
        self._database = database
        self._address = AsyncAddress(http, "v1", "db", database, "branches")

    async def create(
        self,
        name: str,
        *,
        from_branch: str = MAIN,
        at: At | None = None,
        ttl: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> Fork:
        """Fork `from_branch` at the revision `at`, its head when None; no data is copied.

        With `ttl` in seconds the branch deletes itself. Raises AlreadyExistsError, BranchNotFoundError
        (also for an unknown checkpoint), ConflictError when `at` is no longer retained.
        """
        body: dict[str, Any] = {"name": name, "from": from_branch}
        if at is not None:
            body["at"] = revision(at)
        if ttl is not None:
            body["ttl"] = ttl
        return cast("Fork", (await self._address.write("POST", body=body, **options)).json())

    async def delete(self, name: str, **options: "Unpack[WriteOptions]") -> None:
        """Delete a branch; no error when it is already gone. Raises InvalidRequestError for main.

        Its name is free at once. The node keeps what it held for a while, in which `undelete` brings it back.
        """
        await self._address.write("DELETE", name, **options)
        self._http.positions.forget(self._database, name)

    async def undelete(self, name: str, **options: "Unpack[WriteOptions]") -> Fork:
        """Bring back the branch that was deleted last under `name`, with all that was committed on it.

        Raises BranchNotFoundError where none waits, AlreadyExistsError where the name is taken by now,
        ConflictError for a burner whose time has passed.
        """
        return cast("Fork", (await self._address.write("POST", name, "undelete", **options)).json())

    async def checkpoint(self, branch: str, name: str, **options: "Unpack[WriteOptions]") -> Checkpoint:
        """Name the head of `branch`; an existing checkpoint of that name moves there."""
        answer = await self._at(branch).write("POST", "checkpoint", body={"name": name}, **options)
        return cast("Checkpoint", answer.stamped())

    async def checkpoints(self, branch: str = MAIN) -> list[CheckpointInfo]:
        """Return the checkpoints of `branch`."""
        return [row async for row in self.iter_checkpoints(branch)]

    async def iter_checkpoints(
        self, branch: str = MAIN, *, limit: int | None = None
    ) -> AsyncIterator[CheckpointInfo]:
        """Yield the checkpoints of `branch`."""
        async for row in self._address.pages("checkpoints", branch, "checkpoints", most=limit):
            yield cast("CheckpointInfo", row)

    async def delete_checkpoint(self, branch: str, name: str, **options: "Unpack[WriteOptions]") -> None:
        """Drop a checkpoint; the state it names stays reachable by its txid. Raises BranchNotFoundError."""
        await self._address.write("DELETE", branch, "checkpoints", name, **options)

    async def restore_points(
        self,
        branch: str = MAIN,
        *,
        limit: int = 100,
        since: At | None = None,
        until: At | None = None,
        oldest_first: bool = False,
    ) -> list[RestorePoint]:
        """Return up to `limit` commits of `branch` that can be forked, rewound to and read, the newest first.

        `since` and `until` are times or txids, both inclusive.
        """
        rows = self.iter_restore_points(
            branch, limit=limit, since=since, until=until, oldest_first=oldest_first
        )
        return [row async for row in rows]

    async def iter_restore_points(
        self,
        branch: str = MAIN,
        *,
        limit: int | None = None,
        since: At | None = None,
        until: At | None = None,
        oldest_first: bool = False,
    ) -> AsyncIterator[RestorePoint]:
        """Yield the commits of `restore_points`, all of them unless `limit` is given, page by page."""
        query: dict[str, QueryValue] = {
            "order": "oldest" if oldest_first else None,
            "since": None if since is None else revision(since),
            "until": None if until is None else revision(until),
        }
        async for row in self._history(branch).pages("restore_points", query=query, most=limit):
            yield cast("RestorePoint", row)

    async def past_rewinds(self, branch: str = MAIN) -> "builtins.list[PastRewind]":
        """Return the newest 100 rewinds of `branch`, the oldest of them first."""
        answer = await self._history(branch).read("GET", query={"limit": 1})
        return cast("list[PastRewind]", answer.json()["rewinds"])

    async def rewind(self, branch: str, to: At, **options: "Unpack[WriteOptions]") -> Rewind:
        """Bring back the state of a revision as a new commit, which `undo` takes back.

        Raises BranchNotFoundError for an unknown checkpoint, ConflictError when `to` is no longer retained.
        """
        answer = await self._at(branch).write("POST", "rewind", body={"to": revision(to)}, **options)
        return cast("Rewind", answer.stamped())

    async def undo(self, branch: str = MAIN, **options: "Unpack[WriteOptions]") -> Rewind:
        """Bring back the state from before the last rewind, as a new commit. Raises ConflictError."""
        return cast("Rewind", (await self._at(branch).write("POST", "rewind", "undo", **options)).stamped())

    async def iter_deleted(self, *, limit: int | None = None) -> AsyncIterator[BranchInfo]:
        """Yield the branches that are deleted and can still be undeleted, by name."""
        async for row in self._address.pages("branches", query={"deleted": True}, most=limit):
            yield cast("BranchInfo", row)

    async def list(self) -> "builtins.list[BranchInfo]":
        """Return the branches other than main, by name."""
        return [row async for row in self.iter()]

    async def iter(self, *, limit: int | None = None) -> AsyncIterator[BranchInfo]:
        """Yield the branches of `list`."""
        async for row in self._address.pages("branches", most=limit):
            yield cast("BranchInfo", row)

    def _history(self, branch: str) -> AsyncAddress:
        spec = self._database if branch == MAIN else f"{self._database}@{branch}"
        return AsyncAddress(self._http, "v1", "db", spec, "restore-points")

    def _at(self, branch: str) -> AsyncAddress:
        return AsyncAddress(
            self._http, "v1", "db", self._database, "branches", branch, place=Place(self._database, branch)
        )
