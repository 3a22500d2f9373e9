"""Governance policies: what an operator, a namespace and a profile ask, and what holds of all that together. Pure.

A policy is the JSON object of the wire contract: sections with fields, of which any may be missing. What it asks is
`Rules`. Of several policies the strictest holds, field by field, so that whoever comes later can only tighten.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, Final, Literal, NamedTuple

from memoturnd.core import canonical
from memoturnd.core.retention import Windows
from memoturnd.errors import InvalidRequestError

Egress = Literal["allow", "self_hosted_only", "deny"]
"""Who may be sent what is remembered, from the least strict on."""
Reads = Literal["cached", "primary"]
"""How new a state a read shows that does not say: one that may be a moment old, or the newest."""

SECONDS_MIN: Final = 60
SECONDS_MAX: Final = 8_000_000_000_000
"""Longest time: its end in unix ms still is an integer that every JSON client can hold."""
ERASURE_GRACE_S: Final = 86_400
"""How long an erasure waits where no policy says."""
POLICY_LIMIT_BYTES: Final = 16 * 1024
_FOREVER_MS: Final = 1000 * SECONDS_MAX
_READS: Final[tuple[Reads, ...]] = ("cached", "primary")
_LEVELS: Final[tuple[Egress, ...]] = ("allow", "self_hosted_only", "deny")


@dataclass(frozen=True, slots=True)
class Rules:
    """What one policy asks, or several together. Times are in seconds; None asks for nothing."""

    pitr_secs: int | None = None
    pitr_snapshot_secs: int | None = None
    task_ttl_max_secs: int | None = None
    event_max_age_secs: int | None = None
    superseded_max_age_secs: int | None = None
    superseded_max_count: int | None = None
    purge_on_forget: bool = False
    erasure_grace_secs: int | None = None
    audit_enabled: bool = False
    audit_include_reads: bool = False
    audit_retention_secs: int | None = None
    extract: Egress = "allow"
    ask: Egress = "allow"
    embed: Egress = "allow"
    reads: Reads | None = None

    @property
    def sweeps(self) -> bool:
        """Whether memories are deleted for their age or number."""
        return (
            self.event_max_age_secs is not None
            or self.superseded_max_age_secs is not None
            or self.superseded_max_count is not None
        )

    @property
    def grace_s(self) -> int:
        """How long an erasure waits before history is rewritten."""
        return ERASURE_GRACE_S if self.erasure_grace_secs is None else self.erasure_grace_secs

    def lets_embed(self, *, self_hosted: bool) -> bool:
        """Return whether texts may be sent to an embedder that is `self_hosted`, or is somebody else's."""
        return self.embed == "allow" or (self.embed == "self_hosted_only" and self_hosted)

    def shown(self) -> dict[str, Any]:
        """Return the effective object of the wire contract."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**said, "erasure_grace_secs": self.grace_s}


NOTHING: Final = Rules()
"""What no policy asks."""


class _Field(NamedTuple):
    """A field of the wire contract: where it stands, the member of Rules that it is, and what it takes."""

    section: str
    name: str
    rule: str
    check: Callable[[Any, str], Any]

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"


def _whole(least: int, unit: str) -> Callable[[Any, str], int]:
    def check(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= SECONDS_MAX:
            raise InvalidRequestError(
                f"{where} is {_shown(value)}: it takes a whole number of {unit} from {least} on"
            )
        return value

    return check


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{where} is {_shown(value)}: it takes true or false")
    return value


def _egress(*levels: Egress) -> Callable[[Any, str], Egress]:
    def check(value: Any, where: str) -> Egress:
        for level in levels:
            if value == level:
                return level
        raise InvalidRequestError(f"{where} is {_shown(value)}: it takes {', '.join(levels)}")

    return check


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)[:40]


def _reads(value: Any, where: str) -> Reads:
    for choice in _READS:
        if value == choice:
            return choice
    raise InvalidRequestError(f"{where} is {_shown(value)}: it takes {', '.join(_READS)}")


_seconds = _whole(SECONDS_MIN, "seconds")
_FIELDS: Final = (
    _Field("retention", "pitr_secs", "pitr_secs", _seconds),
    _Field("retention", "pitr_snapshot_secs", "pitr_snapshot_secs", _seconds),
    _Field("memory", "task_ttl_max_secs", "task_ttl_max_secs", _seconds),
    _Field("memory", "event_max_age_secs", "event_max_age_secs", _seconds),
    _Field("memory", "superseded_max_age_secs", "superseded_max_age_secs", _seconds),
    _Field("memory", "superseded_max_count", "superseded_max_count", _whole(1, "memories")),
    _Field("erasure", "purge_on_forget", "purge_on_forget", _flag),
    _Field("erasure", "grace_secs", "erasure_grace_secs", _seconds),
    _Field("audit", "enabled", "audit_enabled", _flag),
    _Field("audit", "include_reads", "audit_include_reads", _flag),
    _Field("audit", "retention_secs", "audit_retention_secs", _seconds),
    _Field("ai_egress", "extract", "extract", _egress("allow", "deny")),
    _Field("ai_egress", "ask", "ask", _egress("allow", "deny")),
    _Field("ai_egress", "embed", "embed", _egress(*_LEVELS)),
    _Field("consistency", "reads", "reads", _reads),
)
_OF_NAMESPACE: Final = "audit.retention_secs"
"""What only a namespace has: the stream is one for all of its profiles."""


# ---- what a policy says


def parse(policy: Any, *, of_namespace: bool = True, where: str = "policy") -> Rules:
    """Return what a policy asks; a field that is null asks for nothing, and members that are not known are left alone.

    Raises InvalidRequestError naming the field.
    """
    if not isinstance(policy, dict):
        raise InvalidRequestError(f"{where} is {_shown(policy)}: it takes an object")
    said = dict(_said(policy, where))
    if not of_namespace and _OF_NAMESPACE in said:
        raise InvalidRequestError(
            f"{where}.{_OF_NAMESPACE} is of the namespace, whose profiles share one stream: set it there"
        )
    fine, coarse = said.get("retention.pitr_secs"), said.get("retention.pitr_snapshot_secs")
    if fine is not None and coarse is not None and coarse < fine:
        raise InvalidRequestError(
            f"{where}.retention.pitr_snapshot_secs is {coarse}, which is below pitr_secs, {fine}:"
            " history is kept at every commit first, then at one an hour"
        )
    return Rules(**{field.rule: said[field.path] for field in _FIELDS if field.path in said})


def parse_new(policy: Any, *, of_namespace: bool = True) -> Rules:
    """Return what a policy asks that is to be stored. Raises InvalidRequestError, also where it is too large."""
    rules = parse(policy, of_namespace=of_namespace)
    size_bytes = len(canonical.canonical_json(policy, where="policy"))
    if size_bytes > POLICY_LIMIT_BYTES:
        raise InvalidRequestError(
            f"policy takes {size_bytes} bytes as JSON: at most {POLICY_LIMIT_BYTES} are taken"
        )
    return rules


def parse_ceiling(policy: Any) -> Rules:
    """Return what an operator asks of every namespace.

    Raises InvalidRequestError, also for a member that is not known: misspelt, it would hold nobody to anything.
    """
    rules = parse(policy, of_namespace=False, where="the ceiling")
    known = {field.path for field in _FIELDS}
    for section, members in policy.items():
        for name in members if isinstance(members, Mapping) else ("",):
            if f"{section}.{name}" not in known:
                raise InvalidRequestError(
                    f"the ceiling has {section[:40]}.{name[:40]}, which no policy has: it takes {', '.join(sorted(known))}"
                )
    return rules


def _said(policy: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Yield the fields that a policy sets, checked, by their paths."""
    for field in _FIELDS:
        section = policy.get(field.section)
        if section is None:
            continue
        if not isinstance(section, dict):
            raise InvalidRequestError(f"{where}.{field.section} is {_shown(section)}: it takes an object")
        value = section.get(field.name)
        if value is not None:
            yield field.path, field.check(value, f"{where}.{field.path}")


