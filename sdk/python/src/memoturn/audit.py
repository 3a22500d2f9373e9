"""The audit stream, verified without a node: objects, heads and public keys in, what was done to them out.

    verifier = StreamVerifier("app", keys)
    verifier.add_object(key, data)        # each object, in any order
    verifier.add_head(key, data)          # each head
    report = verifier.report(since=...)   # `since`: the heads that an earlier report had

Of each object only its ends are kept, so a stream of any length fits. The format is in the server's docs/formats.md: each line
carries its number and the SHA-256 of the line before, and a chain's head says how far it goes, signed with Ed25519. Signatures
need the package `cryptography`, which `memoturn[cli]` brings.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from memoturn.receipts import canonical, is_signed_by, key_of
from memoturn.types import AuditChain, AuditProblem, AuditReport, AuditSince

_CHAIN_CONTEXT: Final = b"memoturn-audit-chain-v1\0"
_HEAD_CONTEXT: Final = b"memoturn-audit-head-v1\0"
_UNSIGNED: Final = frozenset({"sig", "key_id", "commit_id"})
_OBJECT: Final = re.compile(
    r"(?:.*/)?([^/]+)/(\d{4}/\d\d/\d\d)/(\d{13})-([A-Za-z0-9._-]{1,160})-(\d{6,12})\.jsonl"
)
_HEAD: Final = re.compile(r"(?:.*/)?_heads/([^/]+)/([A-Za-z0-9._-]{1,160})\.json")
_FORMAT: Final = 1


class _Link(NamedTuple):
    seq: int
    hash: str


@dataclass(frozen=True)
class _Object:
    """An object by its ends: the place that it says to follow, and the one at which it ends."""

    key: str
    number: int
    follows: _Link
    end: _Link


@dataclass
class _Chain:
    objects: dict[int, list[_Object]] = field(default_factory=dict)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


def stream_of(key: str) -> str | None:
    """Return the stream that the key of an object or of a head belongs to, None for one of something else."""
    found = _HEAD.fullmatch(key) or _OBJECT.fullmatch(key)
    return None if found is None else found[1]


def is_head(key: str) -> bool:
    """Return whether a key is that of a head."""
    return _HEAD.fullmatch(key) is not None


def genesis(stream: str, chain: str) -> str:
    """Return the hash that the first line of a chain names as its predecessor's."""
    return hashlib.sha256(_CHAIN_CONTEXT + f"{stream}\0{chain}".encode()).hexdigest()


