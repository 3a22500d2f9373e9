"""The branches of one database: forks, checkpoints, rewinds. All of it is durable when it returns."""

from typing import Any, Final, cast

from memoturn._http import Answer, Http, Position, path, revision
from memoturn.types import At, BranchInfo, Checkpoint, CheckpointInfo, Fork, RestorePoint, Rewind

MAIN = "main"
_PAGE_LIMIT: Final = 1000


class Branches:
    """The branches of one database."""

    def __init__(self, http: Http, database: str, position: Position, position_branch: str = MAIN) -> None:
        self._http = http
        self._database = database
        self._position = position
        self._position_branch = position_branch

    def create(
        self, name: str, *, from_branch: str = MAIN, at: At | None = None, ttl: int | None = None
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
        return cast("Fork", self._http.request("POST", self._path(), body=body).json())

    def delete(self, name: str) -> None:
        """Delete a branch; no error when it is already gone. Raises InvalidRequestError for main.

        Its name is free at once. The node keeps what it held for a while, in which `undelete` brings it back.
        """
        self._http.request("DELETE", self._path(name))

    def undelete(self, name: str) -> Fork:
        """Bring back the branch that was deleted last under `name`, with all that was committed on it.

        Raises BranchNotFoundError where none waits, AlreadyExistsError where the name is taken by now,
        ConflictError for a burner whose time has passed.
        """
        return cast("Fork", self._http.request("POST", self._path(name, "undelete")).json())

    def checkpoint(self, branch: str, name: str) -> Checkpoint:
        """Name the head of `branch`; an existing checkpoint of that name moves there."""
        answer = self._http.request("POST", self._path(branch, "checkpoint"), body={"name": name})
        return cast("Checkpoint", self._see(branch, answer).stamped())

    def checkpoints(self, branch: str = MAIN) -> list[CheckpointInfo]:
        """Return the checkpoints of `branch`, a page at a time."""
        query: dict[str, str | int | None] = {"limit": _PAGE_LIMIT}
        rows: list[CheckpointInfo] = []
        while True:
            page = self._http.request("GET", self._path(branch, "checkpoints"), query=query).json()
            rows += cast("list[CheckpointInfo]", page["checkpoints"])
            query["cursor"] = page.get("next_cursor")  # a node of an earlier version answers all at once
            if query["cursor"] is None:
                return rows

    def delete_checkpoint(self, branch: str, name: str) -> None:
        """Drop a checkpoint; the state it names stays reachable by its txid. Raises BranchNotFoundError."""
        self._http.request("DELETE", self._path(branch, "checkpoints", name))

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
        query: dict[str, str | int | None] = {
            "order": "oldest" if oldest_first else None,
            "since": None if since is None else revision(since),
            "until": None if until is None else revision(until),
        }
        spec = self._database if branch == MAIN else f"{self._database}@{branch}"
        rows: list[RestorePoint] = []
        while len(rows) < limit:
            query["limit"] = min(_PAGE_LIMIT, limit - len(rows))
            page = self._http.request("GET", path("v1", "db", spec, "restore-points"), query=query).json()
            rows += cast("list[RestorePoint]", page["restore_points"])
            query["cursor"] = page["next_cursor"]
            if query["cursor"] is None:
                break
        return rows

    def rewind(self, branch: str, to: At) -> Rewind:
        """Bring back the state of a revision as a new commit, which `undo` takes back.

        Raises BranchNotFoundError for an unknown checkpoint, ConflictError when `to` is no longer retained.
        """
        answer = self._http.request("POST", self._path(branch, "rewind"), body={"to": revision(to)})
        return cast("Rewind", self._see(branch, answer).stamped())

    def undo(self, branch: str = MAIN) -> Rewind:
        """Bring back the state from before the last rewind, as a new commit. Raises ConflictError."""
        answer = self._http.request("POST", self._path(branch, "rewind", "undo"))
        return cast("Rewind", self._see(branch, answer).stamped())

    def list(self) -> list[BranchInfo]:
        """Return the branches other than main, by name."""
        return cast("list[BranchInfo]", self._http.request("GET", self._path()).json()["branches"])

    def _path(self, *rest: str) -> str:
        return path("v1", "db", self._database, "branches", *rest)

    def _see(self, branch: str, answer: Answer) -> Answer:
        # A txid says something about its own branch only.
        return self._position.see(answer) if branch == self._position_branch else answer
