"""`memoturn policy`, `quota`, `usage`, `tenant`, `namespace` and `settings`: what is allowed, and what is used."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import Cell, compact, when
from memoturn.cli.run import (
    Database,
    DryRun,
    Run,
    Yes,
    add,
    confirm,
    current,
    group,
    read_stdin,
    single,
    would,
)

if TYPE_CHECKING:
    from memoturn.types import Durability, NewQuotas

policy_app = group("Get, set and clear policies.")
quota_app = group("Get and set quotas.")
tenant_app = group("Create, list and delete tenants.")
settings_app = group("Get and set what a database's writes wait for.")

_Ns = Annotated[str, typer.Argument(metavar="NS", help="Namespace.", show_default=False)]
_OfProfile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="Of this profile.", show_default=False)
]
_OfTenant = Annotated[bool, typer.Option("--of-tenant", help="NAME is a tenant, not a namespace.")]
_Quotas = ("requests_per_s", "writes_per_s", "bytes", "databases", "memories")


# ---- policies


def get_policy(ctx: typer.Context, ns: _Ns, *, profile: _OfProfile = None) -> None:
    """Show the policy of a namespace, or of a profile what is its own and what holds."""
    run = current(ctx)
    found: Any = run.client.get_policy(ns) if profile is None else run.client.get_policy(ns, profile=profile)
    if found is None:
        run.out.error(f"{ns} has no policy", "`memoturn policy set NS --file FILE` sets one.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    run.out.json(found)


def set_policy(
    ctx: typer.Context,
    ns: _Ns,
    *,
    profile: _OfProfile = None,
    file: Annotated[str, typer.Option(metavar="FILE", help="JSON file with the policy; `-` is stdin.")] = "-",
    if_revision: Annotated[
        int | None, typer.Option(min=0, help="Only where this revision stands.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Set the policy of a namespace or profile, in place of the one before."""
    run = current(ctx)
    policy = _policy(file)
    if dry_run:
        before = _before(run, ns, profile)
        would(run, {"before": before, "after": policy}, f"replace {compact(before)} by {compact(policy)}")
        return
    done: Any = (
        run.client.set_policy(ns, policy, if_revision=if_revision)
        if profile is None
        else run.client.set_policy(ns, policy, profile=profile, if_revision=if_revision)
    )
    run.out.done(done, f"set, at revision {done['revision']}")


