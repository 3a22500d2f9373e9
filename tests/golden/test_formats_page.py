"""docs/formats.md says what the structs are."""

import re
import struct
from pathlib import Path

import golden
import msgspec
import pytest

from memoturnd.core import layout, manifest, segment
from memoturnd.core.canonical import canonical_json, memory_id, memory_id_with_summary
from memoturnd.core.export import Body
from memoturnd.core.garbage import Garbage
from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import (
    Checkpoint,
    Erasure,
    HistoryPage,
    Manifest,
    ObjectRef,
    PageRef,
    Parent,
    Pin,
    Rewind,
)
from memoturnd.core.pages import lock_page
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.core.wal import WalPosition
from memoturnd.engine.files import BranchFiles, Clean, Owner
from memoturnd.engine.rebuild import Change
from memoturnd.replication.archive import Run

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def tables():
    """Return every table of the page as (heading above it, header cells, rows of cells)."""
    found, heading, rows = [], "", []
    for line in [*PAGE.splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append((heading, rows[0], rows[2:]))
            rows = []
    return found


def byte_table(heading):
    ((_, _, rows),) = [t for t in tables() if t[0] == heading and t[1][0] == "offset"]
    return [(int(row[0]), int(row[1]), row[2]) for row in rows]


@pytest.mark.parametrize(
    ("heading", "layouts"),
    [
        ("Header", [segment._HEADER, segment._SUM]),
        ("Round table", [segment._ROUND]),
        ("Page table", [segment._PAGE]),
        ("Block table, blocks, trailer", [segment._BLOCK]),
    ],
)
def test_byte_tables_are_the_structs(heading, layouts):
    rows = byte_table(heading)
    formats = [piece for part in layouts for piece in re.findall(r"\d+s|[A-Z]", part.format.lstrip("<"))]

    assert [size for _, size, _ in rows] == [struct.calcsize(f"<{piece}") for piece in formats]
    assert [offset for offset, _, _ in rows] == [sum(s for _, s, _ in rows[:n]) for n in range(len(rows))]


def test_parts_have_the_sizes_that_the_page_states():
    ((_, _, rows),) = [t for t in tables() if t[1] == ["part", "bytes"]]
    stated = {name: int(re.match(r"\d*", size).group() or 0) for name, size in rows}

    assert stated == {
        "header": segment._HEADER_SIZE_BYTES,
        "round table": segment._ROUND.size,
        "page table": segment._PAGE.size,
        "block table": segment._BLOCK.size,
        "table sum": segment._SUM.size,
        "blocks": 0,
        "trailer": segment._TRAILER_SIZE_BYTES,
    }


def test_header_values_are_the_ones_that_are_written():
    data = golden.encoded()[0]["snapshot"]
    rows = {name: (offset, size) for offset, size, name in byte_table("Header") if name != "reserved"}

    def at(name):
        offset, size = rows[name]
        return int.from_bytes(data[offset : offset + size], "little")

    assert data[:8] == b"MEMOTURN"
    assert [at(n) for n in ("format version", "kind", "compression", "pages per block")] == [1, 2, 1, 16]
    assert [at(n) for n in ("page size", "rounds", "pages", "blocks", "last txid", "epoch")] == [
        512,
        1,
        5,
        1,
        14,
        3,
    ]
    assert [at(n) for n in ("cipher id", "key version", "flags", "previous txid")] == [0, 0, 0, 0]
    assert f"{at('checksum after'):016x}" == golden.encoded()[1][1].after


def fields_of(heading, index=0):
    """Return the field names of a table below a heading, and of those in the values that it describes."""
    chosen = [t for t in tables() if t[0] == heading and t[1][0] == "field"][index]
    return {name for row in chosen[2] for name in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.parametrize(
    ("heading", "index", "kind"),
    [
        ("Branch manifest", 0, Manifest),
        ("Branch manifest", 1, ObjectRef),
        ("History pages", 0, HistoryPage),
        ("Runs of names", 0, Run),
        ("garbage.json", 0, Garbage),
        ("database.json", 0, Register),
        ("The catalog's export", 0, Body),
        ("The catalog's export", 1, Change),
        ("Files beside a branch", 0, Owner),
        ("Files beside a branch", 1, Clean),
    ],
)
def test_field_tables_name_exactly_the_fields(heading, index, kind):
    assert fields_of(heading, index) == {field.name for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("checkpoints", Checkpoint),
        ("pins", Pin),
        ("rewinds", Rewind),
        ("erasures", Erasure),
        ("parent", Parent),
        ("branches", RegisteredBranch),
        ("pages", PageRef),
        ("checkpoint_runs", RunRef),
    ],
)
def test_fields_inside_fields_are_named(field, kind):
    ((row),) = [
        row for _, head, rows in tables() for row in rows if head[0] == "field" and row[0] == f"`{field}`"
    ]

    assert set(re.findall(r"`(\w+)`", row[1])) == {f.name for f in msgspec.structs.fields(kind)}


def test_versions_and_bounds_are_the_ones_in_use():
    assert (segment.FORMAT_VERSION, manifest.FORMAT_VERSION) == (1, 2)
    assert f"the last {manifest.REWINDS_KEPT}" in PAGE
    assert f"blocks of {segment.PAGES_PER_BLOCK}" in PAGE
    assert lock_page(4096) == 0x40000000 // 4096 + 1


def test_object_keys_are_the_ones_in_use():
    templates = [row[0].strip("`") for _, head, rows in tables() for row in rows if head[0] == "key"]
    part, whole = golden.encoded()[1]
    name = "{min:016d}-{max:016d}-{epoch:08d}-{hash}"

    def filled(template, ref):
        return template.format(
            **{"uuid": "u", "branch id": ref.branch, "name": name.format(**msgspec.structs.asdict(ref))}
        )

    assert [t for t in templates if "/segments/" in t or "/snapshots/" in t]
    assert filled(templates[0], part) == layout.register_key("u")
    assert filled(templates[1], part) == layout.manifest_key("u", part.branch)
    assert filled(templates[2], part) == layout.object_key("u", part)
    assert filled(templates[3], whole) == layout.object_key("u", whole)
    page = golden.full_manifest_2(part, whole).pages[0]
    run = golden.full_manifest_2(part, whole).checkpoint_runs[0]
    key = templates[4].replace("{txid range}-{hash}", page.key_name)
    assert key.format(**{"uuid": "u", "branch id": page.branch}) == layout.page_key("u", page)
    for template, kind in zip(templates[5:7], ("checkpoints", "pins"), strict=True):
        key = template.replace("{count}-{hash}", run.key_name)
        assert key.format(**{"uuid": "u", "branch id": run.branch}) == layout.run_key("u", run, kind)
    run = golden.full_register_2().branch_runs[0]
    key = templates[7].replace("{count}-{hash}", run.key_name)
    assert key.format(uuid="u") == layout.run_key("u", run, "branches")
    assert templates[8].format(uuid="u") == layout.garbage_key("u")
    assert any(template.startswith(layout.catalog_export_prefix("{kind}")) for template in templates)


def test_marks_lie_where_the_page_says(tmp_path):
    files = BranchFiles(tmp_path / "dbs", golden.UUID, golden.BRANCH)

    assert files.main == tmp_path / "dbs" / "00" / golden.UUID / golden.BRANCH / "main.db"
    assert "`dbs/{first two digits of uuid}/{uuid}/{branch id}/`" in PAGE


def test_position_is_the_list_that_the_page_states():
    stated = re.search(r"`\[(salt 1.*?)\]`", PAGE).group(1).split(", ")

    assert [name.replace(" ", "") for name in stated] == list(WalPosition._fields)
    assert msgspec.json.encode(WalPosition(1, 2, 3, 4, 5)) == b"[1,2,3,4,5]"


def test_id_vectors_are_right():
    ((_, _, rows),) = [t for t in tables() if t[1][0] == "type"]
    cells = [[cell.strip("`") for cell in row] for row in rows]

    assert len(cells) == 8
    for type_, topic, content, summary, expected in cells:
        canonical = canonical_json(msgspec.json.decode(content))
        assert canonical.decode() == content
        if summary:
            assert memory_id_with_summary(type_, topic or None, canonical, summary) == expected
        else:
            assert memory_id(type_, topic or None, canonical) == expected
