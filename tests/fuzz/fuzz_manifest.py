"""Branch manifests, and the questions that are asked of one."""

import contextlib
from random import Random

import golden
from fuzz_json import changed_and_sealed
from fuzz_target import GOLDEN, BreachError, Target, same

from memoturnd.core import layout, manifest
from memoturnd.core.manifest import Manifest
from memoturnd.errors import ConflictError, CorruptionError
from memoturnd.stores.keys import is_key


def read(data: bytes) -> Manifest | None:
    """Decode, and ask for what every restore asks."""
    try:
        standing = manifest.decode(data)
    except CorruptionError:
        return None
    txids = {0, 1, standing.head_txid, standing.head_txid + 1, *(ref.min for ref in standing.segments[:9])}
    for txid in txids:
        try:
            manifest.restore_plan(standing, txid)
        except (ConflictError, CorruptionError):
            continue
        manifest.round_ref(standing, txid)
    with contextlib.suppress(ConflictError, CorruptionError):
        manifest.bytes_since_base(standing)
    return standing


def again(standing: Manifest) -> None:
    """Encode and compare; every object that it names has a key that a store takes."""
    same(standing, manifest.decode(manifest.encode(standing)))
    keys = [(ref.branch, layout.object_key(standing.db, ref)) for ref in standing.objects]
    keys += [(page.branch, layout.page_key(standing.db, page)) for page in standing.pages]
    keys += [
        (run.branch, layout.run_key(standing.db, run, "pins")) for run in standing.pin_runs if run.branch
    ]
    for branch, key in keys:
        if not is_key(key) or not key.startswith(layout.branch_prefix(standing.db, branch)):
            raise BreachError(f"the manifest names an object by {key!r}")


def mutate(data: bytes, rng: Random) -> bytes:
    """Change one value of the document."""
    return changed_and_sealed(data, rng)


def seeds() -> list[bytes]:
    """Return the golden manifest, and those of a new branch and of a fork."""
    standing = manifest.decode((GOLDEN / "manifest.json").read_bytes())
    new = Manifest(db=golden.UUID, branch_id=golden.BRANCH, branch="main", created_at=golden.AT_MS)
    child = manifest.fork(
        standing,
        branch_id="a" * 16,
        branch="fork",
        txid=12,
        head_at=1,
        head_checksum="0" * 16,
        created_at=2,
        expires_at=3,
    )
    return [manifest.encode(one) for one in (standing, new, child)]


TARGET = Target(
    name="manifest",
    modules=("memoturnd.core.manifest",),
    read=read,
    again=again,
    mutate=mutate,
    seeds=seeds,
    multiple=32,
    constant=256 << 10,
)
