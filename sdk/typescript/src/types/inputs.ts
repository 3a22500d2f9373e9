// Written by scripts/typescript_types.py from the description of the API. Do not edit.
import type { Embedding, Rates, Time } from "../options.js";

/** Quotas of one's own; what is null or missing has the default of the node's settings, 0 is nothing at all. */
export interface QuotaLimits {
  requestsPerS?: number | null | undefined;
  writesPerS?: number | null | undefined;
  bytes?: number | null | undefined;
  databases?: number | null | undefined;
  memories?: number | null | undefined;
}

/**
 * Mint a token; `expiresIn` in seconds, an hour unless given, or as long as the token that it is minted
 * with. What limits it is left out where it should not. `limits` are rates by name; `subject` is whom it is
 * for, in words of your own.
 */
export interface MintBody {
  scope: "admin" | "read" | "write";
  expiresIn?: number | null | undefined;
  branches?: readonly string[] | null | undefined;
  surfaces?: readonly string[] | null | undefined;
  profiles?: readonly string[] | null | undefined;
  limits?: Rates | null | undefined;
  subject?: string | null | undefined;
}

/** Up to 1000 memories, stored as one commit; with `onError` skip those that can be. */
export interface IngestBody {
  memories: readonly IngestItem[];
  onError?: "fail" | "skip" | null | undefined;
}

/** A memory to store. `ttl` is seconds, on tasks alone; `topicKey` is for facts and instructions. */
export interface IngestItem {
  type: "event" | "fact" | "instruction" | "task";
  summary: string;
  topicKey?: string | null | undefined;
  content?: unknown | undefined;
  keywords?: string | null | undefined;
  embedding?: Embedding | null | undefined;
  embeddingModel?: string | null | undefined;
  sessionId?: string | null | undefined;
  source?: string | null | undefined;
  ttl?: number | null | undefined;
  sourceTurns?: SourceTurnsInput | null | undefined;
  pinned?: boolean | null | undefined;
  importance?: number | null | undefined;
  reason?: string | null | undefined;
}

/** Turns that a memory was drawn from, both ends included. */
export interface SourceTurnsInput {
  sessionId: string;
  fromSeq: number;
  toSeq?: number | null | undefined;
}

/** What to recall by; at least one of query, embedding and topicKey. */
export interface RecallQuery {
  query?: string | null | undefined;
  embedding?: Embedding | null | undefined;
  embeddingModel?: string | null | undefined;
  topicKey?: string | null | undefined;
  types?: readonly ("event" | "fact" | "instruction" | "task")[] | null | undefined;
  sessionId?: string | null | undefined;
  source?: string | null | undefined;
  k?: number | null | undefined;
  includeSuperseded?: boolean | null | undefined;
  includeTurns?: boolean | null | undefined;
  explain?: boolean | null | undefined;
  since?: Time | null | undefined;
  until?: Time | null | undefined;
  weights?: RecallWeights | null | undefined;
  decay?: RecallDecay | null | undefined;
  minScore?: number | null | undefined;
  pinnedFirst?: boolean | null | undefined;
  includeContext?: boolean | null | undefined;
  fusion?: "reference" | "relevance" | null | undefined;
}

/** What each channel counts; one that weighs 0 is not searched, and recency takes a decay. */
export interface RecallWeights {
  topic?: number | null | undefined;
  keyword?: number | null | undefined;
  vector?: number | null | undefined;
  recency?: number | null | undefined;
}

/** How fast memories age. */
export interface RecallDecay {
  halfLifeS: number;
}

/** A question, and the filters of the recall that goes with it; with `stream` the answer is events. */
export interface AskBody {
  question: string;
  types?: readonly ("event" | "fact" | "instruction" | "task")[] | null | undefined;
  sessionId?: string | null | undefined;
  source?: string | null | undefined;
  k?: number | null | undefined;
  includeSuperseded?: boolean | null | undefined;
  stream?: boolean | null | undefined;
}

/** Turns to extract memories from, or without them a session whose turns are stored. */
export interface ExtractBody {
  turns?: readonly TurnSaid[] | null | undefined;
  sessionId?: string | null | undefined;
  source?: string | null | undefined;
  dryRun?: boolean | null | undefined;
  fromSeq?: number | null | undefined;
  toSeq?: number | null | undefined;
}

