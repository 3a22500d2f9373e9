"""The checks of `memoturn doctor`: each says what it found, what that means and how to mend it. They change nothing."""

import base64
import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from memoturn import (
    ForbiddenError,
    InvalidRequestError,
    Memoturn,
    MemoturnError,
    NotFoundError,
    OverloadedError,
    RetryableError,
    UnauthorizedError,
    UnknownOutcomeError,
    UnreachableError,
    __version__,
)
from memoturn._core.calls import credential
from memoturn.cli.failures import tls_hint

if TYPE_CHECKING:
    from memoturn.cli.run import Run

State = Literal["ok", "warn", "fail"]
_SLOW_MS: Final = 500
_SKEW_S: Final = 2.0
_SKEW_BAD_S: Final = 30.0
_BACKLOG_S: Final = 5.0
_BACKLOG_BAD_S: Final = 60.0
_SOON_S: Final = 3600
_PARTS: Final = {
    "store": (
        "the object store",
        "is MEMOTURN_OBJECT_STORE right, and does the store answer? Writes wait, and nothing new becomes durable",
    ),
    "leases": (
        "the lease service (etcd in a cluster)",
        "is etcd up, and MEMOTURN_ETCD right? Without leases no node may write",
    ),
    "catalog": (
        "the catalog (Postgres in a cluster)",
        "is Postgres up, and MEMOTURN_CATALOG right? New databases and branches cannot be made",
    ),
}


@dataclass(frozen=True)
class Check:
    """One finding. `mend` is the next step, empty where none is needed."""

    part: str
    state: State
    says: str
    mend: str = ""


def checked(run: "Run") -> Iterator[Check]:
    """Yield every check of the server and of how this machine reaches it, each as it is done."""
    host, is_encrypted = target(run.url)
    if host is None:
        yield Check("url", "fail", f"{run.url} is no URL of a node", "give http://HOST:PORT, or https://HOST")
        return
    if not is_encrypted and not is_local(host) and (run.token or run.platform_key):
        yield Check(
            "url",
            "warn",
            f"credentials travel unencrypted to {run.url}",
            "use https, unless the network between is yours",
        )
    run = yield from _sendable(run)
    with _client(run, token=run.token, platform_key=run.platform_key) as client:
        begun = time.monotonic()
        try:
            client.health()
        except MemoturnError as error:
            yield _unreachable(run, error)
            return
        took_ms = 1000 * (time.monotonic() - begun)
        state: State = "warn" if took_ms > _SLOW_MS else "ok"
        mend = "the way there is slow, or the node is busy: see its metrics" if state == "warn" else ""
        yield Check("server", state, f"{run.url} answers in {took_ms:.0f} ms", mend)
        yield from _readiness(client)
        yield from _clock(client)
        yield from credentials(run)
        yield from _backlog(client)
        yield from _cluster(client)


def _sendable(run: "Run") -> Generator[Check, None, "Run"]:
    """Yield what is wrong with credentials that no request can carry, and return the run without them."""
    bad = set()
    for name, text in (("token", run.token), ("platform key", run.platform_key)):
        try:
            credential(text, name)
        except InvalidRequestError as error:
            source = run.given.get(name.replace(" ", "_"), "default")
            yield Check(name, "fail", f"{error.message} ({source})", "set it anew")
            bad.add(name)
    return replace(
        run,
        token=None if "token" in bad else run.token,
        platform_key=None if "platform key" in bad else run.platform_key,
    )


def target(url: str) -> tuple[str | None, bool]:
    """Return the host that a URL names, None where it is no URL of a node, and whether what goes there is encrypted."""
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.port != 0:
            return parts.hostname or None, parts.scheme == "https"
    except ValueError:  # what should be an address or a port is none
        pass
    return None, False


