"""What the shell may complete: names that the node knows, if it says them within a second; else nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from memoturn.client import Memoturn

_LIMIT = 50
_TIMEOUT_S = 1.0


def _quietly(ask: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A completion never prints an error: there is a command line below it."""

    def asked(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            with _client(ctx) as client:
                return [name for name in ask(client, ctx, incomplete) if name.startswith(incomplete)][:_LIMIT]
        except Exception:  # noqa: BLE001 - whatever it is, there is nothing to complete
            return []

    return asked


@contextmanager
def _client(ctx: typer.Context) -> "Iterator[Memoturn]":
    from memoturn.cli.app import settled
    from memoturn.client import Memoturn

    given: dict[str, Any] = ctx.find_root().params
    run = settled(given.get("url"), given.get("token"), given.get("platform_key"), given.get("tenant")).sure()
    with Memoturn(
        run.url,
        token=run.token,
        platform_key=run.platform_key,
        tenant=run.tenant,
        timeout_s=_TIMEOUT_S,
        retries=0,
    ) as client:
        yield client


@_quietly
def databases(client: "Memoturn", ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of databases."""
    del ctx
    return _few(client, incomplete)


@_quietly
def specs(client: "Memoturn", ctx: typer.Context, incomplete: str) -> list[str]:
    """Return databases, or behind an `@` their branches."""
    del ctx
    name, at, _ = incomplete.partition("@")
    if not at:
        return _few(client, incomplete)
    return [f"{name}@{branch}" for branch in _branches(client, name)]


@_quietly
def branches(client: "Memoturn", ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the branches of the database that stands before."""
    del incomplete
    return _branches(client, str(ctx.params.get("db") or ""))


@_quietly
def namespaces(client: "Memoturn", ctx: typer.Context, incomplete: str) -> list[str]:
    """Return namespaces, by the profiles that there are."""
    del ctx
    return sorted({name.partition("--")[0] for name in _few(client, incomplete) if "--" in name})


@_quietly
def profiles(client: "Memoturn", ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the profiles of the namespace that stands before."""
    ns = str(ctx.params.get("ns") or "")
    return [name.removeprefix(f"{ns}--") for name in _few(client, f"{ns}--{incomplete}")]


def _few(client: "Memoturn", prefix: str) -> list[str]:
    names = []
    for row in client.iter_databases(prefix=prefix):
        names.append(row["name"])
        if len(names) == _LIMIT:
            break
    return names


def _branches(client: "Memoturn", name: str) -> list[str]:
    return ["main", *(row["branch"] for row in client.db(name).branch.list())]
