/** Client of Memoturn, a database for the memory of AI agents. @module */

export * from "./client.js";
export * from "./control/databases.js";
export * from "./control/governance.js";
export * from "./control/tokens.js";
export { Listing, type Paged } from "./core/listing.js";
export { Download } from "./core/streams.js";
export type { Seams } from "./core/transport.js";
export { Branched } from "./database/branched.js";
export * from "./database/branches.js";
export type { ChangesOptions, FeedEvent, FollowOptions } from "./database/changes.js";
export * from "./database/collection.js";
export * from "./database/db.js";
export * from "./database/kv.js";
export * from "./database/timelines.js";
export * from "./database/vectors.js";
export * from "./errors.js";
export type { AskEvent } from "./memory/asking.js";
export * from "./memory/profile.js";
export * from "./memory/session.js";
export * from "./options.js";
export type * from "./types/inputs.js";
export type * from "./types/wire.js";
