"""`database.json`: what a database is called, and the register of its branches (docs/formats.md).

A branch stands in the register before its manifest exists, so that whoever walks a database from here
misses no branch. A deleted one stays, under its name and id, until its objects are gone. Like the names in
a manifest, all but the latest entries lie in immutable runs. Transitions are pure; see memoturnd.core.manifest for the rules they share.
"""

import msgspec

from memoturnd.core import keyed, names, versioned
from memoturnd.core.bounds import Count, Id
from memoturnd.core.keyed import RunRef
from memoturnd.core.sealed import sealed, unsealed
from memoturnd.errors import AlreadyExistsError, CorruptionError, InvalidRequestError

FORMAT_VERSION = 2
_DELETED = "#"


class RegisteredBranch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One branch of the register. Times are unix ms; `expires_at` only on a burner, `deleted_at` once deleted."""

    id: Id
    created_at: Count
    parent: str = ""
    fork_txid: Count = 0
    expires_at: Count | None = None
    is_new: bool = False
    """Whether its manifest may not be made yet: a fork that was cut off half way is told from one that lost it."""
    deleted_at: Count | None = None


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `database.json`. `state` is `importing`, `live`, `deleted`, or `purging` while its objects go, for good.

    `commit_id` is new on every write.
    """

    format: int = FORMAT_VERSION
    uuid: Id
    tenant: str = "default"
    name: str
    created_at: Count
    state: str = "live"
    commit_id: str = ""
    branches: dict[str, RegisteredBranch | None]
    branch_runs: tuple[RunRef, ...] = ()
    deleted_at: Count | None = None
    durability: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """The levels that writes to its surfaces wait for (memoturnd.core.database_settings), where any is set."""


replace = msgspec.structs.replace
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Register)


def encode(register: Register) -> bytes:
    """Return the register's JSON, sealed with a checksum."""
    return sealed(_encoder.encode(register))


def decode(data: bytes) -> Register:
    """Return the register in `data`. Raises CorruptionError when it is cut off, newer, or holds what no node writes."""
    register = versioned.read(
        lambda sealed_: _decoder.decode(unsealed(sealed_)), data, what="database.json", newest=FORMAT_VERSION
    )
    try:
        names.database(register.name)
        for name in register.branches:
            names.branch(plain_name(name))
    except InvalidRequestError as error:
        raise CorruptionError(f"database.json holds a name that no node gives: {error}") from error
    if register.format < FORMAT_VERSION:  # what is written next is of this version
        return replace(register, format=FORMAT_VERSION)
    return register


def decode_of(data: bytes, *, uuid: str) -> Register:
    """Return the register in `data`, which stands under that database's key. Raises CorruptionError for another's."""
    found = decode(data)
    if found.uuid != uuid:
        raise CorruptionError(f"it is the database.json of database {found.uuid}: somebody put it there")
    return found


def add_branch(register: Register, name: str, branch: RegisteredBranch) -> Register:
    """Return the register with a branch. Raises AlreadyExistsError when the name is another branch's.

    Names in runs are not seen here: the caller has looked them up.
    """
    known = register.branches.get(name)
    if known is not None:
        if known.id == branch.id:
            return register
        raise AlreadyExistsError(
            f"branch {name} of database {register.name} already exists; choose another name"
        )
    return replace(register, branches={**register.branches, name: branch})


def remove_branch(register: Register, name: str, branch_id: str) -> Register:
    """Return the register without the branch, unless the name is another branch's by now."""
    known = register.branches.get(name)
    if known is not None and known.id != branch_id:
        return register
    if known is None and (name in register.branches or not register.branch_runs):
        return register
    return replace(register, branches=keyed.without(register.branches, register.branch_runs, name))


def delete_branch(register: Register, name: str, branch: RegisteredBranch, *, at_ms: int) -> Register:
    """Return the register with the branch deleted: its name is free, its id is kept for the collector."""
    without = remove_branch(register, name, branch.id)
    gone = replace(branch, deleted_at=at_ms)
    return replace(without, branches={**without.branches, deleted_name(name, branch.id): gone})


