/** Sends requests: credentials, deadlines, repeats, idempotency keys and read floors. Knows nothing of what a route means. */

import { MemoturnError, ServerError, UnknownOutcomeError, UnreachableError } from "../errors.js";
import type { CallOptions, MemoturnOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import { errorOf } from "./answers.js";
import { Deadline, sleep } from "./deadline.js";
import { json } from "./encoding.js";
import { failureOf } from "./failures.js";
import { randomKey } from "./keys.js";
import { invalid, type Query, queryText, revision } from "./paths.js";
import { type Place, type Position, Positions } from "./positions.js";
import { type Failure, mayBeApplied, type Outcome, type Repeatable, saysNothing, waitMs } from "./retries.js";

export const DEFAULT_URL = "http://127.0.0.1:8080";
export const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_RETRIES = 3;
const SENDABLE = /^(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?$/;

/** What `fetch` takes as a body; types of Node.js have no name for it. */
export type Body = NonNullable<RequestInit["body"]>;

/** One call of the API: everything of a request but what the client adds to it. */
export interface Call {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  readonly query?: Query;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as it is; opened anew for each attempt. */
  readonly data?: () => Body;
  readonly contentType?: string;
  readonly accept?: string;
  readonly headers?: Readonly<Record<string, string | null | undefined>>;
  /** The branch whose txids the answer tells. */
  readonly place?: Place | undefined;
  /** It reads a state of `place`: a floor may be set, and a revision. */
  readonly reads?: boolean;
  /** It addresses one thing, for which 404 `not_found` is an answer. */
  readonly one?: boolean;
  /** It is a write, which carries a key. */
  readonly writes?: boolean;
  readonly repeatable?: Repeatable;
  /** The platform key goes first. */
  readonly control?: boolean;
  readonly options?: (ReadOptions & WriteOptions) | undefined;
  /** In place of the client's, unless the caller says so. */
  readonly timeoutMs?: number;
}

/** What tests put in place of time and chance. */
export interface Seams {
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly random: () => number;
}

/** An answer below 400, read whole. */
export class Answer {
  constructor(
    readonly status: number,
    readonly headers: Headers,
    readonly body: ArrayBuffer,
  ) {}

  text(): string {
    return new TextDecoder().decode(this.body);
  }

  /** Return the JSON object. Throws ServerError where it is none. */
  json<T>(): T {
    let value: unknown;
    let cause: unknown;
    try {
      value = JSON.parse(this.text());
    } catch (error) {
      cause = error;
    }
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as T;
    throw new ServerError("the answer is not a JSON object; is the URL that of a Memoturn node?", {
      status: this.status,
      code: "internal",
      cause,
    });
  }

  /** Return the JSON object with what the headers say of it; fields of the body win. */
  stamped<T extends object>(): T & Stamp {
    return { ...this.stamp(), ...this.json<T>() };
  }

  stamp(): Stamp {
    return stampOf(this.headers);
  }
}

/** An answer whose body comes as it is read. `release` has to be called at its end. */
export interface Opened {
  readonly response: Response;
  readonly deadline: Deadline;
}

/** Sends the requests of one client. */
export class Transport {
  readonly url: string;
  readonly positions = new Positions();
  readonly source: string | undefined;
  readonly #dataKey: string | undefined;
  readonly #controlKey: string | undefined;
  readonly #tenant: string | undefined;
  readonly #fetch: typeof fetch;
  readonly #retries: number;
  readonly #timeoutMs: number;
  readonly #floors: boolean;
  readonly seams: Seams;

  constructor(options: MemoturnOptions, seams: Partial<Seams> = {}) {
    this.url = baseOf(options.url ?? DEFAULT_URL);
    this.source = options.source;
    const token = credential(options.token, "token");
    const platformKey = credential(options.platformKey, "platform key");
    this.#dataKey = token || platformKey;
    this.#controlKey = platformKey || token;
    this.#tenant = options.tenant;
    // A method of the global object fails where it is called on another one.
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#retries = options.retries ?? DEFAULT_RETRIES;
    if (!(this.#retries >= 0)) throw invalid(`retries is ${this.#retries}; give a number, 0 for none`);
    this.#timeoutMs = timeOfCall(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    this.#floors = options.readYourWrites ?? true;
    this.seams = { sleep, random: Math.random, ...seams };
  }

  /** Send a call and return its answer. Throws the MemoturnError of the answer, or the reason of the caller's signal. */
  async send(call: Call): Promise<Answer> {
    const deadline = this.#deadline(call);
    try {
      return await this.#exchange(call, deadline, async (response) => {
        return new Answer(response.status, response.headers, await response.arrayBuffer());
      });
    } finally {
      deadline.release();
    }
  }

  /** Send a call whose answer is read as it comes. Throws what `send` does. */
  async open(call: Call): Promise<Opened> {
    const deadline = this.#deadline(call);
    try {
      const response = await this.#exchange(call, deadline, async (response) => response);
      return { response, deadline };
    } catch (error) {
      deadline.cancel();
      throw error;
    }
  }

  #deadline(call: Call): Deadline {
    const options: CallOptions = call.options ?? {};
    return new Deadline(timeOfCall(options.timeoutMs ?? call.timeoutMs ?? this.#timeoutMs), options.signal);
  }

  async #exchange<T>(call: Call, deadline: Deadline, take: (response: Response) => Promise<T>): Promise<T> {
    const request = this.#request(call);
    let floor = this.#floor(call);
    // A floor of the client's own that was not met, so that the owner is asked.
    let unmet = 0;
    // A write that an earlier attempt may have brought through is not told to be unsent, or turned away.
    let lost = false;
    for (let repeats = 0; ; ) {
      if (floor > 0) request.headers["memoturn-min-txid"] = String(floor);
      let outcome: Outcome;
      let error: MemoturnError;
      try {
        const response = await this.#fetch(request.url, request.init(deadline.signal));
        if (isRedirect(response)) {
          await response.body?.cancel();
          throw redirected(response);
        }
        if (response.status < 400) {
          const taken = await take(response);
          this.#see(call, response.headers, unmet);
          return taken;
        }
        error = errorOf(response.status, response.headers, await response.text());
        outcome = { status: error.status, code: error.code, retryAfterS: error.retryAfterS };
        if (floor > 0 && isBelow(error, call)) {
          // The name may stand for another branch by now, whose txids are lower: its owner knows.
          unmet = floor;
          floor = 0;
          delete request.headers["memoturn-min-txid"];
          request.headers["memoturn-consistency"] = "primary";
          continue;
        }
        this.#see(call, response.headers, unmet);
      } catch (cause) {
        deadline.throwIfAborted();
        if (cause instanceof MemoturnError) throw cause;
        const failure = deadline.expired ? "timeout" : failureOf(cause);
        outcome = { failure };
        error = this.#failed(call, failure, cause, request.headers["idempotency-key"]);
      }
      const wait = waitMs(outcome, {
        repeatable: call.repeatable ?? "always",
        repeats,
        retries: this.#retries,
        random: this.seams.random(),
        leftMs: deadline.leftMs,
      });
      if (call.writes && lost && saysNothing(outcome)) error = unknownAfter(error, request.headers["idempotency-key"]);
      lost ||= mayBeApplied(outcome);
      if (wait === null) throw error;
      await this.#pause(wait, deadline, error);
      repeats += 1;
    }
  }

  async #pause(ms: number, deadline: Deadline, error: MemoturnError): Promise<void> {
    try {
      await this.seams.sleep(ms, deadline.signal);
    } catch {
      deadline.throwIfAborted();
      throw error;
    }
  }

  #request(call: Call): {
    url: string;
    headers: Record<string, string>;
    init: (signal: AbortSignal) => RequestInit;
  } {
    const headers = this.#headers(call);
    const query = { ...call.query, at: call.options?.at === undefined ? undefined : revision(call.options.at) };
    const text = call.body === undefined ? undefined : json(call.body);
    return {
      url: this.url + call.path + queryText(query),
      headers,
      init: (signal) => {
        const body = call.data ? call.data() : text;
        // Followed, a POST would become a GET: a write that does nothing, and whose answer looks well.
        const redirect = "manual";
        const init: RequestInit & { duplex?: "half" } = { method: call.method, headers, signal, redirect };
        if (body !== undefined) init.body = body;
        // Streams can only be sent so; browsers take them over HTTP/2 alone.
        if (body instanceof ReadableStream) init.duplex = "half";
        return init;
      },
    };
  }

  #headers(call: Call): Record<string, string> {
    const options = call.options ?? {};
    const key = call.control ? this.#controlKey : this.#dataKey;
    const all: Record<string, string | null | undefined> = {
      accept: call.accept ?? "application/json",
      authorization: key ? `Bearer ${key}` : undefined,
      "memoturn-tenant": this.#tenant,
      "content-type": call.body === undefined ? call.contentType : "application/json",
      "memoturn-consistency": options.consistency,
      "memoturn-min-txid": options.minTxid?.toString(),
      "memoturn-durability": options.durability,
      "idempotency-key": call.writes ? (options.idempotencyKey ?? randomKey()) : undefined,
      ...call.headers,
    };
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(all)) {
      if (value === undefined || value === null) continue;
      if (!SENDABLE.test(value)) throw invalid(`the header ${name} takes visible ASCII characters alone`);
      headers[name] = value;
    }
    return headers;
  }

  /** Return the floor that the client sets by itself, 0 for none. */
  #floor(call: Call): number {
    const options = call.options ?? {};
    if (!this.#floors || !call.reads || !call.place) return 0;
    if (options.minTxid !== undefined || options.at !== undefined) return 0;
    return this.positions.of(call.place).txid;
  }

  /** Remember where the branch stands; where its owner is below a floor that was `unmet`, the name is another branch's now. */
  #see(call: Call, headers: Headers, unmet: number): void {
    if (!call.place || call.options?.at !== undefined) return;
    const { txid, durable_txid } = stampOf(headers);
    const seen: Position = { txid, durableTxid: durable_txid };
    if (txid < unmet) this.positions.replace(call.place, seen);
    else if (txid > 0) this.positions.see(call.place, seen);
  }

  #failed(call: Call, failure: Failure, cause: unknown, idempotencyKey: string | undefined): MemoturnError {
    if (failure === "connect") {
      return new UnreachableError(`cannot connect to ${this.url}`, { code: "unreachable", cause });
    }
    const what = failure === "timeout" ? "did not answer in time" : "broke the connection";
    const after = call.writes ? "; the write may or may not have been applied" : "";
    return new UnknownOutcomeError(`${this.url} ${what} during ${call.method} ${call.path}${after}`, {
      code: "unknown_outcome",
      idempotencyKey: idempotencyKey ?? null,
      cause,
    });
  }
}

