/** Timelines: rows with a key, a time and data, in the order of their times. */

import { wire } from "../core/encoding.js";
import { Listing } from "../core/listing.js";
import { apart, orNull, type Target } from "../core/target.js";
import type { PageOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import type { TimelineAggregate, TimelineQuery, TimelineRetention, TimelineRowInput } from "../types/inputs.js";
import type * as types from "../types/wire.js";

export type RowQuery = Omit<TimelineQuery, "aggregate">;

export class Timelines {
  readonly #timelines: Target;

  /** @internal */
  constructor(data: Target) {
    this.#timelines = data.below("timelines");
  }

  /** Append a row, or up to 10,000 as one commit. */
  append(
    timeline: string,
    rows: TimelineRowInput | readonly TimelineRowInput[],
    options?: WriteOptions,
  ): Promise<types.TimelineAppendResult & Stamp> {
    const body = Array.isArray(rows) ? { rows: rows.map(wire) } : wire(rows);
    return this.#timelines.write("POST", [timeline, "rows"], body, options);
  }

  /** Rows of a window of time, the newest first unless `order` says otherwise. */
  query(
    timeline: string,
    query: RowQuery & ReadOptions = {},
  ): Listing<types.TimelineRow, types.TimelineRowPage & Stamp> {
    return this.#query(timeline, query, (page: types.TimelineRowPage & Stamp) => page.rows);
  }

  /** Counts, and with a `path` sums, extremes and averages, per window of time, of each key with `byKey`. */
  aggregate(
    timeline: string,
    aggregate: TimelineAggregate,
    query: RowQuery & ReadOptions = {},
  ): Listing<types.TimelineWindow, types.TimelineWindowPage & Stamp> {
    const asked = { ...query, aggregate: wire(aggregate) };
    return this.#query(timeline, asked, (page: types.TimelineWindowPage & Stamp) => page.windows);
  }

  /** What is known of a timeline, null where there is none. */
  get(timeline: string, options?: ReadOptions): Promise<(types.TimelineInfo & Stamp) | null> {
    return orNull(this.#timelines.read<types.TimelineInfo>([timeline], options, { one: true }));
  }

  /** The timelines, by name. */
  list(options: PageOptions & ReadOptions = {}): Listing<types.TimelineInfo, types.TimelinePage & Stamp> {
    return this.#timelines.list([], (page) => page.timelines, options, true);
  }

  /** Bound a timeline by the age of its rows, or by their number for each key; it is made if need be. */
  configure(
    timeline: string,
    retention: TimelineRetention,
    options?: WriteOptions,
  ): Promise<types.TimelineRetained & Stamp> {
    return this.#timelines.write("PUT", [timeline], wire(retention), options);
  }

  /** Delete a timeline; no error where there is none. */
  delete(timeline: string, options?: WriteOptions): Promise<Stamp> {
    return this.#timelines.remove([timeline], options);
  }

  #query<T, P extends { next_cursor?: string | null } & Stamp>(
    timeline: string,
    query: RowQuery & ReadOptions,
    rows: (page: P) => readonly T[],
  ): Listing<T, P> {
    const { cursor, ...rest } = query;
    const [call, asked] = apart(rest);
    const page = (at: string | undefined) => {
      const body = wire({ ...asked, cursor: at });
      return this.#timelines.read<P>([timeline, "query"], call, { method: "POST", body });
    };
    return new Listing<T, P>(page, rows, cursor ?? undefined);
  }
}
