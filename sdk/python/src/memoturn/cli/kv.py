"""`memoturn kv`: values by key."""

import os
import sys
from typing import Annotated, Any

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import Cell, compact, when
from memoturn.cli.run import (
    At,
    DryRun,
    Run,
    Spec,
    Yes,
    add,
    confirm,
    current,
    examples,
    group,
    parse_object,
    stamp,
    would,
)

app = group("Put, get, delete and list key-values.")

_Space = Annotated[str, typer.Argument(metavar="NS", help="Key-value namespace.", show_default=False)]
_IfMatch = Annotated[
    str | None, typer.Option(metavar="ETAG", help="Only where this ETag stands.", show_default=False)
]
_Key = Annotated[str, typer.Argument(metavar="KEY", help="Key.", show_default=False)]


@app.command(
    epilog=examples(
        "memoturn kv put app--alice prefs theme dark --ttl 3600",
        "memoturn kv put app--alice avatars alice - < alice.png",
    )
)
def put(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    key: _Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Value; `-` reads it from stdin.")],
    *,
    ttl: Annotated[int | None, typer.Option(min=0, metavar="SECONDS", help="Lifetime of the value.")] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Object that goes with it.", show_default=False)
    ] = None,
    if_match: _IfMatch = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only where there is none.")] = False,
) -> None:
    """Set a key."""
    run = current(ctx)
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    db = run.client.db(spec)
    stored = db.kv.put_entry(
        ns,
        key,
        data,
        ttl=ttl,
        metadata=None if metadata is None else parse_object(metadata, "--metadata"),
        if_match=if_match,
        if_none_match="*" if if_absent else None,
        durability=run.durability,
    )
    done = {"ns": ns, "key": key, "size_bytes": len(data), "txid": stored["txid"], "etag": stored["etag"]}
    run.out.done(done, f"set {ns}/{key}, {len(data)} bytes")
    run.out.txid(db.last_txid, db.last_durable_txid)


