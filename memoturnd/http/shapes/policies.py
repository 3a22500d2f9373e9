"""Bodies of the routes of policies."""

from typing import Literal

from memoturnd.http.shapes import Count, Object, Struct, Time

Egress = Literal["allow", "self_hosted_only", "deny"]


class SetPolicy(Struct):
    """The policy of a namespace, which takes the place of the one before."""

    policy: Object


class SetOverride(Struct):
    """The policy of a profile; null clears it."""

    policy: Object | None


class NamespacePolicy(Struct):
    """The policy of a namespace, as it was set."""

    namespace: str
    revision: Count
    updated_at: Time
    policy: Object


class NamespacePolicies(NamespacePolicy):
    """The policies of a namespace, and of those of its profiles that have one of their own."""

    profiles: dict[str, Object]


class Effective(Struct):
    """What holds, of the operator's ceiling, the namespace's policy and the profile's. Null asks for nothing."""

    pitr_secs: Count | None
    pitr_snapshot_secs: Count | None
    task_ttl_max_secs: Count | None
    event_max_age_secs: Count | None
    superseded_max_age_secs: Count | None
    superseded_max_count: Count | None
    purge_on_forget: bool
    erasure_grace_secs: Count
    audit_enabled: bool
    audit_include_reads: bool
    audit_retention_secs: Count | None
    extract: Egress
    ask: Egress
    embed: Egress
    reads: Literal["cached", "primary"] | None


class ProfilePolicy(Struct):
    """The policy of a profile, null where it has none of its own, and what holds for it."""

    namespace: str
    profile: str
    override: Object | None
    effective: Effective
    revision: Count
