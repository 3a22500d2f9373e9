/** What callers give to every method, and what every answer says of itself. */

/** A vector: numbers, or a typed array of them. */
export type Embedding = readonly number[] | Float32Array | Float64Array;

/** A time: unix milliseconds, RFC 3339 where the field takes text, or a Date. */
export type Time = number | string | Date;

/** A revision: a txid, a checkpoint's name, `head~3`, RFC 3339 with its zone, unix milliseconds, or a Date. */
export type At = string | number | Date;

/** Rates of a token. */
export interface Rates {
  requestsPerS?: number | undefined;
  writesPerS?: number | undefined;
}

/** What a write waits for: the node's own log, the disks of other nodes too, or object storage. */
export type Durability = "local" | "replicated" | "durable";

/** How new a state a read shows: the newest that anybody was told of, or one that may be a moment old. */
export type Consistency = "primary" | "cached";

/** What a token opens; each with those before it. */
export type Scope = "read" | "write" | "admin";

/** The parts of the API that a token may be limited to, and of which the change feed tells. */
export type Surface = "memory" | "documents" | "kv" | "vectors" | "timelines" | "turns" | "sql" | "branches";

export type Bytes = Uint8Array | ArrayBuffer;

/** The body of an import: bytes, a Blob, a stream, or a function that opens one. */
export type BytesSource = Bytes | Blob | ReadableStream<Uint8Array> | (() => ReadableStream<Uint8Array>);

/** Options of a client. */
export interface MemoturnOptions {
  /** Of a node or a gateway. http://127.0.0.1:8080 unless given. */
  url?: string | undefined;
  /** Token of a database or a namespace. */
  token?: string | undefined;
  /** The operator's key: databases, tokens, quotas. */
  platformKey?: string | undefined;
  /** Tenant whose names are used, with the platform key. */
  tenant?: string | undefined;
  /** `source` of memories that say none. */
  source?: string | undefined;
  /** What sends requests instead of the global `fetch`. */
  fetch?: typeof fetch | undefined;
  /** How often a request is sent again, 3 unless given; 0 switches it off. */
  retries?: number | undefined;
  /** Time of a call with its repeats, 30,000 unless given. */
  timeoutMs?: number | undefined;
  /** Whether reads see the writes that this client made before. True unless given. */
  readYourWrites?: boolean | undefined;
}

/** Options of every method. */
export interface CallOptions {
  /** Ends the call; its promise then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Time of this call with its repeats, in place of the client's. */
  timeoutMs?: number | undefined;
}

/** Options of what reads one state of a branch. */
export interface ReadOptions extends CallOptions {
  /** Revision of the past state to show, instead of the newest. */
  at?: At | undefined;
  /** The state shown is at or above this txid, else PreconditionFailedError after 2 s. 0 asks for nothing. */
  minTxid?: number | undefined;
  consistency?: Consistency | undefined;
}

/** Options of what changes a branch. */
export interface WriteOptions extends CallOptions {
  /** What the write waits for; it only raises what the database has. */
  durability?: Durability | undefined;
  /** 1 to 255 visible ASCII characters under which the write takes effect once; one is made unless given. */
  idempotencyKey?: string | undefined;
}

/** Which rows of a listing a page has. */
export interface PageOptions {
  /** Rows of a page. */
  limit?: number | undefined;
  /** `next_cursor` of the page before. */
  cursor?: string | undefined;
}

/** What an answer says of the state that it shows or made. */
export interface Stamp {
  /** Txid of that state; 0 of a profile that was never written. */
  txid: number;
  /** Newest txid of the branch that object storage has. */
  durable_txid: number;
  /** The level that a write reached. */
  durability?: Durability;
  /** An earlier request with the same idempotency key has had this answer. */
  replayed?: true;
  /** Of a read that a copy answered: how long ago that was known to be the newest state. */
  replica_age_ms?: number;
}
