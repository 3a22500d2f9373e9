"""`v1/_policy/{ns}.json`: the policy of a namespace and those of its profiles, as stored (docs/formats.md). Pure.

The JSON of the wire contract, sealed with a checksum (memoturnd.core.sealed); members that are not known are kept. One
without `sum` and `commit_id`, as the original wrote it or somebody by hand, is read as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from memoturnd.core import canonical, names
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.policy import NOTHING, Rules, effective, loosened, parse, parse_new
from memoturnd.core.sealed import sealed, unsealed
from memoturnd.errors import ConflictError, CorruptionError, InvalidRequestError

SCHEMA_VERSION: Final = 1
PROFILES_LIMIT: Final = 1000
DOCUMENT_LIMIT_BYTES: Final = 1024 * 1024
_SEALED: Final = b'{"sum":'
_OF_SEALED: Final = frozenset({"sum", "commit_id"})
"""What this release writes into every document: one that has it has lost its checksum."""
_KNOWN: Final = frozenset(
    {
        "sum",
        "schema_version",
        "tenant",
        "namespace",
        "revision",
        "updated_at",
        "commit_id",
        "policy",
        "profiles",
    }
)


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A namespace's policies. `updated_at` is unix ms, `revision` is one more with every write.

    `rules` and `overrides` are what `policy` and `profiles` ask; `more` are the members that are not known.
    """

    tenant: str
    namespace: str
    revision: int
    updated_at: int
    policy: Mapping[str, Any]
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Rules = NOTHING
    overrides: Mapping[str, Rules] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    commit_id: str = ""


Change = Callable[[PolicyDocument | None], PolicyDocument]
"""Makes of what stands (None where nothing does) what is to stand."""


def key_of(tenant: str, namespace: str) -> str:
    """Return the object key of a namespace's policies. Both are checked names, which have neither dot nor slash."""
    folder = "v1/_policy" if tenant == names.DEFAULT_TENANT else f"v1/_policy/{tenant}"
    return f"{folder}/{namespace}.json"


def new(tenant: str, namespace: str) -> PolicyDocument:
    """Return the document of a namespace that has none: nothing is asked, at revision 0."""
    return PolicyDocument(tenant, namespace, 0, 0, {})


# ---- bytes


def encode(document: PolicyDocument) -> bytes:
    """Return the document's JSON, sealed with a checksum. Raises InvalidRequestError where it is too large."""
    members = {
        "schema_version": SCHEMA_VERSION,
        "tenant": document.tenant,
        "namespace": document.namespace,
        "revision": document.revision,
        "updated_at": document.updated_at,
        "commit_id": document.commit_id,
        "policy": document.policy,
        "profiles": document.profiles,
        **document.more,
    }
    data = canonical.json_text(members, where="the policies")
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise InvalidRequestError(
            f"the policies of namespace {document.namespace} and its profiles take {len(data)} bytes as JSON:"
            f" at most {DOCUMENT_LIMIT_BYTES} are taken; clear those of profiles that need none"
        )
    return sealed(data)


def decode(data: bytes, *, tenant: str, namespace: str) -> PolicyDocument:
    """Return the document in `data`, which stands under that namespace's key.

    Raises CorruptionError when it is damaged, newer than this release, or of another namespace.
    """
    try:
        return _decoded(data, tenant, namespace)
    except (InvalidRequestError, CorruptionError) as error:
        raise CorruptionError(
            f"the policies of namespace {namespace} cannot be read: {error}; put an older version of the object "
            f"{key_of(tenant, namespace)} back, or delete it and set them anew"
        ) from error


def _decoded(data: bytes, tenant: str, namespace: str) -> PolicyDocument:
    is_sealed = data.startswith(_SEALED)
    members = canonical.decode_json(unsealed(data) if is_sealed else data, where="it")
    if not isinstance(members, dict) or (not is_sealed and not members.keys().isdisjoint(_OF_SEALED)):
        raise CorruptionError("it does not begin like policies")
    version = _count(members, "schema_version")
    if version > SCHEMA_VERSION:
        raise CorruptionError(
            f"it has schema version {version}; this version of Memoturn reads up to {SCHEMA_VERSION}: use a newer one"
        )
    owner = (members.get("tenant", tenant), members.get("namespace"))
    if owner != (tenant, namespace):
        raise CorruptionError(
            f"it is of namespace {owner[1]!a} of tenant {owner[0]!a}: somebody put it there"
        )
    profiles = members.get("profiles", {})
    if not isinstance(profiles, dict):
        raise CorruptionError("its profiles are not an object")
    commit_id = members.get("commit_id", "")
    return PolicyDocument(
        tenant,
        namespace,
        _count(members, "revision"),
        _count(members, "updated_at"),
        members.get("policy", {}),
        profiles,
        parse(members.get("policy", {})),
        {
            names.profile(name): parse(override, of_namespace=False, where=f"profiles.{name}")
            for name, override in profiles.items()
        },
        {name: value for name, value in members.items() if name not in _KNOWN},
        commit_id if isinstance(commit_id, str) else "",
    )


def _count(members: dict[str, Any], name: str) -> int:
    value = members.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX:
        return value
    raise CorruptionError(f"its {name} is not a whole number")


# ---- changes


def with_policy(document: PolicyDocument, said: Mapping[str, Any]) -> PolicyDocument:
    """Return the document with another policy of the namespace; those of profiles stay. Raises InvalidRequestError."""
    return replace(document, policy=said, rules=parse_new(said))


def with_override(
    document: PolicyDocument, profile: str, said: Mapping[str, Any] | None, ceiling: Rules
) -> PolicyDocument:
    """Return the document with another policy of a profile, or with None without one.

    Raises InvalidRequestError, ConflictError naming every field that is looser than what holds for the namespace.
    """
    profiles, overrides = dict(document.profiles), dict(document.overrides)
    profiles.pop(profile, None)
    overrides.pop(profile, None)
    if said is not None:
        overrides[profile] = parse_new(said, of_namespace=False)
        looser = loosened(effective(ceiling, document.rules), said)
        if looser:
            raise ConflictError(
                f"a profile's policy can only be stricter than its namespace's, and this one is looser in "
                f"{', '.join(looser)}: leave those out, or change the namespace's"
            )
        profiles[profile] = said
    if len(profiles) > PROFILES_LIMIT and len(profiles) > len(document.profiles):
        raise InvalidRequestError(
            f"{PROFILES_LIMIT} profiles of namespace {document.namespace} have policies of their own, which is the most: "
            "set what they share at the namespace"
        )
    return replace(document, profiles=profiles, overrides=overrides)
