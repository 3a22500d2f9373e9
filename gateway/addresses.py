"""From a request to the branch that it means, by the rules of the nodes. Nothing is verified here: this only says where to send it."""

import base64
import binascii
from typing import Final

import msgspec

from gateway.routing import Key
from memoturnd.core import names
from memoturnd.core.principal import ANONYMOUS, Principal
from memoturnd.errors import MemoturnError
from memoturnd.http.addresses import branch_addressed
from memoturnd.http.call import Call, headers_of
from memoturnd.http.route import Kind, Route
from memoturnd.http.tree import Tree

_PARTS: Final = 3
_LONGEST_TOKEN_BYTES: Final = 16 * 1024


class _Payload(msgspec.Struct):
    tenant: str | None = None


_payload = msgspec.json.Decoder(_Payload).decode


class Addressed(msgspec.Struct, frozen=True):
    """What a request is about, as far as its route is known: the branch, whether it only reads, whether it asks a model."""

    key: Key | None = None
    reads: bool = False
    asks_model: bool = False
    template: str = "unmatched"
    may_wait: bool = False


def address_of(
    tree: Tree, method: str, raw_path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
) -> Addressed:
    """Return what a request is about. One that no node would take is about nothing in particular: a node says why."""
    try:
        found = tree.find(raw_path)
        if found is None:
            return Addressed()
        by_method, params = found
        route: Route | None = by_method.get("GET" if method == "HEAD" else method)
        if route is None:
            return Addressed(template=next(iter(by_method.values())).template)
        reads = route.kind in {Kind.READ, Kind.OPEN} or method in {"GET", "HEAD"}
        call = Call(None, params, headers_of(headers), query)  # type: ignore[arg-type]
        call.principal = _sender(call)
        return Addressed(
            branch_addressed(call, route.template), reads, route.asks_model, route.template, route.may_wait
        )
    except MemoturnError:
        return Addressed()


def _sender(call: Call) -> Principal:
    tenant = call.header("Memoturn-Tenant") or _tenant_of(call.header("Authorization"))
    return ANONYMOUS if tenant is None else Principal("anonymous", names.tenant(tenant))


def _tenant_of(authorization: str | None) -> str | None:
    """Return the tenant that a token says it is of, unverified; None for the default one, and for what is no token."""
    if authorization is None or len(authorization) > _LONGEST_TOKEN_BYTES:
        return None
    parts = authorization.split(".")
    if len(parts) != _PARTS:
        return None
    try:
        return _payload(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))).tenant
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
