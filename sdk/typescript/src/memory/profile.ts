/** A memory profile: typed memories that are ingested, recalled, forked and rewound as one unit. */

import { bytesSource } from "../core/bodies.js";
import { wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { MAIN, type Query } from "../core/paths.js";
import { Download } from "../core/streams.js";
import { apart, orNull, Target } from "../core/target.js";
import type { Transport } from "../core/transport.js";
import { Branched } from "../database/branched.js";
import { Db } from "../database/db.js";
import type { At, BytesSource, CallOptions, PageOptions, ReadOptions, Stamp, Time, WriteOptions } from "../options.js";
import type {
  AskBody,
  ExtractBody,
  ForgetQuery,
  IngestItem,
  MemoryPatch,
  RecallQuery,
  ReembedOptions,
  TurnSaid,
} from "../types/inputs.js";
import type * as types from "../types/wire.js";
import { type AskEvent, askEvents } from "./asking.js";
import { TranscriptSession } from "./session.js";

/** Which memories a list has. */
export interface ListOptions extends PageOptions, ReadOptions {
  types?: readonly types.Memory["type"][] | undefined;
  topicKey?: string | undefined;
  topicPrefix?: string | undefined;
  sessionId?: string | undefined;
  source?: string | undefined;
  pinned?: boolean | undefined;
  since?: Time | undefined;
  until?: Time | undefined;
  includeSuperseded?: boolean | undefined;
  order?: "newest" | "oldest" | "most_important" | "least_important" | undefined;
}

export type AskOptions = Omit<AskBody, "question" | "stream">;
export type ExtractOptions = Omit<ExtractBody, "turns">;

/**
 * One branch of a profile, which is made by its first ingest. Nothing is sent before a method is called.
 *
 * Reads take `at`, a revision, and then answer what they would have answered at that commit.
 */
export class MemoryProfile extends Branched {
  readonly namespace: string;
  readonly profile: string;

  /** @internal */
  constructor(transport: Transport, namespace: string, profile: string, branch: string = MAIN) {
    const place = { database: `${namespace}--${profile}`, branch };
    const query: Query = branch === MAIN ? {} : { branch };
    super(new Target(transport, ["v1", "memory", namespace, profile], place, query), place);
    this.namespace = namespace;
    this.profile = profile;
  }

  /** The same profile on another branch. */
  onBranch(branch: string): MemoryProfile {
    return new MemoryProfile(this.target.transport, this.namespace, this.profile, branch);
  }

  /** The database of this branch: its documents, key-values, vectors, timelines and tables. */
  get db(): Db {
    return new Db(this.target.transport, this.spec);
  }

  /** The transcript of a session on this branch. */
  session(id: string): TranscriptSession {
    return new TranscriptSession(this.data, id);
  }

  /**
   * Store up to 1000 memories as one commit. What has the same type, topic and content is the same memory; `content` is
   * `{ summary }` unless given. The outcomes are in the order of the items. With `onError: "skip"`
   * what is wrong with one of them keeps the others from nothing.
   */
  ingest(
    items: readonly IngestItem[],
    options: WriteOptions & { onError?: "fail" | "skip" | undefined } = {},
  ): Promise<types.IngestResult & Stamp> {
    const { onError, ...call } = options;
    const memories = items.map((item) => this.#item(item));
    return this.target.write("POST", ["memories"], wire({ memories, onError }), call);
  }

  /** Find memories by any of a query, an embedding and a topic, best first. An unknown profile recalls nothing. */
  recall(query: string | (RecallQuery & ReadOptions), options: ReadOptions = {}): Promise<types.RecallResult & Stamp> {
    const [call, asked] = apart(typeof query === "string" ? { query, ...options } : { ...query, ...options });
    const body = { ...wire(asked), ...(asked.decay ? { decay: wire(asked.decay) } : {}) };
    return this.target.read(["recall"], call, { method: "POST", body });
  }

  /** Have a language model answer from what is recalled. Throws UnconfiguredError on a node without one. */
  ask(question: string, options: AskOptions & ReadOptions = {}): Promise<types.AskResult & Stamp> {
    const [call, asked] = apart(options);
    return this.target.read(["ask"], call, { method: "POST", body: { ...wire(asked), question } });
  }

  /** The same, as it is written: what was recalled, pieces of text, and the whole, which counts. */
  async *askStream(
    question: string,
    options: AskOptions & ReadOptions = {},
  ): AsyncGenerator<AskEvent, void, undefined> {
    const [call, asked] = apart(options);
    const body = { ...wire(asked), question, stream: true };
    const ask = { body, reads: true, options: call, accept: "text/event-stream" };
    yield* askEvents(await this.target.open("POST", ["ask"], ask));
  }

  /**
   * Have a language model propose memories from turns, or with null from the stored turns of `sessionId`, and ingest
   * them. `dryRun` writes nothing. Throws UnconfiguredError on a node without a model.
   */
  extract(
    turns: readonly TurnSaid[] | null,
    options: ExtractOptions & WriteOptions & { dryRun: true },
  ): Promise<types.ExtractProposal & Stamp>;
  extract(turns: readonly TurnSaid[] | null, options?: ExtractOptions & WriteOptions): Promise<Extracted>;
  extract(
    turns: readonly TurnSaid[] | null,
    options: ExtractOptions & WriteOptions = {},
  ): Promise<Extracted | (types.ExtractProposal & Stamp)> {
    const [call, asked] = apart(options);
    const source = asked.source ?? this.target.transport.source;
    const body = wire({ ...asked, source, turns: turns ?? undefined });
    return this.target.write("POST", ["extract"], body, call);
  }

  /** A memory with its neighbours in the topic's chain, null where there is none of that id. */
  get(id: string, options?: ReadOptions): Promise<(types.Memory & Stamp) | null> {
    return orNull(this.target.read<types.Memory>(["memories", id], options, { one: true }), GONE);
  }

  /** Memories, without ranking them. */
  list(options: ListOptions = {}): Listing<types.MemoryRecord, types.MemoryPage & Stamp> {
    const { limit, cursor, ...rest } = options;
    const [call, asked] = apart(rest);
    const query = wire({ ...asked, pinned: asked.pinned?.toString() }) as Query;
    return this.target.list(["memories"], (page) => page.memories, { ...call, limit, cursor, query }, true);
  }

  /** Change what is said of a memory: pinned, importance, keywords, its end. A correction is a new memory. */
  patch(id: string, patch: MemoryPatch, options?: WriteOptions): Promise<types.PatchResult & Stamp> {
    return this.target.write("PATCH", ["memories", id], wire(patch), options);
  }

  /** All versions of what a memory says, the newest first; `await` gives the first page with what is said of them all. */
  history(
    id: string,
    options: PageOptions & ReadOptions = {},
  ): Listing<types.MemoryVersion, types.MemoryHistory & Stamp> {
    return this.target.list(["memories", id, "history"], (page) => page.versions, options, true);
  }

  /** Undo a correction: what the memory superseded becomes active again, as the newest version. */
  undo(id: string, options: WriteOptions & { reason?: string | undefined } = {}): Promise<types.UndoResult & Stamp> {
    const { reason, ...call } = options;
    return this.target.write("POST", ["memories", id, "undo"], wire({ reason }), call);
  }

  /** Remove a memory and mend its topic's chain; false where there is none of that id. */
  async forget(id: string, options?: WriteOptions): Promise<boolean> {
    return (await orNull(this.target.remove(["memories", id], options), GONE)) !== null;
  }

  /** Forget many in one commit: `ids`, or filters, or `all`; with `dryRun` none. `more` says whether to come again. */
  forgetMany(query: ForgetQuery, options: WriteOptions = {}): Promise<types.ForgetResult & Stamp> {
    return this.target.write("POST", ["memories", "forget"], wire(query), options);
  }

  /** Topics, with the memory that is active in each. */
  topics(
    options: PageOptions &
      ReadOptions & { prefix?: string | undefined; type?: "fact" | "instruction" | undefined } = {},
  ): Listing<types.Topic, types.TopicPage & Stamp> {
    const { prefix, type, ...rest } = options;
    return this.target.list(["topics"], (page) => page.topics, { ...rest, query: { prefix, type } }, true);
  }

  /** Every version of a topic, of one type or both; null where there is none. A `cursor` goes with a `type`. */
  topic(
    topicKey: string,
    options: PageOptions & ReadOptions & { type?: "fact" | "instruction" | undefined } = {},
  ): Promise<(types.TopicHistory & Stamp) | null> {
    const { type, limit, cursor, ...call } = options;
    const query = { type, limit, cursor };
    return orNull(this.target.read<types.TopicHistory>(["topics", topicKey], call, { query, one: true }), GONE);
  }

  /** The embedding models of the profile. */
  models(options?: ReadOptions): Promise<types.ModelList & Stamp> {
    return this.target.read(["models"], options);
  }

  /** Drop a model with its vectors, null the unnamed one; false where it is not there. */
  async dropModel(name: string | null, options?: WriteOptions): Promise<boolean> {
    return (await orNull(this.target.remove(["models", name ?? "-"], options), GONE)) !== null;
  }

  /** Embed what the profile holds with the node's model, in the background. */
  reembed(options: ReembedOptions & WriteOptions = {}): Promise<types.ReembedJob & Stamp> {
    const [call, asked] = apart(options);
    return this.target.write("POST", ["reembed"], wire(asked), call);
  }

  /** How far that is. */
  reembedJob(options?: ReadOptions): Promise<types.ReembedJob & Stamp> {
    return this.target.read(["reembed"], options);
  }

  /** Cancel it; what it made stays. */
  cancelReembed(options?: WriteOptions): Promise<Stamp> {
    return this.target.remove(["reembed"], options);
  }

  /** Sessions, the most recently active first. */
  sessions(options: PageOptions & ReadOptions = {}): Listing<types.Session, types.SessionPage & Stamp> {
    return this.target.list(["sessions"], (page) => page.sessions, options, true);
  }

  /** End a session and its tasks, with `turns` also its transcript; no error where it is unknown. */
  endSession(id: string, options: WriteOptions & { turns?: boolean | undefined } = {}): Promise<Stamp> {
    const { turns, ...call } = options;
    return this.target.remove(["sessions", id], call, { turns });
  }

  /** The memory of the profile as lines of JSON, all of one state. */
  async export(options: CallOptions & { at?: At | undefined } = {}): Promise<Download> {
    const ask = { options, reads: true, accept: "application/x-ndjson" };
    return new Download(await this.target.open("GET", ["export"], ask));
  }

  /** Store what an export answered, as one commit; with `replace` in place of what is there. */
  import(
    source: BytesSource,
    options: WriteOptions & { replace?: boolean | undefined } = {},
  ): Promise<types.MemoryImportResult & Stamp> {
    const { replace, ...call } = options;
    const ask = { query: { replace }, ...bytesSource(source), contentType: "application/x-ndjson" };
    return this.target.write("POST", ["import"], undefined, call, ask);
  }

  #item(item: IngestItem): Record<string, unknown> {
    const { source, sourceTurns, summary } = item;
    return {
      // The id of a memory is that of its content: without one, all facts of a topic would be the same memory.
      content: { summary },
      ...wire({ ...item, source: source ?? this.target.transport.source }),
      ...(sourceTurns ? { source_turns: wire(sourceTurns) } : {}),
    };
  }
}

/** What was extracted; `txid` is null where nothing was proposed, and nothing written. */
export type Extracted = types.ExtractResult & Omit<Stamp, "txid">;

const GONE = ["not_found", "database_not_found"];
