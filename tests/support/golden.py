"""The objects behind tests/golden: small, made the same way every time.

`python tests/support/golden.py` writes the files of the current format version. Files of released versions
are never written again: a node must go on reading what is out there.
"""

from pathlib import Path

import msgspec
import zstandard

from memoturnd.core import export, garbage, manifest, register, segment
from memoturnd.core.export import Entry
from memoturnd.core.garbage import Garbage, Mark
from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import Checkpoint, Erasure, HistoryPage, Manifest, PageRef, Parent, Pin, Rewind
from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.core.segment import Kind, Round
from memoturnd.core.wal import WalPosition
from memoturnd.engine.files import Clean, Owner
from memoturnd.engine.rebuild import Change
from memoturnd.replication.archive import Run
from memoturnd.replication.snapshot import object_ref

FOLDER = Path(__file__).parent.parent / "golden" / f"v{manifest.FORMAT_VERSION}"
PAGE_SIZE = 512
UUID = "00112233445566778899aabbccddeeff"
BRANCH = "b1b2b3b4b5b6b7b8"
AT_MS = 1_700_000_000_000
EPOCH = 3


def page(number, version):
    """Return a page that neither compresses to nothing nor not at all."""
    return b"".join(bytes([number, version, n % 7, n // 7 % 256]) for n in range(PAGE_SIZE // 4))


def rounds():
    """Return the rounds: a whole file of 20 pages, a change, a cut to 3 pages, growth with a page of zeros."""
    plan = [
        ({n: page(n, 1) for n in range(1, 21)}, 20),
        ({2: page(2, 2), 7: page(7, 2)}, 20),
        ({1: page(1, 3), 2: page(2, 3)}, 3),
        ({2: page(2, 4), 4: bytes(PAGE_SIZE), 5: page(5, 4)}, 5),
    ]
    hashes, made = PageHashes(), []
    for step, (images, size) in enumerate(plan):
        sums = {n: page_hash(n, image) for n, image in images.items()}
        made.append(Round(11 + step, AT_MS + 10 * step, hashes.apply(sums, size), size, images, sums))
    return made, hashes


def state():
    """Return the pages of the file after the last round."""
    pages = {}
    for round_ in rounds()[0]:
        pages = {n: i for n, i in (pages | round_.images).items() if n <= round_.db_size_pages}
    return pages


def encoded():
    """Return {file name: bytes} of every golden file, and the refs of the two objects."""
    made, hashes = rounds()
    head = made[-1]
    first, first_hash = segment.encode(
        Kind.SEGMENT, made, page_size=PAGE_SIZE, prev_txid=0, epoch=EPOCH, checksum_before=0
    )
    whole = Round(
        head.txid,
        head.at_ms,
        head.checksum,
        head.db_size_pages,
        state(),
        {n: page_hash(n, image) for n, image in state().items()},
    )
    snap, snap_hash = segment.encode(
        Kind.SNAPSHOT, [whole], page_size=PAGE_SIZE, prev_txid=0, epoch=EPOCH, checksum_before=0
    )
    refs = (
        object_ref("segment", made, 0, EPOCH, BRANCH, len(first), first_hash),
        object_ref("snapshot", [whole], 0, EPOCH, BRANCH, len(snap), snap_hash),
    )
    clean = Clean("boot", head.txid, f"{hashes.checksum:016x}", WalPosition(1, 2, 28, 3, 4))
    owner = Owner(
        db_uuid=UUID,
        db_name="app--user",
        branch_id=BRANCH,
        branch="main",
        epoch=EPOCH,
        token="0123456789abcdef",
        claim="",
        start_txid=10,
        boot_id="boot",
    )
    return {
        "segment": first,
        "snapshot": snap,
        "manifest.json": manifest.encode(full_manifest_2(*refs)),
        "database.json": register.encode(full_register_2()),
        "page.json": msgspec.json.encode(full_page(*refs)),
        "run.json": msgspec.json.encode(full_run()),
        "garbage.json": garbage.encode(full_garbage()),
        "owner": msgspec.json.encode(owner),
        "clean": msgspec.json.encode(clean) + b"\n" + hashes.to_bytes(),
        "export.json": export.encode(
            [Entry(7, UUID, b'{"name":"app--user"}', AT_MS), Entry(9, "acme", None, AT_MS)]
        ),
        "changes.json": msgspec.json.encode([Change("created", "app--user", UUID, BRANCH, AT_MS)]),
    }, refs


def full_manifest(segment_ref, snapshot_ref):
    """Return a manifest with every field of version 1 set."""
    return Manifest(
        db=UUID,
        branch_id=BRANCH,
        branch="main",
        commit_id="c0c1c2c3c4c5c6c7",
        created_at=AT_MS,
        expires_at=AT_MS + 60_000,
        parent=Parent("a1a2a3a4a5a6a7a8", "trunk", 10),
        epoch=EPOCH,
        owner="0123456789abcdef",
        head_txid=segment_ref.max,
        head_at=segment_ref.last_at,
        head_checksum=segment_ref.after,
        txid_ceiling=segment_ref.max + manifest.CEILING_STEP,
        page_size=PAGE_SIZE,
        snapshots=(snapshot_ref,),
        segments=(segment_ref,),
        checkpoints={"good": Checkpoint(12, AT_MS + 10)},
        pins={"f1f2f3f4f5f6f7f8": Pin("fork", 13)},
        rewinds=(Rewind(14, 12, 13, AT_MS + 30),),
    )


def full_page(segment_ref, snapshot_ref):
    """Return a history page: a thinned segment, and one of two parts of a snapshot."""
    thinned = manifest.replace(segment_ref, rounds=3, upto=13)
    part = manifest.replace(snapshot_ref, first_page=1, last_page=4)
    return HistoryPage((part,), (thinned,), nonce="a1b2c3d4e5f6a7b8")


def full_run():
    """Return a run of checkpoints, one of them gone."""
    return Run[Checkpoint]({"gone": None, "good": Checkpoint(12, AT_MS + 10)}, nonce="b1b2c3d4e5f6a7b8")


def full_garbage():
    """Return what a collector remembers: one mark that the store has told the time of, and a new one."""
    old = Mark(AT_MS, AT_MS + 3, ("branches/a1a2a3a4a5a6a7a8/segments/x", "register/y"))
    return Garbage(
        db=UUID, commit_id="c1c2c3c4c5c6c7c8", marks=(old, Mark(AT_MS + 600_000, 0, ("register/z",)))
    )


def full_manifest_2(segment_ref, snapshot_ref):
    """Return a manifest with the fields of version 2 set as well."""
    page = PageRef("a1a2a3a4a5a6a7a8", 1, 10, "ab" * 16, 777, 9, AT_MS - 100, AT_MS - 10)
    return manifest.replace(
        full_manifest(segment_ref, snapshot_ref),
        pages=(page,),
        checkpoints={"good": Checkpoint(12, AT_MS + 10), "gone": None},
        checkpoint_runs=(RunRef(BRANCH, 64, "cd" * 16, 4000),),
        pin_runs=(RunRef(BRANCH, 65, "ef" * 16, 4001),),
        erasures=(Erasure("ers_00", 13, AT_MS + 25, 7),),
        drafts=(manifest.replace(page, min=11, max=12),),
        deleted_at=AT_MS + 40,
    )


def full_register_2():
    """Return a register with the fields of version 2 set as well."""
    before = full_register()
    fork = register.replace(before.branches["fork"], is_new=True)
    return register.replace(
        register.delete_branch(before, "fork", fork, at_ms=AT_MS + 50),
        branch_runs=(RunRef("", 64, "12" * 16, 5000),),
        state="deleted",
        deleted_at=AT_MS + 60,
    )


def full_register():
    """Return a register with every field of version 1 set."""
    return Register(
        uuid=UUID,
        name="app--user",
        created_at=AT_MS,
        commit_id="d0d1d2d3d4d5d6d7",
        branches={
            "main": RegisteredBranch(BRANCH, AT_MS),
            "fork": RegisteredBranch("f1f2f3f4f5f6f7f8", AT_MS + 5, "main", 13, AT_MS + 60_000),
        },
    )


def zstd_version():
    """Return the version of the compressor, on which alone the bytes of a block may depend."""
    return ".".join(map(str, zstandard.ZSTD_VERSION))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in encoded()[0].items():
        (FOLDER / name).write_bytes(data)
    (FOLDER / "zstd-version").write_text(zstd_version())
