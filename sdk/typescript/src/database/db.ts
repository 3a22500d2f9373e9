/** One branch of a database: SQL, documents, key-values, vectors, timelines, transcripts. */

import { bytesOf, toBase64, unblob, wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { invalid, placeOf } from "../core/paths.js";
import { Download, objectsOf } from "../core/streams.js";
import { apart, Target } from "../core/target.js";
import type { Transport } from "../core/transport.js";
import { UnknownOutcomeError } from "../errors.js";
import { TranscriptSession } from "../memory/session.js";
import type { At, CallOptions, PageOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import type { TurnSearch } from "../types/inputs.js";
import type * as types from "../types/wire.js";
import { Branched } from "./branched.js";
import { Collection, type Document } from "./collection.js";
import { KeyValues } from "./kv.js";
import { Timelines } from "./timelines.js";
import { Vectors } from "./vectors.js";

/** A value of a parameter: other arrays and objects are bound as JSON text. */
export type SqlParam =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | ArrayBuffer
  | readonly unknown[]
  | object;

/** A value of a row. */
export type SqlValue = null | number | string | Uint8Array;

export interface Statement {
  q: string;
  params?: readonly SqlParam[] | undefined;
}

export interface SqlRows {
  columns: string[];
  rows: SqlValue[][];
  rows_affected: number;
}

/** Outcome of a proof, with what was found. */
export interface Verification {
  outcome: "clean" | "damaged" | "unfinished";
  findings: Finding[];
  [field: string]: unknown;
}

export interface Finding {
  kind: "missing" | "damaged" | "contradiction" | "unrestorable";
  branch: string;
  key: string;
  what: string;
  [field: string]: unknown;
}

export interface VerifyOptions extends CallOptions {
  /** Restore every state, and not a sample. */
  deep?: boolean | undefined;
  /** Draws an earlier sample again. */
  seed?: string | undefined;
  /** Called with how many objects and states are checked, of those known so far. */
  onProgress?: ((checked: number, of: number) => void) | undefined;
}

export class Db extends Branched {
  readonly kv: KeyValues;
  readonly vectors: Vectors;
  readonly timelines: Timelines;

  /** @internal */
  constructor(transport: Transport, spec: string) {
    const place = placeOf(spec);
    super(new Target(transport, ["v1", "db", spec], place), place, spec);
    this.kv = new KeyValues(this.data);
    this.vectors = new Vectors(this.data);
    this.timelines = new Timelines(this.data);
  }

  /** The same database on another branch. */
  onBranch(branch: string): Db {
    return new Db(this.target.transport, `${this.database}@${branch}`);
  }

  /** A collection of documents; `T` is what they are like. */
  collection<T extends object = Document>(name: string): Collection<T> {
    return new Collection<T>(this.data, name);
  }

  /** The collections of documents, by name. */
  collections(options: PageOptions & ReadOptions = {}): Listing<types.CollectionInfo, types.CollectionPage & Stamp> {
    return this.data.list(["docs"], (page) => page.collections, options, true);
  }

  /** The transcript of a session. */
  session(id: string): TranscriptSession {
    return new TranscriptSession(this.data, id);
  }

  /** Turns of every session, by their words, by a vector, or both. */
  searchTurns(search: TurnSearch & ReadOptions): Promise<types.TurnSearchResult & Stamp> {
    const [call, asked] = apart(search);
    return this.data.read(["memory", "search"], call, { method: "POST", body: wire(asked) });
  }

  /** Run one statement. */
  async sql(q: string, params?: readonly SqlParam[], options?: ReadOptions & WriteOptions): Promise<SqlRows & Stamp> {
    const { results, ...stamp } = await this.batch([{ q, params }], options);
    const [rows] = results;
    if (!rows) throw invalid("the answer has no result");
    return { ...rows, ...stamp };
  }

  /** Run statements as one transaction: all or none. One that only reads is a read. */
  async batch(
    statements: readonly Statement[],
    options?: ReadOptions & WriteOptions,
  ): Promise<{ results: SqlRows[] } & Stamp> {
    const stmts = statements.map(({ q, params }) => wire({ q, params: params?.map(bound) }));
    const ask = { body: { stmts }, reads: true, writes: true, options };
    const answer = await this.data.send("POST", ["sql"], ask);
    const result = answer.stamped<{ results: SqlRows[] }>();
    for (const each of result.results) each.rows = each.rows.map((row) => row.map((v) => unblob(v) as SqlValue));
    return result;
  }

  /** The state, or an earlier one, as one plain SQLite file. */
  async export(options: CallOptions & { at?: At | undefined } = {}): Promise<Download> {
    const ask = { options, reads: true, accept: "application/vnd.sqlite3" };
    return new Download(await this.data.open("GET", ["export"], ask));
  }

  /** Prove all that object storage has of the database, or of this branch where it is not main. */
  async verify(options: VerifyOptions = {}): Promise<Verification> {
    const { deep, seed, onProgress, ...call } = options;
    const ask = { query: { deep, seed }, options: call, accept: "application/x-ndjson" };
    const findings: Finding[] = [];
    for await (const { event, ...fields } of objectsOf(await this.data.open("POST", ["verify"], ask))) {
      if (event === "progress") onProgress?.(Number(fields["checked"]), Number(fields["of"]));
      else if (event === "finding") findings.push(fields as unknown as Finding);
      else if (event === "summary") return { ...fields, findings } as unknown as Verification;
    }
    throw new UnknownOutcomeError("the verification ended before its summary: verify again", {
      code: "unknown_outcome",
    });
  }

  /** Levels that the writes of the database wait for, by surface. */
  settings(options?: CallOptions): Promise<types.DatabaseSettings> {
    return this.data.plain("GET", ["settings"], { options });
  }

  /** Set them, in place of what was set before. */
  setSettings(settings: types.DatabaseSettings, options?: CallOptions): Promise<types.DatabaseSettings> {
    return this.data.plain("PUT", ["settings"], { body: settings, writes: true, options });
  }
}

function bound(value: SqlParam): unknown {
  if (typeof value === "bigint") {
    if (!Number.isSafeInteger(Number(value))) {
      throw invalid(`the parameter ${value} is beyond 2^53: bind it as text and cast it in the statement`);
    }
    return Number(value);
  }
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return { $base64: toBase64(bytesOf(value)) };
  return value;
}
