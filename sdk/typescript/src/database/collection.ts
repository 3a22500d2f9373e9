/** A collection of documents. */

import { wire } from "../core/encoding.js";
import { Listing } from "../core/listing.js";
import { apart, type Target } from "../core/target.js";
import type { PageOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import type * as types from "../types/wire.js";

/** Fields by which to sort, the first one first: 1 ascending, -1 descending. */
export type Sort = Readonly<Record<string, 1 | -1>>;

/** What documents have to be like, as in `{ status: "open", "price.net": { $lt: 10 } }`. */
export type Filter = Readonly<Record<string, unknown>>;

/** Operators with fields and values, as in `{ $set: { status: "done" }, $inc: { count: 1 } }`. */
export type Update = Readonly<Record<`$${string}`, object>>;

export type Document = Record<string, unknown>;

/** A document as it comes back: with its id. */
export type Stored<T> = T & { _id: string };

export interface FindOptions extends ReadOptions, PageOptions {
  sort?: Sort | undefined;
  /** Documents to leave out before the first; not together with `cursor`. */
  skip?: number | undefined;
  /** Fields to show, each true; or to leave out, each false. */
  projection?: Readonly<Record<string, boolean | 0 | 1>> | undefined;
}

export interface FindPage<T> extends Stamp {
  docs: Stored<T>[];
  next_cursor: string | null;
}

export class Collection<T extends object = Document> {
  readonly name: string;
  readonly #docs: Target;

  /** @internal */
  constructor(data: Target, name: string) {
    this.name = name;
    this.#docs = data.below("docs", name);
  }

  /** Insert documents, all or none; one without `_id` gets one. */
  insert(docs: readonly T[], options?: WriteOptions): Promise<types.InsertResult & Stamp> {
    return this.#docs.write("POST", ["insert"], { docs }, options);
  }

  /** Documents that match: `await` gives the first page, `for await` all of them. */
  find(filter: Filter = {}, options: FindOptions = {}): Listing<Stored<T>, FindPage<T>> {
    const { cursor, ...rest } = options;
    const [call, asked] = apart(rest);
    const page = (at: string | undefined) => {
      // A page behind a cursor begins where it says.
      const skip = at === undefined ? asked.skip : undefined;
      const body = { ...wire({ ...asked, skip, cursor: at }), filter };
      return this.#docs.read<FindPage<T>>(["find"], call, { method: "POST", body });
    };
    return new Listing(page, (found) => found.docs, cursor);
  }

  /** The first document that matches, null where none does. */
  async findOne(filter: Filter = {}, options: Omit<FindOptions, "limit"> = {}): Promise<Stored<T> | null> {
    return (await this.find(filter, { ...options, limit: 1 })).docs[0] ?? null;
  }

  /** How many match. */
  async count(filter: Filter = {}, options?: ReadOptions): Promise<number> {
    const body = { filter };
    return (await this.#docs.read<types.CountResult>(["count"], options, { method: "POST", body })).count;
  }

  /** The different scalars of a field, ascending. */
  distinct(
    path: string,
    filter: Filter = {},
    options: ReadOptions & { limit?: number | undefined } = {},
  ): Promise<types.DistinctResult & Stamp> {
    const { limit, ...call } = options;
    return this.#docs.read(["distinct"], call, { method: "POST", body: wire({ path, filter, limit }) });
  }

  /** Update the first that matches by `sort`, or with `multi` all; with `upsert` insert one where none does. */
  update(
    filter: Filter,
    update: Update,
    options: WriteOptions & {
      multi?: boolean | undefined;
      sort?: Sort | undefined;
      upsert?: boolean | undefined;
    } = {},
  ): Promise<types.UpdateResult & Stamp> {
    const [call, asked] = apart(options);
    return this.#docs.write("POST", ["update"], { ...wire(asked), filter, update }, call);
  }

  /** Delete the first that matches by `sort`, or with `multi` all. */
  delete(
    filter: Filter,
    options: WriteOptions & { multi?: boolean | undefined; sort?: Sort | undefined } = {},
  ): Promise<types.DeleteResult & Stamp> {
    const [call, asked] = apart(options);
    return this.#docs.write("POST", ["delete"], { ...wire(asked), filter }, call);
  }

  /** Make an index; with `unique` no two documents hold equal values there. */
  createIndex(
    path: string,
    options: WriteOptions & { unique?: boolean | undefined } = {},
  ): Promise<types.IndexResult & Stamp> {
    const { unique, ...call } = options;
    return this.#docs.write("POST", ["indexes"], wire({ path, unique }), call);
  }

  /** The indexes, by path. */
  indexes(options?: ReadOptions): Promise<types.IndexList & Stamp> {
    return this.#docs.read(["indexes"], options);
  }

  /** Drop an index; no error where there is none. */
  dropIndex(path: string, options?: WriteOptions): Promise<Stamp> {
    return this.#docs.remove(["indexes", path], options);
  }

  /** Drop the collection with its documents and indexes; no error where there is none. */
  drop(options?: WriteOptions): Promise<Stamp> {
    return this.#docs.remove([], options);
  }
}