/** A turn to extract from; `seq` is its number where it is stored. */
export interface TurnSaid {
  role: string;
  content: unknown;
  seq?: number | null | undefined;
}

/** What to say of a memory: at least one field, and of `ttl` and `expiresAt` at most one. Null clears. */
export interface MemoryPatch {
  pinned?: boolean | null | undefined;
  importance?: number | null | undefined;
  keywords?: string | null | undefined;
  ttl?: number | null | undefined;
  expiresAt?: Time | null | undefined;
}

/** Which memories to forget: `ids`, or those of a filter, or with `all` every one. */
export interface ForgetQuery {
  ids?: readonly string[] | null | undefined;
  all?: boolean | null | undefined;
  types?: readonly ("event" | "fact" | "instruction" | "task")[] | null | undefined;
  topicKey?: string | null | undefined;
  topicPrefix?: string | null | undefined;
  sessionId?: string | null | undefined;
  source?: string | null | undefined;
  pinned?: boolean | null | undefined;
  since?: Time | null | undefined;
  until?: Time | null | undefined;
  includeSuperseded?: boolean | null | undefined;
  dryRun?: boolean | null | undefined;
  limit?: number | null | undefined;
}

/** What to embed again; everything unless said otherwise. */
export interface ReembedOptions {
  model?: string | null | undefined;
  scope?: "all" | "memories" | "turns" | null | undefined;
  onlyMissing?: boolean | null | undefined;
}

/** What to erase: one target, or up to 100 `targets`. */
export interface EraseBody {
  memoryId?: string | null | undefined;
  topicKey?: string | null | undefined;
  type?: "fact" | "instruction" | null | undefined;
  sessionId?: string | null | undefined;
  turns?: boolean | undefined;
  memories?: boolean | undefined;
  turn?: TurnTarget | null | undefined;
  document?: DocumentTarget | null | undefined;
  kv?: KeyTarget | null | undefined;
  vector?: VectorTarget | null | undefined;
  timeline?: TimelineTarget | null | undefined;
  targets?: readonly ErasureTarget[] | null | undefined;
  graceSecs?: number | null | undefined;
}

/** One turn of a transcript. */
export interface TurnTarget {
  sessionId: string;
  seq: number;
}

/** A document by its id, or those that match a filter in any retained state. */
export interface DocumentTarget {
  collection: string;
  id?: string | null | undefined;
  filter?: object | null | undefined;
}

/** A key-value, or those whose keys begin with a prefix. */
export interface KeyTarget {
  ns: string;
  key?: string | null | undefined;
  prefix?: string | null | undefined;
}

/** A vector of a collection. */
export interface VectorTarget {
  collection: string;
  id: string;
}

/** What a timeline holds under a key. */
export interface TimelineTarget {
  name: string;
  key: string;
}

/** Exactly one thing: a memory, a topic with its type, a session, or a structure. */
export interface ErasureTarget {
  memoryId?: string | null | undefined;
  topicKey?: string | null | undefined;
  type?: "fact" | "instruction" | null | undefined;
  sessionId?: string | null | undefined;
  turns?: boolean | undefined;
  memories?: boolean | undefined;
  turn?: TurnTarget | null | undefined;
  document?: DocumentTarget | null | undefined;
  kv?: KeyTarget | null | undefined;
  vector?: VectorTarget | null | undefined;
  timeline?: TimelineTarget | null | undefined;
}

/** Fork a branch; `ttl` in seconds. `at` takes a revision, `checkpoint` only a checkpoint's name. */
export interface ForkBody {
  name: string;
  from?: string | null | undefined;
  at?: Time | null | undefined;
  checkpoint?: string | null | undefined;
  ttl?: number | null | undefined;
}

/** Keys to get, put and remove as one commit; with `partial` unmet conditions leave out their items alone. */
export interface WireKvBatch {
  gets?: readonly string[] | null | undefined;
  puts?: readonly WireKvPut[] | null | undefined;
  deletes?: readonly (string | WireKvDelete)[] | null | undefined;
  partial?: boolean | null | undefined;
}

/** A value to store, where `ifMatch` or `ifNoneMatch` (an ETag or `*`) hold. */
export interface WireKvPut {
  key: string;
  value: string | Record<string, string>;
  ttl?: number | null | undefined;
  metadata?: object | null | undefined;
  ifMatch?: string | null | undefined;
  ifNoneMatch?: string | null | undefined;
}

