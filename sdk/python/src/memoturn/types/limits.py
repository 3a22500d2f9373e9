"""Tenants, quotas and what is used of them. None is no limit."""

from typing import TypedDict


class TenantInfo(TypedDict):
    """A tenant."""

    name: str
    created_at: int


class NamespaceInfo(TypedDict):
    """A namespace that has profiles."""

    namespace: str


class NewQuotas(TypedDict, total=False):
    """Limits to set; what is left out or None has its default, and 0 allows nothing."""

    requests_per_s: float | None
    writes_per_s: float | None
    bytes: int | None
    databases: int | None
    memories: int | None


class Quotas(TypedDict):
    """Limits: requests and writes a second, bytes in object storage, databases, memories."""

    requests_per_s: float | None
    writes_per_s: float | None
    bytes: int | None
    databases: int | None
    memories: int | None


class QuotasUsed(TypedDict):
    """How much there is, as it was counted last."""

    databases: int
    bytes: int
    memories: int


class NamespaceQuotas(TypedDict):
    """The quotas that a namespace was given, those that hold, and what is used."""

    namespace: str
    quotas: Quotas
    effective: Quotas
    used: QuotasUsed


class TenantQuotas(TypedDict):
    """The quotas that a tenant was given, those that hold, and what is used."""

    tenant: str
    quotas: Quotas
    effective: Quotas
    used: QuotasUsed


class UsageDay(TypedDict):
    """What was used on a day of UTC; `bytes_stored` and `memories` are as they were last seen on it."""

    day: str
    requests: int
    reads: int
    writes: int
    recalls: int
    bytes_shipped: int
    bytes_stored: int
    memories: int