def deleted_name(name: str, branch_id: str) -> str:
    """Return the name under which a deleted branch stays registered: one that no branch can have."""
    return f"{name}{_DELETED}{branch_id}"


def plain_name(name: str) -> str:
    """Return the name that the branch has, or had before it was deleted."""
    return name.partition(_DELETED)[0]


def is_deleted_name(name: str) -> bool:
    """Return whether `name` stands for a deleted branch."""
    return _DELETED in name


def undelete_branch(register: Register, name: str, branch: RegisteredBranch) -> Register:
    """Return the register with a deleted branch under its name again.

    Raises AlreadyExistsError when the name is another branch's. Names in runs are not seen here: the caller
    has looked up `branch`, and that the name is free.
    """
    known = register.branches.get(name)
    if known is not None and known.id == branch.id:
        return register
    back = replace(branch, deleted_at=None, is_new=False)
    added = add_branch(register, name, back)
    gone = deleted_name(name, branch.id)
    return replace(added, branches=keyed.without(added.branches, added.branch_runs, gone))


def purge_branch(register: Register, name: str, branch_id: str) -> Register:
    """Return the register without a deleted branch: from here on its objects are nobody's."""
    gone = deleted_name(name, branch_id)
    if gone in register.branches and register.branches[gone] is None:
        return register
    return replace(register, branches=keyed.without(register.branches, register.branch_runs, gone))


def renew_branch(register: Register, name: str, branch: RegisteredBranch) -> Register:
    """Return the register with the entry of a half-made fork begun anew, which keeps its id.

    Raises AlreadyExistsError when the name is another branch's by now.
    """
    known = register.branches.get(name)
    if known is not None and known.id != branch.id:
        return add_branch(register, name, branch)
    return replace(register, branches={**register.branches, name: branch})


def abort_branch(register: Register, name: str, branch: RegisteredBranch, *, at_ms: int) -> Register:
    """Return the register in which a fork that was cut off half way counts as deleted, if it still has the name."""
    known = register.branches.get(name, branch)
    if known is None or known.id != branch.id:
        return register
    return delete_branch(register, name, branch, at_ms=at_ms)


def settle_branch(register: Register, name: str, branch: RegisteredBranch) -> Register:
    """Return the register that knows that the branch has its manifest."""
    known = register.branches.get(name, branch)
    if known is None or known.id != branch.id or (name in register.branches and not known.is_new):
        return register
    return replace(register, branches={**register.branches, name: replace(branch, is_new=False)})


def levels(register: Register) -> dict[str, str]:
    """Return what is set for the database."""
    return {} if isinstance(register.durability, msgspec.UnsetType) else register.durability


def with_levels(register: Register, levels: dict[str, str]) -> Register:
    """Return the register with these settings in place of those before."""
    return replace(register, durability=levels or msgspec.UNSET)


def touch(register: Register) -> Register:
    """Return the same as another version, so that a swap which was prepared on the one before cannot land."""
    return replace(register)


def finish_import(register: Register) -> Register:
    """Return the register of a database whose first state is whole, unless its import was given up before."""
    return replace(register, state="live") if register.state == "importing" else register


def give_up_import(register: Register) -> Register:
    """Return the register of an import that was cut off, unless it was finished before: its objects may go."""
    return replace(register, state="purging") if register.state == "importing" else register


def mark_deleted(register: Register, *, at_ms: int) -> Register:
    """Return the register of a deleted database."""
    if register.state not in {"importing", "live"}:
        return register
    return replace(register, state="deleted", deleted_at=at_ms)


def undelete(register: Register) -> Register:
    """Return the register of a deleted database that is there again, unless its objects are going already."""
    return replace(register, state="live", deleted_at=None) if register.state == "deleted" else register


def begin_purge(register: Register, *, deleted_by_ms: int) -> Register:
    """Return the register of a database whose objects are being deleted, for good.

    Unless it is there again, or was deleted anew after `deleted_by_ms`.
    """
    if register.state != "deleted" or (register.deleted_at or 0) > deleted_by_ms:
        return register
    return replace(register, state="purging")
