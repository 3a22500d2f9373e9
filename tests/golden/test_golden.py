"""What an earlier release wrote is read, and today's code still writes the same."""

from pathlib import Path

import golden
import msgspec
import pytest

from memoturnd.core import export, garbage, manifest, register, segment
from memoturnd.core.assembly import Part, assemble
from memoturnd.core.export import Entry
from memoturnd.core.manifest import Checkpoint, HistoryPage
from memoturnd.core.pages import PageHashes
from memoturnd.engine.files import BranchFiles, Clean, Owner
from memoturnd.engine.rebuild import Change
from memoturnd.replication.archive import Run

V1 = Path(__file__).parent / "v1"
V2 = Path(__file__).parent / "v2"
OBJECTS = ("segment", "snapshot")


def stored_refs():
    standing = manifest.decode((V1 / "manifest.json").read_bytes())
    return {"segment": standing.segments[0], "snapshot": standing.snapshots[0]}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_version_1_are_read(name):
    part = segment.decode((V1 / name).read_bytes(), name_hash=stored_refs()[name].hash)

    assert (part.page_size, part.epoch, part.prev_txid) == (512, 3, 0)
    txid = part.rounds[-1].txid
    made = assemble([Part(name, part, txid)], txid)
    [indexes] = made.wanted(1)
    pages = dict(part.numbered_images(indexes.tolist()))
    assert (made.at.txid, made.at.db_size_pages, pages) == (14, 5, golden.state())
    assert f"{made.hashes.checksum:016x}" == stored_refs()[name].after


def test_every_round_of_a_segment_of_version_1_is_read():
    part = segment.decode((V1 / "segment").read_bytes())

    assert part.kind is segment.Kind.SEGMENT
    assert [(r.txid, r.at_ms, r.db_size_pages, r.pages) for r in part.rounds] == [
        (11, 1_700_000_000_000, 20, 20),
        (12, 1_700_000_000_010, 20, 2),
        (13, 1_700_000_000_020, 3, 2),
        (14, 1_700_000_000_030, 5, 3),
    ]


def test_manifest_of_version_1_is_read():
    standing = manifest.decode((V1 / "manifest.json").read_bytes())

    assert standing == golden.full_manifest(**{f"{n}_ref": r for n, r in stored_refs().items()})
    assert [ref.max for ref in manifest.restore_plan(standing, 14)] == [14]


def test_register_of_version_1_is_read():
    assert register.decode((V1 / "database.json").read_bytes()) == golden.full_register()


def test_marks_of_version_1_are_read(tmp_path):
    files = BranchFiles(tmp_path, golden.UUID, golden.BRANCH)
    files.make_folder()
    for name in ("owner", "clean"):
        (files.folder / name).write_bytes((V1 / name).read_bytes())

    clean, hashes = files.clean("boot")
    assert clean == msgspec.json.decode((V1 / "clean").read_bytes().split(b"\n")[0], type=Clean)
    assert hashes.to_bytes() == golden.rounds()[1].to_bytes()
    assert files.owner() == msgspec.json.decode((V1 / "owner").read_bytes(), type=Owner)
    assert files.owner().start_txid == 10


def test_catalog_changes_of_version_1_are_read():
    changes = msgspec.json.decode((V1 / "changes.json").read_bytes(), type=list[Change])

    assert changes == [Change("created", "app--user", golden.UUID, golden.BRANCH, golden.AT_MS)]


def test_export_of_the_catalog_is_read():
    entries = export.decode((V2 / "export.json").read_bytes())

    assert entries == [
        Entry(7, golden.UUID, b'{"name":"app--user"}', golden.AT_MS),
        Entry(9, "acme", None, golden.AT_MS),
    ]


def test_documents_of_version_2_are_read():
    refs = [stored_refs()[name] for name in OBJECTS]

    assert manifest.decode((V2 / "manifest.json").read_bytes()) == golden.full_manifest_2(*refs)
    assert register.decode((V2 / "database.json").read_bytes()) == golden.full_register_2()
    page = msgspec.json.decode((V2 / "page.json").read_bytes(), type=HistoryPage)
    assert page == golden.full_page(*refs)
    run = msgspec.json.decode((V2 / "run.json").read_bytes(), type=Run[Checkpoint])
    assert run == golden.full_run()
    assert garbage.decode((V2 / "garbage.json").read_bytes()) == golden.full_garbage()


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "database.json",
        "page.json",
        "run.json",
        "garbage.json",
        "owner",
        "clean",
        "changes.json",
        "export.json",
    ],
)
def test_documents_are_still_written_the_same(name):
    assert golden.encoded()[0][name] == (V2 / name).read_bytes()


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_still_written_the_same_but_for_the_compressor(name):
    """The compressed blocks may change with the version of zstd; everything that they hold may not."""
    old, new = (V2 / name).read_bytes(), golden.encoded()[0][name]
    if golden.zstd_version() == (V2 / "zstd-version").read_text():
        assert new == old
        return
    before, after = segment.decode(old), segment.decode(new)
    whole = range(len(before.pages))
    assert list(before.images(whole)) == list(after.images(whole))
    assert (before.rounds, before.pages) == (after.rounds, after.pages)
    tables = segment._HEADER_SIZE_BYTES + 40 * len(before.rounds) + 12 * len(before.pages)
    assert old[:tables] == new[:tables]


def test_golden_files_are_small():
    for folder in (V1, V2):
        assert sum(path.stat().st_size for path in folder.iterdir()) < 16_000
    assert {path.name for path in V2.iterdir()} == {*golden.encoded()[0], "zstd-version"}


def test_page_hashes_of_the_golden_state_add_up():
    hashes = PageHashes(golden.rounds()[1].to_bytes())

    assert f"{hashes.checksum:016x}" == stored_refs()["segment"].after
