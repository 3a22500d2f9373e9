// Written by scripts/typescript_types.py from the description of the API. Do not edit.

/**
 * What answers: `ok` each; and what the node has: the model that it embeds with, null without, and what it
 * asks a language model for.
 */
export interface Readiness {
  store: string;
  leases: string;
  catalog: string;
  version: string;
  embedder?: string | null;
  language_models?: string[];
}

/** Every node, and placements by branch id; `next_cursor` is null where no more follow. */
export interface ClusterOverview {
  nodes: ClusterNode[];
  placements: ClusterPlacement[];
  next_cursor: string | null;
}

/**
 * A node that is there, its load from 0 to 1. A silent one did not answer in time, and `problem` says why;
 * else `state` is its own.
 */
export interface ClusterNode {
  node_id: string;
  address: string;
  load: number;
  silent: boolean;
  state?: NodeState;
  problem?: string;
}

/**
 * A node as it sees itself. `lease_left_ms` is how long it may write unless its lease is renewed, null
 * where leases do not expire. Of the replicas that it follows, `replica_lag_ms` is the age of the oldest.
 * `warm_up` is `recovering` while it ships what an earlier process left on its disk.
 */
export interface NodeState {
  version: string;
  tiers: Tiers;
  owned: number;
  lease_left_ms: number | null;
  unshipped_bytes: number;
  unshipped_ms: number;
  replicas: number;
  replica_lag_ms: number;
  warm_up: "done" | "recovering";
}

/** Branches that are open, and those of which there is a closed file. Every other one is cold here. */
export interface Tiers {
  hot: number;
  warm: number;
}

/** A branch that a node owns, and how far it is there. */
export interface ClusterPlacement {
  branch_id: string;
  database: string;
  tenant: string;
  branch: string;
  node_id: string;
  epoch: number;
  standing: BranchStanding;
}

/** A branch at its owner: how far it is, what object storage lacks of it, and how many nodes follow it. */
export interface BranchStanding {
  tier: "hot" | "warm";
  txid: number;
  durable_txid: number;
  unshipped_bytes: number;
  unshipped_ms: number;
  replicas: number;
}

/** Where a branch is. `owner` is null while nobody owns it, `standing` also where its owner does not answer. */
export interface DatabasePlacement {
  database: string;
  branch: string;
  branch_id: string;
  owner: PlacementOwner | null;
  sync_set: PlacementSyncSet | null;
  standing: BranchStanding | null;
}

/** The node that owns a branch. */
export interface PlacementOwner {
  node_id: string;
  address: string;
  epoch: number;
}

/** The nodes that hold what was acknowledged as replicated under `epoch`. */
export interface PlacementSyncSet {
  epoch: number;
  members: SyncMember[];
}

/** A node of a sync set. */
export interface SyncMember {
  node_id: string;
  address: string;
}

/**
 * A database of the directory. `deleted_at` and `undelete_until` where it is deleted and can still come
 * back.
 */
export interface DatabaseInfo {
  name: string;
  uuid: string;
  /** Unix milliseconds. */
  created_at: number;
  tenant: string;
  /** Unix milliseconds. */
  deleted_at?: number;
  /** Unix milliseconds. */
  undelete_until?: number;
  durability?: Record<string, string>;
}

/** Databases by name; `next_cursor` is null where no more follow. */
export interface DatabasePage {
  databases: DatabaseInfo[];
  next_cursor: string | null;
}

/** The namespaces of a tenant by name. */
export interface NamespacePage {
  namespaces: NamespaceInfo[];
  next_cursor: string | null;
}

/** A namespace that has profiles. */
export interface NamespaceInfo {
  namespace: string;
}

/** A tenant, whose databases have names of their own. */
export interface TenantInfo {
  name: string;
  /** Unix milliseconds. */
  created_at: number;
}

/** Tenants by name; `next_cursor` is null where no more follow. */
export interface TenantPage {
  tenants: TenantInfo[];
  next_cursor: string | null;
}

/** The days of a database on which it was used; `next_cursor` is null where no more follow. */
export interface DatabaseUsage {
  database: string;
  days: UsageDay[];
  next_cursor: string | null;
}

