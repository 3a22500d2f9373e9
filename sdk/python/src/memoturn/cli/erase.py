"""`memoturn erase`: what is to leave history too, how far it has come, and the proof of it."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import httpx
import typer

from memoturn.cli.erase_target import show_would_erase
from memoturn.cli.exits import ExitCode
from memoturn.cli.output import Cell, compact, when
from memoturn.cli.run import DryRun, Run, Spec, Yes, confirm, current, examples, group, parse_object
from memoturn.errors import InvalidReceiptError
from memoturn.receipts import verify_receipt
from memoturn.types import ErasureCoupon, ErasureRequested, ErasureTarget

app = group("Erase from history, and check receipts.")

KEYS_PATH = "/.well-known/jwks.json"
Grace = Annotated[
    int | None,
    typer.Option(
        "--grace", min=0, metavar="SECONDS", help="Rewrite history so soon; never later than the policy says."
    ),
]


@app.command(
    "request",
    epilog=examples('memoturn erase request app--alice \'{"kv": {"ns": "prefs", "key": "theme"}}\''),
)
def request(
    ctx: typer.Context,
    spec: Spec,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help='JSON each, such as \'{"kv": {"ns": "n", "key": "k"}}\'.'),
    ],
    *,
    grace: Grace = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Erase things of a database, from its newest state at once and from its history after the grace time."""
    run, wanted = current(ctx), [cast("ErasureTarget", parse_object(text, "TARGET")) for text in targets]
    database = run.client.db(spec)
    if dry_run:
        show_would_erase(run, database, wanted)
        return
    confirm(f"Erase this from all history of {spec}?", yes=yes)
    show_requested(run, database.erase(*wanted, grace_secs=grace))


@app.command("list", epilog=examples("memoturn erase list app--alice"))
def list_(ctx: typer.Context, spec: Spec) -> None:
    """List the erasures of a database, the newest request first."""
    run = current(ctx)
    show_all(run, run.client.db(spec).erasures())


@app.command("show", epilog=examples("memoturn erase show app--alice ers_019f3c7d2a1b4c5d"))
def show(ctx: typer.Context, spec: Spec, erasure_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show an erasure, with its receipt once it is completed."""
    run = current(ctx)
    show_one(run, erasure_id, run.client.db(spec).erasure(erasure_id))


@app.command(
    "verify",
    epilog=examples(
        "memoturn erase show app--alice ers_019f3c7d2a1b4c5d --json > coupon.json",
        "memoturn erase verify coupon.json --keys keys.json",
    ),
)
def verify(
    ctx: typer.Context,
    receipt: Annotated[
        Path, typer.Argument(metavar="RECEIPT", help="File with a receipt, or a coupon that has one.")
    ],
    *,
    keys: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Public keys (JWKS); those of the node unless given."),
    ] = None,
) -> None:
    """Check the receipt of an erasure by the published keys; with a file of keys no node is needed. Exit 7 on a bad one."""
    run = current(ctx)
    try:
        payload = verify_receipt(_read(receipt.read_bytes(), str(receipt)), _keys(run, keys))
    except InvalidReceiptError as error:
        run.out.error(error.message, "Get the coupon with `memoturn erase show`, the keys from " + KEYS_PATH)
        raise typer.Exit(ExitCode.DAMAGED) from error
    shown: dict[str, Cell] = {
        "receipt": "is genuine",
        "erasure": payload["erasure_id"],
        "database": payload["db"],
        "target": compact(payload["target"]),
        "completed": when(payload["completed_at"]),
        **{name.replace("_", " "): value for name, value in payload["evidence"].items()},
    }
    run.out.record(payload, shown)


def _read(text: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidReceiptError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidReceiptError(f"{where} holds no JSON object")
    return value


def _keys(run: Run, source: str | None) -> dict[str, Any]:
    if source is not None and not source.startswith(("http://", "https://")):
        return _read(Path(source).read_bytes(), source)
    url = source or f"{run.client.url}{KEYS_PATH}"
    try:
        answer = httpx.get(url, timeout=30.0)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise InvalidReceiptError(f"the keys cannot be fetched from {url}: {error}") from error
    return _read(answer.content, url)


# ---- what is shown, for `memoturn memory` too


def show_requested(run: Run, requested: ErasureRequested) -> None:
    """Show an erasure that was accepted."""
    run.out.record(
        requested,
        {
            "erasure": requested["erasure_id"],
            "status": requested["status"],
            "txid": requested["txid"],
            "history from": when(requested["grace_until"]),
        },
    )


def show_all(run: Run, coupons: list[ErasureCoupon]) -> None:
    """Show a list of erasures."""
    rows: list[list[Cell]] = [
        [c["id"], c["status"], compact(c["target"]), when(c["requested_at"]), when(c.get("completed_at"))]
        for c in coupons
    ]
    run.out.rows(
        coupons, ["id", "status", "target", "requested", "completed"], rows, empty="nothing was erased"
    )


def show_one(run: Run, erasure_id: str, coupon: ErasureCoupon | None) -> None:
    """Show an erasure; leave with exit code 3 where there is none."""
    if coupon is None:
        run.out.error(f"no erasure {erasure_id} is known here", "`memoturn erase list SPEC` lists them.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    by = coupon.get("blocked_by")
    shown: dict[str, Cell] = {
        "erasure": coupon["id"],
        "status": coupon["status"],
        "target": compact(coupon["target"]),
        "memories": " ".join(coupon["memory_ids"]) or None,
        "requested": when(coupon["requested_at"]),
        "history from": when(coupon["grace_until"]),
        "held up by": "; ".join(by["reasons"]) if by else None,
        "completed": when(coupon.get("completed_at")),
        "signed by": coupon["receipt"].get("key_id") if "receipt" in coupon else None,
    }
    run.out.record(coupon, shown)