# ---- what holds of several


def merge(one: Rules, other: Rules) -> Rules:
    """Return the strictest of both, field by field."""
    if other is NOTHING:
        return one
    return Rules(
        **{
            field.name: _strictest(getattr(one, field.name), getattr(other, field.name))
            for field in fields(Rules)
        }
    )


def _strictest(one: Any, other: Any) -> Any:
    if isinstance(one, bool):
        return one or other
    asked = [value for value in (one, other) if value is not None]
    if asked and isinstance(asked[0], str):
        return max(asked, key=(*_LEVELS, *_READS).index)
    return min(asked, default=None)


def effective(*layers: Rules) -> Rules:
    """Return what holds where all of the layers do.

    A coarse window that is below the fine one is the end of both.
    """
    rules = reduce(merge, layers, NOTHING)
    fine, coarse = rules.pitr_secs, rules.pitr_snapshot_secs
    if fine is not None and coarse is not None and coarse < fine:
        return replace(rules, pitr_secs=coarse)
    return rules


def loosened(base: Rules, policy: Mapping[str, Any]) -> list[str]:
    """Return the fields of a valid policy that ask for less than `base` does, which so would be of no effect."""
    of_path = {field.path: field.rule for field in _FIELDS}
    return [
        path
        for path, value in _said(policy, "policy")
        if _strictest(getattr(base, of_path[path]), value) != value
    ]


# ---- what follows for history


def capped(windows: Windows, rules: Rules) -> Windows:
    """Return how long history is kept: no longer than the rules let it. A fine window of 0 keeps everything."""
    fine_ms, coarse_ms = windows.fine_ms, windows.coarse_ms
    if rules.pitr_secs is None and rules.pitr_snapshot_secs is None:
        return windows
    if not fine_ms:
        fine_ms = coarse_ms = _FOREVER_MS
    if rules.pitr_snapshot_secs is not None:
        coarse_ms = min(coarse_ms, 1000 * rules.pitr_snapshot_secs)
    if rules.pitr_secs is not None:
        fine_ms = min(fine_ms, 1000 * rules.pitr_secs)
    return Windows(min(fine_ms, coarse_ms), coarse_ms, windows.grain_ms)
