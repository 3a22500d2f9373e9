"""The audit stream's format: events, the chain that their lines make, heads, and keys (docs/formats.md). Pure.

An event is a line of JSON. Each line carries its number in its chain and the SHA-256 of the line before it, so that none can
be taken out, put in, moved or changed without the rest no longer fitting. A chain belongs to one data directory and one
stream; a stream is a namespace's, or `_platform`. The head of a chain says how far it goes, and is signed.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from memoturnd.core import canonical, names
from memoturnd.core.principal import Principal
from memoturnd.errors import CorruptionError

Outcome = Literal["ok", "denied", "error"]

VERSION: Final = 1
PLATFORM: Final = names.PLATFORM_STREAM
"""The stream of what belongs to no namespace."""
OBJECT_EVENTS: Final = 512
OBJECT_BYTES: Final = 1 << 20
OBJECT_SPAN_MS: Final = 60_000
"""An object's events are of its first event's time or up to so much later, so that a reader knows where to look."""
HEAD_CONTEXT: Final = b"memoturn-audit-head-v1\0"
_CHAIN_CONTEXT: Final = b"memoturn-audit-chain-v1\0"
_ACTOR_CONTEXT: Final = b"memoturn-audit-actor-v1\0"
_NAME_CONTEXT: Final = b"memoturn-audit-name-v1\0"
_ROOT: Final = "v1/_audit"
_HEADS: Final = f"{_ROOT}/_heads"
_OBJECT: Final = re.compile(r"(\d{13})-([A-Za-z0-9._-]{1,160})-(\d{6,12})\.jsonl")
_POSITION: Final = re.compile(r"\d{4}/\d\d/\d\d/(\d{13})(?:-[A-Za-z0-9._-]{1,170}\.jsonl)?")
_encode = msgspec.json.Encoder().encode


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did it. `token_hash` names a credential without giving it away; `iat` is unix seconds."""

    kind: str
    token_hash: str | None = None
    token_id: str | None = None
    subject: str | None = None
    scope: str | None = None
    claim_db: str | None = None
    claim_ns: str | None = None
    iat: int | None = None


class Egress(msgspec.Struct, frozen=True, omit_defaults=True):
    """What left the node for a provider of models, in sizes and never in words."""

    provider: str
    model: str
    self_hosted: bool
    input_items: int
    input_bytes: int
    endpoint_host: str | None = None
    output_items: int | None = None
    duration_ms: int | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One act. Never content: names that users choose for single things stand as `#` and a hash (`hidden`).

    `ts` is unix ms; `error` an error's code; `tenant` is absent in the tenant `default`; `db` names a database that is
    no profile.
    """

    v: int
    id: str
    ts: int
    node: str
    ns: str
    action: str
    outcome: Outcome
    tenant: str | None = None
    db: str | None = None
    profile: str | None = None
    branch: str | None = None
    resource: str | None = None
    txid: int | None = None
    count: int | None = None
    actor: Actor | None = None
    egress: Egress | None = None
    error: str | None = None
    request_id: str | None = None


class Link(NamedTuple):
    """Where a chain has come to: the number of its last line, and that line's hash."""

    seq: int
    hash: str


class Place(msgspec.Struct, frozen=True):
    """Where another chain was, as whoever went on from it knew it."""

    chain: str
    seq: int
    hash: str


