/** The directory of databases, and of tenants. */

import { bytesSource } from "../core/bodies.js";
import type { Listing } from "../core/listing.js";
import { orNull, type Target } from "../core/target.js";
import type { BytesSource, CallOptions, PageOptions, WriteOptions } from "../options.js";
import type * as types from "../types/wire.js";

/** The databases of the tenant, those of profiles included. */
export class Databases {
  readonly #root: Target;

  /** @internal */
  constructor(root: Target) {
    this.#root = root.below("databases");
  }

  /** Create a database; only its name is written. Throws AlreadyExistsError. */
  create(name: string, options?: WriteOptions): Promise<types.DatabaseInfo> {
    return this.#root.plain("POST", [], { body: { name }, writes: true, options });
  }

  /** Databases by name; with `deleted` those that can still be undeleted. */
  list(
    options: PageOptions & CallOptions & { prefix?: string | undefined; deleted?: boolean | undefined } = {},
  ): Listing<types.DatabaseInfo, types.DatabasePage> {
    const { prefix, deleted, ...rest } = options;
    return this.#root.list([], (page) => page.databases, { ...rest, query: { prefix: prefix || undefined, deleted } });
  }

  /** Delete a database with all its branches; its name is free at once. Throws DatabaseNotFoundError. */
  async delete(name: string, options?: WriteOptions): Promise<void> {
    await this.#root.send("DELETE", [name], { writes: true, options });
    this.#root.transport.positions.forget(name);
  }

  /** Bring back the one that was deleted last under a name, or the one with that `uuid`. */
  async undelete(
    name: string,
    options: WriteOptions & { uuid?: string | undefined } = {},
  ): Promise<types.DatabaseInfo> {
    const { uuid, ...call } = options;
    this.#root.transport.positions.forget(name);
    const body = uuid === undefined ? undefined : { uuid };
    return this.#root.plain("POST", [name, "undelete"], { body, writes: true, options: call });
  }

  /** Make a new database of a SQLite file; or with `branch` a new branch of one that exists, with `ttl` for so many seconds. */
  import(
    name: string,
    source: BytesSource,
    options: CallOptions & { branch?: string | undefined; ttl?: number | undefined } = {},
  ): Promise<types.ImportedDatabase> {
    const { branch, ttl, ...call } = options;
    const ask = { ...bytesSource(source), contentType: "application/vnd.sqlite3", query: { branch, ttl } };
    return this.#root.plain("PUT", [name, "import"], { ...ask, options: call });
  }
}

/** Tenants. The platform key's. */
export class Tenants {
  readonly #root: Target;

  /** @internal */
  constructor(root: Target) {
    this.#root = root.below("tenants");
  }

  create(name: string, options?: WriteOptions): Promise<types.TenantInfo> {
    return this.#root.plain("POST", [], { body: { name }, writes: true, options });
  }

  list(options?: PageOptions & CallOptions): Listing<types.TenantInfo, types.TenantPage> {
    return this.#root.list([], (page) => page.tenants, options);
  }

  /** A tenant, null where there is none. */
  get(name: string, options?: CallOptions): Promise<types.TenantInfo | null> {
    return orNull(this.#root.plain<types.TenantInfo>("GET", [name], { options }));
  }

  /** Delete a tenant. Throws ConflictError while it has a database. */
  async delete(name: string, options?: WriteOptions): Promise<void> {
    await this.#root.send("DELETE", [name], { writes: true, options });
  }
}
