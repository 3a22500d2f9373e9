"""Backups of a namespace: the head of every branch of every profile as a SQLite file, and a manifest of them.

    FOLDER/manifest.json            written last: a folder with it is whole
    FOLDER/progress.jsonl           before that: a line for the backup, then one for each file
    FOLDER/{profile}/{branch}.db    a state at one txid

A backup that was cut off goes on where it was: files whose line is there, and whose bytes are those of the
line, are not fetched again. Nothing in a folder is trusted when it is brought back: names are checked, and
every file against its hash, before the first request.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar, cast

from memoturn import MAIN
from memoturn.client import Memoturn
from memoturn.errors import (
    AlreadyExistsError,
    BackupError,
    BranchNotFoundError,
    DatabaseNotFoundError,
    OverloadedError,
)
from memoturn.types import BranchInfo, ProfileInfo

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PROGRESS: Final = "progress.jsonl"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9_])?")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 60
_MOST_WAIT_S: Final = 5.0
_SHOWN: Final = 10

T = TypeVar("T")
Report = Callable[[str, int, int], None]
"""Called with what is being done to which branch, and how many profiles are done, of how many."""


class BackupFile(TypedDict):
    """One branch. Times are unix ms; `exported_at` is when its head was saved, which was `txid`."""

    profile: str
    profile_created_at: int
    branch: str
    parent: str
    fork_txid: int
    created_at: int
    ttl_at: int | None
    txid: int
    exported_at: int
    size_bytes: int
    sha256: str


class BackupManifest(TypedDict):
    """A whole backup."""

    format: int
    namespace: str
    began_at: int
    ended_at: int
    files: list[BackupFile]
    files_sha256: str
    """Of the entries of `files`, so that damage to them is seen."""


@dataclass(frozen=True)
class Restored:
    """What a restore did: branches brought back, and those left out, because they are there or have expired."""

    files: int = 0
    size_bytes: int = 0
    there: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)


def back_up(
    client: Memoturn,
    ns: str,
    folder: "str | os.PathLike[str]",
    *,
    report: Report | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> BackupManifest:
    """Save every branch of every profile of a namespace to `folder`, or go on with a backup that was cut off.

    Profiles that come meanwhile may be left out, and those that go are. Raises BackupError for a folder that
    holds something else, and what a request raises; calling it again goes on.
    """
    root = Path(folder)
    began_at, known = _begin(root, ns)
    files: list[BackupFile] = []
    profiles = client.profiles(ns)
    with (root / PROGRESS).open("a", encoding="utf-8") as progress:
        for number, profile in enumerate(profiles):
            for branch in _branches(client, ns, profile, sleep):
                name = f"{profile['profile']}@{branch['branch']}"
                _say(report, name, number, len(profiles))
                entry = known.get(name)
                if entry is None or _fault(root, entry) is not None:
                    entry = _save(client, ns, root, profile, branch, sleep)
                    if entry is None:
                        continue
                    progress.write(json.dumps(entry) + "\n")
                    progress.flush()
                files.append(entry)
    made = BackupManifest(
        format=FORMAT,
        namespace=ns,
        began_at=began_at,
        ended_at=_now_ms(),
        files=files,
        files_sha256=_sum(files),
    )
    _write(root / MANIFEST, json.dumps(made, indent=1))
    (root / PROGRESS).unlink()
    return made


def _begin(root: Path, ns: str) -> tuple[int, dict[str, BackupFile]]:
    """Return when the backup in the folder began, and what it has already, beginning one in an empty folder."""
    if (root / MANIFEST).exists():
        raise BackupError(f"{root} holds a whole backup already: choose another folder", code="backup")
    if (root / PROGRESS).exists():
        head, *lines = _lines(root / PROGRESS) or [{}]
        if (head.get("format"), head.get("namespace")) != (FORMAT, ns):
            raise BackupError(
                f"{root} holds the beginning of another backup: choose another folder", code="backup"
            )
        entries = [_checked(line) for line in lines]
        return int(head["began_at"]), {f"{e['profile']}@{e['branch']}": e for e in entries}
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BackupError(f"{root} is not empty: choose another folder", code="backup")
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    began_at = _now_ms()
    _write(root / PROGRESS, json.dumps({"format": FORMAT, "namespace": ns, "began_at": began_at}) + "\n")
    return began_at, {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the progress file, and cut off one that was being written."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) != len(text):
        _write(path, whole.decode())
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise BackupError(
            f"{path} is damaged ({error}): begin anew in another folder", code="backup"
        ) from error


def _branches(
    client: Memoturn, ns: str, profile: ProfileInfo, sleep: Callable[[float], None]
) -> Iterator[BranchInfo]:
    database = f"{ns}--{profile['profile']}"
    try:
        others = _patiently(client.db(database).branch.list, sleep)
    except DatabaseNotFoundError:
        return
    yield BranchInfo(
        db_name=database, branch=MAIN, ttl_at=None, created_at=profile["created_at"], parent="", fork_txid=0
    )
    yield from others


def _save(
    client: Memoturn,
    ns: str,
    root: Path,
    profile: ProfileInfo,
    branch: BranchInfo,
    sleep: Callable[[float], None],
) -> BackupFile | None:
    """Save one branch, and return its entry; None when it is gone."""
    entry = BackupFile(
        profile=profile["profile"],
        profile_created_at=profile["created_at"],
        branch=branch["branch"],
        parent=branch["parent"] or "",  # as for main
        fork_txid=branch["fork_txid"] or 0,
        created_at=branch["created_at"],
        ttl_at=branch["ttl_at"],
        txid=0,
        exported_at=_now_ms(),
        size_bytes=0,
        sha256="0" * 64,
    )
    path = _path(root, _checked(dict(entry)))
    path.parent.mkdir(exist_ok=True)
    db = client.db(f"{ns}--{profile['profile']}@{branch['branch']}")
    try:
        saved = _patiently(lambda: db.export(path, overwrite=True), sleep)
    except (DatabaseNotFoundError, BranchNotFoundError):
        return None
    entry["txid"], entry["size_bytes"], entry["sha256"] = saved["txid"], saved["size_bytes"], saved["sha256"]
    return entry


# ---- bringing back


def restore_backup(
    client: Memoturn,
    folder: "str | os.PathLike[str]",
    *,
    into: str | None = None,
    resume: bool = False,
    report: Report | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Restored:
    """Bring back a backup into the namespace that it was made of, or another one.

    Every file is held against its hash first. No profile is replaced: with `resume` those branches that are
    there already are left as they are, to go on after a restore that was cut off. Branches whose time is over
    stay away. Raises BackupError for a folder that is no whole and sound backup, AlreadyExistsError naming
    profiles that exist, and what a request raises.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    ns = into or manifest["namespace"]
    verify(root, manifest, report=report)
    there = {profile["profile"] for profile in client.profiles(ns)}
    by_profile: dict[str, list[BackupFile]] = {}
    for entry in manifest["files"]:
        by_profile.setdefault(entry["profile"], []).append(entry)
    if not resume:
        _refuse_existing(ns, sorted(there & by_profile.keys()))
    done = Restored()
    files = size_bytes = 0
    for number, (profile, entries) in enumerate(by_profile.items()):
        database = f"{ns}--{profile}"
        known = set()
        if profile in there:
            known = {MAIN, *(row["branch"] for row in _patiently(client.db(database).branch.list, sleep))}
        for entry in sorted(entries, key=lambda e: e["branch"] != MAIN):
            name = f"{profile}@{entry['branch']}"
            _say(report, name, number, len(by_profile))
            left_s = None if entry["ttl_at"] is None else (entry["ttl_at"] - _now_ms()) // 1000
            if entry["branch"] in known:
                done.there.append(name)
            elif left_s is not None and left_s <= 0:
                done.expired.append(name)
            else:
                _bring(client, database, _path(root, entry), entry["branch"], left_s, sleep)
                files, size_bytes = files + 1, size_bytes + entry["size_bytes"]
    return Restored(files, size_bytes, done.there, done.expired)