def is_local(host: str) -> bool:
    """Return whether a host is this machine."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _client(run: "Run", *, token: str | None, platform_key: str | None) -> Memoturn:
    return Memoturn(
        run.url,
        token=token,
        platform_key=platform_key,
        tenant=run.tenant,
        timeout_s=min(run.timeout_s, 10.0),
        retries=0,
    )


def _unreachable(run: "Run", error: MemoturnError) -> Check:
    if isinstance(error, UnreachableError):
        told = {"flag": "--url", "environment": "MEMOTURN_URL", "config": "the config file"}
        where = told.get(run.given.get("url", ""), "the default")
        mend = f"start a node there (`memoturnd`, in a checkout `make run`), or correct the URL, which comes from {where}"
        mend = tls_hint(error) or mend
    elif isinstance(error, UnknownOutcomeError):
        says = f"{run.url} takes connections, and does not answer"
        return Check(
            "server",
            "fail",
            says,
            "it may be stopped, overloaded, or no node: look at its process and its log",
        )
    else:
        mend = "is that the URL of a Memoturn node? A proxy in between may answer in its place"
    return Check("server", "fail", error.message, mend)


# ---- what the server says of itself


def _readiness(client: Memoturn) -> Iterator[Check]:
    try:
        said: dict[str, Any] = dict(client.readiness())
    except MemoturnError as error:
        yield from _not_ready(error)
        return
    if "placements" in said:
        yield Check(
            "gateway",
            "ok",
            f"a gateway, which knows {said.get('nodes')} nodes and {said['placements']} placements",
        )
    for part, (name, _) in _PARTS.items():
        if part in said:
            yield Check(part, "ok", f"{name} answers")
    if "version" in said:
        yield version(str(said["version"]))
    if "embedder" in said:
        embedder = said["embedder"]
        yield Check(
            "embeddings",
            "ok",
            f"the node embeds with {embedder}"
            if embedder
            else "none: recall goes by words and topics, and by vectors that you give",
            "" if embedder else "MEMOTURN_EMBED_PROVIDER at the node switches them on",
        )
    if "language_models" in said:
        uses = said["language_models"]
        yield Check(
            "language model", "ok", f"for {' and '.join(uses)}" if uses else "none: no `ask`, no `extract`"
        )


def _not_ready(error: MemoturnError) -> Iterator[Check]:
    if not isinstance(error, RetryableError):
        yield Check("ready", "fail", error.message, "is that the URL of a Memoturn node?")
        return
    text = error.message.removeprefix("not ready: ")
    named = dict(part.split(": ", 1) for part in text.split("; ") if ": " in part)
    if not set(named) & set(_PARTS):
        yield Check("ready", "fail", error.message, "wait a moment; if it stays so, see the log of the node")
    for part, (name, mend) in _PARTS.items():
        if part in named:
            yield Check(part, "fail", f"{name}: {named[part]}", mend)
        elif named:
            yield Check(part, "ok", f"{name} answers")


def version(server: str, client: str = __version__) -> Check:
    """Return how the versions of server and client go together: they should be of one minor release."""
    if server == client:
        return Check("version", "ok", f"server and client are {server}")
    same = server.split(".")[:2] == client.split(".")[:2]
    newer = _numbers(server) > _numbers(client)
    mend = (
        "update the client: in a checkout of the server's release, pip install ./sdk/python"
        if newer
        else "update the server: it lacks what this client may ask for"
    )
    return Check(
        "version",
        "ok" if same else "warn",
        f"the server is {server}, this client {client}",
        "" if same else mend,
    )


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]


def _clock(client: Memoturn) -> Iterator[Check]:
    before = time.time()
    try:
        there = client.clock()
    except MemoturnError:
        return
    if there is not None:
        yield skew(there, before, time.time())


def skew(there: float, before: float, after: float) -> Check:
    """Return how far the server's clock, which tells whole seconds, is from here, given the times around the question."""
    least = max(0.0, before - (there + 1), there - after)
    if least <= _SKEW_S:
        return Check("clock", "ok", "the clocks of server and client agree")
    ahead = "ahead of" if there > after else "behind"
    return Check(
        "clock",
        "fail" if least > _SKEW_BAD_S else "warn",
        f"the server's clock is {least:.0f} s {ahead} this one",
        "set both by NTP: lifetimes, tokens and times in the past go by the server's clock",
    )


# ---- who we are to it


def credentials(run: "Run") -> Iterator[Check]:
    """Yield whether authentication is on, and what each credential that is given may do."""
    is_on = _tried(run, None, None, lambda client: next(client.iter_databases(limit=1), None))
    if is_on is None:
        unneeded = (
            " (the credentials that you give are not looked at)" if run.token or run.platform_key else ""
        )
        yield Check("authentication", "ok", f"is off: this machine may do everything{unneeded}")
        return
    if not isinstance(is_on, UnauthorizedError):
        yield Check("authentication", "warn", f"cannot be told: {is_on.message}", "try again")
        return
    if not run.token and not run.platform_key:
        yield Check(
            "authentication",
            "fail",
            "is on, and no credential is given",
            "give --token or --platform-key (MEMOTURN_TOKEN, MEMOTURN_PLATFORM_KEY), or `memoturn init --token-stdin`",
        )
        return
    yield Check("authentication", "ok", "is on")
    if run.platform_key:
        refused = _tried(
            run, None, run.platform_key, lambda client: next(client.iter_databases(limit=1), None)
        )
        yield _platform_key(run, refused)
    if run.token:
        yield _token(run, run.token)


def _tried(
    run: "Run", token: str | None, platform_key: str | None, ask: Callable[[Memoturn], object]
) -> MemoturnError | None:
    try:
        with _client(run, token=token, platform_key=platform_key) as client:
            ask(client)
    except NotFoundError:
        return None  # who was refused would not have been told
    except MemoturnError as error:
        return error
    return None


