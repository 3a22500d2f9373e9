"""Object keys (root `v1`, docs/formats.md). Every part is an id that we made: no user's name becomes a key."""

from memoturnd.core.manifest import ObjectRef

ROOT = "v1"


def database_prefix(uuid: str) -> str:
    """Return the prefix of everything that belongs to a database."""
    return f"{ROOT}/{uuid}/"


def register_key(uuid: str) -> str:
    """Return the key of `database.json`."""
    return f"{ROOT}/{uuid}/database.json"


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


def catalog_changes_prefix() -> str:
    """Return the prefix of the catalog's export of never-written databases."""
    return f"{ROOT}/_catalog/changes/"
