# Made of _async/branches.py by scripts/unasync: change that one.
"""The branches of one database: forks, checkpoints, rewinds. All of it is durable when it returns."""

import builtins  # its classes have methods named `list`
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from memoturn._core.paths import MAIN, QueryValue, revision
from memoturn._core.positions import Place
from memoturn._sync.address import Address
from memoturn._sync.http import Http
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


class Branches:
    """The branches of one database."""

    def __init__(self, http: Http, database: str) -> None:
        self._http = http
        self._database = database
        self._address = Address(http, "v1", "db", database, "branches")

    def create(
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
        return cast("Fork", (self._address.write("POST", body=body, **options)).json())

    def delete(self, name: str, **options: "Unpack[WriteOptions]") -> None:
        """Delete a branch; no error when it is already gone. Raises InvalidRequestError for main.

        Its name is free at once. The node keeps what it held for a while, in which `undelete` brings it back.
        """
        self._address.write("DELETE", name, **options)
        self._http.positions.forget(self._database, name)

    def undelete(self, name: str, **options: "Unpack[WriteOptions]") -> Fork:
        """Bring back the branch that was deleted last under `name`, with all that was committed on it.

        Raises BranchNotFoundError where none waits, AlreadyExistsError where the name is taken by now,
        ConflictError for a burner whose time has passed.
        """
        return cast("Fork", (self._address.write("POST", name, "undelete", **options)).json())

    def checkpoint(self, branch: str, name: str, **options: "Unpack[WriteOptions]") -> Checkpoint:
        """Name the head of `branch`; an existing checkpoint of that name moves there."""
        answer = self._at(branch).write("POST", "checkpoint", body={"name": name}, **options)
        return cast("Checkpoint", answer.stamped())

    def checkpoints(self, branch: str = MAIN) -> list[CheckpointInfo]:
        """Return the checkpoints of `branch`."""
        return [row for row in self.iter_checkpoints(branch)]

    def iter_checkpoints(self, branch: str = MAIN, *, limit: int | None = None) -> Iterator[CheckpointInfo]:
        """Yield the checkpoints of `branch`."""
        for row in self._address.pages("checkpoints", branch, "checkpoints", most=limit):
            yield cast("CheckpointInfo", row)

    def delete_checkpoint(self, branch: str, name: str, **options: "Unpack[WriteOptions]") -> None:
        """Drop a checkpoint; the state it names stays reachable by its txid. Raises BranchNotFoundError."""
        self._address.write("DELETE", branch, "checkpoints", name, **options)

    def restore_points(
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
        return [row for row in rows]

    def iter_restore_points(
        self,
        branch: str = MAIN,
        *,
        limit: int | None = None,
        since: At | None = None,
        until: At | None = None,
        oldest_first: bool = False,
    ) -> Iterator[RestorePoint]:
        """Yield the commits of `restore_points`, all of them unless `limit` is given, page by page."""
        query: dict[str, QueryValue] = {
            "order": "oldest" if oldest_first else None,
            "since": None if since is None else revision(since),
            "until": None if until is None else revision(until),
        }
        for row in self._history(branch).pages("restore_points", query=query, most=limit):
            yield cast("RestorePoint", row)

    def past_rewinds(self, branch: str = MAIN) -> "builtins.list[PastRewind]":
        """Return the newest 100 rewinds of `branch`, the oldest of them first."""
        answer = self._history(branch).read("GET", query={"limit": 1})
        return cast("list[PastRewind]", answer.json()["rewinds"])

    def rewind(self, branch: str, to: At, **options: "Unpack[WriteOptions]") -> Rewind:
        """Bring back the state of a revision as a new commit, which `undo` takes back.

        Raises BranchNotFoundError for an unknown checkpoint, ConflictError when `to` is no longer retained.
        """
        answer = self._at(branch).write("POST", "rewind", body={"to": revision(to)}, **options)
        return cast("Rewind", answer.stamped())

    def undo(self, branch: str = MAIN, **options: "Unpack[WriteOptions]") -> Rewind:
        """Bring back the state from before the last rewind, as a new commit. Raises ConflictError."""
        return cast("Rewind", (self._at(branch).write("POST", "rewind", "undo", **options)).stamped())

    def iter_deleted(self, *, limit: int | None = None) -> Iterator[BranchInfo]:
        """Yield the branches that are deleted and can still be undeleted, by name."""
        for row in self._address.pages("branches", query={"deleted": True}, most=limit):
            yield cast("BranchInfo", row)

    def list(self) -> "builtins.list[BranchInfo]":
        """Return the branches other than main, by name."""
        return [row for row in self.iter()]

    def iter(self, *, limit: int | None = None) -> Iterator[BranchInfo]:
        """Yield the branches of `list`."""
        for row in self._address.pages("branches", most=limit):
            yield cast("BranchInfo", row)

    def _history(self, branch: str) -> Address:
        spec = self._database if branch == MAIN else f"{self._database}@{branch}"
        return Address(self._http, "v1", "db", spec, "restore-points")

    def _at(self, branch: str) -> Address:
        return Address(
            self._http, "v1", "db", self._database, "branches", branch, place=Place(self._database, branch)
        )
