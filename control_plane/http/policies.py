"""Routes of policies: of a namespace, and of its profiles. What stands is always read anew; the ETag is the revision."""

from typing import Any, Final

from memoturnd.core import names, policy_document
from memoturnd.core.canonical import decode_json
from memoturnd.core.policy_document import PolicyDocument
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.http.addresses import namespace
from memoturnd.http.call import Call
from memoturnd.http.describe import IF_MATCH, IF_NONE_MATCH, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.shapes import policies as shapes
from memoturnd.surfaces import fields
from memoturnd.surfaces.conditions import Condition

_CONDITIONS: Final = (IF_MATCH, IF_NONE_MATCH)


@described(gives={200: shapes.NamespacePolicies})
async def get(call: Call) -> Answer:
    """Show the policies of a namespace. Raises NotFoundError where none was ever set."""
    name = namespace(call)
    document = await call.node.policies.document(call.principal.tenant, name)
    if document is None:
        raise NotFoundError(f"no policy was ever set for namespace {name}")
    return _tagged(reply({**_shown(document), "profiles": document.profiles}), document)


@described(takes=shapes.SetPolicy, gives={200: shapes.NamespacePolicy}, values=_CONDITIONS)
async def put(call: Call) -> Answer:
    """Set the policy of a namespace in place of the one before; those of its profiles stay. Raises ConflictError."""
    name, tenant, condition = namespace(call), call.principal.tenant, call.condition()
    said = fields.mapping(_said(call), "policy")

    def change(current: PolicyDocument | None) -> PolicyDocument:
        _require(condition, current, name)
        return policy_document.with_policy(current or policy_document.new(tenant, name), said)

    document = await call.node.governing.change(tenant, name, change)
    return _tagged(reply(_shown(document)), document)


@described(gives={200: shapes.ProfilePolicy})
async def get_override(call: Call) -> Answer:
    """Show the policy of a profile, and what holds for it, whether or not the profile exists."""
    name, profile = namespace(call), names.profile(call.params["profile"])
    document = await call.node.policies.document(call.principal.tenant, name)
    return _of_profile(call, name, profile, document)


@described(takes=shapes.SetOverride, gives={200: shapes.ProfilePolicy}, values=_CONDITIONS)
async def put_override(call: Call) -> Answer:
    """Set or clear the policy of a profile, which may be stricter than its namespace's. Raises ConflictError."""
    name, profile = namespace(call), names.profile(call.params["profile"])
    tenant, condition, ceiling = call.principal.tenant, call.condition(), call.node.policies.ceiling
    said = _said(call)
    if said is not None:
        fields.mapping(said, "policy")

    def change(current: PolicyDocument | None) -> PolicyDocument:
        _require(condition, current, name)
        document = current or policy_document.new(tenant, name)
        return policy_document.with_override(document, profile, said, ceiling)

    document = await call.node.governing.change(tenant, name, change, profile=profile)
    return _of_profile(call, name, profile, document)


def _said(call: Call) -> Any:
    body = fields.mapping(call.decoded(decode_json), "the body")
    if "policy" not in body:
        raise InvalidRequestError("policy is missing: send the policy as an object")
    return body["policy"]


def _require(condition: Condition | None, current: PolicyDocument | None, name: str) -> None:
    if condition is not None:
        etag = None if current is None else str(current.revision)
        condition.require(etag, f"the policies of namespace {name}")


def _shown(document: PolicyDocument) -> dict[str, Any]:
    return {
        "namespace": document.namespace,
        "revision": document.revision,
        "updated_at": document.updated_at,
        "policy": document.policy,
    }


def _of_profile(call: Call, name: str, profile: str, document: PolicyDocument | None) -> Answer:
    answer = reply(
        {
            "namespace": name,
            "profile": profile,
            "override": None if document is None else document.profiles.get(profile),
            "effective": call.node.policies.holds_for(document, profile).shown(),
            "revision": 0 if document is None else document.revision,
        }
    )
    return _tagged(answer, document)


def _tagged(answer: Answer, document: PolicyDocument | None) -> Answer:
    if document is not None:
        answer.headers.append((b"etag", b'"%d"' % document.revision))
    return answer
