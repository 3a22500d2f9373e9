"""Names: which strings may become a path, an object key or a column, decided in one place.

Every check returns the name unchanged or raises InvalidRequestError with the kind of name and the rule. Only
ASCII is allowed in names that become paths or keys, so that no look-alike and no case folding can make two
names one. Pure.
"""

import re
from typing import Final

from memoturnd.core import revisions
from memoturnd.errors import InvalidRequestError

MAIN_BRANCH: Final = "main"
DEFAULT_TENANT: Final = "default"
PROFILE_SEPARATOR: Final = "--"
PLATFORM_STREAM: Final = "_platform"
"""What stands for a namespace in the audit stream of what belongs to none. No namespace can be called so."""
TENANT_SEPARATOR: Final = "/"

_PART = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9_])?")
_PART_RULE = "1 to 64 characters of a-z, 0-9, '_' and '-', starting with a letter or digit, not ending in '-', without '--'"
_BRANCH = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9_])?")
_BRANCH_RULE = (
    "1 to 64 characters of a-z, 0-9, '.', '_' and '-', starting with a letter or digit,"
    " not ending in '-' or '.', without '..'"
)
_CHECKPOINT_RULE = (
    "1 to 128 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-', not digits alone, not `head` and not a time"
)
_COLLECTION = re.compile("[A-Za-z0-9_-]{1,64}")
_TO_ESCAPE = re.compile("[^a-z0-9]")
_ESCAPED = re.compile("_([0-9a-f]{2})")
SUFFIX_PATTERN: Final = "(?:[a-z0-9]|_[0-9a-f]{2})+"
"""What `suffix` returns, as a regular expression."""
# C0 and C1 controls, delete, line and paragraph separators, and lone surrogates, which UTF-8 cannot carry.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

PART_LENGTH_LIMIT: Final = 64
SESSION_LENGTH_LIMIT: Final = 256
KV_NAMESPACE_LENGTH_LIMIT: Final = 256
KV_KEY_LIMIT_BYTES: Final = 1024
_SHOWN_LENGTH = 80


def _refuse(kind: str, value: object, rule: str) -> InvalidRequestError:
    shown = ascii(value)
    if len(shown) > _SHOWN_LENGTH:
        shown = f"{shown[:_SHOWN_LENGTH]}..."
    return InvalidRequestError(f"{kind} {shown} is not valid: it takes {rule}")


def _part(kind: str, value: str) -> str:
    if len(value) > PART_LENGTH_LIMIT or "--" in value or not _PART.fullmatch(value):
        raise _refuse(kind, value, _PART_RULE)
    return value


def namespace(value: str) -> str:
    """Check a namespace. Raises InvalidRequestError."""
    return _part("namespace", value)


def profile(value: str) -> str:
    """Check a profile. Raises InvalidRequestError."""
    return _part("profile", value)


def new_database(value: str) -> str:
    """Check the name of a database about to be created by name: one part. Raises InvalidRequestError."""
    return _part("database", value)


def database(value: str) -> str:
    """Check the name of an existing database: one part, or `{namespace}--{profile}`. Raises InvalidRequestError."""
    if PROFILE_SEPARATOR not in value:
        return _part("database", value)
    first, _, second = value.partition(PROFILE_SEPARATOR)
    try:
        return profile_database(first, second)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"database {value[:_SHOWN_LENGTH]!a} is not valid: {error}") from error


def profile_database(ns: str, name: str) -> str:
    """Return the database name of profile `name` in namespace `ns`. Raises InvalidRequestError."""
    return f"{namespace(ns)}{PROFILE_SEPARATOR}{profile(name)}"


def branch(value: str) -> str:
    """Check a branch name. Raises InvalidRequestError."""
    if len(value) > PART_LENGTH_LIMIT or ".." in value or not _BRANCH.fullmatch(value):
        raise _refuse("branch", value, _BRANCH_RULE)
    return value


def tenant(value: str) -> str:
    """Check the name of a tenant. Raises InvalidRequestError."""
    return _part("tenant", value)


def qualified(tenant_name: str, name: str) -> str:
    """Return what a tenant's database is called among all: `name` in the tenant `default`, else `tenant/name`.

    Both are checked names, in none of which a slash can be, so that no two databases are called the same.
    """
    return name if tenant_name == DEFAULT_TENANT else f"{tenant_name}{TENANT_SEPARATOR}{name}"


