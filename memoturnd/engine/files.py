"""The files of one branch on the node's disk, and what they say about how the node left them.

    main.db, main.db-wal, main.db-shm   SQLite's own
    owner       who this file belongs to, and the epoch under which this node owns (or owned) it
    clean       written when the file is closed with everything shipped: cursor and page hashes

A folder with `owner` and without `clean` was open for writing when the process ended: its commits may not
be shipped. A folder with neither was only read, and holds nothing that object storage does not have.
"""

import os
import shutil
from pathlib import Path

import msgspec

from memoturnd.core.pages import PageHashes
from memoturnd.core.wal import WalPosition
from memoturnd.disk import sync_folder
from memoturnd.errors import DiskFullError
from memoturnd.replication.capture import Cursor


class Owner(msgspec.Struct, frozen=True):
    """The content of `owner`."""

    db_uuid: str
    db_name: str
    branch_id: str
    branch: str
    epoch: int
    token: str
    """Random, and in the manifest while this ownership is the last one."""
    claim: str
    """The token of a takeover under way, whose swap may have landed."""
    start_txid: int
    """The txid above which this ownership commits."""
    boot_id: str


class Clean(msgspec.Struct, frozen=True):
    """The head of `clean`; the page hashes follow it as 64-bit words behind a newline."""

    boot_id: str
    txid: int
    checksum: str
    position: WalPosition | None


class BranchFiles:
    """Paths of one branch's files, derived from ids alone, and the few operations on them.

    With `fsync` what is written here survives power loss, as commits do under MEMOTURN_SYNC=full.
    """

    def __init__(self, root: Path, db_uuid: str, branch_id: str, *, fsync: bool = False) -> None:
        self.folder = root / db_uuid[:2] / db_uuid / branch_id
        self.main = self.folder / "main.db"
        self.wal = self.folder / "main.db-wal"
        self._root = root
        self._fsync = fsync
        self._owner = self.folder / "owner"
        self._clean = self.folder / "clean"

    def make_folder(self) -> None:
        """Create the folder. Raises DiskFullError when the disk refuses."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._fsync:
                for folder in (self._root, *reversed(self.folder.relative_to(self._root).parents)):
                    sync_folder(self._root / folder)
        except OSError as error:
            raise refused(self.folder, error) from error

    def exists(self) -> bool:
        """Return whether there is a database file."""
        return self.main.exists()

    def owner(self) -> Owner | None:
        """Return the owner marker, None without one."""
        return _read_owner(self._owner)

    def write_owner(self, owner: Owner) -> None:
        """Mark the file as open for writing under an ownership, and no longer clean."""
        try:
            self._replace(self._owner, msgspec.json.encode(owner))
            self._clean.unlink(missing_ok=True)
        except OSError as error:
            raise refused(self._owner, error) from error

    def write_claim(self, token: str) -> None:
        """Note, where the file was owned before, that this node is about to take it over under `token`."""
        owner = self.owner()
        if owner is None:
            return
        try:
            self._replace(self._owner, msgspec.json.encode(msgspec.structs.replace(owner, claim=token)))
        except OSError as error:
            raise refused(self._owner, error) from error

    def clean(self, boot_id: str) -> tuple[Clean, PageHashes] | None:
        """Return what `clean` says, None where it is missing, from another boot, or unreadable."""
        try:
            head, _, hashes = self._clean.read_bytes().partition(b"\n")
            clean = msgspec.json.decode(head, type=Clean)
            known = PageHashes(hashes)
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        if clean.boot_id != boot_id or f"{known.checksum:016x}" != clean.checksum:
            return None
        return clean, known

    def closed_at_ms(self) -> int:
        """Return when the file was closed clean, in unix ms; 0 when it was not."""
        try:
            return self._clean.stat().st_mtime_ns // 1_000_000
        except OSError:
            return 0

    def was_closed_at(self) -> int | None:
        """Return the txid at which the file was closed clean, in whatever boot; None when it was not."""
        try:
            return msgspec.json.decode(self._clean.read_bytes().partition(b"\n")[0], type=Clean).txid
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            return None

    def write_clean(self, boot_id: str, cursor: Cursor, hashes: PageHashes) -> None:
        """Mark the closed file as holding exactly what is shipped."""
        clean = Clean(boot_id, cursor.txid, f"{hashes.checksum:016x}", cursor.position)
        try:
            self._replace(self._clean, msgspec.json.encode(clean) + b"\n" + hashes.to_bytes())
        except OSError as error:
            raise refused(self._clean, error) from error

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + ".new")
        with temporary.open("wb") as file:
            file.write(data)
            if self._fsync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if self._fsync:
            sync_folder(path.parent)

    def unmark(self) -> None:
        """Take the marks from a file of which all is in object storage, before it is changed: a crash then drops it.

        Raises DiskFullError.
        """
        try:
            self._owner.unlink(missing_ok=True)  # first: an owner's file that is not clean may hold commits
            self._clean.unlink(missing_ok=True)
        except OSError as error:
            raise refused(self._clean, error) from error

    def is_marked(self) -> bool:
        """Return whether there is an owner marker, readable or not."""
        return self._owner.exists()

    def set_aside(self, suffix: str) -> Path:
        """Move the folder to `damaged/` in the data directory, for somebody to look at, and return where."""
        aside = self._root.parent / "damaged" / f"{self.folder.name}-{suffix}"
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.folder, aside)
        except OSError as error:
            raise refused(aside, error) from error
        return aside

    def remove(self) -> None:
        """Delete the folder with all in it; the database must be closed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def replace_main(self, prepared: Path) -> None:
        """Put another file in the place of the closed database, and remove its log. Raises DiskFullError."""
        try:
            for path in (self.wal, self.main.with_name("main.db-shm"), self.main):
                path.unlink(missing_ok=True)  # the log first: it belongs to the file that goes
            prepared.rename(self.main)
            if self._fsync:
                sync_folder(self.folder)
        except OSError as error:
            raise refused(self.main, error) from error

    def size_bytes(self) -> int:
        """Return the bytes that the folder takes."""
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self.folder))
        except OSError:
            return 0


def found(root: Path) -> list[tuple[str, str, Owner | None, bool]]:
    """Return (database uuid, branch id, owner marker, clean) of every branch folder below `root`."""
    rows = []
    for folder in sorted(root.glob("*/*/*")):
        if folder.is_dir():
            owner = _read_owner(folder / "owner")
            rows.append((folder.parent.name, folder.name, owner, (folder / "clean").exists()))
    return rows


def _read_owner(path: Path) -> Owner | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None


def refused(path: Path, error: OSError) -> DiskFullError:
    """Return the error for a path below the data directory that could not be written."""
    return DiskFullError(
        f"the data directory refused {path}: {error.strerror}; make room or mend it, then try again"
    )
