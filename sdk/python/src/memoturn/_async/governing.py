"""Policies, quotas, tenants and usage."""

from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, cast, overload

from memoturn._async.address import AsyncAddress
from memoturn._async.credentials import ONCE_ONLY
from memoturn._core.bodies import condition, day
from memoturn.types import (
    NamespacePolicies,
    NamespacePolicy,
    NamespaceQuotas,
    NewQuotas,
    Policy,
    ProfilePolicy,
    TenantInfo,
    TenantQuotas,
    UsageDay,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncGoverning:
    """The part of the client that governs: mostly for the platform key."""

    _control: AsyncAddress
    _v1: AsyncAddress

    # ---- policies

    @overload
    async def get_policy(self, ns: str, *, profile: None = None) -> NamespacePolicies | None: ...

    @overload
    async def get_policy(self, ns: str, *, profile: str) -> ProfilePolicy: ...

    async def get_policy(
        self, ns: str, *, profile: str | None = None
    ) -> NamespacePolicies | ProfilePolicy | None:
        """Return the policy of a namespace with those of its profiles, None where none was ever set.

        With `profile` that profile's own, and what holds for it, of the operator's, the namespace's and its own.
        """
        if profile is not None:
            return cast("ProfilePolicy", (await self._v1.read("GET", "memory", ns, profile, "policy")).json())
        answer = await self._control.find("GET", "namespaces", ns, "policy")
        return None if answer is None else cast("NamespacePolicies", answer.json())

    @overload
    async def set_policy(
        self,
        ns: str,
        policy: "Policy | Mapping[str, Any]",
        *,
        profile: None = None,
        if_revision: int | None = None,
    ) -> NamespacePolicy: ...

    @overload
    async def set_policy(
        self,
        ns: str,
        policy: "Policy | Mapping[str, Any] | None",
        *,
        profile: str,
        if_revision: int | None = None,
    ) -> ProfilePolicy: ...

    async def set_policy(
        self,
        ns: str,
        policy: "Policy | Mapping[str, Any] | None",
        *,
        profile: str | None = None,
        if_revision: int | None = None,
    ) -> NamespacePolicy | ProfilePolicy:
        """Set the policy of a namespace, in place of the one before, or with `profile` that of a profile.

        A profile's may only be stricter than its namespace's (ConflictError lists what is not), and None clears
        it. With `if_revision` only where the revision is that one (0: none was ever set), else
        PreconditionFailedError. Raises InvalidRequestError, which names the field.
        """
        headers, repeats = (
            ({}, WriteOptions()) if if_revision is None else (_at_revision(if_revision), ONCE_ONLY)
        )
        policies = (
            self._control.below("namespaces", ns)
            if profile is None
            else self._v1.below("memory", ns, profile)
        )
        answer = await policies.write("PUT", "policy", body={"policy": policy}, headers=headers, **repeats)
        return cast("NamespacePolicy | ProfilePolicy", answer.json())

    # ---- quotas

    async def get_quotas(self, ns: str) -> NamespaceQuotas:
        """Return the quotas that a namespace was given, those that hold, and what is used of them."""
        return cast("NamespaceQuotas", (await self._control.read("GET", "namespaces", ns, "quotas")).json())

    async def set_quotas(self, ns: str, quotas: NewQuotas) -> NamespaceQuotas:
        """Set all quotas of a namespace; what is left out has its default again. Raises InvalidRequestError."""
        answer = await self._control.write("PUT", "namespaces", ns, "quotas", body=dict(quotas))
        return cast("NamespaceQuotas", answer.json())

    async def get_tenant_quotas(self, tenant: str) -> TenantQuotas:
        """Return the quotas that a tenant was given as a whole, those that hold, and what is used of them."""
        return cast("TenantQuotas", (await self._control.read("GET", "tenants", tenant, "quotas")).json())

    async def set_tenant_quotas(self, tenant: str, quotas: NewQuotas) -> TenantQuotas:
        """Set all quotas of a tenant; what is left out has its default again. Raises InvalidRequestError."""
        answer = await self._control.write("PUT", "tenants", tenant, "quotas", body=dict(quotas))
        return cast("TenantQuotas", answer.json())

    # ---- tenants

    async def create_tenant(self, name: str, **options: "Unpack[WriteOptions]") -> TenantInfo:
        """Create a tenant, whose databases have names of their own. Raises AlreadyExistsError.

        `Memoturn(..., tenant=name)` speaks of its names.
        """
        return cast(
            "TenantInfo",
            (await self._control.write("POST", "tenants", body={"name": name}, **options)).json(),
        )

    async def get_tenant(self, name: str) -> TenantInfo | None:
        """Return a tenant, None when there is none of that name."""
        answer = await self._control.find("GET", "tenants", name)
        return None if answer is None else cast("TenantInfo", answer.json())

    async def iter_tenants(self, *, limit: int | None = None) -> AsyncIterator[TenantInfo]:
        """Yield the tenants by name."""
        async for row in self._control.pages("tenants", "tenants", most=limit):
            yield cast("TenantInfo", row)

    async def delete_tenant(self, name: str, **options: "Unpack[WriteOptions]") -> None:
        """Delete a tenant and revoke its tokens. Raises ConflictError while it has a database, NotFoundError."""
        await self._control.write("DELETE", "tenants", name, **options)

    # ---- usage

    async def iter_usage(
        self,
        db: str,
        *,
        from_day: str | date | None = None,
        to_day: str | date | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[UsageDay]:
        """Yield what was used of a database by day of UTC, oldest first: the last 31 days unless given.

        Days without use are left out, and the last seconds may be missing. Raises DatabaseNotFoundError.
        """
        query = {"from": day(from_day), "to": day(to_day)}
        async for row in self._control.pages("days", "databases", db, "usage", query=query, most=limit):
            yield cast("UsageDay", row)

    async def iter_namespace_usage(
        self,
        ns: str,
        *,
        from_day: str | date | None = None,
        to_day: str | date | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[UsageDay]:
        """Yield what was used of all databases of a namespace together, deleted ones too; see `iter_usage`."""
        query = {"from": day(from_day), "to": day(to_day)}
        async for row in self._control.pages("days", "namespaces", ns, "usage", query=query, most=limit):
            yield cast("UsageDay", row)


def _at_revision(revision: int) -> dict[str, str]:
    return {"If-None-Match": "*"} if revision == 0 else {"If-Match": condition(str(revision))}
