"""From a request's address to the branch that it means. Every name is checked, and becomes its tenant's, before it goes any further."""

from typing import TYPE_CHECKING

from memoturnd.core import names
from memoturnd.errors import DatabaseNotFoundError, MemoturnError, NotFoundError
from memoturnd.http.call import Call
from memoturnd.http.ports import BranchProfile, Node

if TYPE_CHECKING:
    from memoturnd.http.route import Route

_DB = "/v1/db/{db}"


def database_of(call: Call) -> tuple[str, str]:
    """Return the qualified name and branch of `{db}`, which is `name` or `name@branch`. Raises InvalidRequestError."""
    name, branch = names.parse_spec(call.params["db"])
    return call.qualified(name), branch


def named_database(call: Call) -> str:
    """Return the qualified name of `{db}`, which is a name alone. Raises InvalidRequestError."""
    return call.qualified(names.database(call.params["db"]))


def branch_of(call: Call) -> str:
    """Return the checked `{branch}` of the path. Raises InvalidRequestError."""
    return names.branch(call.params["branch"])


def namespace(call: Call) -> str:
    """Return the checked `{ns}` of a memory route. Raises InvalidRequestError."""
    return names.namespace(call.params["ns"])


def profile_of(call: Call) -> tuple[str, str]:
    """Return the qualified name and branch of a memory route. Raises InvalidRequestError."""
    database = call.qualified(names.profile_database(call.params["ns"], call.params["profile"]))
    branch = call.branch
    return database, branch if branch == names.MAIN_BRANCH else names.branch(branch)


def branch_addressed(call: Call, template: str) -> tuple[str, str] | None:
    """Return the qualified name and branch that a request is about, None where its path names no branch. Raises InvalidRequestError."""
    if "profile" in call.params:
        return profile_of(call)
    if not template.startswith(_DB):
        return None
    name, branch = database_of(call)
    return (name, branch_of(call)) if "branch" in call.params else (name, branch)


def about(route: "Route", call: Call) -> tuple[str | None, str | None]:
    """Return the qualified name of the database that a request is about, and the branch, None where its path names none."""
    try:
        named = branch_addressed(call, route.template)
        if named is not None:
            return named
        if "db" in call.params:
            return named_database(call), None
    except MemoturnError:
        pass  # of a name that is none, there is nothing to say
    return None, None


async def open_database(call: Call) -> BranchProfile:
    """Return the branch that `{db}` addresses. Raises DatabaseNotFoundError, BranchNotFoundError."""
    name, branch = database_of(call)
    return call.applying_once(await call.node.profile(name, branch))


async def open_profile(call: Call) -> BranchProfile:
    """Return the branch that a memory route addresses. Raises DatabaseNotFoundError, BranchNotFoundError."""
    name, branch = profile_of(call)
    return call.applying_once(await call.node.profile(name, branch))


async def open_or_create_profile(call: Call) -> BranchProfile:
    """Like `open_profile`, but register the profile when it is absent and its main branch is addressed."""
    return await _open_or_create(call, *profile_of(call))


async def open_database_or_create_profile(call: Call) -> BranchProfile:
    """Like `open_database`, but where `{db}` is the name of a profile do what `open_or_create_profile` does."""
    if names.PROFILE_SEPARATOR in call.params["db"]:
        return await _open_or_create(call, *database_of(call))
    return await open_database(call)


async def _open_or_create(call: Call, name: str, branch: str) -> BranchProfile:
    try:
        return call.applying_once(await call.node.profile(name, branch))
    except DatabaseNotFoundError:
        if branch != names.MAIN_BRANCH:
            raise
    await call.node.databases.ensure_profile(name)
    return call.applying_once(await call.node.profile(name, branch))


async def open_profile_or_none(call: Call, min_txid: int = 0) -> BranchProfile | None:
    """Return the branch that a memory route addresses, None when nobody has created the profile.

    Raises NotFoundError when a floor, DatabaseNotFoundError when a past state or another branch was asked of that.
    """
    try:
        return await open_profile(call)
    except DatabaseNotFoundError:
        if call.at is not None or call.branch != names.MAIN_BRANCH:
            raise
        if min_txid > 0:
            raise NotFoundError(
                f"no such profile here, so txid {min_txid} cannot be reached; ingest into it first"
            ) from None
        return None


async def caught_up(node: Node, name: str, branch: str, min_txid: int) -> BranchProfile:
    """Return a branch once it has reached `min_txid`. Raises PreconditionFailedError when it does not in time."""
    profile = await node.profile(name, branch)
    if min_txid > 0:
        await profile.read(lambda _connection, _now_ms: None, min_txid=min_txid)
    return profile
