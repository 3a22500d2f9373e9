"""A database below the memory model: SQL, key-values, branches. For a profile its name is `{namespace}--{profile}`."""

import base64
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from memoturn._http import Http, Position, path
from memoturn.branches import MAIN, Branches
from memoturn.erasures import Erasures
from memoturn.errors import (
    BranchNotFoundError,
    DatabaseNotFoundError,
    InvalidRequestError,
    NotFoundError,
    UnknownOutcomeError,
)
from memoturn.files import Progress, save
from memoturn.types import (
    At,
    Durability,
    ErasureCoupon,
    ErasureRequested,
    ErasureTarget,
    Exported,
    SqlBatchResult,
    SqlResult,
    SqlValue,
    Verification,
    VerifyFinding,
)

Statement = tuple[str, Sequence[SqlValue]]
"""SQL text and its parameters."""


class Db:
    """One branch of a database; `spec` is `name` or `name@branch`."""

    def __init__(self, http: Http, spec: str) -> None:
        name, at, branch = spec.partition("@")
        self.spec = spec
        self.name = name if branch else spec
        self.branch_name = branch if at and branch else MAIN
        self._http = http
        self._position = Position()
        self._erasures = Erasures(http, ("v1", "db", spec), self._position, None)
        self.kv = KeyValues(http, spec, self._position)
        """The key-values of this branch."""
        self.branch = Branches(http, self.name, self._position, self.branch_name)
        """The branches of the database, whichever one `spec` names."""

    @property
    def last_txid(self) -> int:
        """Newest txid of this branch in the answers so far; as `min_txid` it makes a read see them all."""
        return self._position.txid

    @property
    def last_durable_txid(self) -> int:
        """Newest txid of this branch that an answer so far reported to be in object storage."""
        return self._position.durable_txid

    def erase(self, *targets: ErasureTarget, grace_secs: int | None = None) -> ErasureRequested:
        """Erase things of this database: out of the newest state at once, out of history after the grace time.

        Raises NotFoundError for a memory or topic that was never there, InvalidRequestError.
        """
        return self._erasures.request(list(targets), grace_secs=grace_secs)

    def erasures(self) -> list[ErasureCoupon]:
        """Return every erasure of the database, the newest request first."""
        return list(self._erasures.each())

    def erasure(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        return self._erasures.get(erasure_id)

    def sql(
        self,
        query: str,
        params: Sequence[SqlValue] = (),
        *,
        durability: Durability | None = None,
        min_txid: int | None = None,
        at: At | None = None,
    ) -> SqlResult:
        """Run one statement in a transaction of its own; see `batch`."""
        return self.batch([(query, params)], durability=durability, min_txid=min_txid, at=at)["results"][0]

    def batch(
        self,
        statements: Sequence[Statement],
        *,
        durability: Durability | None = None,
        min_txid: int | None = None,
        at: At | None = None,
    ) -> SqlBatchResult:
        """Run statements as one transaction: all of them, or none. With `at` they read that past state.

        Raises InvalidRequestError on a SQL error or transaction control, ForbiddenError for reserved tables.
        """
        stmts = [
            {"q": query, "params": [_to_wire(value) for value in params]} for query, params in statements
        ]
        answer = self._http.request(
            "POST",
            path("v1", "db", self.spec, "sql"),
            body={"stmts": stmts},
            durability=durability,
            min_txid=min_txid,
            at=at,
        )
        stamped = self._position.see(answer).stamped()
        for result in stamped["results"]:
            result["rows"] = [[_from_wire(value) for value in row] for row in result["rows"]]
        return cast("SqlBatchResult", stamped)

    def sync(self, txid: int | None = None) -> int:
        """Ship until `txid`, the head when None, is in object storage; return the durable txid."""
        answer = self._http.request(
            "POST", path("v1", "db", self.spec, "sync"), body=None if txid is None else {"txid": txid}
        )
        return int(self._position.see(answer).json()["txid"])

    def verify(
        self, *, deep: bool = False, seed: str | None = None, progress: Progress | None = None
    ) -> Verification:
        """Prove everything that object storage has of the database, or of the branch that `spec` names.

        A sample of states is restored, which `seed` chooses, or every one with `deep`. `progress` is called
        with how many objects and states are checked, of those known so far. Raises OverloadedError.
        """
        query = {"deep": "true" if deep else None, "seed": seed}
        with self._http.lines("POST", path("v1", "db", self.spec, "verify"), query=query) as events:
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
        saved = save(self._http, self.spec, target, at=at, overwrite=overwrite, progress=progress)
        if at is None:
            self._position.see_txids(saved["txid"], saved["durable_txid"])
        return saved


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


class KeyValues:
    """Values by key within a key-value namespace. Keys are any non-empty text, values are bytes."""

    def __init__(self, http: Http, spec: str, position: Position) -> None:
        self._http = http
        self._spec = spec
        self._position = position

    def put(
        self, ns: str, key: str, value: bytes, *, ttl: int | None = None, durability: Durability | None = None
    ) -> int:
        """Set a key, and with `ttl` in seconds its end; return the txid."""
        answer = self._http.request(
            "PUT", self._path(ns, key), data=value, query={"ttl": ttl}, durability=durability
        )
        return self._position.see(answer).txid

    def get(self, ns: str, key: str, *, min_txid: int | None = None, at: At | None = None) -> bytes | None:
        """Return a key's value, or that which it had `at` a revision; None when it has none or it has expired."""
        try:
            answer = self._http.request("GET", self._path(ns, key), min_txid=min_txid, at=at)
        except (DatabaseNotFoundError, BranchNotFoundError):
            raise
        except NotFoundError:
            return None
        return self._position.see(answer).body

    def delete(self, ns: str, key: str, *, durability: Durability | None = None) -> int:
        """Remove a key; no error when it is absent. Return the txid."""
        answer = self._http.request("DELETE", self._path(ns, key), durability=durability)
        return self._position.see(answer).txid

    def list(
        self,
        ns: str,
        *,
        prefix: str = "",
        limit: int = 100,
        min_txid: int | None = None,
        at: At | None = None,
    ) -> list[str]:
        """Return up to `limit` (at most 1000) live keys that start with `prefix`, ascending."""
        answer = self._http.request(
            "GET", self._path(ns), query={"prefix": prefix or None, "limit": limit}, min_txid=min_txid, at=at
        )
        return cast("list[str]", self._position.see(answer).json()["keys"])

    def _path(self, *rest: str) -> str:
        return path("v1", "db", self._spec, "kv", *rest)


def _to_wire(value: SqlValue) -> Any:
    return {"$base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _from_wire(value: Any) -> SqlValue:
    if isinstance(value, dict):
        try:
            return base64.b64decode(value["$base64"], validate=True)
        except (KeyError, ValueError) as error:
            raise InvalidRequestError(f"unreadable SQL value in the answer: {error}") from error
    return cast("SqlValue", value)