class StreamVerifier:
    """Takes everything that there is of one stream, and says what does not fit. `keys` are JWKS; none checks no signatures."""

    def __init__(self, stream: str, keys: Mapping[str, Any] | None = None) -> None:
        self.stream = stream
        self._keys = keys if keys and keys.get("keys") else None
        self._chains: dict[str, _Chain] = {}
        self._problems: list[AuditProblem] = []
        self._ends: dict[str, dict[int, str]] = {}
        self._events = self._objects = 0

    # ---- taking

    def add_object(self, key: str, data: bytes) -> None:
        """Take an object by its key."""
        found = _OBJECT.fullmatch(key)
        if found is None or found[1] != self.stream:
            self._problem("strange", "", key, "this is not the key of an object of this stream")
            return
        self._objects += 1
        chain, number = found[4], int(found[5])
        known = self._chains.setdefault(chain, _Chain())
        read = self._read(chain, key, number, data)
        if read is not None:
            known.objects.setdefault(number, []).append(read)

    def add_head(self, key: str, data: bytes, *, when: str = "before") -> None:
        """Take a head. Heads that were read before and after the objects tell what was put meanwhile."""
        found = _HEAD.fullmatch(key)
        if found is None or found[1] != self.stream:
            self._problem("strange", "", key, "this is not the key of a head of this stream")
            return
        known = self._chains.setdefault(found[2], _Chain())
        head = self._head(found[2], key, data)
        if head is not None and when == "after":
            known.after = head
        elif head is not None:
            known.before = head

    def _read(self, chain: str, key: str, number: int, data: bytes) -> _Object | None:
        if not data.endswith(b"\n"):
            self._problem("cut", chain, key, "the object does not end with a whole line")
        first: _Link | None = None
        last: _Link | None = None
        for index, line in enumerate(data.splitlines(), 1):
            link = _link(line)
            if link is None:
                self._problem("damaged", chain, key, f"line {index} is no event")
                continue
            self._events += 1
            if last is not None and link != last:
                self._problem("broken", chain, key, _broken(index, link, last))
            first = first or link
            last = _Link(link.seq + 1, hashlib.sha256(line).hexdigest())
        if first is None or last is None:
            self._problem("damaged", chain, key, "the object has no events")
            return None
        return _Object(key, number, _before(first), _before(last))

    def _head(self, chain: str, key: str, data: bytes) -> dict[str, Any] | None:
        try:
            head = json.loads(data)
            whole = (
                head["format"] == _FORMAT
                and head["stream"] == self.stream
                and head["chain"] == chain
                and all(type(head[name]) is int for name in ("seq", "objects", "at"))
                and all(isinstance(head[name], str) for name in ("hash", "node", "alg"))
                and all(type(head["kept"][name]) is int for name in ("seq", "object"))
                and isinstance(head["kept"]["prev"], str)
                and (head["follows"] is None or isinstance(head["follows"], dict))
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            self._problem(
                "damaged", chain, key, "this is not the head of that chain in a format that is known"
            )
            return None
        self._check_signature(chain, key, head)
        return cast("dict[str, Any]", head)

    def _check_signature(self, chain: str, key: str, head: dict[str, Any]) -> None:
        if self._keys is None:
            return
        if head["alg"] != "Ed25519":
            self._problem("unsigned", chain, key, "the head is not signed, though there are keys")
            return
        raw = key_of(self._keys, str(head.get("key_id")))
        if raw is None:
            self._problem(
                "forged", chain, key, f"the head is signed by {head.get('key_id')}, which is none of the keys"
            )
            return
        message = _HEAD_CONTEXT + canonical({k: v for k, v in head.items() if k not in _UNSIGNED})
        if not is_signed_by(raw, str(head.get("sig")), message):
            self._problem("forged", chain, key, "the signature of the head does not fit")

    # ---- telling

    def report(self, since: AuditSince | None = None) -> AuditReport:
        """Return what was found; with `since`, also what is gone of what an earlier report had seen."""
        chains = [
            row
            for name in sorted(self._chains)
            if (row := self._follow(name, self._chains[name])) is not None
        ]
        for name, known in self._chains.items():
            follows = (known.after or known.before or {}).get("follows")
            if follows:
                self._remember(str(follows.get("chain")), follows, f"chain {name} follows it")
        for name, place in (since or {}).items():
            self._remember(name, place, "an earlier report had it")
        return {
            "stream": self.stream,
            "outcome": "damaged" if self._problems else "sound",
            "signatures": "checked" if self._keys is not None else "not checked: no keys",
            "events": self._events,
            "objects": self._objects,
            "chains": chains,
            "problems": self._problems,
        }

    def _follow(self, name: str, known: _Chain) -> AuditChain | None:
        """Go along a chain from where it is kept to its head."""
        head = known.before or known.after
        if head is None:
            self._problem("headless", name, "", f"{len(known.objects)} objects have no head")
            return None
        after = known.after or head
        kept = after["kept"] if after["kept"]["object"] > head["kept"]["object"] else head["kept"]
        link = _Link(kept["seq"] - 1, kept["prev"])
        if kept["object"] == 1 and link != _Link(0, genesis(self.stream, name)):
            self._problem("forged", name, "", "the head says that nothing was removed, and begins elsewhere")
        ends = {link.seq: link.hash}
        lost = False
        last = max([head["objects"], *(n for n in known.objects if n <= after["objects"])])
        for number in range(kept["object"], last + 1):
            found = known.objects.get(number, [])
            if not found:
                self._problem("missing", name, "", f"object number {number} is gone, behind event {link.seq}")
                lost = True
                continue
            link = self._step(name, number, found, found[0].follows if lost else link)
            ends[link.seq], lost = link.hash, False
        for number in sorted(n for n in known.objects if n > after["objects"]):
            for extra in known.objects[number]:
                self._problem(
                    "unanchored", name, extra.key, "the object is behind the end that the head names"
                )
        for one in (head, after):
            if ends.get(one["seq"]) != one["hash"] and one["objects"] <= last:
                self._problem(
                    "cut",
                    name,
                    "",
                    f"the head says that event {one['seq']} is the last; the objects end at {link.seq}",
                )
                break
        self._ends[name] = ends
        return {
            "chain": name,
            "node": head["node"],
            "from_seq": kept["seq"],
            "seq": head["seq"],
            "hash": head["hash"],
            "objects": head["objects"],
            "at": head["at"],
            "signed": head["alg"] == "Ed25519",
        }

    def _step(self, name: str, number: int, found: list[_Object], link: _Link) -> _Link:
        fitting = [one for one in found if one.follows == link]
        for extra in found:
            if fitting and extra is not fitting[0]:
                self._problem("inserted", name, extra.key, f"there is another object number {number}")
        if fitting:
            return fitting[0].end
        one = found[0]
        self._problem(
            "broken",
            name,
            one.key,
            f"the object follows event {one.follows.seq}, and comes behind event {link.seq}"
            if one.follows.seq != link.seq
            else f"the object does not follow event {link.seq} as it is",
        )
        return one.end

    def _remember(self, name: str, place: Mapping[str, Any], why: str) -> None:
        known = self._chains.get(name)
        head = None if known is None else known.before or known.after
        if head is None:
            self._problem(
                "rolled_back", name, "", f"the chain is gone; {why}, up to event {place.get('seq')}"
            )
            return
        seq = place.get("seq")
        ends = self._ends.get(name, {})
        if type(seq) is not int or seq > head["seq"]:
            self._problem(
                "rolled_back", name, "", f"the chain ends at event {head['seq']}; {why}, up to event {seq}"
            )
        elif seq >= head["kept"]["seq"] - 1 and ends.get(seq) != place.get("hash"):
            self._problem("rolled_back", name, "", f"event {seq} is not what it was; {why}")

    def _problem(self, kind: str, chain: str, key: str, what: str) -> None:
        self._problems.append({"kind": kind, "chain": chain, "key": key, "what": what})


def heads_of(report: AuditReport) -> AuditSince:
    """Return what a later report takes as `since`."""
    return {
        row["chain"]: {"seq": row["seq"], "hash": row["hash"], "at": row["at"]} for row in report["chains"]
    }


def _link(line: bytes) -> _Link | None:
    """Return the number of a line, and the hash that it says the line before it has."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(event, dict)
        or type(event.get("seq")) is not int
        or not isinstance(event.get("prev"), str)
    ):
        return None
    return _Link(event["seq"], event["prev"])


def _before(link: _Link) -> _Link:
    """Return the place of the line whose hash a line `link` names."""
    return _Link(link.seq - 1, link.hash)


def _broken(index: int, link: _Link, wanted: _Link) -> str:
    if link.seq != wanted.seq:
        return f"line {index} is event {link.seq}, where event {wanted.seq} has to be"
    return f"line {index}, event {link.seq}, does not follow the line before it as that is"