/**
 * One day of UTC. `bytes_stored` and `memories` are as they were last seen on that day, the others its
 * sums.
 */
export interface UsageDay {
  day: string;
  requests: number;
  reads: number;
  writes: number;
  recalls: number;
  bytes_shipped: number;
  bytes_stored: number;
  memories: number;
}

/** The days of a namespace on which it was used. */
export interface NamespaceUsage {
  namespace: string;
  days: UsageDay[];
  next_cursor: string | null;
}

/** The quotas of a namespace: those that it was given, those that hold, and what it takes up. */
export interface NamespaceQuotas {
  namespace: string;
  quotas: QuotaValues;
  effective: QuotaValues;
  used: QuotaUse;
}

/** Limits; null is none, or of one's own quotas the default of the settings. Rates hold for each node. */
export interface QuotaValues {
  requests_per_s: number | null;
  writes_per_s: number | null;
  bytes: number | null;
  databases: number | null;
  memories: number | null;
}

/** What is there now, as it was flushed last. */
export interface QuotaUse {
  databases: number;
  bytes: number;
  memories: number;
}

/** The quotas of a tenant as a whole. */
export interface TenantQuotas {
  tenant: string;
  quotas: QuotaValues;
  effective: QuotaValues;
  used: QuotaUse;
}

/** The profiles of a namespace by name. */
export interface ProfilePage {
  namespace: string;
  profiles: ProfileInfo[];
  next_cursor: string | null;
}

/** A profile of a namespace. */
export interface ProfileInfo {
  profile: string;
  /** Unix milliseconds. */
  created_at: number;
}

/** The policies of a namespace, and of those of its profiles that have one of their own. */
export interface NamespacePolicies {
  namespace: string;
  revision: number;
  /** Unix milliseconds. */
  updated_at: number;
  policy: Record<string, unknown>;
  profiles: Record<string, Record<string, unknown>>;
}

/** The policy of a namespace, as it was set. */
export interface NamespacePolicy {
  namespace: string;
  revision: number;
  /** Unix milliseconds. */
  updated_at: number;
  policy: Record<string, unknown>;
}

/** The policy of a profile, null where it has none of its own, and what holds for it. */
export interface ProfilePolicy {
  namespace: string;
  profile: string;
  override: Record<string, unknown> | null;
  effective: EffectivePolicy;
  revision: number;
}

/** What holds, of the operator's ceiling, the namespace's policy and the profile's. Null asks for nothing. */
export interface EffectivePolicy {
  pitr_secs: number | null;
  pitr_snapshot_secs: number | null;
  task_ttl_max_secs: number | null;
  event_max_age_secs: number | null;
  superseded_max_age_secs: number | null;
  superseded_max_count: number | null;
  purge_on_forget: boolean;
  erasure_grace_secs: number;
  audit_enabled: boolean;
  audit_include_reads: boolean;
  audit_retention_secs: number | null;
  extract: "allow" | "deny" | "self_hosted_only";
  ask: "allow" | "deny" | "self_hosted_only";
  embed: "allow" | "deny" | "self_hosted_only";
  reads: "cached" | "primary" | null;
}

/**
 * The level that writes wait for: `local`, `replicated` or `durable`, by `default`, surface (`docs`), or
 * part of one (`docs/orders`).
 */
export interface DatabaseSettings {
  durability?: Record<string, string>;
}

/**
 * Events, oldest first. `complete` is false where more may come of the same window: behind `next_cursor`,
 * from what waits at this node, or from what could not be read.
 */
export interface AuditPage {
  events: AuditEvent[];
  next_cursor: string | null;
  complete: boolean;
}

/** One act. `seq` is its number in its chain, `prev` the SHA-256 of the line before it. */
export interface AuditEvent {
  seq: number;
  prev: string;
  v: number;
  id: string;
  /** Unix milliseconds. */
  ts: number;
  node: string;
  ns: string;
  action: string;
  outcome: "denied" | "error" | "ok";
  tenant?: string;
  db?: string;
  profile?: string;
  branch?: string;
  resource?: string;
  /** Number of a commit of the branch. */
  txid?: number;
  count?: number;
  actor?: AuditActor;
  egress?: AuditEgress;
  error?: string;
  request_id?: string;
}

