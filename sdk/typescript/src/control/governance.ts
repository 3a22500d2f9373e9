/** Policies, quotas and usage. */

import { wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { orNull, type Target } from "../core/target.js";
import type { CallOptions, Consistency, PageOptions } from "../options.js";
import type { QuotaLimits } from "../types/inputs.js";
import type * as types from "../types/wire.js";

export type Egress = "allow" | "self_hosted_only" | "deny";

/** A policy, as the wire has it. Sections and fields may be missing or null; others are kept as they came. */
export interface Policy {
  retention?: { pitr_secs?: number | null; pitr_snapshot_secs?: number | null } | null;
  memory?: {
    task_ttl_max_secs?: number | null;
    event_max_age_secs?: number | null;
    superseded_max_age_secs?: number | null;
    superseded_max_count?: number | null;
  } | null;
  erasure?: { purge_on_forget?: boolean | null; grace_secs?: number | null } | null;
  audit?: { enabled?: boolean | null; include_reads?: boolean | null; retention_secs?: number | null } | null;
  ai_egress?: { extract?: Egress | null; ask?: Egress | null; embed?: Egress | null } | null;
  consistency?: { reads?: Consistency | null } | null;
  [section: string]: unknown;
}

/** Options of a write of a policy; `ifMatch` is the revision that it replaces. */
export interface PolicyOptions extends CallOptions {
  ifMatch?: string | number | undefined;
  ifNoneMatch?: string | undefined;
}

export class Policies {
  readonly #control: Target;
  readonly #data: Target;

  /** @internal */
  constructor(control: Target, data: Target) {
    this.#control = control;
    this.#data = data;
  }

  /** The policies of a namespace and its profiles, null where none was ever set. */
  get(ns: string, options?: CallOptions): Promise<types.NamespacePolicies | null> {
    return orNull(this.#control.plain<types.NamespacePolicies>("GET", ["namespaces", ns, "policy"], { options }));
  }

  /** Set the namespace's policy, in place of what was set before; those of its profiles stay. */
  set(ns: string, policy: Policy, options: PolicyOptions = {}): Promise<types.NamespacePolicy> {
    return this.#control.plain("PUT", ["namespaces", ns, "policy"], put(policy, options));
  }

  /** A profile's own policy, and what holds for it. */
  getProfile(ns: string, profile: string, options?: CallOptions): Promise<types.ProfilePolicy> {
    return this.#data.plain("GET", ["memory", ns, profile, "policy"], { options });
  }

  /** Set a profile's own policy, null clears it. Throws ConflictError where it is looser than what holds. */
  setProfile(
    ns: string,
    profile: string,
    policy: Policy | null,
    options: PolicyOptions = {},
  ): Promise<types.ProfilePolicy> {
    return this.#data.plain("PUT", ["memory", ns, profile, "policy"], put(policy, options));
  }
}

function put(policy: Policy | null, options: PolicyOptions) {
  const { ifMatch, ifNoneMatch, ...call } = options;
  const headers = {
    "if-match": typeof ifMatch === "number" ? `"${ifMatch}"` : ifMatch,
    "if-none-match": ifNoneMatch,
  };
  // Under a condition the second one would be refused, for what the first one did.
  const repeatable = ifMatch === undefined && ifNoneMatch === undefined ? "always" : "unapplied";
  return { body: { policy }, headers, writes: true, repeatable, options: call } as const;
}

export class Quotas {
  readonly #root: Target;

  /** @internal */
  constructor(root: Target) {
    this.#root = root;
  }

  get(ns: string, options?: CallOptions): Promise<types.NamespaceQuotas> {
    return this.#root.plain("GET", ["namespaces", ns, "quotas"], { options });
  }

  /** Set all of them: what is missing or null has the default again. */
  set(ns: string, limits: QuotaLimits, options?: CallOptions): Promise<types.NamespaceQuotas> {
    const body = wire(limits);
    return this.#root.plain("PUT", ["namespaces", ns, "quotas"], { body, writes: true, options });
  }

  getTenant(tenant: string, options?: CallOptions): Promise<types.TenantQuotas> {
    return this.#root.plain("GET", ["tenants", tenant, "quotas"], { options });
  }

  setTenant(tenant: string, limits: QuotaLimits, options?: CallOptions): Promise<types.TenantQuotas> {
    const body = wire(limits);
    return this.#root.plain("PUT", ["tenants", tenant, "quotas"], { body, writes: true, options });
  }
}

/** Days of UTC as `2026-11-27`, both included; the last 30 unless given. */
export interface UsageOptions extends PageOptions, CallOptions {
  from?: string | undefined;
  to?: string | undefined;
}

export class Usage {
  readonly #root: Target;

  /** @internal */
  constructor(root: Target) {
    this.#root = root;
  }

  /** Days of a database that were not without use, the oldest first. */
  database(db: string, options: UsageOptions = {}): Listing<types.UsageDay, types.DatabaseUsage> {
    const { from, to, ...rest } = options;
    return this.#root.list(["databases", db, "usage"], (page) => page.days, { ...rest, query: { from, to } });
  }

  /** The same of all databases of a namespace together. */
  namespace(ns: string, options: UsageOptions = {}): Listing<types.UsageDay, types.NamespaceUsage> {
    const { from, to, ...rest } = options;
    return this.#root.list(["namespaces", ns, "usage"], (page) => page.days, { ...rest, query: { from, to } });
  }
}