function unknownAfter(error: MemoturnError, idempotencyKey: string | undefined): MemoturnError {
  const message = `an earlier attempt of the write may have been applied, and the last one failed: ${error.message}`;
  const { retryAfterS } = error;
  const details = { code: "unknown_outcome", retryAfterS, idempotencyKey: idempotencyKey ?? null, cause: error };
  return new UnknownOutcomeError(message, details);
}

/** Whether an error says that the state is below a floor; a profile that is gone has no state. */
function isBelow(error: MemoturnError, call: Call): boolean {
  return error.status === 412 || (error.code === "not_found" && !call.one);
}

export function stampOf(headers: Headers): Stamp {
  const stamp: Stamp = {
    txid: numberOf(headers, "memoturn-txid") ?? 0,
    durable_txid: numberOf(headers, "memoturn-durable-txid") ?? 0,
  };
  const durability = headers.get("memoturn-durability");
  if (durability === "local" || durability === "replicated" || durability === "durable") stamp.durability = durability;
  if (headers.get("idempotent-replayed") === "true") stamp.replayed = true;
  const age = numberOf(headers, "memoturn-replica-age-ms");
  if (age !== null) stamp.replica_age_ms = age;
  return stamp;
}

export function numberOf(headers: Headers, name: string): number | null {
  const value = headers.get(name);
  return value !== null && /^[0-9]+$/.test(value) ? Number(value) : null;
}

