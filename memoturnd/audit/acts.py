"""Events of what the node does by itself, for which there is no request: erasures that are completed, sweeps, burners that
expire, texts that are embedded again.

They are written down whether there is room or not: they are few, and what is done is done.
"""

from memoturnd.audit.egress import Note
from memoturnd.audit.log import AuditLog
from memoturnd.audit.ports import AuditRules
from memoturnd.core import audit, names
from memoturnd.core.audit import Actor, Egress, Event, Outcome
from memoturnd.core.erasures import Coupon
from memoturnd.seams.clock import Clock

_ITSELF = Actor("internal")


class Acts:
    """Writes down what a node does by itself."""

    def __init__(self, log: AuditLog, rules: AuditRules, clock: Clock) -> None:
        self._log = log
        self._rules = rules
        self._clock = clock

    async def wanted(self, database: str) -> bool:
        """Return whether acts on a database, by its qualified name, are audited."""
        tenant, namespace, profile = _parts(database)
        return (await self._rules.rule(tenant, namespace, profile)).enabled

    async def note(
        self, database: str, action: str, *, branch: str = names.MAIN_BRANCH, count: int | None = None
    ) -> None:
        """Write down what was done, where acts on the database are audited; `count` is how many things it was done to."""
        if await self.wanted(database):
            self._append(database, branch, action, "ok", count=count)

    async def erasure_completed(self, coupon: Coupon) -> None:
        """Write down the end of an erasure, after which its receipt can be had. This is always audited."""
        self._append(
            names.qualified(coupon.tenant, coupon.db),
            names.MAIN_BRANCH,
            "erasure.completed",
            "ok",
            count=len(coupon.memory_ids),
            resource=f"erasures/{coupon.id}",
        )

    async def egress_of(self, database: str, branch: str) -> Note | None:
        """Return what is told of texts of a branch that leave the node, None where that is not audited."""
        if not await self.wanted(database):
            return None

        def note(action: str, egress: Egress, outcome: Outcome) -> None:
            self._append(database, branch, action, outcome, egress=egress)

        return note

    def _append(
        self,
        database: str,
        branch: str,
        action: str,
        outcome: Outcome,
        *,
        count: int | None = None,
        resource: str | None = None,
        egress: Egress | None = None,
    ) -> None:
        tenant, namespace, profile = _parts(database)
        now_ms = self._clock.now_ms()
        self._log.append(
            audit.stream_of(tenant, namespace),
            Event(
                v=audit.VERSION,
                id=self._log.next_id(now_ms),
                ts=now_ms,
                node=self._log.node,
                ns=namespace,
                tenant=None if tenant == names.DEFAULT_TENANT else tenant,
                db=names.split_qualified(database)[1] if profile is None else None,
                profile=profile,
                branch=None if branch == names.MAIN_BRANCH else branch,
                action=action,
                outcome=outcome,
                resource=resource,
                count=count,
                egress=egress,
                actor=_ITSELF,
            ),
        )


def _parts(database: str) -> tuple[str, str, str | None]:
    """Return (tenant, namespace, profile) of a qualified name; what is no profile's is the platform's."""
    tenant, name = names.split_qualified(database)
    namespace, separator, profile = name.partition(names.PROFILE_SEPARATOR)
    return (tenant, namespace, profile) if separator else (tenant, audit.PLATFORM, None)