class Kept(msgspec.Struct, frozen=True):
    """Where the kept part of a chain begins: its first line, its first object, and the first day that may have one."""

    seq: int
    prev: str
    object: int
    day: str


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far a chain goes; changes by compare-and-swap alone. `at` is unix ms.

    `hash` is that of line `seq`, the last of object number `objects`, whose key is `last_key`. `follows` is the chain of
    the same data directory that this one took over from.
    """

    format: int
    stream: str
    chain: str
    node: str
    seq: int
    hash: str
    objects: int
    last_key: str
    last_event: str
    at: int
    kept: Kept
    follows: Place | None = None
    alg: Literal["none", "Ed25519"] = "none"
    key_id: str | None = None
    sig: str | None = None
    commit_id: str = ""

    @property
    def link(self) -> Link:
        """Where the chain has come to."""
        return Link(self.seq, self.hash)


class Waiting(NamedTuple):
    """An event that is not in its chain yet: its bytes as JSON, its id and time."""

    body: bytes
    id: str
    ts: int


def stream_of(tenant: str, namespace: str) -> str:
    """Return the stream of a namespace, or of `_platform`: its name, behind that of a tenant other than `default`.

    No name has `--` in it, so no two streams are called the same.
    """
    return namespace if tenant == names.DEFAULT_TENANT else f"{tenant}{names.PROFILE_SEPARATOR}{namespace}"


def split_stream(stream: str) -> tuple[str, str]:
    """Return (tenant, namespace) of a stream."""
    first, separator, second = stream.partition(names.PROFILE_SEPARATOR)
    return (first, second) if separator else (names.DEFAULT_TENANT, stream)


def event_id(at_ms: int, number: int) -> str:
    """Return the id of an event: `number` tells those of one millisecond apart."""
    return f"evt_{at_ms:013d}-{number & 0xFFFFFFFF:08x}"


def token_hash(token: bytes) -> str:
    """Return what stands for a credential: 16 hex digits that say nothing of it."""
    return hashlib.sha256(_ACTOR_CONTEXT + token).hexdigest()[:16]


def hidden(name: str) -> str:
    """Return what stands for a name that a user chose for one thing: who knows the name finds it, nobody reads it."""
    return f"#{hashlib.sha256(_NAME_CONTEXT + name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def actor_of(principal: Principal) -> Actor:
    """Return a principal as events name it."""
    return Actor(
        kind=principal.kind,
        token_hash=getattr(principal, "token_hash", None) or None,
        token_id=getattr(principal, "token_id", None) or None,
        subject=getattr(principal, "subject", None) or None,
        scope=getattr(principal, "scope", None) or None,
        claim_db=getattr(principal, "db", None) or None,
        claim_ns=getattr(principal, "ns", None) or None,
        iat=getattr(principal, "iat", None) or None,
    )


def waiting(event: Event) -> Waiting:
    """Return an event as it waits for its place in a chain."""
    return Waiting(_encode(event), event.id, event.ts)


class _Named(msgspec.Struct):
    id: str
    ts: int


def waiting_again(body: bytes) -> Waiting:
    """Return an event that was written down as JSON. Raises CorruptionError."""
    try:
        named = msgspec.json.decode(body, type=_Named)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptionError(f"an audit event is not readable: {error}") from error
    return Waiting(body, named.id, named.ts)


def genesis(stream: str, chain: str) -> Link:
    """Return where a chain begins: the hash that its first line names as that of its predecessor."""
    return Link(0, hashlib.sha256(_CHAIN_CONTEXT + f"{stream}\0{chain}".encode()).hexdigest())


def chained(events: Iterable[Waiting], link: Link) -> tuple[bytes, Link]:
    """Return the lines of `events`, each behind the one before it, and where the chain is then."""
    lines = []
    seq, prev = link
    for event in events:
        seq += 1
        line = b'{"seq":%d,"prev":"%b",%b' % (seq, prev.encode(), event.body[1:])
        prev = hashlib.sha256(line).hexdigest()
        lines.append(line)
        lines.append(b"\n")
    return b"".join(lines), Link(seq, prev)


def first_batch(events: Sequence[Waiting]) -> int:
    """Return how many of `events`, from the first on, belong into one object."""
    first_ms, size_bytes = events[0].ts, 0
    for count, event in enumerate(events):
        size_bytes += len(event.body) + 100
        apart = not first_ms <= event.ts < first_ms + OBJECT_SPAN_MS
        if apart or count == OBJECT_EVENTS or (count and size_bytes > OBJECT_BYTES):
            return count
    return len(events)


def begun(stream: str, chain: str, node: str, at_ms: int, follows: Place | None) -> Head:
    """Return the head of a chain that has no line yet."""
    first = genesis(stream, chain)
    return Head(
        format=VERSION,
        stream=stream,
        chain=chain,
        node=node,
        seq=0,
        hash=first.hash,
        objects=0,
        last_key="",
        last_event="",
        at=at_ms,
        kept=Kept(seq=1, prev=first.hash, object=1, day=day_of(at_ms)),
        follows=follows,
    )


def moved(head: Head, link: Link, *, key: str, last_event: str, node: str, at_ms: int) -> Head:
    """Return the head once one more object stands."""
    day = key.removeprefix(stream_prefix(head.stream))[:10]
    return msgspec.structs.replace(
        head,
        node=node,
        seq=link.seq,
        hash=link.hash,
        objects=head.objects + 1,
        last_key=key,
        last_event=last_event,
        at=at_ms,
        kept=msgspec.structs.replace(head.kept, day=min(head.kept.day, day)),
    )


def signed_part(head: Head) -> bytes:
    """Return what a head's signature is over: everything but the signature, its key and the id of the swap."""
    fields = msgspec.to_builtins(head)
    return HEAD_CONTEXT + canonical.canonical_json(
        {name: value for name, value in fields.items() if name not in {"sig", "key_id", "commit_id"}}
    )