/** Who did it; `token_hash` names a credential without giving it away, `iat` is in seconds. */
export interface AuditActor {
  kind: string;
  token_hash?: string;
  token_id?: string;
  subject?: string;
  scope?: string;
  claim_db?: string;
  claim_ns?: string;
  iat?: number;
}

/** What left the node for a provider of models, in sizes. */
export interface AuditEgress {
  provider: string;
  model: string;
  self_hosted: boolean;
  input_items: number;
  input_bytes: number;
  endpoint_host?: string;
  output_items?: number;
  duration_ms?: number;
}

/** A token, which is shown only here; `expires_in` in seconds. */
export interface MintedToken {
  token: string;
  expires_in: number;
  id: string;
  /** Unix milliseconds. */
  expires_at: number;
}

/** Tokens by id; `next_cursor` is null where no more follow. */
export interface TokenPage {
  tokens: TokenInfo[];
  next_cursor: string | null;
}

/** What is known of a token. One of `db` and `ns` is empty; `minted_by` is who asked for it. */
export interface TokenInfo {
  id: string;
  db: string;
  ns: string;
  scope: "admin" | "read" | "write";
  /** Unix milliseconds. */
  issued_at: number;
  /** Unix milliseconds. */
  expires_at: number;
  revoked: boolean;
  minted_by: string;
  subject?: string;
  branches?: string[];
  surfaces?: string[];
  profiles?: string[];
  limits?: Record<string, number>;
}

/** What is revoked: the token `id`, or, without it, all that were issued at `revoked_until` or before. */
export interface RevokeResult {
  /** Unix milliseconds. */
  revoked_until: number;
  id?: string;
}

/** The keys of the node; `managed` is whether it may rotate them itself. */
export interface SigningKeys {
  keys: SigningKey[];
  managed: boolean;
}

/** A public key: whether it signs, verifies or is retired. */
export interface SigningKey {
  kid: string;
  status: "retired" | "signing" | "verifying";
}

/** The new key, and from when on it signs. */
export interface RotatedKey {
  kid: string;
  /** Unix milliseconds. */
  signs_from: number;
}

/** A JSON Web Key Set (RFC 7517). */
export interface PublishedKeys {
  keys: Record<string, unknown>[];
}

