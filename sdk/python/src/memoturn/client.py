"""The client: one connection pool to a node, and the objects that speak through it."""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, cast

import httpx

from memoturn._http import Http, path
from memoturn.cluster import ClusterOverview, DatabasePlacement
from memoturn.database import Db
from memoturn.files import Progress, send
from memoturn.memory import MemoryProfile
from memoturn.types import DatabaseInfo, ImportedDatabase, ProfileInfo

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_PAGE_LIMIT: Final = 1000


class Memoturn:
    """A synchronous client, safe to share between threads. Nothing is retried; see `errors` for what may be.

    `token` and `platform_key` are credentials: control calls use the platform key first, data calls the
    token first. `source` is the provenance of ingested memories that name none. `timeout_s` bounds each
    phase of a request (default 30, or what a given `http_client` has); a given `http_client` stays open
    when this client is closed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        platform_key: str | None = None,
        source: str | None = None,
        http_client: httpx.Client | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._http = Http(
            url, token=token, platform_key=platform_key, client=http_client, timeout_s=timeout_s
        )
        self._source = source

    def __enter__(self) -> "Memoturn":  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where requests go, without a trailing slash."""
        return self._http.url

    def memory(self, ns: str, profile: str) -> MemoryProfile:
        """Return a profile on its main branch; nothing is sent and nothing is created."""
        return MemoryProfile(self._http, ns, profile, source=self._source)

    def db(self, spec: str) -> Db:
        """Return a database, `name` or `name@branch`; nothing is sent."""
        return Db(self._http, spec)

    def profiles(self, ns: str) -> list[ProfileInfo]:
        """Return the profiles of a namespace by name."""
        rows: list[ProfileInfo] = []
        for page in self._pages(path("v1", "memory", ns), "profiles"):
            rows.extend(cast("list[ProfileInfo]", page))
        return rows

    def create_database(self, name: str) -> DatabaseInfo:
        """Create a database; only its name is written. Raises AlreadyExistsError, InvalidRequestError."""
        answer = self._http.request("POST", path("v1", "databases"), body={"name": name}, control=True)
        return cast("DatabaseInfo", answer.json())

    def list_databases(self, *, prefix: str = "") -> list[DatabaseInfo]:
        """Return the databases whose name starts with `prefix`, by name, profiles included."""
        return list(self.iter_databases(prefix=prefix))

    def iter_databases(self, *, prefix: str = "") -> Iterator[DatabaseInfo]:
        """Yield the databases of `list_databases`, fetching page by page."""
        for page in self._pages(path("v1", "databases"), "databases", prefix=prefix, control=True):
            yield from cast("list[DatabaseInfo]", page)

    def import_database(
        self,
        source: "str | os.PathLike[str]",
        name: str,
        *,
        branch: str | None = None,
        ttl: int | None = None,
        progress: Progress | None = None,
    ) -> ImportedDatabase:
        """Make a new database of a SQLite file; `name` may be that of a profile, `{namespace}--{profile}`.

        With `branch` a new branch of a database that exists, which deletes itself after `ttl` seconds. It is
        durable when this returns. Raises AlreadyExistsError; InvalidRequestError and ForbiddenError for a
        file that is damaged or holds what no profile may; OSError when it cannot be read.
        """
        return send(self._http, source, name, branch=branch, ttl=ttl, progress=progress)

    def audit_events(
        self,
        ns: str,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        action: str | None = None,
        profile: str | None = None,
        outcome: str | None = None,
        limit: int = 100,
    ) -> Iterator[dict[str, Any]]:
        """Yield audit events of a namespace, oldest first, of the last day unless times are given; `limit` is of a page.

        An `action` that ends in a dot is a beginning. `_platform` is the namespace of what belongs to none.
        """
        query = {"from": from_ms, "to": to_ms, "action": action, "profile": profile, "outcome": outcome}
        cursor: str | None = None
        while True:
            answer = self._http.request(
                "GET",
                path("v1", "namespaces", ns, "audit"),
                query={**query, "limit": limit, "cursor": cursor},
                control=True,
            ).json()
            yield from answer["events"]
            cursor = answer["next_cursor"]
            if not cursor:
                return

    def audit_export(self, ns: str) -> Iterator[dict[str, Any]]:
        """Yield all that there is of a namespace's audit stream, to be verified by `memoturn.audit`.

        Lines by `kind`: a header with the public keys, heads, objects with their bytes in base64, heads again, an end.
        """
        url_path = path("v1", "namespaces", ns, "audit", "export")
        with self._http.lines("GET", url_path, query={}, control=True) as lines:
            yield from lines

    def cluster(self, *, limit: int = 100, cursor: str | None = None) -> ClusterOverview:
        """Return every node, and up to `limit` placements behind `cursor`; a node that does not answer is silent."""
        query = {"limit": limit, "cursor": cursor}
        answer = self._http.request("GET", path("v1", "cluster"), query=query, control=True)
        return cast("ClusterOverview", answer.json())

    def placement(self, spec: str) -> DatabasePlacement:
        """Return where `name` or `name@branch` is. Raises DatabaseNotFoundError, BranchNotFoundError."""
        answer = self._http.request("GET", path("v1", "db", spec, "placement"), control=True)
        return cast("DatabasePlacement", answer.json())

    def delete_database(self, name: str) -> None:
        """Delete a database with all its branches; its name is free at once. Raises DatabaseNotFoundError."""
        self._http.request("DELETE", path("v1", "databases", name), control=True)

    def ready(self) -> bool:
        """Return True once store, leases and catalog of the node answer. Raises RetryableError, UnreachableError."""
        self._http.request("GET", path("ready"))
        return True

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _pages(
        self, url_path: str, key: str, *, prefix: str = "", control: bool = False
    ) -> Iterator[list[object]]:
        cursor: str | None = None
        while True:
            query = {"limit": _PAGE_LIMIT, "cursor": cursor, "prefix": prefix or None}
            answer = self._http.request("GET", url_path, query=query, control=control).json()
            yield answer[key]
            cursor = answer.get("next_cursor")
            if not cursor:
                return