def _platform_key(run: "Run", refused: MemoturnError | None) -> Check:
    source = run.given.get("platform_key", "")
    if refused is None:
        return Check("platform key", "ok", f"is good ({source}): it opens the control plane, and no data")
    if isinstance(refused, ForbiddenError | UnauthorizedError):
        return Check(
            "platform key",
            "fail",
            f"is refused ({source}): {refused.message}",
            "it has to be what the server has as MEMOTURN_PLATFORM_KEY",
        )
    return Check("platform key", "warn", f"cannot be told: {refused.message}", "try again")


def _token(run: "Run", token: str) -> Check:
    source = run.given.get("token", "")
    said = claims(token)
    if said is None:
        return Check("token", "fail", f"is no token ({source})", "mint one with `memoturn token create DB`")
    left_s = said.get("exp", 0) - time.time()
    where = f"database {said['db']}" if said.get("db") else f"namespace {said.get('ns')}"
    may = f"{said.get('scope')} on {where}"
    if said.get("db"):
        refused = _tried(run, token, None, lambda c: c.db(str(said["db"])).branch.restore_points(limit=1))
    else:
        refused = _tried(
            run, token, None, lambda c: next(c.iter_profiles(str(said.get("ns")), limit=1), None)
        )
    again = "mint a new one with `memoturn token create DB` or `memoturn token create-ns NS`"
    if isinstance(refused, UnauthorizedError):
        return Check("token", "fail", f"is refused ({source}; {may}): {refused.message}", again)
    if isinstance(refused, ForbiddenError) and "revoked" in refused.message:
        return Check("token", "fail", f"was revoked ({source}; {may})", again)
    if isinstance(refused, ForbiddenError):
        return Check("token", "ok", f"is good for part of it ({source}; {may}): {refused.message}")
    if refused is not None and not isinstance(refused, OverloadedError):
        return Check("token", "warn", f"cannot be told ({source}; {may}): {refused.message}", "try again")
    if left_s < _SOON_S:
        return Check("token", "warn", f"is good ({source}; {may}), for {left_s / 60:.0f} more minutes", again)
    return Check("token", "ok", f"is good ({source}): {may}, for {_span(left_s)}")


def claims(token: str) -> dict[str, Any] | None:
    """Return what a token says of itself, unproven; None where it is no token."""
    try:
        body = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and isinstance(said.get("exp", 0), int | float) else None


def _span(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds > 2 * 86400 else f"{seconds / 3600:.0f} hours"


# ---- how it is doing


def _backlog(client: Memoturn) -> Iterator[Check]:
    try:
        text = client.metrics()
    except MemoturnError:
        return
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in {"memoturn_unshipped_bytes", "memoturn_unshipped_age_seconds"}:
            values[name] = float(value)
    if values:
        yield backlog(
            values.get("memoturn_unshipped_bytes", 0.0), values.get("memoturn_unshipped_age_seconds", 0.0)
        )


def backlog(size_bytes: float, age_s: float, node: str = "") -> Check:
    """Return what a node has committed and not brought to object storage."""
    part = f"backlog of {node}" if node else "backlog"
    if not size_bytes:
        return Check(part, "ok", "everything that was committed is in object storage")
    says = f"{size_bytes:.0f} bytes are not in object storage yet, the oldest for {age_s:.1f} s"
    if age_s <= _BACKLOG_S:
        return Check(part, "ok", says)
    mend = "the object store does not keep up, or does not answer; until it does, this is lost with the node's disk"
    return Check(part, "fail" if age_s > _BACKLOG_BAD_S else "warn", says, mend)


def _cluster(client: Memoturn) -> Iterator[Check]:
    try:
        nodes = client.cluster(limit=1).get("nodes", [])
    except MemoturnError:
        return  # it takes the platform key
    for node in nodes:
        if node["silent"]:
            yield Check(
                "node",
                "fail",
                f"{node['node_id']} at {node['address']} is silent: {node.get('problem', '')}",
                "is it up, and can the others reach its address? Its branches are taken over when its lease ends",
            )
    answering = [node for node in nodes if not node["silent"]]
    if len(nodes) > 1:
        yield Check("cluster", "ok", f"{len(nodes)} nodes, of which {len(answering)} answer")
        for node in answering:
            state = node["state"]
            yield backlog(state["unshipped_bytes"], state["unshipped_ms"] / 1000, node["node_id"])
    versions = sorted({node["state"]["version"] for node in answering})
    if len(versions) > 1:
        yield Check(
            "cluster", "warn", f"nodes of several versions: {', '.join(versions)}", "finish the update"
        )
