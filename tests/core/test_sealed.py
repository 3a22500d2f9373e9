"""The checksum that manifests and registers carry."""

import golden
import pytest

from memoturnd.core import manifest, register
from memoturnd.core.manifest import Manifest
from memoturnd.core.sealed import sealed, unsealed
from memoturnd.errors import CorruptionError

NEW = Manifest(db="d1", branch_id="b1", branch="main", created_at=1)
DOCUMENTS = {
    "manifest": (manifest.decode, manifest.encode(NEW)),
    "register": (register.decode, register.encode(golden.full_register())),
}


def test_document_comes_back_without_its_checksum():
    assert unsealed(sealed(b'{"format":2}')) == b'{"format":2}'


def test_document_without_a_checksum_is_read_as_it_is():
    assert unsealed(b'{"format":2,"x":1}') == b'{"format":2,"x":1}'
    assert manifest.decode(unsealed(manifest.encode(NEW))) == NEW


@pytest.mark.parametrize(("decode", "data"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_any_flipped_bit_of_a_document_is_corruption(decode, data):
    decode(data)

    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptionError, match="cannot be read"):
            decode(bytes(damaged))


@pytest.mark.parametrize(("decode", "data"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_document_with_two_places_swapped_is_corruption(decode, data):
    half = next(at for at in range(len(data) // 2, len(data)) if data[at] != data[at + 1])
    swapped = data[:half] + data[half + 1 : half + 2] + data[half : half + 1] + data[half + 2 :]

    with pytest.raises(CorruptionError):
        decode(swapped)


def test_manifest_of_another_branch_is_refused_under_this_ones_key():
    data = manifest.encode(NEW)

    assert manifest.decode_of(data, db="d1", branch_id="b1") == NEW
    for db, branch_id in (("d2", "b1"), ("d1", "b2")):
        with pytest.raises(CorruptionError, match="b1 of database d1"):
            manifest.decode_of(data, db=db, branch_id=branch_id)


def test_register_of_another_database_is_refused_under_this_ones_key():
    known = golden.full_register()
    data = register.encode(known)

    assert register.decode_of(data, uuid=known.uuid) == known
    with pytest.raises(CorruptionError, match=known.uuid):
        register.decode_of(data, uuid="other")