def get(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    key: _Key,
    *,
    details: Annotated[bool, typer.Option("--details", help="Show ETag, metadata and end instead.")] = False,
    at: At = None,
) -> None:
    """Write a key's value to stdout as it is."""
    run = current(ctx)
    db = run.client.db(spec)
    found = db.kv.get_entry(ns, key, at=at)
    if found is None:
        run.out.error(f"{spec} has no key {ns}/{key}", "`memoturn kv list SPEC NS` shows the keys.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    value = found.get("value", b"")
    if details or run.out.as_json:
        shown: dict[str, Cell] = {
            "key": key,
            "etag": found["etag"],
            "bytes": found["size_bytes"],
            "metadata": None if found["metadata"] is None else compact(found["metadata"]),
            "expires": when(found["expires_at"]),
        }
        whole = {"ns": ns, **found, "value": _text_or_bytes(value), "txid": db.last_txid}
        run.out.record(whole, shown)
    else:
        run.out.raw(value)
    run.out.txid(db.last_txid, db.last_durable_txid)


def delete(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    key: _Key,
    *,
    if_match: _IfMatch = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Remove a key; also fine when it is absent."""
    run = current(ctx)
    db = run.client.db(spec)
    if dry_run:
        there = db.kv.get_entry(ns, key)
        told = f"remove {ns}/{key}" + (f", {there['size_bytes']} bytes" if there else ", which is not there")
        would(run, {"ns": ns, "key": key, "is_there": there is not None}, told)
        return
    confirm(f"Remove {ns}/{key} from {spec}?", yes=yes)
    txid = db.kv.delete(ns, key, if_match=if_match, durability=run.durability)
    run.out.done({"deleted": key, "ns": ns, "txid": txid}, f"removed {ns}/{key}")
    run.out.txid(db.last_txid, db.last_durable_txid)


def list_keys(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    *,
    prefix: Annotated[str, typer.Option(help="Only keys that start so.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most keys.")] = 100,
    details: Annotated[bool, typer.Option("--details", help="With size, ETag, metadata and end.")] = False,
    at: At = None,
) -> None:
    """List keys, ascending."""
    run = current(ctx)
    db = run.client.db(spec)
    if details:
        entries = list(db.kv.iter_entries(ns, prefix=prefix, values=False, limit=limit, at=at))
        rows: list[list[Cell]] = [
            [
                one["key"],
                one["size_bytes"],
                one["etag"],
                None if one["metadata"] is None else compact(one["metadata"]),
                when(one["expires_at"]),
            ]
            for one in entries
        ]
        columns = ["key", "bytes", "etag", "metadata", "expires"]
        run.out.rows({"entries": entries}, columns, rows, empty=f"no keys in {ns}")
    else:
        keys = list(db.kv.iter_keys(ns, prefix=prefix, limit=limit, at=at))
        run.out.rows({"keys": keys}, ["key"], [(key,) for key in keys], empty=f"no keys in {ns}")
    run.out.txid(db.last_txid, db.last_durable_txid)


def increment(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    key: _Key,
    by: Annotated[int, typer.Argument(metavar="[BY]", help="What to add.")] = 1,
    *,
    ttl: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Lifetime, where it has none.")
    ] = None,
) -> None:
    """Add to the number under a key, which is 0 where there is none."""
    run = current(ctx)
    done = run.client.db(spec).kv.increment(ns, key, by, ttl=ttl, durability=run.durability)
    run.out.done(done, str(done["value"]))
    stamp(run, done)


def batch(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    items: Annotated[
        str, typer.Argument(metavar="JSON", help='{"gets", "puts", "deletes"}, each a list; `-` is stdin.')
    ] = "-",
    *,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out items whose condition does not hold.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Get, set and remove up to 1000 keys as one commit, all or none."""
    run = current(ctx)
    asked = parse_object(items, "JSON")
    unknown = set(asked) - {"gets", "puts", "deletes"}
    if unknown or not all(isinstance(value, list) for value in asked.values()):
        raise typer.BadParameter("takes lists named gets, puts and deletes", param_hint="JSON")
    if dry_run:
        _would_batch(run, spec, ns, asked)
        return
    done = run.client.db(spec).kv.batch(ns, **asked, partial=partial, durability=run.durability)
    rows: list[list[Cell]] = [
        [one["key"], one["status"]] for kind in ("gets", "puts", "deletes") for one in done[kind]
    ]
    run.out.rows(done, ["key", "status"], rows, empty="nothing was asked")
    stamp(run, done)


def _would_batch(run: Run, spec: str, ns: str, asked: dict[str, Any]) -> None:
    """Say which keys a batch would set anew, and which remove; the server has to say what is wrong with it."""
    named = {
        kind: [one.get("key") if isinstance(one, dict) else one for one in asked.get(kind, [])]
        for kind in ("puts", "deletes")
    }
    keys = [key for kind in named.values() for key in kind if isinstance(key, str)]
    found = run.client.db(spec).kv.batch(ns, gets=keys, idempotency_key="")["gets"] if keys else []
    there = {one["key"] for one in found if one["status"] == "found"}
    replaced, removed = ([key for key in named[kind] if key in there] for kind in ("puts", "deletes"))
    told = f"replace {len(replaced)} values, remove {len(removed)}, and set {len(named['puts']) - len(replaced)} new ones"
    would(run, {"replaced": replaced, "removed": removed}, told)


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


add(
    app,
    "get",
    get,
    "memoturn kv get app--alice prefs theme",
    "memoturn kv get app--alice prefs theme --details",
)
add(app, "delete", delete, "memoturn kv delete app--alice prefs theme --dry-run")
add(app, "list", list_keys, "memoturn kv list app--alice prefs --prefix th --details")
add(
    app,
    "increment",
    increment,
    "memoturn kv increment app--alice counters visits 1 --ttl 86400",
    "memoturn kv increment app--alice counters visits -- -1",
)
add(
    app,
    "batch",
    batch,
    'memoturn kv batch app--alice prefs \'{"puts": [{"key": "theme", "value": "dark"}], "deletes": ["old"]}\'',
)