/** The database or branch that was made of a file. */
export interface ImportedDatabase {
  name: string;
  branch: string;
  uuid: string;
  /** Unix milliseconds. */
  created_at: number;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Turns that a memory was drawn from, both ends included. */
export interface SourceTurns {
  session_id: string;
  from_seq: number;
  to_seq?: number | null;
}

/** One result per memory, in order; `embedded` counts the vectors that the node made. */
export interface IngestResult {
  results: IngestOutcome[];
  /** Number of a commit of the branch. */
  txid: number;
  embedded?: number;
  degraded?: string[];
}

/** What became of one memory; where it was skipped, `error` says why. */
export interface IngestOutcome {
  id: string | null;
  status: "created" | "duplicate" | "error" | "revived";
  superseded: string[];
  error?: string;
}

/** Memories found, best first; `degraded` names channels that could not be searched. */
export interface RecallResult {
  memories: RecallHit[];
  /** Number of a commit of the branch. */
  txid: number;
  turns?: TurnHit[];
  degraded?: string[];
}

/** A memory found. */
export interface RecallHit {
  id: string;
  type: "event" | "fact" | "instruction" | "task";
  topic_key: string | null;
  summary: string;
  content: unknown;
  keywords: string;
  session_id: string | null;
  source: string | null;
  /** Unix milliseconds. */
  created_at: number;
  superseded_by: string | null;
  source_turns: SourceTurns | null;
  pinned: boolean;
  score: number;
  channels: string[];
  explain?: Record<string, unknown>;
  context?: HitContext;
}

/** What stands around a memory. */
export interface HitContext {
  turns: Turn[];
  memories: ContextMemory[];
}

/** A turn of a session. */
export interface Turn {
  seq: number;
  role: string;
  content: unknown;
  /** Unix milliseconds. */
  created_at: number;
}

/** A memory that stands beside another in its session. */
export interface ContextMemory {
  id: string;
  type: "event" | "fact" | "instruction" | "task";
  summary: string;
  /** Unix milliseconds. */
  created_at: number;
}

/** A turn found by vector. */
export interface TurnHit {
  session_id: string;
  seq: number;
  role: string;
  content: unknown;
  distance: number;
}

/** An answer with the memories that were recalled; null where there were none. */
export interface AskResult {
  answer: string | null;
  sources: string[];
  unknown_sources: string[];
  memories: RecallHit[];
  /** Number of a commit of the branch. */
  txid: number;
  degraded?: string[];
}

/** What a dry run would have stored. */
export interface ExtractProposal {
  proposed: ProposedItem[];
  dropped: DroppedProposal[];
}

/** A memory as an ingest takes it. */
export interface ProposedItem {
  type: "event" | "fact" | "instruction" | "task";
  topic_key: string | null;
  summary: string;
  content: unknown;
  keywords: string;
  session_id: string | null;
  source: string | null;
  source_turns?: SourceTurns;
}

/** A proposal that was not stored, and why. */
export interface DroppedProposal {
  summary: string;
  reason: string;
}

/** One result per memory; `txid` is null where nothing was written. */
export interface ExtractResult {
  results: IngestOutcome[];
  dropped: DroppedProposal[];
  txid: number | null;
  embedded?: number;
  degraded?: string[];
}

/** One memory, with the ids that it superseded. */
export interface Memory {
  id: string;
  type: "event" | "fact" | "instruction" | "task";
  topic_key: string | null;
  summary: string;
  content: unknown;
  keywords: string;
  session_id: string | null;
  source: string | null;
  /** Unix milliseconds. */
  created_at: number;
  expires_at: number | null;
  superseded_by: string | null;
  superseded_at: number | null;
  pinned: boolean;
  importance: number | null;
  version: number;
  reason: string | null;
  /** Unix milliseconds. */
  updated_at: number;
  undone_at: number | null;
  source_turns: SourceTurns | null;
  supersedes: string[];
}

/** A page of memories; null ends the list. */
export interface MemoryPage {
  memories: MemoryRecord[];
  next_cursor: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** A memory with all that is known of it; `updated_at` is when it last changed. */
export interface MemoryRecord {
  id: string;
  type: "event" | "fact" | "instruction" | "task";
  topic_key: string | null;
  summary: string;
  content: unknown;
  keywords: string;
  session_id: string | null;
  source: string | null;
  /** Unix milliseconds. */
  created_at: number;
  expires_at: number | null;
  superseded_by: string | null;
  superseded_at: number | null;
  pinned: boolean;
  importance: number | null;
  version: number;
  reason: string | null;
  /** Unix milliseconds. */
  updated_at: number;
  undone_at: number | null;
  source_turns: SourceTurns | null;
}

/** What is said of a memory now. */
export interface PatchResult {
  id: string;
  pinned: boolean;
  importance: number | null;
  keywords: string;
  expires_at: number | null;
  /** Unix milliseconds. */
  updated_at: number;
  /** Number of a commit of the branch. */
  txid: number;
  degraded?: string[];
}

/** The versions of what a memory says, the newest first; without a topic the memory itself. */
export interface MemoryHistory {
  topic_key: string | null;
  type: "event" | "fact" | "instruction" | "task";
  active: string | null;
  version: number;
  count: number;
  /** Unix milliseconds. */
  last_updated: number;
  pinned: boolean;
  versions: MemoryVersion[];
  next_cursor: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** A version of what a topic says. */
export interface MemoryVersion {
  id: string;
  type: "event" | "fact" | "instruction" | "task";
  topic_key: string | null;
  summary: string;
  content: unknown;
  keywords: string;
  session_id: string | null;
  source: string | null;
  /** Unix milliseconds. */
  created_at: number;
  expires_at: number | null;
  superseded_by: string | null;
  superseded_at: number | null;
  pinned: boolean;
  importance: number | null;
  version: number;
  reason: string | null;
  /** Unix milliseconds. */
  updated_at: number;
  undone_at: number | null;
  source_turns: SourceTurns | null;
  active: boolean;
  /** Unix milliseconds. */
  last_updated: number;
}

/** The memory that is history now, and the one that is active again. */
export interface UndoResult {
  undone: string;
  active: string;
  version: number;
  /** Number of a commit of the branch. */
  txid: number;
}

/**
 * What became of each; `more` tells that the filter means others still, `matched` how many in all (of a dry
 * run).
 */
export interface ForgetResult {
  dry_run: boolean;
  forgotten: number;
  results: ForgetOutcome[];
  more: boolean;
  /** Number of a commit of the branch. */
  txid: number;
  matched?: number;
}

/** What became of one memory. */
export interface ForgetOutcome {
  id: string;
  status: "forgotten" | "not_found" | "would_forget";
}

/** What an import stored. */
export interface MemoryImportResult {
  imported: MemoryImportCounts;
  /** Number of a commit of the branch. */
  txid: number;
}

/** How many lines of each kind came in. */
export interface MemoryImportCounts {
  model: number;
  session: number;
  transcript: number;
  memory: number;
  turn: number;
}

/** A page of topics; null ends the list. */
export interface TopicPage {
  topics: Topic[];
  next_cursor: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** What a profile holds of one type under a key: how many versions, the newest, and which is active. */
export interface Topic {
  topic_key: string;
  type: "fact" | "instruction";
  active: string | null;
  version: number;
  count: number;
  /** Unix milliseconds. */
  last_updated: number;
  pinned: boolean;
}

/** The versions of a topic, of each type that has it. */
export interface TopicHistory {
  topic_key: string;
  chains: TopicChain[];
  /** Number of a commit of the branch. */
  txid: number;
}

/** The versions of a topic, the newest first. */
export interface TopicChain {
  topic_key: string;
  type: "fact" | "instruction";
  active: string | null;
  version: number;
  count: number;
  /** Unix milliseconds. */
  last_updated: number;
  pinned: boolean;
  versions: MemoryVersion[];
  next_cursor: string | null;
}

/** The models, the oldest first; `embedder` is the one that the node embeds with. */
export interface ModelList {
  models: EmbeddingModel[];
  embeddable: Embeddable;
  embedder: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** An embedding model of a profile, and how many memories and turns have a vector of it; unnamed it is null. */
export interface EmbeddingModel {
  name: string | null;
  dimensions: number | null;
  memories: number;
  turns: number;
  active: boolean;
  created_at: number | null;
}

/** How many memories and turns may have a vector. */
export interface Embeddable {
  memories: number;
  turns: number;
}

/** How far the job is, or how the last one ended. */
export interface ReembedJob {
  state: "cancelled" | "done" | "failed" | "none" | "running" | "waiting";
  model: string | null;
  scope: "all" | "memories" | "turns" | null;
  only_missing: boolean | null;
  total: number;
  done: number;
  failed: number;
  started_at: number | null;
  updated_at: number | null;
  finished_at: number | null;
  error: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Sessions, the most recently active first. */
export interface SessionPage {
  sessions: Session[];
  next_cursor: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** A session of a profile. */
export interface Session {
  id: string;
  /** Unix milliseconds. */
  created_at: number;
  /** Unix milliseconds. */
  last_active_at: number;
}

/** An erasure that was accepted: what it named is out of the newest state, durably. */
export interface ErasureRequested {
  erasure_id: string;
  status: string;
  /** Number of a commit of the branch. */
  txid: number;
  /** Unix milliseconds. */
  grace_until: number;
}

/** A page of erasures, the newest request first. */
export interface ErasurePage {
  erasures: ErasureCoupon[];
  next_cursor: string | null;
}

/** An erasure, and how far it has come. */
export interface ErasureCoupon {
  id: string;
  db: string;
  uuid: string;
  branch: string;
  target: Record<string, unknown>;
  memory_ids: string[];
  /** Unix milliseconds. */
  requested_at: number;
  /** Unix milliseconds. */
  grace_until: number;
  forget_txid: Record<string, number>;
  status: "blocked" | "completed" | "pending" | "rewriting";
  blocked_by?: ErasureBlockedBy;
  /** Unix milliseconds. */
  rewritten_at?: number;
  /** Unix milliseconds. */
  completed_at?: number;
  receipt?: ErasureReceipt;
}

/** What stands in the way; checkpoints never do. */
export interface ErasureBlockedBy {
  checkpoints: string[];
  branches: string[];
  reasons: string[];
}

/** What a completed erasure attests, signed where the node has keys. */
export interface ErasureReceipt {
  payload: Record<string, unknown>;
  alg: string;
  key_id?: string;
  sig?: string;
}

/** One result per statement. */
export interface WireSqlResults {
  results: WireSqlResult[];
  /** Number of a commit of the branch. */
  txid: number;
}

/** What one statement gave. */
export interface WireSqlResult {
  columns: string[];
  rows: unknown[][];
  rows_affected: number;
}

/** What object storage has. */
export interface SyncResult {
  /** Number of a commit of the branch. */
  txid: number;
  /** Number of a commit of the branch. */
  durable_txid: number;
}

/** A branch as it was made; `ttl_at` is when a burner goes. */
export interface Fork {
  branch: string;
  parent: string;
  /** Number of a commit of the branch. */
  fork_txid: number;
  ttl_at: number | null;
  spec: string;
}

/** The branches other than main by name; a page of them where one was asked for. */
export interface BranchPage {
  branches: BranchInfo[];
  next_cursor?: string | null;
}

/** A branch other than main. `deleted_at` and `undelete_until` where it is deleted and can still come back. */
export interface BranchInfo {
  db_name: string;
  branch: string;
  ttl_at: number | null;
  /** Unix milliseconds. */
  created_at: number;
  parent: string | null;
  fork_txid: number | null;
  /** Unix milliseconds. */
  deleted_at?: number;
  /** Unix milliseconds. */
  undelete_until?: number;
}

/** Commits that changed something, in order; `more` says that others follow already. */
export interface ChangePage {
  changes: Change[];
  /** Number of a commit of the branch. */
  next_since: number;
  more: boolean;
}

/** What one commit changed; with `all` anything may have. */
export interface Change {
  /** Number of a commit of the branch. */
  txid: number;
  /** Unix milliseconds. */
  at: number;
  changes: ChangeEntry[];
  all?: "erased" | "imported" | "rewound";
}

/** What a commit did in one place: keys put (made or changed) and deleted. */
export interface ChangeEntry {
  surface: string;
  /** The namespace, collection, session or timeline that the keys are of. */
  in?: string;
  put?: (string | number)[];
  deleted?: (string | number)[];
  /** All that was there before went. */
  dropped?: boolean;
  /** More changed there than is named: read it again. */
  more?: boolean;
}

/** Restore points in the order asked for, and the newest rewinds of the branch, the oldest of them first. */
export interface RestorePointPage {
  restore_points: RestorePoint[];
  rewinds: PastRewind[];
  next_cursor: string | null;
}

/** A commit that can be restored; `time` is `created_at` in RFC 3339. */
export interface RestorePoint {
  /** Number of a commit of the branch. */
  txid: number;
  /** Unix milliseconds. */
  created_at: number;
  time: string;
  kind: string;
  checkpoints: string[];
}

/**
 * A rewind that was made: commit `txid` brought back the state of `rewound_to`; `undo_txid` is the head
 * before it.
 */
export interface PastRewind {
  /** Number of a commit of the branch. */
  txid: number;
  /** Number of a commit of the branch. */
  rewound_to: number;
  /** Number of a commit of the branch. */
  undo_txid: number;
  /** Unix milliseconds. */
  created_at: number;
}

/** A named txid. */
export interface Checkpoint {
  checkpoint: string;
  /** Number of a commit of the branch. */
  txid: number;
  /** Unix milliseconds. */
  created_at: number;
}

/** Checkpoints by txid; a page of them where one was asked for. */
export interface CheckpointPage {
  checkpoints: Checkpoint[];
  next_cursor?: string | null;
}

/** A rewind: commit `txid` has the state of `rewound_to`, and `undo_txid` is the head before it. */
export interface RewindResult {
  /** Number of a commit of the branch. */
  rewound_to: number;
  epoch: number;
  /** Number of a commit of the branch. */
  txid: number;
  /** Number of a commit of the branch. */
  undo_txid: number;
}

/** Live keys, ascending; `entries` where values or metadata were asked for. */
export interface WireKeyPage {
  keys: string[];
  next_cursor: string | null;
  entries?: WireKvEntry[];
}

/** A key and what stands under it. */
export interface WireKvEntry {
  key: string;
  etag: string;
  size_bytes: number;
  metadata: Record<string, unknown> | null;
  expires_at: number | null;
  value?: string | Record<string, string>;
}

/** One result per item, in order. */
export interface WireKvBatchResult {
  gets: WireKvGot[];
  puts: KvPutOutcome[];
  deletes: KvDeleteOutcome[];
  /** Number of a commit of the branch. */
  txid: number;
}

/** A key as it was before the batch: the whole entry where it is found. */
export interface WireKvGot {
  key: string;
  status: "absent" | "found";
  etag?: string;
  size_bytes?: number;
  metadata?: Record<string, unknown> | null;
  expires_at?: number | null;
  value?: string | Record<string, string>;
}

/**
 * What became of a put; `etag` is what is there now, null where nothing is and the condition asks for
 * something.
 */
export interface KvPutOutcome {
  key: string;
  status: "precondition_failed" | "stored";
  etag: string | null;
}

/** What became of a deletion; `etag` is what is there where the condition does not hold. */
export interface KvDeleteOutcome {
  key: string;
  status: "absent" | "deleted" | "precondition_failed";
  etag?: string | null;
}

/** An answer of a write that says nothing but its txid. */
export interface Stamped {
  /** Number of a commit of the branch. */
  txid: number;
}

/** The number that is there now. */
export interface IncrementResult {
  value: number;
  etag: string;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Collections by name; a page of them where one was asked for. */
export interface CollectionPage {
  collections: CollectionInfo[];
  /** Number of a commit of the branch. */
  txid: number;
  next_cursor?: string | null;
}

/** How many documents a collection has, and how many indexes. */
export interface CollectionInfo {
  name: string;
  count: number;
  indexes: number;
}

/** The ids of the documents, in order. */
export interface InsertResult {
  ids: string[];
  /** Number of a commit of the branch. */
  txid: number;
}

/** Documents in order; `next_cursor` goes on behind them, null where nothing comes. */
export interface WireFindPage {
  docs: Record<string, unknown>[];
  next_cursor: string | null;
  /** Number of a commit of the branch. */
  txid: number;
}

/** How many documents match. */
export interface CountResult {
  count: number;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Different scalars, ascending; `more` is whether there are others. */
export interface DistinctResult {
  values: (boolean | number | string)[];
  more: boolean;
  /** Number of a commit of the branch. */
  txid: number;
}

/**
 * To how many documents it was applied; with `upsert` the id of the one that was inserted, null where none
 * was.
 */
export interface UpdateResult {
  modified: number;
  /** Number of a commit of the branch. */
  txid: number;
  upserted_id?: string | null;
}

/** How many documents went. */
export interface DeleteResult {
  deleted: number;
  /** Number of a commit of the branch. */
  txid: number;
}

/** The field that has an index now. */
export interface IndexResult {
  indexed: string;
  unique: boolean;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Every index of a collection, by path. */
export interface IndexList {
  indexes: IndexInfo[];
  /** Number of a commit of the branch. */
  txid: number;
}

/** An index of a field. */
export interface IndexInfo {
  path: string;
  unique: boolean;
}

/** The collections of a database by name; a page of them where one was asked for. */
export interface VectorCollectionPage {
  collections: VectorCollectionInfo[];
  next_cursor?: string | null;
}

/** A collection of vectors. */
export interface VectorCollectionInfo {
  name: string;
  dimensions: number;
  count: number;
  /** Unix milliseconds. */
  created_at: number;
}

/** What became of one vector. */
export interface VectorUpsertResult {
  status: "created" | "unchanged" | "updated";
  /** Number of a commit of the branch. */
  txid: number;
}

/** What became of each vector, in order. */
export interface VectorsUpsertResult {
  results: VectorOutcome[];
  /** Number of a commit of the branch. */
  txid: number;
}

/** What became of a vector of a batch. */
export interface VectorOutcome {
  id: string;
  status: "created" | "unchanged" | "updated";
}

/** Ids of a collection, ascending; `vectors` where metadata was asked for. */
export interface VectorPage {
  ids: string[];
  next_cursor: string | null;
  vectors?: VectorInfo[];
}

/** A vector without its numbers. */
export interface VectorInfo {
  id: string;
  metadata: Record<string, unknown>;
}

/** The vectors that are nearest, the nearest first. */
export interface VectorSearchResult {
  hits: VectorHit[];
}

/** A vector that was found, and what of it was asked for. */
export interface VectorHit {
  id: string;
  distance: number;
  metadata?: Record<string, unknown>;
  embedding?: number[];
}

/** How many vectors went; one result per id where ids were sent. */
export interface VectorsDeleteResult {
  deleted: number;
  /** Number of a commit of the branch. */
  txid: number;
  results?: VectorDeleteOutcome[];
}

/** Whether a vector was there. */
export interface VectorDeleteOutcome {
  id: string;
  status: "absent" | "deleted";
}

/** A vector. */
export interface StoredVector {
  id: string;
  embedding: number[];
  metadata: Record<string, unknown>;
}

/** The number of the turn in its session, from 1; `embedded` counts the vectors that the node made. */
export interface TurnAppendResult {
  seq: number;
  /** Number of a commit of the branch. */
  txid: number;
  embedded?: number;
  degraded?: string[];
}

/** The numbers of the turns, in order. */
export interface TurnsAppendResult {
  seqs: number[];
  /** Number of a commit of the branch. */
  txid: number;
  embedded?: number;
  degraded?: string[];
}

/**
 * Turns, oldest first; `older` is what to read `before`, `newer` what to read `after`, null where there are
 * none.
 */
export interface TurnPage {
  turns: Turn[];
  older: number | null;
  newer: number | null;
}

/** How many turns went, and whether there are `more` that the same request would remove. */
export interface TurnsDeleteResult {
  deleted: number;
  more: boolean;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Turns found, best first; `degraded` names channels that could not be searched. */
export interface TurnSearchResult {
  turns: FoundTurn[];
  degraded?: string[];
}

/** A turn found; `score` and `channels` where words were searched. */
export interface FoundTurn {
  session_id: string;
  seq: number;
  role: string;
  content: unknown;
  distance: number | null;
  /** Unix milliseconds. */
  created_at?: number;
  score?: number;
  channels?: string[];
}

/** Timelines by name. */
export interface TimelinePage {
  timelines: TimelineInfo[];
  next_cursor: string | null;
}

/** What is shown of a timeline, the times of its first and last row, and what is kept. */
export interface TimelineInfo {
  name: string;
  /** Unix milliseconds. */
  created_at: number;
  rows: number;
  keys: number;
  oldest: number | null;
  newest: number | null;
  retention_s: number | null;
  retention_rows: number | null;
}

/** How many rows are kept, how many were past retention already, and the numbers that the batch got. */
export interface TimelineAppendResult {
  appended: number;
  expired: number;
  first_seq: number;
  last_seq: number;
  /** Number of a commit of the branch. */
  txid: number;
}

/** Rows in the order that was asked for. */
export interface TimelineRowPage {
  rows: TimelineRow[];
  next_cursor: string | null;
}

/** A row of a timeline; `seq` is its number among the arrivals. */
export interface TimelineRow {
  key: string;
  /** Unix milliseconds. */
  at: number;
  seq: number;
  data: unknown;
}

/** Windows in which there are rows, in the order that was asked for. */
export interface TimelineWindowPage {
  windows: TimelineWindow[];
  next_cursor: string | null;
}

/**
 * Aggregates of the rows in a window, which begins `at` (null: there is one window); numbers where a path
 * was given.
 */
export interface TimelineWindow {
  at: number | null;
  count: number;
  key?: string;
  numbers?: number;
  sum?: number | null;
  min?: number | null;
  max?: number | null;
  average?: number | null;
  last?: number | null;
}

/** The retention of a timeline. */
export interface TimelineRetained {
  name: string;
  /** Unix milliseconds. */
  created_at: number;
  retention_s: number | null;
  retention_rows: number | null;
  /** Number of a commit of the branch. */
  txid: number;
}
