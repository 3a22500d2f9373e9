/** What profiles and databases have in common: their branch, its history, its changes, erasures. */

import type { Listing } from "../core/listing.js";
import { path, specOf, timeOf } from "../core/paths.js";
import type { Place } from "../core/positions.js";
import { orNull, Target } from "../core/target.js";
import type { At, CallOptions, PageOptions, Stamp, Time, WriteOptions } from "../options.js";
import type { ErasureTarget } from "../types/inputs.js";
import type * as types from "../types/wire.js";
import { Branches, type ForkOptions } from "./branches.js";
import { type ChangesOptions, changesPage, type FeedEvent, type FollowOptions, follow } from "./changes.js";
import { erasureBody } from "./erasures.js";

export abstract class Branched {
  /** Branches and checkpoints. */
  readonly branch: Branches;
  /** @internal */
  protected readonly target: Target;
  /** @internal The same branch by the routes of databases. */
  protected readonly data: Target;
  readonly #place: Place;

  /** @internal */
  constructor(target: Target, place: Place, spec: string = specOf(place)) {
    path(...target.base);
    this.#place = place;
    this.target = target;
    this.data = new Target(target.transport, ["v1", "db", spec], place);
    this.branch = new Branches(this.data);
  }

  /** Name of the database; a profile's is `{namespace}--{profile}`. */
  get database(): string {
    return this.#place.database;
  }

  get branchName(): string {
    return this.#place.branch;
  }

  /** `name`, or `name@branch`. */
  get spec(): string {
    return specOf(this.#place);
  }

  /** Newest txid of this branch in the answers so far. */
  get lastTxid(): number {
    return this.target.transport.positions.of(this.#place).txid;
  }

  /** Newest txid of this branch that an answer so far said to be in object storage. */
  get lastDurableTxid(): number {
    return this.target.transport.positions.of(this.#place).durableTxid;
  }

  /** Ship until `txid`, the head unless given, is in object storage. */
  sync(options: CallOptions & { txid?: number | undefined } = {}): Promise<types.SyncResult & Stamp> {
    const { txid, ...call } = options;
    return this.data.write("POST", ["sync"], txid === undefined ? undefined : { txid }, call);
  }

  /** Name the head of this branch. */
  checkpoint(name: string, options?: WriteOptions): Promise<types.Checkpoint & Stamp> {
    return this.branch.checkpoint(this.branchName, name, options);
  }

  /** The checkpoints of this branch, oldest first. */
  checkpoints(options?: PageOptions & CallOptions): Listing<types.Checkpoint, types.CheckpointPage> {
    return this.branch.checkpoints(this.branchName, options);
  }

  /** Bring back the state of a revision, as a new commit. */
  rewind(to: At, options?: WriteOptions): Promise<types.RewindResult & Stamp> {
    return this.branch.rewind(this.branchName, to, options);
  }

  /** Take the last rewind of this branch back. */
  undoRewind(options?: WriteOptions): Promise<types.RewindResult & Stamp> {
    return this.branch.undoRewind(this.branchName, options);
  }

  /** Fork this branch, or `from`; with `ttl` in seconds it deletes itself. */
  fork(name: string, options: ForkOptions & WriteOptions = {}): Promise<types.Fork & Stamp> {
    return this.branch.create(name, options);
  }

  /** The commits that can be read, forked and rewound to, the newest first unless `order` says otherwise. */
  restorePoints(
    options: PageOptions &
      CallOptions & {
        order?: "newest" | "oldest" | undefined;
        since?: Time | undefined;
        until?: Time | undefined;
      } = {},
  ): Listing<types.RestorePoint, types.RestorePointPage> {
    const { order, since, until, ...rest } = options;
    const query = { order, since: timeOf(since), until: timeOf(until) };
    return this.data.list(["restore-points"], (page) => page.restore_points, { ...rest, query });
  }

  /** A page of what commits changed; with `waitS` it waits for the first one. */
  changes(options: ChangesOptions & CallOptions = {}): Promise<types.ChangePage & Stamp> {
    return changesPage(this.target, options);
  }

  /**
   * Yield what each commit changes, without gaps, from `since` or from now on. It comes back after a break by itself,
   * until the loop is left or `signal` aborts. A `reset` says that changes were missed: read again what you keep a copy of.
   */
  follow(options: FollowOptions = {}): AsyncGenerator<FeedEvent, void, undefined> {
    return follow(this.target, options);
  }

  /** Erase out of the newest state at once, and out of history after the grace time. */
  erase(
    target: ErasureTarget | readonly ErasureTarget[],
    options: WriteOptions & { graceSecs?: number | undefined } = {},
  ): Promise<types.ErasureRequested & Stamp> {
    const { graceSecs, ...call } = options;
    return this.target.write("POST", ["erasures"], erasureBody(target, graceSecs), call);
  }

  /** Erasures, the newest request first. */
  erasures(options?: PageOptions & CallOptions): Listing<types.ErasureCoupon, types.ErasurePage> {
    return this.target.list(["erasures"], (page) => page.erasures, options);
  }

  /** An erasure, with its receipt once it is completed; null where there is none of that id. */
  erasure(id: string, options?: CallOptions): Promise<types.ErasureCoupon | null> {
    return orNull(this.target.plain<types.ErasureCoupon>("GET", ["erasures", id], { options }));
  }
}
