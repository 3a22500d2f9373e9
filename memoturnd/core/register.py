"""`database.json`: what a database is called, and the register of its branches (docs/formats.md).

A branch stands in the register before its manifest exists, so that whoever walks a database from here
misses no branch. Transitions are pure; see memoturnd.core.manifest for the rules they share.
"""

import msgspec

from memoturnd.core import names
from memoturnd.core.bounds import Count, Id
from memoturnd.errors import AlreadyExistsError, CorruptionError, InvalidRequestError

FORMAT_VERSION = 1


class RegisteredBranch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One branch of the register. Times are unix ms; `expires_at` only on a burner."""

    id: Id
    created_at: Count
    parent: str = ""
    fork_txid: Count = 0
    expires_at: Count | None = None


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `database.json`. `state` is `live` or `deleted`; `commit_id` is new on every write."""

    format: int = FORMAT_VERSION
    uuid: Id
    tenant: str = "default"
    name: str
    created_at: Count
    state: str = "live"
    commit_id: str = ""
    branches: dict[str, RegisteredBranch]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Register)


def encode(register: Register) -> bytes:
    """Return the register's JSON."""
    return _encoder.encode(register)


def decode(data: bytes) -> Register:
    """Return the register in `data`. Raises CorruptionError when it is cut off, newer, or holds what no node writes."""
    try:
        register = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"database.json cannot be read: {error}") from error
    if register.format > FORMAT_VERSION:
        raise CorruptionError(
            f"database.json has format {register.format}; this version of Memoturn reads up to "
            f"{FORMAT_VERSION}: use a newer one"
        )
    try:
        names.database(register.name)
        for name in register.branches:
            names.branch(name)
    except InvalidRequestError as error:
        raise CorruptionError(f"database.json holds a name that no node gives: {error}") from error
    return register


def add_branch(register: Register, name: str, branch: RegisteredBranch) -> Register:
    """Return the register with a branch. Raises AlreadyExistsError when the name is another branch's."""
    known = register.branches.get(name)
    if known is not None:
        if known.id == branch.id:
            return register
        raise AlreadyExistsError(
            f"branch {name} of database {register.name} already exists; choose another name"
        )
    return msgspec.structs.replace(register, branches={**register.branches, name: branch})


def remove_branch(register: Register, name: str, branch_id: str) -> Register:
    """Return the register without the branch, unless the name is another branch's by now."""
    known = register.branches.get(name)
    if known is None or known.id != branch_id:
        return register
    rest = {other: branch for other, branch in register.branches.items() if other != name}
    return msgspec.structs.replace(register, branches=rest)


def mark_deleted(register: Register) -> Register:
    """Return the register of a deleted database."""
    return msgspec.structs.replace(register, state="deleted")
