/** Key-values: bytes under keys, with conditions, lifetimes and metadata. */

import { asciiJson, bytesOf, toBase64, unblob, utf8, wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { invalid } from "../core/paths.js";
import { orNull, type Target } from "../core/target.js";
import { type Answer, type Body, numberOf } from "../core/transport.js";
import type { Bytes, PageOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import type * as types from "../types/wire.js";

/** What is stored: bytes, or text, which is stored as UTF-8. */
export type Value = string | Bytes;

/** Conditions on what is there: an ETag, or `*`. */
export interface Conditions {
  ifMatch?: string | undefined;
  ifNoneMatch?: string | undefined;
}

export interface PutOptions extends WriteOptions, Conditions {
  /** Seconds. */
  ttl?: number | undefined;
  metadata?: object | undefined;
}

/** A value with what is known of it. */
export interface KvValue extends Stamp {
  value: Uint8Array;
  etag: string;
  metadata: Record<string, unknown> | null;
  expires_at: number | null;
}

/** What a listing knows of a key; `value` where it was asked for: text, or bytes where it is no UTF-8. */
export interface KvEntry {
  key: string;
  etag: string;
  size_bytes: number;
  metadata: Record<string, unknown> | null;
  expires_at: number | null;
  value?: string | Uint8Array;
}

export interface KeyPage extends Stamp {
  keys: string[];
  next_cursor: string | null;
}

export interface EntryPage extends KeyPage {
  entries: KvEntry[];
}

/** Keys to get, put and delete as one commit; the gets show what was there before it. */
export interface KvBatch {
  gets?: readonly string[] | undefined;
  puts?:
    | readonly ({ key: string; value: Value; ttl?: number | undefined; metadata?: object | undefined } & Conditions)[]
    | undefined;
  deletes?: readonly (string | ({ key: string } & Conditions))[] | undefined;
  /** Leave out the items whose condition does not hold, instead of doing nothing. */
  partial?: boolean | undefined;
}

/** A key as it was before a batch: the whole entry where it is found. */
export type KvGot = Omit<types.WireKvGot, "value"> & { value?: string | Uint8Array };

export interface KvBatchResult extends Stamp {
  gets: KvGot[];
  puts: types.KvPutOutcome[];
  deletes: types.KvDeleteOutcome[];
}

const OCTETS = "application/octet-stream";
const NOT_MODIFIED = 304;

export class KeyValues {
  readonly #kv: Target;

  /** @internal */
  constructor(data: Target) {
    this.#kv = data.below("kv");
  }

  /** Set a value. Throws PreconditionFailedError where a condition does not hold. */
  async put(ns: string, key: string, value: Value, options: PutOptions = {}): Promise<Stamp & { etag: string }> {
    const { ttl, metadata, ifMatch, ifNoneMatch, ...call } = options;
    const meta = metadata === undefined ? undefined : asciiJson(metadata);
    const answer = await this.#kv.send("PUT", [ns, key], {
      writes: true,
      query: { ttl },
      headers: { ...conditions({ ifMatch, ifNoneMatch }), "memoturn-meta": meta },
      // Bytes of its own: text would be sent with a content type that says so.
      data: () => (typeof value === "string" ? utf8(value) : bytesOf(value)) as Body,
      contentType: OCTETS,
      options: call,
    });
    return { ...answer.stamped<object>(), etag: etagOf(answer) };
  }

  /** The bytes of a value, null where there is none or it has expired. */
  async get(ns: string, key: string, options?: ReadOptions): Promise<Uint8Array | null> {
    return (await this.entry(ns, key, options))?.value ?? null;
  }

  /** The same as text. Throws InvalidRequestError where it is no UTF-8. */
  async getText(ns: string, key: string, options?: ReadOptions): Promise<string | null> {
    const value = await this.get(ns, key, options);
    if (value === null) return null;
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
    } catch (cause) {
      throw invalid(`the value of ${key} is no UTF-8: get it as bytes`, cause);
    }
  }

  /** A value with its ETag, metadata and end. */
  async entry(
    ns: string,
    key: string,
    options: ReadOptions & { ifMatch?: string | undefined } = {},
  ): Promise<KvValue | null> {
    const { ifMatch, ...call } = options;
    const answer = await this.#get(ns, key, { ifMatch }, call);
    return answer && valueIn(answer);
  }

  /** The same unless the ETag is still that one: then `"unchanged"`, and no bytes are sent. */
  async entryIfChanged(
    ns: string,
    key: string,
    etag: string,
    options?: ReadOptions,
  ): Promise<KvValue | "unchanged" | null> {
    const answer = await this.#get(ns, key, { ifNoneMatch: etag }, options);
    if (answer?.status === NOT_MODIFIED) return "unchanged";
    return answer && valueIn(answer);
  }

  /** Live keys, ascending. */
  list(
    ns: string,
    options: PageOptions & ReadOptions & { prefix?: string | undefined } = {},
  ): Listing<string, KeyPage> {
    const { prefix, ...rest } = options;
    return this.#kv.list([ns], (page) => page.keys, { ...rest, query: { prefix: prefix || undefined } }, true);
  }

  /** The same with what is known of each, and their values unless `values` is false. */
  entries(
    ns: string,
    options: PageOptions & ReadOptions & { prefix?: string | undefined; values?: boolean | undefined } = {},
  ): Listing<KvEntry, EntryPage> {
    const { prefix, values = true, ...rest } = options;
    const query = { prefix: prefix || undefined, values, metadata: !values };
    return this.#kv.list([ns], (page: EntryPage) => page.entries.map(decoded), { ...rest, query }, true);
  }

  /** Remove a value; no error where there is none. */
  async delete(ns: string, key: string, options: WriteOptions & Conditions = {}): Promise<Stamp> {
    const { ifMatch, ifNoneMatch, ...call } = options;
    const headers = conditions({ ifMatch, ifNoneMatch });
    return (await this.#kv.send("DELETE", [ns, key], { writes: true, headers, options: call })).stamp();
  }

  /** Add `by` (1) to a number, 0 where there is none. `ttl` in seconds gives a lifetime to one that has none. */
  increment(
    ns: string,
    key: string,
    options: WriteOptions & { by?: number | undefined; ttl?: number | undefined } = {},
  ): Promise<types.IncrementResult & Stamp> {
    const { by, ttl, ...call } = options;
    return this.#kv.write("POST", [ns, key, "increment"], wire({ by, ttl }), call);
  }

  /** Get, put and delete up to 1000 keys as one commit. */
  async batch(ns: string, batch: KvBatch, options?: WriteOptions): Promise<KvBatchResult> {
    const { gets, puts, deletes, partial } = batch;
    const body = wire({
      gets,
      puts: puts?.map((put) => ({ ...wire(put), value: encoded(put.value) })),
      deletes: deletes?.map((item) => (typeof item === "string" ? item : wire(item))),
      partial,
    });
    const result = await this.#kv.write<KvBatchResult>("POST", [ns], body, options);
    return { ...result, gets: result.gets.map(decoded) };
  }

  #get(ns: string, key: string, asked: Conditions, options: ReadOptions | undefined): Promise<Answer | null> {
    const ask = { reads: true, one: true, headers: conditions(asked), accept: OCTETS, options };
    return orNull(this.#kv.send("GET", [ns, key], ask));
  }
}

function conditions({ ifMatch, ifNoneMatch }: Conditions): Record<string, string | undefined> {
  return { "if-match": ifMatch, "if-none-match": ifNoneMatch };
}

function etagOf(answer: Answer): string {
  return answer.headers.get("etag") ?? "";
}

function valueIn(answer: Answer): KvValue {
  const meta = answer.headers.get("memoturn-meta");
  return {
    ...answer.stamp(),
    value: new Uint8Array(answer.body),
    etag: etagOf(answer),
    metadata: meta === null ? null : (JSON.parse(meta) as Record<string, unknown>),
    expires_at: numberOf(answer.headers, "memoturn-expires-at"),
  };
}

function encoded(value: Value): string | { $base64: string } {
  return typeof value === "string" ? value : { $base64: toBase64(bytesOf(value)) };
}

function decoded<T extends object>(entry: T): T {
  return "value" in entry ? { ...entry, value: unblob(entry.value) } : entry;
}