const NOT_MODIFIED = 304;

function isRedirect({ type, status }: Response): boolean {
  // Browsers hide what it is.
  return type === "opaqueredirect" || (status >= 300 && status < 400 && status !== NOT_MODIFIED);
}

function redirected({ status, headers }: Response): ServerError {
  const where = headers.get("location");
  const what = `the answer leads elsewhere${where === null ? "" : `, to ${where}`}; give the client the URL of the node itself`;
  return new ServerError(what, { status, code: "internal" });
}

function credential(text: string | undefined, what: string): string | undefined {
  if (text && !SENDABLE.test(text)) {
    // It is not repeated here.
    throw invalid(
      `the ${what} has a line break, a blank at an end, or a character that is not ASCII: give it as it was made, with nothing around it`,
    );
  }
  return text || undefined;
}

function timeOfCall(ms: number): number {
  if (!(ms > 0)) throw invalid(`timeoutMs is ${ms}; give a number of milliseconds over 0`);
  return ms;
}

function baseOf(url: string): string {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch (cause) {
    throw invalid(`${url} is not a URL, as in ${DEFAULT_URL}`, cause);
  }
  const { protocol, origin, pathname, username, password } = parsed;
  if (protocol !== "http:" && protocol !== "https:") throw invalid(`${url} is no http or https URL`);
  // The URL is not repeated here: a password may be in it.
  if (username || password) throw invalid("the URL holds a user or a password; give a token instead");
  if (/[?#]/.test(url)) throw invalid(`${url} goes on behind its path; leave out what begins with ? or #`);
  return origin + pathname.replace(/\/+$/, "");
}