def clear_policy(
    ctx: typer.Context, ns: _Ns, *, profile: _OfProfile = None, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Clear the policy of a namespace or profile: what stands above it holds."""
    run = current(ctx)
    if dry_run:
        before = _before(run, ns, profile)
        would(run, {"before": before, "after": None}, f"clear {compact(before)}")
        return
    confirm(f"Clear the policy of {ns}{f'/{profile}' if profile else ''}?", yes=yes)
    done: Any = (
        run.client.set_policy(ns, {}) if profile is None else run.client.set_policy(ns, None, profile=profile)
    )
    run.out.done(done, f"cleared, at revision {done['revision']}")


def _before(run: Run, ns: str, profile: str | None) -> Any:
    if profile is not None:
        return run.client.get_policy(ns, profile=profile)["override"]
    found = run.client.get_policy(ns)
    return None if found is None else found["policy"]


def _policy(file: str) -> dict[str, Any]:
    try:
        value = json.loads(read_stdin() if file == "-" else Path(file).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not valid JSON: {error}", param_hint="--file") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("takes a JSON object", param_hint="--file")
    return value


# ---- quotas and usage


def get_quota(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Namespace; with --of-tenant a tenant.")],
    *,
    of_tenant: _OfTenant = False,
) -> None:
    """Show quotas: what was given, what holds, and what is used. No limit is shown as nothing."""
    _quotas(
        current(ctx),
        current(ctx).client.get_tenant_quotas(name) if of_tenant else current(ctx).client.get_quotas(name),
    )


def set_quota(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Namespace; with --of-tenant a tenant.")],
    *,
    of_tenant: _OfTenant = False,
    requests_per_s: Annotated[float | None, typer.Option("--requests-per-s", min=0)] = None,
    writes_per_s: Annotated[float | None, typer.Option("--writes-per-s", min=0)] = None,
    size_bytes: Annotated[int | None, typer.Option("--bytes", min=0, help="In object storage.")] = None,
    databases: Annotated[int | None, typer.Option(min=0)] = None,
    memories: Annotated[int | None, typer.Option(min=0)] = None,
    dry_run: DryRun = False,
) -> None:
    """Set all quotas; what is left out has its default again, 0 allows nothing."""
    run = current(ctx)
    values = (requests_per_s, writes_per_s, size_bytes, databases, memories)
    given = {key: value for key, value in zip(_Quotas, values, strict=True) if value is not None}
    if dry_run:
        before: Any = run.client.get_tenant_quotas(name) if of_tenant else run.client.get_quotas(name)
        told = f"replace {compact(before['quotas'])} by {compact(given)}"
        would(run, {"before": before["quotas"], "after": given}, told)
        return
    quotas = cast("NewQuotas", given)
    _quotas(
        run, run.client.set_tenant_quotas(name, quotas) if of_tenant else run.client.set_quotas(name, quotas)
    )


def _quotas(run: Run, found: Any) -> None:
    rows: list[list[Cell]] = [
        [key, found["quotas"][key], found["effective"][key], found["used"].get(key)] for key in _Quotas
    ]
    run.out.rows(found, ["quota", "given", "holds", "used"], rows, empty="")


def usage(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Database; with --ns a namespace.")],
    *,
    of_namespace: Annotated[bool, typer.Option("--ns", help="NAME is a namespace.")] = False,
    from_day: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="As in 2026-11-01.", show_default=False)
    ] = None,
    to_day: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="As in 2026-11-30.", show_default=False)
    ] = None,
) -> None:
    """Show what was used by day of UTC, oldest first; of the last 31 days unless days are given."""
    run = current(ctx)
    ask = run.client.iter_namespace_usage if of_namespace else run.client.iter_usage
    days = list(ask(name, from_day=from_day, to_day=to_day))
    columns = ["requests", "reads", "writes", "recalls", "bytes_shipped", "bytes_stored", "memories"]
    run.out.rows(
        {"days": days},
        ["day", *(column.replace("_", " ") for column in columns)],
        [[day["day"], *(day[column] for column in columns)] for day in days],  # type: ignore[literal-required]
        empty=f"{name} was not used",
    )


# ---- tenants and namespaces


def create_tenant(ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Create a tenant, whose databases have names of their own; --tenant NAME speaks of them."""
    run = current(ctx)
    made = run.client.create_tenant(name)
    run.out.record(made, {"name": made["name"], "created": when(made["created_at"])})


def list_tenants(ctx: typer.Context) -> None:
    """List the tenants."""
    run = current(ctx)
    rows = list(run.client.iter_tenants())
    run.out.rows(
        {"tenants": rows},
        ["name", "created"],
        [(row["name"], when(row["created_at"])) for row in rows],
        empty="no tenants",
    )


def delete_tenant(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete a tenant and revoke its tokens; it may have no databases any more."""
    run = current(ctx)
    if dry_run:
        found = run.client.get_tenant(name)
        if found is None:
            run.out.error(f"there is no tenant {name}", "`memoturn tenant list` shows them.")
            raise typer.Exit(ExitCode.NOT_FOUND)
        with run.speaking_of(name) as client:
            used = sum(1 for _ in client.iter_databases())
        told = f"delete tenant {name}" if not used else f"be refused: {name} has {used} databases"
        would(run, {"tenant": name, "databases": used}, told)
        return
    confirm(f"Delete tenant {name} and revoke its tokens?", yes=yes)
    run.client.delete_tenant(name)
    run.out.done({"deleted": name}, f"deleted tenant {name}")


def namespaces(ctx: typer.Context) -> None:
    """List the namespaces that have profiles."""
    run = current(ctx)
    rows = list(run.client.iter_namespaces())
    run.out.rows(
        {"namespaces": rows}, ["namespace"], [(row["namespace"],) for row in rows], empty="no profiles yet"
    )


# ---- settings of a database


def get_settings(ctx: typer.Context, db: Database) -> None:
    """Show the level that writes wait for, by surface."""
    run = current(ctx)
    found = run.client.db(db).get_settings()
    levels = found.get("durability", {})
    run.out.rows(
        found, ["surface", "level"], list(levels.items()), empty="nothing is set: the node's level holds"
    )


def set_settings(
    ctx: typer.Context,
    db: Database,
    levels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SURFACE=LEVEL]...", help="local, replicated or durable; none takes all back."
        ),
    ] = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Set the level that writes wait for, by surface, in place of what was set before."""
    run = current(ctx)
    wanted = {}
    for one in levels or ():
        surface, equals, level = one.rpartition("=")
        if not equals or not surface or level not in {"local", "replicated", "durable"}:
            raise typer.BadParameter(f"{one!r} is not as in docs/orders=durable", param_hint="SURFACE=LEVEL")
        wanted[surface] = cast("Durability", level)
    if dry_run:
        before = run.client.db(db).get_settings().get("durability", {})
        would(run, {"before": before, "after": wanted}, f"replace {compact(before)} by {compact(wanted)}")
        return
    done = run.client.db(db).set_settings({"durability": wanted})
    run.out.done(done, "set" if wanted else "taken back")


add(policy_app, "get", get_policy, "memoturn policy get app --profile alice")
add(policy_app, "set", set_policy, "memoturn policy set app --file policy.json")
add(policy_app, "clear", clear_policy, "memoturn policy clear app --profile alice --dry-run")
add(quota_app, "get", get_quota, "memoturn quota get app")
add(quota_app, "set", set_quota, "memoturn quota set app --memories 100000 --writes-per-s 50")
add(tenant_app, "create", create_tenant, "memoturn tenant create acme")
add(tenant_app, "list", list_tenants, "memoturn tenant list")
add(tenant_app, "delete", delete_tenant, "memoturn tenant delete acme --dry-run")
add(settings_app, "get", get_settings, "memoturn settings get orders")
add(settings_app, "set", set_settings, "memoturn settings set orders docs/orders=durable default=local")
usage_app = single(usage, "memoturn usage app--alice", "memoturn usage app --ns --from 2026-11-01")
namespaces_app = single(namespaces, "memoturn namespaces")
