"""Policies of namespaces and profiles; `None` asks for nothing."""

from typing import Any, Literal, TypedDict

Egress = Literal["allow", "self_hosted_only", "deny"]
"""Whether texts may be sent to a model."""


class RetentionPolicy(TypedDict, total=False):
    """How long history is kept."""

    pitr_secs: int | None
    pitr_snapshot_secs: int | None


class MemoryPolicy(TypedDict, total=False):
    """How long memories live."""

    task_ttl_max_secs: int | None
    event_max_age_secs: int | None
    superseded_max_age_secs: int | None
    superseded_max_count: int | None


class ErasurePolicy(TypedDict, total=False):
    """Whether to forget is to erase, and how long an erasure waits before history is rewritten."""

    purge_on_forget: bool | None
    grace_secs: int | None


class AuditPolicy(TypedDict, total=False):
    """Whether there is an audit stream, what is in it, and how long it is kept."""

    enabled: bool | None
    include_reads: bool | None
    retention_secs: int | None


class EgressPolicy(TypedDict, total=False):
    """What may be sent to models."""

    extract: Literal["allow", "deny"] | None
    ask: Literal["allow", "deny"] | None
    embed: Egress | None


class ConsistencyPolicy(TypedDict, total=False):
    """What reads show that say nothing about it."""

    reads: Literal["cached", "primary"] | None


class Policy(TypedDict, total=False):
    """What a namespace or a profile asks for; every part and every field may be left out."""

    retention: RetentionPolicy | None
    memory: MemoryPolicy | None
    erasure: ErasurePolicy | None
    audit: AuditPolicy | None
    ai_egress: EgressPolicy | None
    consistency: ConsistencyPolicy | None


class NamespacePolicy(TypedDict):
    """The policy of a namespace, at a `revision` that goes up with each write."""

    namespace: str
    revision: int
    updated_at: int
    policy: dict[str, Any]


class NamespacePolicies(NamespacePolicy):
    """The policy of a namespace with those of its profiles that have one, by name."""

    profiles: dict[str, dict[str, Any]]


class EffectivePolicy(TypedDict):
    """What holds, of the operator's ceiling, the namespace's policy and the profile's: the strictest of each."""

    pitr_secs: int | None
    pitr_snapshot_secs: int | None
    task_ttl_max_secs: int | None
    event_max_age_secs: int | None
    superseded_max_age_secs: int | None
    superseded_max_count: int | None
    purge_on_forget: bool
    erasure_grace_secs: int
    audit_enabled: bool
    audit_include_reads: bool
    audit_retention_secs: int | None
    extract: Egress
    ask: Egress
    embed: Egress
    reads: Literal["cached", "primary"] | None


class ProfilePolicy(TypedDict):
    """A profile's own policy (`override`, None without one), and what holds for it."""

    namespace: str
    profile: str
    override: dict[str, Any] | None
    effective: EffectivePolicy
    revision: int
