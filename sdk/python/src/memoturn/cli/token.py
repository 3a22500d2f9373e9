"""`memoturn token` and `memoturn key`: credentials of others, and what signs them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from memoturn.cli.checks import claims
from memoturn.cli.exits import ExitCode
from memoturn.cli.output import when
from memoturn.cli.run import Database, DryRun, Run, Yes, add, confirm, current, group, read_stdin, would
from memoturn.types import TokenInfo

if TYPE_CHECKING:
    from memoturn.types import MintedToken, RateLimits, Scope, TokenSurface

app = group("Mint, list and revoke tokens.")
keys_app = group("List and rotate the keys that sign tokens.")

_Ns = Annotated[str, typer.Argument(metavar="NS", help="Namespace.", show_default=False)]
_Scope = Annotated[str, typer.Option(help="read, write or admin.")]
_Ttl = Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long it is good.")]
_Branches = Annotated[
    list[str] | None, typer.Option("--branch", metavar="NAME", help="Only this branch; repeatable.")
]
_Surfaces = Annotated[
    list[str] | None,
    typer.Option("--surface", help="Only memory, docs, kv, vectors, timelines, turns or sql; repeatable."),
]
_Subject = Annotated[
    str | None, typer.Option(help="Whom it is for, in words of your own.", show_default=False)
]
_Requests = Annotated[
    float | None, typer.Option("--requests-per-s", min=0, help="Requests a second.", show_default=False)
]
_Writes = Annotated[
    float | None, typer.Option("--writes-per-s", min=0, help="Writes a second.", show_default=False)
]
_OfNamespace = Annotated[bool, typer.Option("--ns", help="NAME is a namespace, not a database.")]
_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Database; with --ns a namespace.", show_default=False)
]


def create(
    ctx: typer.Context,
    db: Database,
    *,
    scope: _Scope = "write",
    ttl: _Ttl = 3600,
    branches: _Branches = None,
    surfaces: _Surfaces = None,
    subject: _Subject = None,
    requests_per_s: _Requests = None,
    writes_per_s: _Writes = None,
) -> None:
    """Mint a token of a database. It is shown this once: alone on stdout, its id on stderr."""
    run = current(ctx)
    made = run.client.create_token(
        db,
        _scope(scope),
        expires_in=ttl,
        branches=branches or None,
        surfaces=_surfaces(surfaces),
        limits=_limits(requests_per_s, writes_per_s),
        subject=subject,
    )
    _minted(run, made)


def create_ns(
    ctx: typer.Context,
    ns: _Ns,
    *,
    scope: _Scope = "write",
    ttl: _Ttl = 3600,
    profiles: Annotated[
        list[str] | None, typer.Option("--profile", metavar="NAME", help="Only this one; repeatable.")
    ] = None,
    branches: _Branches = None,
    surfaces: _Surfaces = None,
    subject: _Subject = None,
    requests_per_s: _Requests = None,
    writes_per_s: _Writes = None,
) -> None:
    """Mint a token of every profile of a namespace. It is shown this once: alone on stdout, its id on stderr."""
    run = current(ctx)
    made = run.client.create_namespace_token(
        ns,
        _scope(scope),
        expires_in=ttl,
        branches=branches or None,
        surfaces=_surfaces(surfaces),
        profiles=profiles or None,
        limits=_limits(requests_per_s, writes_per_s),
        subject=subject,
    )
    _minted(run, made)


def list_all(ctx: typer.Context, name: _Name, *, of_namespace: _OfNamespace = False) -> None:
    """List the tokens of a database, or with --ns of a namespace, that are not over."""
    run = current(ctx)
    rows = list(_tokens(run, name, of_namespace=of_namespace))
    run.out.rows(
        {"tokens": rows},
        ["id", "scope", "subject", "limited to", "issued", "expires", "state"],
        [
            (
                row["id"],
                row["scope"],
                row.get("subject"),
                _narrowed(row),
                when(row["issued_at"]),
                when(row["expires_at"]),
                "revoked" if row["revoked"] else "good",
            )
            for row in rows
        ],
        empty=f"{name} has no tokens",
    )


def revoke(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Database; with --ns a namespace; with --tenant-wide `-`.",
            show_default=False,
        ),
    ],
    token_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the token.")] = None,
    *,
    of_namespace: _OfNamespace = False,
    everything: Annotated[bool, typer.Option("--all", help="Every token that was issued until now.")] = False,
    whole: Annotated[
        bool, typer.Option("--token-stdin", help="The token whole, on stdin, also one without an id.")
    ] = False,
    tenant_wide: Annotated[
        bool, typer.Option("--tenant-wide", help="Of the whole tenant; with --all or --token-stdin.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Revoke a token and all that were minted with it, or with --all every one there is."""
    run = current(ctx)
    if (token_id is not None) + everything + whole != 1 or (tenant_wide and token_id is not None):
        raise typer.BadParameter("give an ID, --all or --token-stdin", param_hint="ID")
    if dry_run:
        _would_revoke(run, name, token_id, whole=whole, of_namespace=of_namespace, tenant_wide=tenant_wide)
        return
    shown = read_stdin().strip() if whole else None
    confirm(f"Revoke {'every token' if everything else 'the token'} of {name}?", yes=yes)
    if token_id is not None:
        if of_namespace:
            run.client.revoke_namespace_token(name, token_id)
        else:
            run.client.revoke_token(name, token_id)
        run.out.done({"revoked": token_id}, f"revoked {token_id}")
        return
    if tenant_wide:
        done = run.client.revoke_tenant_tokens(token=shown)
    elif of_namespace:
        done = run.client.revoke_namespace_tokens(name, token=shown)
    else:
        done = run.client.revoke_tokens(name, token=shown)
    run.out.done(done, f"revoked {'every token until now' if everything else 'the token'}")