def split_qualified(name: str) -> tuple[str, str]:
    """Return (tenant, name) of a qualified name."""
    first, separator, second = name.partition(TENANT_SEPARATOR)
    return (first, second) if separator else (DEFAULT_TENANT, name)


def namespace_of(name: str) -> str:
    """Return the namespace of a database's name, empty for what is no profile of a valid one."""
    first, separator, _ = name.partition(PROFILE_SEPARATOR)
    is_one = separator and len(first) <= PART_LENGTH_LIMIT and _PART.fullmatch(first)
    return first if is_one else ""


def parse_spec(spec: str) -> tuple[str, str]:
    """Return (database, branch) of `name` or `name@branch`; the branch defaults to main.

    Raises InvalidRequestError for a bad name or branch, the empty branch of `name@` included.
    """
    name, separator, branch_name = spec.partition("@")
    return database(name), branch(branch_name) if separator else MAIN_BRANCH


def checkpoint(value: str) -> str:
    """Check a checkpoint name. What a revision reads as something else is refused. Raises InvalidRequestError."""
    if not revisions.is_checkpoint(value):
        raise _refuse("checkpoint", value, _CHECKPOINT_RULE)
    return value


def session_id(value: str) -> str:
    """Check a session id: 1 to 256 characters without control characters. Raises InvalidRequestError."""
    return _text("session_id", value, SESSION_LENGTH_LIMIT)


def kv_namespace(value: str) -> str:
    """Check a key-value namespace: 1 to 256 characters without control characters. Raises InvalidRequestError."""
    return _text("kv namespace", value, KV_NAMESPACE_LENGTH_LIMIT)


def _text(kind: str, value: str, length_limit: int) -> str:
    if not value or len(value) > length_limit or _CONTROL.search(value):
        raise _refuse(kind, value, f"1 to {length_limit} characters without control characters")
    return value


def collection(value: str) -> str:
    """Check the name of a collection: 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'. Raises InvalidRequestError."""
    return _collection("collection", value)


def timeline(value: str) -> str:
    """Check the name of a timeline, which is like that of a collection. Raises InvalidRequestError."""
    return _collection("timeline", value)


def _collection(kind: str, value: str) -> str:
    if not _COLLECTION.fullmatch(value):
        raise _refuse(kind, value, f"1 to {PART_LENGTH_LIMIT} characters of A-Z, a-z, 0-9, '_' and '-'")
    return value


def suffix(name: str) -> str:
    """Return a checked ASCII name as the end of a table's name: no two names have one, whatever case SQLite folds.

    Lower-case letters and digits stand for themselves, any other character for `_` and two hex digits.
    """
    return _TO_ESCAPE.sub(lambda found: f"_{ord(found[0]):02x}", name)


def of_suffix(ending: str) -> str:
    """Return the name that `suffix` made `ending` of."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), ending)


def kv_key(value: str) -> str:
    """Check a key: 1 to 1024 bytes of UTF-8 without NUL. Raises InvalidRequestError."""
    return _key("key", value, minimum_bytes=1)


def kv_prefix(value: str) -> str:
    """Check a key prefix: 0 to 1024 bytes of UTF-8 without NUL. Raises InvalidRequestError."""
    return _key("prefix", value, minimum_bytes=0)


def kv_cursor(value: str) -> str:
    """Check a cursor of a list of keys, which is a key. Raises InvalidRequestError."""
    return _key("cursor", value, minimum_bytes=1)


def vector_id(value: str) -> str:
    """Check the id of a vector: 1 to 1024 bytes of UTF-8 without NUL. Raises InvalidRequestError."""
    return _key("vector id", value, minimum_bytes=1)


def _key(kind: str, value: str, *, minimum_bytes: int) -> str:
    try:
        size_bytes = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        size_bytes = -1
    if minimum_bytes <= size_bytes <= KV_KEY_LIMIT_BYTES and "\x00" not in value:
        return value
    raise _refuse(kind, value, f"{minimum_bytes} to {KV_KEY_LIMIT_BYTES} bytes of UTF-8 without NUL")
