"""`memoturn kv`: values by key."""

import os
import sys
from typing import Annotated

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.run import At, Spec, Yes, confirm, current, examples, group

app = group("Put, get, delete and list key-values.")

_Space = Annotated[str, typer.Argument(metavar="NS", help="Key-value namespace.", show_default=False)]
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
) -> None:
    """Set a key."""
    run = current(ctx)
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    db = run.client.db(spec)
    txid = db.kv.put(ns, key, data, ttl=ttl, durability=run.durability)
    run.out.done(
        {"ns": ns, "key": key, "size_bytes": len(data), "txid": txid}, f"set {ns}/{key}, {len(data)} bytes"
    )
    run.out.txid(db.last_txid, db.last_durable_txid)


@app.command(epilog=examples("memoturn kv get app--alice prefs theme"))
def get(ctx: typer.Context, spec: Spec, ns: _Space, key: _Key, *, at: At = None) -> None:
    """Write a key's value to stdout as it is."""
    run = current(ctx)
    db = run.client.db(spec)
    value = db.kv.get(ns, key, at=at)
    if value is None:
        run.out.error(f"{spec} has no key {ns}/{key}", "`memoturn kv list SPEC NS` shows the keys.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    if run.out.as_json:
        run.out.json({"ns": ns, "key": key, "value": _text_or_bytes(value), "txid": db.last_txid})
    else:
        run.out.raw(value)
    run.out.txid(db.last_txid, db.last_durable_txid)


@app.command(epilog=examples("memoturn kv delete app--alice prefs theme"))
def delete(ctx: typer.Context, spec: Spec, ns: _Space, key: _Key, *, yes: Yes = False) -> None:
    """Remove a key; also fine when it is absent."""
    run = current(ctx)
    confirm(f"Remove {ns}/{key} from {spec}?", yes=yes)
    db = run.client.db(spec)
    txid = db.kv.delete(ns, key, durability=run.durability)
    run.out.done({"deleted": key, "ns": ns, "txid": txid}, f"removed {ns}/{key}")
    run.out.txid(db.last_txid, db.last_durable_txid)


@app.command("list", epilog=examples("memoturn kv list app--alice prefs --prefix th"))
def list_keys(
    ctx: typer.Context,
    spec: Spec,
    ns: _Space,
    *,
    prefix: Annotated[str, typer.Option(help="Only keys that start so.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most keys.")] = 100,
    at: At = None,
) -> None:
    """List keys, ascending."""
    run = current(ctx)
    db = run.client.db(spec)
    keys = db.kv.list(ns, prefix=prefix, limit=limit, at=at)
    run.out.rows({"keys": keys}, ["key"], [(key,) for key in keys], empty=f"no keys in {ns}")
    run.out.txid(db.last_txid, db.last_durable_txid)


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
