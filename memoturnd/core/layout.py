"""Object keys (root `v1`, docs/formats.md). Every part is an id that we made: no user's name becomes a key."""

import re

from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import ObjectRef, PageRef

ROOT = "v1"
_REGISTER = re.compile(rf"{ROOT}/([0-9a-f]{{32}})/database\.json")


def database_prefix(uuid: str) -> str:
    """Return the prefix of everything that belongs to a database."""
    return f"{ROOT}/{uuid}/"


def register_key(uuid: str) -> str:
    """Return the key of `database.json`."""
    return f"{ROOT}/{uuid}/database.json"


def registered_uuid(key: str) -> str | None:
    """Return the uuid of the database whose `database.json` has this key, None for another object's key."""
    found = _REGISTER.fullmatch(key)
    return None if found is None else found[1]


def garbage_key(uuid: str) -> str:
    """Return the key of `garbage.json`."""
    return f"{ROOT}/{uuid}/garbage.json"


def branch_prefix(uuid: str, branch_id: str) -> str:
    """Return the prefix of a branch's manifest and objects."""
    return f"{ROOT}/{uuid}/branches/{branch_id}/"


def manifest_key(uuid: str, branch_id: str) -> str:
    """Return the key of a branch's manifest."""
    return f"{ROOT}/{uuid}/branches/{branch_id}/manifest.json"


def object_key(uuid: str, ref: ObjectRef) -> str:
    """Return the key of a segment or snapshot, in the folder of the branch that wrote it."""
    folder = "snapshots" if ref.kind == "snapshot" else "segments"
    return f"{ROOT}/{uuid}/branches/{ref.branch}/{folder}/{ref.key_name}"


def page_key(uuid: str, ref: PageRef) -> str:
    """Return the key of a history page, in the folder of the branch that wrote it."""
    return f"{ROOT}/{uuid}/branches/{ref.branch}/pages/{ref.key_name}"


def run_key(uuid: str, ref: RunRef, kind: str) -> str:
    """Return the key of a run of names: a branch's checkpoints or pins, or the branches of the database."""
    folder = f"branches/{ref.branch}/{kind}" if ref.branch else "register"
    return f"{ROOT}/{uuid}/{folder}/{ref.key_name}"


def catalog_export_prefix(kind: str) -> str:
    """Return the prefix of one kind of the catalog's export (memoturnd.core.export)."""
    return f"{ROOT}/_catalog/{kind}/"


def catalog_changes_prefix() -> str:
    """Return the prefix under which earlier releases exported never-written databases."""
    return f"{ROOT}/_catalog/changes/"


def erasures_prefix(uuid: str) -> str:
    """Return the prefix of the coupons of a database's erasures; a deleted database keeps them."""
    return f"{ROOT}/_governance/erasures/{uuid}/"


def erasure_key(uuid: str, erasure_id: str) -> str:
    """Return the key of the coupon of an erasure."""
    return f"{erasures_prefix(uuid)}{erasure_id}.json"


def waiting_erasures_prefix(uuid: str = "") -> str:
    """Return the prefix of the notes of erasures that are not completed: those of a database, or all."""
    return f"{ROOT}/_governance/waiting/{uuid}{'/' if uuid else ''}"


def releasing_erasures_prefix() -> str:
    """Return the prefix of the notes of erasures for which nodes have to let go of their copies."""
    return f"{ROOT}/_governance/releasing/"


def releasing_erasure_key(uuid: str, erasure_id: str) -> str:
    """Return the key of the note that nodes have to let go of their copies of a database."""
    return f"{releasing_erasures_prefix()}{uuid}/{erasure_id}"


def rewritten_databases_prefix() -> str:
    """Return the prefix of the notes of databases whose history was ever rewritten."""
    return f"{ROOT}/_governance/rewritten/"


def waiting_erasure_key(uuid: str, erasure_id: str) -> str:
    """Return the key of the note that an erasure is not completed."""
    return f"{waiting_erasures_prefix(uuid)}{erasure_id}"
