"""What the audit stream needs of its surroundings: whom it is kept for, and who signs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from memoturnd.core import audit
from memoturnd.errors import RetryableError
from memoturnd.policies import Policies

Sign = Callable[[bytes], tuple[str, bytes]]
"""Returns the id of the node's signing key and its Ed25519 signature. Without one heads are not signed, and prove nothing
against whoever writes to the bucket."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept of a namespace: whether acts on data are, whether reads are, and for how long; None is for ever."""

    enabled: bool
    include_reads: bool
    retention_s: int | None = None


ALL: Final = Rule(enabled=True, include_reads=True)
"""What is kept where nothing can be learned of the policy."""


class AuditRules:
    """What the node's settings and the policies ask together."""

    def __init__(
        self, policies: Policies, setting: Literal["off", "on", "reads"], retention_s: float
    ) -> None:
        self._policies = policies
        self._on = setting != "off"
        self._reads = setting == "reads"
        self._retention_s = round(retention_s) or None
        self._own = Rule(self._on, self._reads, self._retention_s)

    async def rule(self, tenant: str, namespace: str, profile: str | None = None) -> Rule:
        """Return what is kept of a profile, or of a namespace; all of it where the policy is not known now."""
        if namespace == audit.PLATFORM:
            return self._own
        try:
            rules = await self._policies.of_namespace(tenant, namespace, profile)
        except RetryableError:
            return ALL
        if not rules.audit_enabled and rules.audit_retention_secs is None:
            return self._own
        return Rule(
            self._on or rules.audit_enabled,
            self._reads or (rules.audit_enabled and rules.audit_include_reads),
            self._retention_s if rules.audit_retention_secs is None else rules.audit_retention_secs,
        )
