/** Collections of vectors under ids of the caller's own. */

import { wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { apart, orNull, type Target } from "../core/target.js";
import type { Embedding, PageOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import type { VectorInput, VectorSearchBody } from "../types/inputs.js";
import type * as types from "../types/wire.js";
import type { Filter } from "./collection.js";

export type VectorSearchOptions = Omit<VectorSearchBody, "vector">;

/** A page of ids; `vectors` where metadata was asked for. */
export type VectorIds = types.VectorPage & Stamp;

export class Vectors {
  readonly #vectors: Target;

  /** @internal */
  constructor(data: Target) {
    this.#vectors = data.below("vectors");
  }

  /** Store a vector under an id, in place of what is there. The first one fixes the collection's dimension. */
  upsert(
    collection: string,
    id: string,
    embedding: Embedding,
    options: WriteOptions & { metadata?: object | undefined } = {},
  ): Promise<types.VectorUpsertResult & Stamp> {
    const { metadata, ...call } = options;
    return this.#vectors.write("POST", [collection], wire({ id, embedding, metadata }), call);
  }

  /** Store up to 1000 as one commit. */
  upsertMany(
    collection: string,
    vectors: readonly VectorInput[],
    options?: WriteOptions,
  ): Promise<types.VectorsUpsertResult & Stamp> {
    return this.#vectors.write("POST", [collection], { vectors: vectors.map(wire) }, options);
  }

  /** The nearest, by cosine, of those that a filter of the metadata lets through. */
  search(
    collection: string,
    vector: Embedding,
    options: VectorSearchOptions & ReadOptions = {},
  ): Promise<types.VectorSearchResult & Stamp> {
    const [call, asked] = apart(options);
    return this.#vectors.read([collection, "search"], call, { method: "POST", body: wire({ ...asked, vector }) });
  }

  /** A vector, null where there is none of that id. */
  get(collection: string, id: string, options?: ReadOptions): Promise<(types.StoredVector & Stamp) | null> {
    return orNull(this.#vectors.read<types.StoredVector>([collection, id], options, { one: true }));
  }

  /** Ids, ascending. */
  list(collection: string, options: PageOptions & ReadOptions = {}): Listing<string, VectorIds> {
    return this.#vectors.list([collection], (page) => page.ids, options, true);
  }

  /** The same with the metadata of each. */
  entries(collection: string, options: PageOptions & ReadOptions = {}): Listing<types.VectorInfo, VectorIds> {
    const query = { metadata: true };
    return this.#vectors.list([collection], (page: VectorIds) => page.vectors ?? [], { ...options, query }, true);
  }

  /** Delete a vector; no error where there is none of that id. */
  delete(collection: string, id: string, options?: WriteOptions): Promise<Stamp> {
    return this.#vectors.remove([collection, id], options);
  }

  /** Delete up to 1000 by their ids, or all that a filter of the metadata lets through. */
  deleteMany(
    collection: string,
    which: readonly string[] | { filter: Filter },
    options?: WriteOptions,
  ): Promise<types.VectorsDeleteResult & Stamp> {
    const body = Array.isArray(which) ? { ids: which } : which;
    return this.#vectors.write("POST", [collection, "delete"], body, options);
  }

  /** The collections, by name. */
  collections(
    options: PageOptions & ReadOptions = {},
  ): Listing<types.VectorCollectionInfo, types.VectorCollectionPage & Stamp> {
    return this.#vectors.list([], (page) => page.collections, options, true);
  }

  /** Drop a collection; no error where there is none. */
  drop(collection: string, options?: WriteOptions): Promise<Stamp> {
    return this.#vectors.remove([collection], options);
  }
}
