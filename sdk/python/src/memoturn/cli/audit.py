"""`memoturn audit`: who did what, and the proof that nobody changed it."""

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from memoturn.audit import StreamVerifier, heads_of, is_head, stream_of
from memoturn.cli.exits import ExitCode
from memoturn.cli.output import Cell, when
from memoturn.cli.run import Run, current, examples, group
from memoturn.errors import InvalidRequestError, ServerError
from memoturn.types import AuditActor, AuditEvent, AuditReport, AuditSince

app = group("Read the audit stream, and prove it.")

KEYS_FILE = "keys.json"
LOOK_AGAIN_S = 3.0
"""A live stream may be looked at between an object and its head: what does not fit is looked at again so much later."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_Namespace = Annotated[str, typer.Argument(metavar="NS", help="Namespace, or _platform.", show_default=False)]
_Keys = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Public keys (JWKS) to trust, instead of those that the node tells."),
]
_Since = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Heads that an earlier --save wrote: all of it has to be there still."),
]
_Save = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the heads there, for a later --since.")
]
_From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Unix ms, or so long ago: 30m, 24h, 7d.", show_default=False),
]
_To = Annotated[str | None, typer.Option(metavar="TIME", help="The same, for the end.", show_default=False)]
_Action = Annotated[str | None, typer.Option(help="Action, or how it begins: memory.", show_default=False)]
_OfProfile = Annotated[str | None, typer.Option(help="Only of this profile.", show_default=False)]
_Outcome = Annotated[str | None, typer.Option(help="ok, denied or error.", show_default=False)]


@app.command(epilog=examples("memoturn audit query app --from 24h --action memory. --outcome denied"))
def query(
    ctx: typer.Context,
    ns: _Namespace,
    *,
    from_: _From = None,
    to: _To = None,
    action: _Action = None,
    profile: _OfProfile = None,
    outcome: _Outcome = None,
) -> None:
    """Show audit events, oldest first; of the last day unless times are given."""
    run = current(ctx)
    events = list(_events(run, ns, from_, to, action, profile, outcome))
    run.out.rows(
        {"events": events},
        ["time", "action", "outcome", "who", "what", "txid"],
        [
            (when(e["ts"]), e["action"], e.get("error") or e["outcome"], _who(e), _what(e), e.get("txid"))
            for e in events
        ],
        empty="no events in that time",
    )


@app.command(epilog=examples("memoturn audit verify app --save heads.json"))
def verify(
    ctx: typer.Context,
    stream: Annotated[
        str, typer.Argument(metavar="NS|FOLDER", help="Namespace at the node, or a folder with a path in it.")
    ],
    *,
    keys: _Keys = None,
    since: _Since = None,
    save: _Save = None,
) -> None:
    """Prove an audit stream: nothing deleted, added, moved, changed or cut off. Exit 7 where something was.

    A folder is what `audit export` wrote, or a copy of the bucket's v1/_audit; it is one if it has a slash in its name.
    """
    run = current(ctx)
    if "/" in stream:
        reports = _verify_folder(Path(stream), keys, since)
    else:
        reports = [_verify_live(run, stream, keys, since)]
    for report in reports:
        _show(run, report)
    if any(report["outcome"] == "damaged" for report in reports):
        raise typer.Exit(ExitCode.DAMAGED)
    if save is not None:
        save.write_text(
            json.dumps({report["stream"]: heads_of(report) for report in reports}, indent=1) + "\n"
        )


@app.command(
    epilog=examples(
        "memoturn audit export app --from 7d --outcome denied > denied.jsonl",
        "memoturn audit export app FOLDER",
    )
)
def export(
    ctx: typer.Context,
    ns: _Namespace,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="New folder for the whole stream, to be verified."),
    ] = None,
    *,
    from_: _From = None,
    to: _To = None,
    action: _Action = None,
    profile: _OfProfile = None,
    outcome: _Outcome = None,
) -> None:
    """Print audit events as lines of JSON, those that `query` shows; or write the whole stream to a folder.

    In the folder stand objects and heads under their keys, and the public keys: `audit verify` proves them without a node.
    """
    run = current(ctx)
    if folder is None:
        for event in _events(run, ns, from_, to, action, profile, outcome):
            run.out.line(event)
        return
    if (from_, to, action, profile, outcome) != (None,) * 5:
        raise typer.BadParameter("takes the whole stream, without filters", param_hint="FOLDER")
    _take_away(run, ns, folder)


def _events(
    run: Run,
    ns: str,
    from_: str | None,
    to: str | None,
    action: str | None,
    profile: str | None,
    outcome: str | None,
) -> Iterator[AuditEvent]:
    return run.client.audit_events(
        ns, from_ms=_ms(from_), to_ms=_ms(to), action=action, profile=profile, outcome=outcome, limit=1000
    )


def _take_away(run: Run, ns: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise typer.BadParameter("is not empty; name a new folder", param_hint="FOLDER")
    before: dict[str, bytes] = {}
    objects: dict[tuple[str, int], Path] = {}
    count = 0
    for line in _lines(run, ns):
        if line["kind"] == "header":
            (folder / KEYS_FILE).write_text(json.dumps({"keys": line["keys"]}, indent=1) + "\n")
        elif line["kind"] == "object":
            target = _write(folder, line["key"], base64.b64decode(line["data"]))
            _, chain, number = target.stem.split("-", 1)[0], *target.stem.split("-", 1)[1].rsplit("-", 1)
            objects[chain, int(number)] = target
            count += 1
        elif line["kind"] == "head" and line["when"] == "before":
            before[line["key"]] = base64.b64decode(line["data"])
        elif line["kind"] == "head":
            count -= _settle(
                folder, line["key"], before.get(line["key"]), base64.b64decode(line["data"]), objects
            )
    for key, data in before.items():
        if not (folder / _below(key)).exists():
            _write(folder, key, data)
    run.out.done({"exported": ns, "objects": count}, f"exported {count} objects of {ns} to {folder}")


def _settle(
    folder: Path, key: str, before: bytes | None, after: bytes, objects: Mapping[tuple[str, int], Path]
) -> int:
    """Write the head that goes with the objects that were seen; return how many that came later were taken out."""
    try:
        chain, first, last = (
            Path(key).stem,
            json.loads(before or after)["objects"],
            json.loads(after)["objects"],
        )
        settled = range(first + 1, last + 1)
        seen = all((chain, number) in objects for number in settled)
    except (ValueError, KeyError, TypeError):
        _write(folder, key, after)  # it is damaged, and the verifier says so
        return 0
    if seen or before is None:
        _write(folder, key, after)
        return 0
    _write(folder, key, before)
    late = [objects[chain, number] for number in settled if (chain, number) in objects]
    for path in late:
        path.unlink()
    return len(late)


def _write(folder: Path, key: str, data: bytes) -> Path:
    target = folder / _below(key)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target


def _below(key: str) -> str:
    """Return where a key goes below a folder. Raises ServerError for one that would lead out of it."""
    if stream_of(key) is None or not re.fullmatch(r"v1/_audit/[A-Za-z0-9._/-]+", key) or ".." in key:
        raise ServerError(f"the node sent an object under a strange key: {key[:200]!r}")
    return key.removeprefix("v1/_audit/")


def _verify_live(run: Run, ns: str, keys: Path | None, since: Path | None) -> AuditReport:
    report = _once(run, ns, keys, since)
    if report["outcome"] == "damaged":
        time.sleep(LOOK_AGAIN_S)
        report = _once(run, ns, keys, since)
    return report


def _once(run: Run, ns: str, keys: Path | None, since: Path | None) -> AuditReport:
    verifier: StreamVerifier | None = None
    ended = False
    for line in _lines(run, ns):
        if line["kind"] == "header":
            trusted = {"keys": line["keys"]} if keys is None else _json(keys)
            verifier = StreamVerifier(line["stream"], trusted)
        elif verifier is None:
            raise ServerError("the export does not begin with a header; is the URL that of a Memoturn node?")
        elif line["kind"] == "object":
            verifier.add_object(line["key"], base64.b64decode(line["data"]))
        elif line["kind"] == "head":
            verifier.add_head(line["key"], base64.b64decode(line["data"]), when=line["when"])
        ended = line["kind"] == "end"
    if verifier is None or not ended:
        raise ServerError("the export of the stream broke off; try again")
    return verifier.report(_since(since, verifier.stream))


def _verify_folder(folder: Path, keys: Path | None, since: Path | None) -> list[AuditReport]:
    own = folder / KEYS_FILE
    trusted = _json(keys) if keys is not None else _json(own) if own.exists() else None
    verifiers: dict[str, StreamVerifier] = {}
    for path in sorted(path for path in folder.rglob("*.json*") if path.is_file()):
        key = path.relative_to(folder).as_posix()
        stream = stream_of(key)
        if stream is None:
            continue
        verifier = verifiers.setdefault(stream, StreamVerifier(stream, trusted))
        if is_head(key):
            verifier.add_head(key, path.read_bytes())
        else:
            verifier.add_object(key, path.read_bytes())
    if since is not None:
        for stream in _json(since):
            verifiers.setdefault(stream, StreamVerifier(stream, trusted))
    if not verifiers:
        raise InvalidRequestError(
            f"{folder} holds no audit stream; name what `memoturn audit export` wrote", code="invalid_request"
        )
    return [verifier.report(_since(since, stream)) for stream, verifier in sorted(verifiers.items())]


def _lines(run: Run, ns: str) -> Iterator[dict[str, Any]]:
    return run.client.audit_export(ns)


def _since(path: Path | None, stream: str) -> AuditSince | None:
    return None if path is None else cast("AuditSince", _json(path).get(stream, {}))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{path} holds no JSON object")
    return value


def _show(run: Run, report: AuditReport) -> None:
    if run.out.as_json:
        run.out.json(report)
        return
    if report["problems"]:
        run.out.rows(
            report,
            ["kind", "chain", "what"],
            [(p["kind"], p["chain"], f"{p['what']}\n{p['key']}".strip()) for p in report["problems"]],
            empty="",
        )
    for row in report["chains"]:
        kept = "" if row["from_seq"] == 1 else f" (kept from {row['from_seq']})"
        run.out.note(f"{row['chain']}: events up to {row['seq']}{kept}, {when(row['at'])}")
    shown: dict[str, Cell] = {
        "stream": report["stream"],
        "outcome": report["outcome"],
        "events": report["events"],
        "objects": report["objects"],
        "chains": len(report["chains"]),
        "signatures": report["signatures"],
    }
    run.out.record(report, shown)


def _who(event: AuditEvent) -> str:
    actor = event.get("actor", AuditActor(kind=""))
    return str(
        actor.get("subject") or actor.get("token_id") or actor.get("token_hash") or actor.get("kind", "")
    )


def _what(event: AuditEvent) -> str:
    where = event.get("profile") or event.get("db") or ""
    branch = f"@{event['branch']}" if "branch" in event else ""
    return " ".join(part for part in (f"{where}{branch}", event.get("resource", "")) if part)


def _ms(text: str | None) -> int | None:
    """Return a time in unix ms. Raises typer.BadParameter."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter("takes unix ms, or how long ago: 30m, 24h, 7d")
    return int(1000 * (time.time() - int(found[1]) * _UNITS[found[2]]))
