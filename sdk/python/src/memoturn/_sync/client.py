# Made of _async/client.py by scripts/unasync: change that one.
"""The client: one connection pool to a node, and the objects that speak through it."""

import os
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

import httpx

from memoturn._core.bodies import given
from memoturn._core.embedded import EMBEDDED_LIMITS, EMBEDDED_URL, Node, start_node, stop_node
from memoturn._core.files import Progress
from memoturn._core.retries import DEADLINE_S, RETRIES
from memoturn._sync.address import Address
from memoturn._sync.credentials import Credentials
from memoturn._sync.database import Db
from memoturn._sync.files import send
from memoturn._sync.governing import Governing
from memoturn._sync.http import DEFAULT_TIMEOUT_S, Http
from memoturn._sync.memory import MemoryProfile
from memoturn._sync.seam import blocking, opening
from memoturn.types import (
    AuditEvent,
    ClusterOverview,
    DatabaseInfo,
    DatabasePlacement,
    ImportedDatabase,
    NamespaceInfo,
    ProfileInfo,
    Ready,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_URL: Final = "http://127.0.0.1:8080"


class Memoturn(Credentials, Governing):
    """A synchronous client of a node or a gateway, safe to share.

    `token` and `platform_key` are credentials: control calls use the platform key first, data calls the
    token first; `tenant` is whose names a platform key means. `source` is the provenance of ingested memories
    that name none. `timeout_s` bounds each phase of a request (default 30, or what a given `http_client` has);
    a given `http_client` stays open when this client is closed.

    What may pass is sent again, up to `retries` times (0: never) with growing random waits, all within
    `deadline_s` of the call's beginning. Every write has an idempotency key, so that it takes effect once however
    often it is sent. Unless `read_your_writes` is switched off, reads show at least what this client has written
    and seen of a branch.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        platform_key: str | None = None,
        tenant: str | None = None,
        source: str | None = None,
        http_client: httpx.Client | None = None,
        timeout_s: float | None = None,
        retries: int = RETRIES,
        deadline_s: float = DEADLINE_S,
        read_your_writes: bool = True,
    ) -> None:
        self._http = Http(
            url,
            token=token,
            platform_key=platform_key,
            tenant=tenant,
            client=http_client,
            timeout_s=timeout_s,
            retries=retries,
            deadline_s=deadline_s,
            read_your_writes=read_your_writes,
        )
        self._source = source
        self._node: Node | None = None
        self._v1 = Address(self._http, "v1")
        self._control = Address(self._http, "v1", control=True)
        self._root = Address(self._http)

    @classmethod
    def embedded(
        cls,
        path: "str | os.PathLike[str]",
        *,
        token: str | None = None,
        platform_key: str | None = None,
        source: str | None = None,
        **settings: object,
    ) -> "Memoturn":
        """Run a node within this process, on the data in the folder `path`, and return its client.

        The folder is made at its first use. `settings` are those of `memoturnd`, by their names in lower case and
        without MEMOTURN_ (`sync="full"`); what the environment says of them does not count. `close` ends the node,
        and so does the end of the interpreter: then all is shipped. Needs `memoturn[embedded]`. Raises
        EmbeddedError where that is not installed, a setting is wrong, or a node runs on the folder already.
        """
        node = opening(start_node, stop_node, path, {"platform_key": platform_key, **settings})
        try:
            transport = httpx.HTTPTransport(uds=str(node.socket_path), limits=EMBEDDED_LIMITS)
            client = cls(
                EMBEDDED_URL,
                token=token,
                platform_key=platform_key,
                source=source,
                http_client=httpx.Client(transport=transport, timeout=DEFAULT_TIMEOUT_S),
            )
        except BaseException:
            blocking(stop_node, node)
            raise
        client._node = node
        return client

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
        return [profile for profile in self.iter_profiles(ns)]

    def iter_profiles(self, ns: str, *, limit: int | None = None) -> Iterator[ProfileInfo]:
        """Yield the profiles of a namespace by name."""
        for row in self._v1.pages("profiles", "memory", ns, most=limit):
            yield cast("ProfileInfo", row)

    def create_database(self, name: str, **options: "Unpack[WriteOptions]") -> DatabaseInfo:
        """Create a database; only its name is written. Raises AlreadyExistsError, InvalidRequestError."""
        answer = self._control.write("POST", "databases", body={"name": name}, **options)
        return cast("DatabaseInfo", answer.json())

    def list_databases(self, *, prefix: str = "") -> list[DatabaseInfo]:
        """Return the databases whose name starts with `prefix`, by name, profiles included."""
        return [database for database in self.iter_databases(prefix=prefix)]

    def iter_databases(
        self, *, prefix: str = "", deleted: bool = False, limit: int | None = None
    ) -> Iterator[DatabaseInfo]:
        """Yield the databases of `list_databases`."""
        query = {"prefix": prefix or None, "deleted": deleted}
        for row in self._control.pages("databases", "databases", query=query, most=limit):
            yield cast("DatabaseInfo", row)

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
    ) -> Iterator[AuditEvent]:
        """Yield audit events of a namespace, oldest first, of the last day unless times are given; `limit` is of a page.

        An `action` that ends in a dot is a beginning. `_platform` is the namespace of what belongs to none.
        """
        query = {"from": from_ms, "to": to_ms, "action": action, "profile": profile, "outcome": outcome}
        for row in self._control.pages("events", "namespaces", ns, "audit", query=query, page=limit):
            yield cast("AuditEvent", row)

    def audit_export(self, ns: str) -> Iterator[dict[str, Any]]:
        """Yield all that there is of a namespace's audit stream, to be verified by `memoturn.audit`.

        Lines by `kind`: a header with the public keys, heads, objects with their bytes in base64, heads again, an end.
        """
        with self._control.lines("GET", "namespaces", ns, "audit", "export") as lines:
            for line in lines:
                yield line

    def cluster(self, *, limit: int = 100, cursor: str | None = None) -> ClusterOverview:
        """Return every node, and up to `limit` placements behind `cursor`; a node that does not answer is silent."""
        answer = self._control.read("GET", "cluster", query={"limit": limit, "cursor": cursor})
        return cast("ClusterOverview", answer.json())

    def placement(self, spec: str) -> DatabasePlacement:
        """Return where `name` or `name@branch` is. Raises DatabaseNotFoundError, BranchNotFoundError."""
        return cast("DatabasePlacement", (self._control.read("GET", "db", spec, "placement")).json())

    def delete_database(self, name: str, **options: "Unpack[WriteOptions]") -> None:
        """Delete a database with all its branches; its name is free at once. Raises DatabaseNotFoundError."""
        self._control.write("DELETE", "databases", name, **options)
        self._http.positions.forget(name)

    def undelete_database(
        self, name: str, *, uuid: str | None = None, **options: "Unpack[WriteOptions]"
    ) -> DatabaseInfo:
        """Bring back the database that was deleted last under `name`, or the one with that `uuid`, with its branches.

        Tokens that were refused since stay refused. Raises DatabaseNotFoundError where none waits,
        AlreadyExistsError where the name is taken by now.
        """
        body = given(uuid=uuid)
        answer = self._control.write("POST", "databases", name, "undelete", body=body, **options)
        self._http.positions.forget(name)
        return cast("DatabaseInfo", answer.json())

    def iter_namespaces(self, *, limit: int | None = None) -> Iterator[NamespaceInfo]:
        """Yield the namespaces of the tenant that have profiles, by name."""
        for row in self._control.pages("namespaces", "namespaces", most=limit):
            yield cast("NamespaceInfo", row)

    def ready(self) -> bool:
        """Return True once store, leases and catalog of the node answer. Raises RetryableError, UnreachableError."""
        self._root.read("GET", "ready")
        return True

    def readiness(self) -> Ready:
        """Return what the node stands on and what it has, as `ready` raises where something does not answer."""
        return cast("Ready", (self._root.read("GET", "ready")).json())

    def health(self) -> bool:
        """Return True as long as the process answers. Raises UnreachableError."""
        self._root.read("GET", "health")
        return True

    def clock(self) -> float | None:
        """Return what the server's clock says, in unix seconds, to the second; None where it does not say."""
        said = (self._root.read("GET", "health")).headers.get("Date")
        try:
            return None if said is None else parsedate_to_datetime(said).timestamp()
        except ValueError:
            return None

    def metrics(self) -> str:
        """Return the node's metrics as Prometheus reads them."""
        return (self._root.read("GET", "metrics")).body.decode()

    def openapi(self) -> dict[str, Any]:
        """Return the description of the API in OpenAPI 3.1."""
        return (self._root.read("GET", "openapi.json")).json()

    def close(self) -> None:
        """Close the connections; of an embedded node, then the node, once it has shipped."""
        node, self._node = self._node, None
        self._http.close(also_given=node is not None)
        if node is not None:
            blocking(stop_node, node)
