/** The client. */

import { Databases, Tenants } from "./control/databases.js";
import { Policies, Quotas, Usage } from "./control/governance.js";
import { Keys, type TokenOptions, Tokens } from "./control/tokens.js";
import type { Listing } from "./core/listing.js";
import { MAIN, type Query, timeOf } from "./core/paths.js";
import { objectsOf } from "./core/streams.js";
import { Target } from "./core/target.js";
import { type Seams, Transport } from "./core/transport.js";
import { Db } from "./database/db.js";
import { MemoryProfile } from "./memory/profile.js";
import type { CallOptions, MemoturnOptions, PageOptions, Scope, Time } from "./options.js";
import type * as types from "./types/wire.js";

/** Which events. `action` is an action, or the beginning of one where it ends in a dot. */
export interface AuditOptions extends PageOptions, CallOptions {
  /** A day before `to` unless given. */
  from?: Time | undefined;
  /** Now unless given. */
  to?: Time | undefined;
  action?: string | undefined;
  profile?: string | undefined;
  outcome?: "ok" | "denied" | "error" | undefined;
}

/** Return a client of a node or a gateway; nothing is sent. */
export function memoturn(options: MemoturnOptions = {}): Memoturn {
  return new Memoturn(options);
}

/** A client. It holds no connection of its own, and needs no closing. */
export class Memoturn {
  readonly databases: Databases;
  readonly tenants: Tenants;
  readonly tokens: Tokens;
  readonly keys: Keys;
  readonly policy: Policies;
  readonly quotas: Quotas;
  readonly usage: Usage;
  readonly #transport: Transport;
  readonly #control: Target;
  readonly #data: Target;
  readonly #root: Target;

  /** Throws InvalidRequestError for a `url` that is none. `seams` are for tests. */
  constructor(options: MemoturnOptions = {}, seams?: Partial<Seams>) {
    this.#transport = new Transport(options, seams);
    this.#control = new Target(this.#transport, ["v1"], undefined, {}, true);
    this.#data = new Target(this.#transport, ["v1"], undefined);
    this.#root = new Target(this.#transport, [], undefined);
    this.databases = new Databases(this.#control);
    this.tenants = new Tenants(this.#control);
    this.tokens = new Tokens(this.#control);
    this.keys = new Keys(this.#control);
    this.policy = new Policies(this.#control, this.#data);
    this.quotas = new Quotas(this.#control);
    this.usage = new Usage(this.#control);
  }

  /** A profile's memory, on main unless a branch is named; nothing is sent. */
  memory(ns: string, profile: string, options: { branch?: string | undefined } = {}): MemoryProfile {
    return new MemoryProfile(this.#transport, ns, profile, options.branch ?? MAIN);
  }

  /** A database, `name` or `name@branch`; nothing is sent. */
  db(spec: string): Db {
    return new Db(this.#transport, spec);
  }

  /** The profiles of a namespace, by name. */
  profiles(ns: string, options?: PageOptions & CallOptions): Listing<types.ProfileInfo, types.ProfilePage> {
    return this.#data.list(["memory", ns], (page) => page.profiles, options);
  }

  /** The namespaces that have profiles, by name. */
  namespaces(options?: PageOptions & CallOptions): Listing<types.NamespaceInfo, types.NamespacePage> {
    return this.#control.list(["namespaces"], (page) => page.namespaces, options);
  }

  /** Mint a token of a database, which is shown once. */
  createToken(db: string, scope: Scope, options?: TokenOptions & CallOptions): Promise<types.MintedToken> {
    return this.tokens.database(db).create(scope, options);
  }

  /** Mint a token of every profile of a namespace. */
  createNamespaceToken(ns: string, scope: Scope, options?: TokenOptions & CallOptions): Promise<types.MintedToken> {
    return this.tokens.namespace(ns).create(scope, options);
  }

  /** Audit events of a namespace, the oldest first. `_platform` has what belongs to none. */
  auditEvents(ns: string, options: AuditOptions = {}): Listing<types.AuditEvent, types.AuditPage> {
    const { from, to, action, profile, outcome, ...rest } = options;
    const query: Query = { from: timeOf(from), to: timeOf(to), action, profile, outcome };
    return this.#control.list(["namespaces", ns, "audit"], (page) => page.events, { ...rest, query });
  }

  /** All that there is of a namespace's audit stream, to be verified by `memoturn audit verify`: lines by `kind`. */
  async *auditExport(ns: string, options?: CallOptions): AsyncGenerator<Record<string, unknown>, void, undefined> {
    const ask = { options, accept: "application/x-ndjson" };
    yield* objectsOf(await this.#control.open("GET", ["namespaces", ns, "audit", "export"], ask));
  }

  /** Every node, and who owns what; `for await` yields the placements. */
  cluster(options?: PageOptions & CallOptions): Listing<types.ClusterPlacement, types.ClusterOverview> {
    return this.#control.list(["cluster"], (page) => page.placements, options);
  }

  /** Where a branch is, `name` or `name@branch`. */
  placement(spec: string, options?: CallOptions): Promise<types.DatabasePlacement> {
    return this.#control.plain("GET", ["db", spec, "placement"], { options });
  }

  /** What the node needs, each `ok`. Throws UnavailableError where something does not answer. */
  ready(options?: CallOptions): Promise<types.Readiness> {
    return this.#root.plain("GET", ["ready"], { options });
  }

  /** Whether the process answers: `ok`. */
  async health(options?: CallOptions): Promise<string> {
    return (await this.#root.send("GET", ["health"], { options, accept: "text/plain" })).text();
  }

  /** The node's metrics, as Prometheus reads them. */
  async metrics(options?: CallOptions): Promise<string> {
    return (await this.#root.send("GET", ["metrics"], { options, accept: "text/plain" })).text();
  }

  /** The description of the API, in OpenAPI 3.1. */
  openapi(options?: CallOptions): Promise<Record<string, unknown>> {
    return this.#root.plain("GET", ["openapi.json"], { options });
  }

  /** The public keys that verify tokens and receipts. */
  publishedKeys(options?: CallOptions): Promise<types.PublishedKeys> {
    return this.#root.plain("GET", [".well-known", "jwks.json"], { options });
  }
}
