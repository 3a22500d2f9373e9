/** Branches of a database, their checkpoints, and rewinds. What they change is durable when they answer. */

import { wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { revision } from "../core/paths.js";
import { Target } from "../core/target.js";
import type { At, CallOptions, PageOptions, Stamp, WriteOptions } from "../options.js";
import type * as types from "../types/wire.js";

/** Where a fork begins, and how long it lives. */
export interface ForkOptions {
  /** The branch to fork, in place of the one addressed. */
  from?: string | undefined;
  /** A revision; the head unless given. */
  at?: At | undefined;
  checkpoint?: string | undefined;
  /** Seconds. */
  ttl?: number | undefined;
}

export class Branches {
  readonly #db: Target;

  /** @internal */
  constructor(db: Target) {
    this.#db = db;
  }

  /** Fork a branch; no data is copied. */
  create(name: string, options: ForkOptions & WriteOptions = {}): Promise<types.Fork & Stamp> {
    const { from, at, checkpoint, ttl, ...call } = options;
    const body = wire({ name, from, checkpoint, ttl });
    if (at !== undefined) body["at"] = revision(at);
    return this.#of(name).write("POST", ["branches"], body, call);
  }

  /** Branches by name, without main; with `deleted` those that can still be undeleted. */
  list(
    options: PageOptions & CallOptions & { deleted?: boolean | undefined } = {},
  ): Listing<types.BranchInfo, types.BranchPage> {
    const { deleted, ...rest } = options;
    return this.#db.list(["branches"], (page) => page.branches, { ...rest, query: { deleted } });
  }

  /** Delete a branch; no error where there is none. It can be undeleted for a grace. */
  async delete(name: string, options?: WriteOptions): Promise<Stamp> {
    const stamp = await this.#of(undefined).remove(["branches", name], options);
    const { place, transport } = this.#db;
    if (place) transport.positions.forget(place.database, name);
    return stamp;
  }

  /** Bring back the branch that was deleted last under that name. */
  undelete(name: string, options?: WriteOptions): Promise<types.Fork & Stamp> {
    return this.#of(undefined).write("POST", ["branches", name, "undelete"], undefined, options);
  }

  /** Name the head of a branch; a name that exists moves. */
  checkpoint(branch: string, name: string, options?: WriteOptions): Promise<types.Checkpoint & Stamp> {
    return this.#of(branch).write("POST", ["branches", branch, "checkpoint"], { name }, options);
  }

  /** Checkpoints of a branch, oldest first. */
  checkpoints(branch: string, options?: PageOptions & CallOptions): Listing<types.Checkpoint, types.CheckpointPage> {
    return this.#db.list(["branches", branch, "checkpoints"], (page) => page.checkpoints, options);
  }

  /** Delete a checkpoint. Throws BranchNotFoundError where there is none of that name. */
  deleteCheckpoint(branch: string, name: string, options?: WriteOptions): Promise<Stamp> {
    return this.#of(undefined).remove(["branches", branch, "checkpoints", name], options);
  }

  /** Bring back the state of a revision, as a new commit. Throws BranchNotFoundError, ConflictError. */
  rewind(branch: string, to: At, options?: WriteOptions): Promise<types.RewindResult & Stamp> {
    const body = { to: revision(to) };
    return this.#of(branch).write("POST", ["branches", branch, "rewind"], body, options);
  }

  /** Bring back the state from before the last rewind. Throws ConflictError where commits came after it. */
  undoRewind(branch: string, options?: WriteOptions): Promise<types.RewindResult & Stamp> {
    return this.#of(branch).write("POST", ["branches", branch, "rewind", "undo"], undefined, options);
  }

  /** Return the routes, with the branch whose txids their answers tell: none where they tell none. */
  #of(branch: string | undefined): Target {
    const { place, transport, base } = this.#db;
    const told = place && branch !== undefined ? { database: place.database, branch } : undefined;
    return new Target(transport, base, told);
  }
}
