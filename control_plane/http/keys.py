"""Routes of the keys that sign tokens and receipts."""

from control_plane.http.tokens import authority_of
from memoturnd.http.call import Call
from memoturnd.http.describe import described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.shapes import credentials as shapes


@described(gives={200: shapes.KeySet})
async def published(call: Call) -> Answer:
    """Answer with every public key as a JSON Web Key Set, retired ones too; without authentication there is none."""
    authority = call.node.authority
    answer = reply({"keys": [] if authority is None else authority.keyring.jwks()})
    answer.headers.append((b"cache-control", b"public, max-age=5"))
    return answer


@described(gives={200: shapes.Keys})
async def list_all(call: Call) -> Answer:
    """List the keys: the one that signs, those that verify, retired ones."""
    keyring = authority_of(call).keyring
    keys = [{"kid": key["kid"], "status": key["status"]} for key in keyring.jwks()]
    return reply({"keys": keys, "managed": keyring.source.managed})


@described(gives={201: shapes.Rotated})
async def rotate(call: Call) -> Answer:
    """Make a new signing key; the tokens of those before stay good. Raises ConflictError where the operator has the keys."""
    authority = authority_of(call)
    key, signs_from_ms = await authority.keyring.rotate(max_lifetime_s=authority.max_lifetime_s)
    return reply({"kid": key.kid, "signs_from": signs_from_ms}, status=201)