def keys(ctx: typer.Context) -> None:
    """List the keys that sign and verify tokens. Takes the platform key."""
    run = current(ctx)
    found = run.client.signing_keys()
    run.out.rows(
        found, ["id", "state"], [(one["kid"], one["status"]) for one in found["keys"]], empty="no keys"
    )
    if not found["managed"] and not run.out.as_json:
        run.out.note("they come from a setting or a file of yours; the node does not rotate them")


def rotate(ctx: typer.Context, *, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Make a new signing key; those before verify until the longest token is over. Takes the platform key."""
    run = current(ctx)
    if dry_run:
        found = run.client.signing_keys()
        signing = [one["kid"] for one in found["keys"] if one["status"] == "signing"]
        told = (
            f"make a key that takes over from {', '.join(signing)}"
            if found["managed"]
            else "be refused: they are yours"
        )
        would(run, {"keys": found["keys"], "managed": found["managed"]}, told)
        return
    confirm("Rotate the signing keys?", yes=yes)
    made = run.client.rotate_keys()
    run.out.done(made, f"{made['kid']} signs from {when(made['signs_from'])}")


def _would_revoke(
    run: Run, name: str, token_id: str | None, *, whole: bool, of_namespace: bool, tenant_wide: bool
) -> None:
    if whole:
        said = claims(read_stdin().strip())
        if said is None:
            raise typer.BadParameter("is no token", param_hint="stdin")
        token_id = said.get("jti")
        if token_id is None or tenant_wide:
            would(run, {"id": token_id}, f"revoke the token {token_id or 'that is shown'}")
            return
    elif tenant_wide:
        would(run, {"tenant_wide": True}, "revoke every token of the whole tenant")
        return
    there = [
        one
        for one in _tokens(run, name, of_namespace=of_namespace)
        if not one["revoked"] and token_id in {None, one["id"], one["minted_by"]}
    ]
    if token_id is not None and token_id not in {one["id"] for one in there}:
        run.out.error(f"{name} has no good token {token_id}", "`memoturn token list` shows the ids.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    would(run, {"tokens": [one["id"] for one in there]}, f"revoke {len(there)} tokens")


def _tokens(run: Run, name: str, *, of_namespace: bool) -> Iterator[TokenInfo]:
    return run.client.iter_namespace_tokens(name) if of_namespace else run.client.iter_tokens(name)


def _minted(run: Run, made: "MintedToken") -> None:
    run.out.done(made, made["token"])
    if not run.out.as_json:
        run.out.note(f"id {made['id']}, good until {when(made['expires_at'])}; it is not shown again")


def _scope(text: str) -> "Scope":
    if text not in {"read", "write", "admin"}:
        raise typer.BadParameter("takes read, write or admin", param_hint="--scope")
    return cast("Scope", text)


def _surfaces(given: list[str] | None) -> "list[TokenSurface] | None":
    return cast("list[TokenSurface] | None", given or None)


def _limits(requests_per_s: float | None, writes_per_s: float | None) -> "RateLimits | None":
    limits: dict[str, Any] = {}
    if requests_per_s is not None:
        limits["requests_per_s"] = requests_per_s
    if writes_per_s is not None:
        limits["writes_per_s"] = writes_per_s
    return cast("RateLimits", limits) if limits else None


def _narrowed(row: TokenInfo) -> str:
    parts = [
        f"{name} {', '.join(row[name])}" for name in ("branches", "surfaces", "profiles") if row.get(name)
    ]
    parts += [f"{name} {value:g}" for name, value in row.get("limits", {}).items()]
    return "; ".join(parts)


add(app, "create", create, "memoturn token create app--alice --scope read --ttl 86400")
add(app, "create-ns", create_ns, 'memoturn token create-ns app --scope admin --subject "the chat service"')
add(app, "list", list_all, "memoturn token list app--alice", "memoturn token list app --ns")
add(
    app,
    "revoke",
    revoke,
    "memoturn token revoke app--alice tok_01",
    "memoturn token revoke app --ns --all --dry-run",
)
add(keys_app, "list", keys, "memoturn key list")
add(keys_app, "rotate", rotate, "memoturn key rotate --dry-run")