def _bring(
    client: Memoturn,
    database: str,
    path: Path,
    branch: str,
    ttl: int | None,
    sleep: Callable[[float], None],
) -> None:
    name = None if branch == MAIN else branch
    _patiently(lambda: client.import_database(path, database, branch=name, ttl=ttl), sleep)


def _refuse_existing(ns: str, taken: list[str]) -> None:
    if taken:
        more = f" and {len(taken) - _SHOWN} more" if len(taken) > _SHOWN else ""
        raise AlreadyExistsError(
            f"namespace {ns} has profiles of the backup already: {', '.join(taken[:_SHOWN])}{more}; nothing was "
            "changed. Bring it back into another namespace, or only what is missing",
            code="already_exists",
        )


def read_manifest(folder: "str | os.PathLike[str]") -> BackupManifest:
    """Return the manifest of a backup. Raises BackupError when there is none, or it is not right."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        unfinished = (Path(folder) / PROGRESS).exists()
        raise BackupError(
            f"{folder} holds a backup that was cut off: run it again to finish it"
            if unfinished
            else f"{folder} holds no backup: there is no {MANIFEST}",
            code="backup",
        )
    try:
        return _decoded(path.read_bytes())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BackupError(f"{path} is damaged: {error!r}", code="backup") from error


def _decoded(data: bytes) -> BackupManifest:
    manifest = json.loads(data)
    if manifest["format"] != FORMAT:
        raise BackupError(
            f"the backup has format {manifest['format']}, this command reads {FORMAT}: use a newer one",
            code="backup",
        )
    files = [_checked(entry) for entry in manifest["files"]]
    paths = {_path(Path(), entry) for entry in files}
    times = [int(manifest["began_at"]), int(manifest["ended_at"])]
    whole = (
        _NAME.fullmatch(manifest["namespace"])
        and manifest["files_sha256"] == _sum(files)
        and len(paths) == len(files)
    )
    if not whole:
        raise ValueError("its entries are not those that were written")
    return BackupManifest(
        format=FORMAT,
        namespace=manifest["namespace"],
        began_at=times[0],
        ended_at=times[1],
        files=files,
        files_sha256=manifest["files_sha256"],
    )


def verify(
    folder: "str | os.PathLike[str]", manifest: BackupManifest, *, report: Report | None = None
) -> None:
    """Hold every file against its size and hash. Raises BackupError naming those that are not right."""
    faults = []
    for number, entry in enumerate(manifest["files"]):
        _say(report, f"verify {entry['profile']}@{entry['branch']}", number, len(manifest["files"]))
        fault = _fault(Path(folder), entry)
        if fault is not None:
            faults.append(f"{_path(Path(), entry)} {fault}")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise BackupError(
            f"the backup is damaged, nothing was changed: {'; '.join(faults[:_SHOWN])}{more}", code="backup"
        )


# ---- files


def _checked(entry: Any) -> BackupFile:
    """Return an entry whose names and numbers are as a backup writes them. Raises BackupError."""
    try:
        names = all(_NAME.fullmatch(entry[key]) and ".." not in entry[key] for key in ("profile", "branch"))
        numbers = ("profile_created_at", "created_at", "fork_txid", "txid", "exported_at", "size_bytes")
        whole = all(type(entry[key]) is int and entry[key] >= 0 for key in numbers)
        ends = entry["ttl_at"] is None or type(entry["ttl_at"]) is int
        if names and whole and ends and isinstance(entry["parent"], str) and _HASH.fullmatch(entry["sha256"]):
            return cast("BackupFile", entry)
    except (TypeError, KeyError):
        pass
    raise BackupError(f"an entry of the backup is not right: {str(entry)[:200]}", code="backup")


def _path(root: Path, entry: BackupFile) -> Path:
    return root / entry["profile"] / f"{entry['branch']}.db"


def _fault(root: Path, entry: BackupFile) -> str | None:
    """Return what is wrong with the file of an entry, None when it is the one that was saved."""
    digest = hashlib.sha256()
    try:
        with _path(root, entry).open("rb") as file:
            if os.fstat(file.fileno()).st_size != entry["size_bytes"]:
                return "has another size than the manifest says"
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return "is missing"
    return None if digest.hexdigest() == entry["sha256"] else "does not have the hash that the manifest says"


def _sum(files: list[BackupFile]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _patiently(call: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """Call again while the node is busy, which changed nothing. Raises OverloadedError in the end."""
    for _ in range(_ATTEMPTS):
        try:
            return call()
        except OverloadedError as error:
            sleep(min(error.retry_after or 1.0, _MOST_WAIT_S))
    return call()


def _say(report: Report | None, what: str, number: int, whole: int) -> None:
    if report is not None:
        report(what, number, whole)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