/** A key to remove under a condition. */
export interface WireKvDelete {
  key: string;
  ifMatch?: string | null | undefined;
  ifNoneMatch?: string | null | undefined;
}

/** What to add, 1 unless given; `ttl` (seconds) is the lifetime of a key that has none. */
export interface IncrementBody {
  by?: number | null | undefined;
  ttl?: number | null | undefined;
}

/** What to find. A sort is by 1 or -1, a projection true or false, both by field path. */
export interface FindBody {
  filter?: object | null | undefined;
  sort?: Record<string, -1 | 1> | null | undefined;
  projection?: Record<string, boolean | 0 | 1> | null | undefined;
  limit?: number | null | undefined;
  skip?: number | null | undefined;
  cursor?: string | null | undefined;
}

/** The field whose values are listed. */
export interface DistinctBody {
  path: string;
  filter?: object | null | undefined;
  limit?: number | null | undefined;
}

/** Operators and the paths and values of each, applied to the first match by `sort`, or with `multi` to all. */
export interface UpdateBody {
  filter: object;
  update: Record<string, object>;
  multi?: boolean | null | undefined;
  sort?: Record<string, -1 | 1> | null | undefined;
  upsert?: boolean | null | undefined;
}

/** What to delete: the first match by `sort`, or with `multi` all. */
export interface DeleteBody {
  filter: object;
  multi?: boolean | null | undefined;
  sort?: Record<string, -1 | 1> | null | undefined;
}

/** The field to index; `unique` keeps equal values apart. */
export interface IndexBody {
  path: string;
  unique?: boolean | null | undefined;
}

/** A vector to store, in place of the one of the same id. */
export interface VectorInput {
  id: string;
  embedding: Embedding;
  metadata?: object | null | undefined;
}

/** What to look for; a score is 1 - distance. */
export interface VectorSearchBody {
  vector: Embedding;
  k?: number | null | undefined;
  filter?: object | null | undefined;
  maxDistance?: number | null | undefined;
  minScore?: number | null | undefined;
  includeMetadata?: boolean | null | undefined;
  includeEmbedding?: boolean | null | undefined;
}

/** Which vectors to remove: by id, or by a filter of their metadata. */
export interface VectorDeletionBody {
  ids?: readonly string[] | null | undefined;
  filter?: object | null | undefined;
}

/** A turn of a batch; `at` is when it was made, now unless given. */
export interface TurnInput {
  role: string;
  content: unknown;
  embedding?: Embedding | null | undefined;
  embeddingModel?: string | null | undefined;
  at?: Time | null | undefined;
}

/** What to search by; at least one of query and vector. `since` and `until` are both included. */
export interface TurnSearch {
  query?: string | null | undefined;
  vector?: Embedding | null | undefined;
  embeddingModel?: string | null | undefined;
  mode?: "hybrid" | "keyword" | "vector" | null | undefined;
  k?: number | null | undefined;
  role?: string | null | undefined;
  since?: Time | null | undefined;
  until?: Time | null | undefined;
}

/** A row to append; `at` is the time of the commit unless given, `data` any JSON, null unless given. */
export interface TimelineRowInput {
  key: string;
  at?: Time | null | undefined;
  data?: unknown | undefined;
}

/**
 * Which rows: of one `key`, of some `keys`, or of all, from `since` on and before `until`, that a filter
 * lets through.
 */
export interface TimelineQuery {
  key?: string | null | undefined;
  keys?: readonly string[] | null | undefined;
  since?: Time | null | undefined;
  until?: Time | null | undefined;
  filter?: object | null | undefined;
  order?: "asc" | "desc" | null | undefined;
  limit?: number | null | undefined;
  cursor?: string | null | undefined;
  aggregate?: TimelineAggregate | null | undefined;
}

/** What to compute of the numbers at `path`, per window and per key; counts alone without a path. */
export interface TimelineAggregate {
  path?: string | null | undefined;
  windowMs?: number | null | undefined;
  byKey?: boolean | null | undefined;
}

/** How long rows are kept: seconds by their time, and rows of each key; null for without bound. */
export interface TimelineRetention {
  retentionS?: number | null | undefined;
  retentionRows?: number | null | undefined;
}
