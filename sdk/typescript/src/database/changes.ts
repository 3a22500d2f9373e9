/** The change feed of a branch: pages, and an endless iteration that comes back after every break. */

import { errorFor } from "../core/answers.js";
import { backoffMs } from "../core/retries.js";
import { eventsOf, parsed, type ServerEvent } from "../core/streams.js";
import type { Target } from "../core/target.js";
import {
  BranchNotFoundError,
  ChangesGoneError,
  RetryableError,
  UnknownOutcomeError,
  UnreachableError,
} from "../errors.js";
import type { CallOptions, Stamp, Surface } from "../options.js";
import type * as types from "../types/wire.js";

/** Which changes. */
export interface ChangesOptions {
  /** A txid: what was committed after it. From now on unless given. */
  since?: number | undefined;
  /** Commits of a page. */
  limit?: number | undefined;
  /** Of these alone. */
  surfaces?: readonly Surface[] | undefined;
  /** Only what object storage has, which no lost node takes back. */
  durable?: boolean | undefined;
  /** Wait so long for the first change, 60 at most. */
  waitS?: number | undefined;
}

export interface FollowOptions {
  since?: number | undefined;
  surfaces?: readonly Surface[] | undefined;
  durable?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

export type FeedEvent =
  | { type: "change"; txid: number; change: types.Change }
  | { type: "reset"; txid: number; error: string; code: string };

/** Silence after which a connection counts as broken: the server says something every 10 s. */
const CONNECT_MS = 30_000;
/** What a poll may take beside its waiting. */
const GRACE_MS = 30_000;
const CONFLICT = 409;

export function changesPage(target: Target, options: ChangesOptions & CallOptions): Promise<types.ChangePage & Stamp> {
  const { since, limit, surfaces, durable, waitS, ...call } = options;
  const query = { since, limit, surface: surfaces, durable, wait_s: waitS };
  const timeoutMs = (waitS ?? 0) * 1000 + GRACE_MS;
  // The answer's txid is that of the head, which the caller has not seen yet.
  return target
    .send("GET", ["changes"], { query, options: call, timeoutMs })
    .then((answer) => answer.stamped<types.ChangePage>());
}

export async function* follow(target: Target, options: FollowOptions): AsyncGenerator<FeedEvent, void, undefined> {
  const { signal } = options;
  const { random } = target.transport.seams;
  let since = options.since ?? (await changesPage(target, { signal, limit: 1 })).next_since;
  let breaks = 0;
  let lost: ChangesGoneError | null = null;
  for (;;) {
    try {
      if (lost !== null) {
        since = (await changesPage(target, { signal, limit: 1 })).next_since;
        const { message, code } = lost;
        lost = null;
        yield { type: "reset", txid: since, error: message, code };
      }
      for await (const event of connection(target, options, since)) {
        breaks = 0;
        since = event.txid;
        if (event.type === "id") continue;
        // Whoever reads what he was told of has to see it.
        if (target.place) target.transport.positions.see(target.place, { txid: since, durableTxid: 0 });
        yield event;
      }
    } catch (error) {
      if (error instanceof ChangesGoneError) lost = error;
      else if (!passes(error)) throw error;
    }
    await target.transport.seams.sleep(backoffMs(breaks, random()), signal ?? new AbortController().signal);
    breaks += 1;
  }
}

type Told = FeedEvent | { type: "id"; txid: number };

/** Yield the events of one connection, until the server ends it. Throws what the end says, where it is not to come again. */
async function* connection(
  target: Target,
  options: FollowOptions,
  since: number,
): AsyncGenerator<Told, void, undefined> {
  const { surfaces, durable, signal } = options;
  const query = { since, surface: surfaces, durable };
  const ask = { query, accept: "text/event-stream", options: { signal, timeoutMs: CONNECT_MS } };
  for await (const event of eventsOf(await target.open("GET", ["changes"], ask))) {
    if (event.event === "end") return ended(event);
    const told = toldBy(event);
    if (told) yield told;
  }
}

function toldBy({ event, data, id }: ServerEvent): Told | null {
  if (event === "change") return { type: "change", txid: Number(id), change: parsed(data) as unknown as types.Change };
  if (event === "reset") {
    const { txid, error, code } = parsed(data);
    return { type: "reset", txid: Number(id ?? txid), error: String(error), code: String(code) };
  }
  return id === null ? null : { type: "id", txid: Number(id) };
}

function ended({ data }: ServerEvent): void {
  const { reason } = parsed(data);
  if (reason === "stopping" || reason === "moved") return;
  if (reason === "gone") throw new BranchNotFoundError("the branch is gone", { code: "branch_not_found", status: 404 });
  const error = errorFor(String(reason), `the feed was ended: ${reason}`, { status: CONFLICT });
  if (!passes(error)) throw error;
}

/** Whether the feed may be had again after an error. */
function passes(error: unknown): boolean {
  return error instanceof RetryableError || error instanceof UnknownOutcomeError || error instanceof UnreachableError;
}
