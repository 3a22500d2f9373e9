"""Bodies of the routes of quotas and usage."""

from memoturnd.http.shapes import Count, Struct


class Quotas(Struct):
    """Limits; null is none, or of one's own quotas the default of the settings. Rates hold for each node."""

    requests_per_s: float | None
    writes_per_s: float | None
    bytes: Count | None
    databases: Count | None
    memories: Count | None


class Used(Struct):
    """What is there now, as it was flushed last."""

    databases: Count
    bytes: Count
    memories: Count


class NamespaceQuotas(Struct):
    """The quotas of a namespace: those that it was given, those that hold, and what it takes up."""

    namespace: str
    quotas: Quotas
    effective: Quotas
    used: Used


class TenantQuotas(Struct):
    """The quotas of a tenant as a whole."""

    tenant: str
    quotas: Quotas
    effective: Quotas
    used: Used


class UsageDay(Struct):
    """One day of UTC. `bytes_stored` and `memories` are as they were last seen on that day, the others its sums."""

    day: str
    requests: Count
    reads: Count
    writes: Count
    recalls: Count
    bytes_shipped: Count
    bytes_stored: Count
    memories: Count


class DatabaseUsage(Struct):
    """The days of a database on which it was used; `next_cursor` is null where no more follow."""

    database: str
    days: list[UsageDay]
    next_cursor: str | None


class NamespaceUsage(Struct):
    """The days of a namespace on which it was used."""

    namespace: str
    days: list[UsageDay]
    next_cursor: str | None
