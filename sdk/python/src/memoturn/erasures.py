"""Erasures of one database: requested, listed, shown."""

from collections.abc import Iterator
from typing import Any, cast

from memoturn._http import Http, Position, path
from memoturn.errors import BranchNotFoundError, DatabaseNotFoundError, NotFoundError
from memoturn.types import ErasureCoupon, ErasureRequested, ErasureTarget


class Erasures:
    """The erasures below one address; `prefix` are its path's parts, `branch` what it says of the branch."""

    def __init__(self, http: Http, prefix: tuple[str, ...], position: Position, branch: str | None) -> None:
        self._http = http
        self._prefix = prefix
        self._position = position
        self._branch = branch

    def request(self, targets: list[ErasureTarget], *, grace_secs: int | None = None) -> ErasureRequested:
        """Erase what one or more targets name: out of the newest state at once, then out of history.

        Raises NotFoundError for a memory or topic that was never there, InvalidRequestError.
        """
        body: dict[str, Any] = dict(targets[0]) if len(targets) == 1 else {"targets": targets}
        if grace_secs is not None:
            body["grace_secs"] = grace_secs
        answer = self._http.request("POST", self._path(), body=body, branch=self._branch)
        return cast("ErasureRequested", self._position.see(answer).json())

    def each(self, *, page: int = 100) -> Iterator[ErasureCoupon]:
        """Yield every erasure, the newest request first, fetching `page` at a time."""
        cursor: str | None = None
        while True:
            query = {"limit": page, "cursor": cursor}
            found = self._http.request("GET", self._path(), query=query).json()
            yield from cast("list[ErasureCoupon]", found["erasures"])
            cursor = found.get("next_cursor")
            if cursor is None:
                return

    def get(self, erasure_id: str) -> ErasureCoupon | None:
        """Return an erasure, with its receipt once it is completed; None when there is none of that id."""
        try:
            answer = self._http.request("GET", self._path(erasure_id))
        except (DatabaseNotFoundError, BranchNotFoundError):
            raise
        except NotFoundError:
            return None
        return cast("ErasureCoupon", answer.json())

    def _path(self, *rest: str) -> str:
        return path(*self._prefix, "erasures", *rest)
