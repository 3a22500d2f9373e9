"""Events of what the node does by itself, for which there is no request."""

from memoturnd.audit.log import AuditLog
from memoturnd.core import audit, names
from memoturnd.core.audit import Actor, Event
from memoturnd.core.erasures import Coupon
from memoturnd.seams.clock import Clock

_ITSELF = Actor("internal")


class Acts:
    """Writes down what a node does by itself."""

    def __init__(self, log: AuditLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    async def erasure_completed(self, coupon: Coupon) -> None:
        """Write down the end of an erasure, after which its receipt can be had.

        Raises RetryableError when there is no room for the event.
        """
        namespace, separator, profile = coupon.db.partition(names.PROFILE_SEPARATOR)
        if not separator:
            namespace = audit.PLATFORM
        await self._log.reserve()
        try:
            now_ms = self._clock.now_ms()
            event = Event(
                v=audit.VERSION,
                id=self._log.next_id(now_ms),
                ts=now_ms,
                node=self._log.node,
                ns=namespace,
                tenant=None if coupon.tenant == names.DEFAULT_TENANT else coupon.tenant,
                db=None if separator else coupon.db,
                profile=profile if separator else None,
                action="erasure.completed",
                resource=f"erasures/{coupon.id}",
                outcome="ok",
                count=len(coupon.memory_ids),
                actor=_ITSELF,
            )
            self._log.append(audit.stream_of(coupon.tenant, namespace), event)
        finally:
            self._log.release()