def encode_head(head: Head) -> bytes:
    """Return a head as it is stored."""
    return _encode(head)


def decode_head(data: bytes, *, stream: str, chain: str) -> Head:
    """Return the stored head of a chain. Raises CorruptionError, also for that of another chain."""
    try:
        head = msgspec.json.decode(data, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"not the head of an audit chain: {error}") from error
    if (head.stream, head.chain, head.format) != (stream, chain, VERSION):
        raise CorruptionError(
            f"the head of {head.stream}/{head.chain} in format {head.format}, not of {stream}/{chain} in {VERSION}"
        )
    return head


# ---- keys


class ObjectName(NamedTuple):
    """What an object's key says: the time of its first event, its chain, and its number there."""

    at_ms: int
    chain: str
    number: int


def day_of(at_ms: int) -> str:
    """Return `yyyy/mm/dd` of a time in UTC."""
    return datetime.fromtimestamp(max(0, at_ms) // 1000, UTC).strftime("%Y/%m/%d")


def stream_prefix(stream: str) -> str:
    """Return the prefix of a stream's objects."""
    return f"{_ROOT}/{stream}/"


def day_prefix(stream: str, day: str) -> str:
    """Return the prefix of a day's objects."""
    return f"{stream_prefix(stream)}{day}/"


def object_key(stream: str, chain: str, number: int, at_ms: int) -> str:
    """Return the key of an object whose first event is of `at_ms`."""
    return f"{day_prefix(stream, day_of(at_ms))}{max(0, at_ms):013d}-{chain}-{number:06d}.jsonl"


def day_ms(day: str) -> int:
    """Return the first millisecond of a day that `day_of` gave."""
    return round(datetime.strptime(day, "%Y/%m/%d").replace(tzinfo=UTC).timestamp() * 1000)


def position(stream: str, at_ms: int) -> str:
    """Return what comes before the keys of all objects from `at_ms` on."""
    return f"{day_prefix(stream, day_of(at_ms))}{at_ms:013d}"


def position_ms(stream: str, key: str) -> int | None:
    """Return the time of a stream's key, or of a position in it; None for what is neither."""
    found = _POSITION.fullmatch(key.removeprefix(stream_prefix(stream)))
    return int(found[1]) if found is not None and key.startswith(stream_prefix(stream)) else None


def parse_object_key(key: str) -> ObjectName | None:
    """Return what a key says, None for one of something else."""
    found = _OBJECT.fullmatch(key.rpartition("/")[2])
    return None if found is None else ObjectName(int(found[1]), found[2], int(found[3]))


def heads_prefix(stream: str | None = None) -> str:
    """Return the prefix of a stream's heads, or of all of them."""
    return f"{_HEADS}/" if stream is None else f"{_HEADS}/{stream}/"


def head_key(stream: str, chain: str) -> str:
    """Return the key of a chain's head."""
    return f"{heads_prefix(stream)}{chain}.json"


def shown(line: bytes) -> dict[str, Any]:
    """Return a stored line as readers get it. Raises CorruptionError."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"a line of the audit stream is not readable: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("ts"), int):
        raise CorruptionError("a line of the audit stream is no event")
    return value
