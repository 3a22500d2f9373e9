/** What a client's objects address: a part of the API's paths, and the branch whose state it is about. */

import { NotFoundError } from "../errors.js";
import type { CallOptions, PageOptions, ReadOptions, Stamp, WriteOptions } from "../options.js";
import { Listing, type Paged } from "./listing.js";
import { path, type Query } from "./paths.js";
import type { Place } from "./positions.js";
import type { Answer, Call, Opened, Transport } from "./transport.js";

type Parts = readonly (string | number)[];

/** A request to a part of the target. */
export type Ask = Omit<Call, "method" | "path" | "place" | "control">;

export class Target {
  constructor(
    readonly transport: Transport,
    readonly base: readonly string[],
    readonly place: Place | undefined,
    /** Goes with every request. */
    readonly query: Query = {},
    readonly control = false,
  ) {}

  /** Return the part of the same that `parts` lead to. */
  below(...parts: readonly string[]): Target {
    return new Target(this.transport, [...this.base, ...parts], this.place, this.query, this.control);
  }

  /** Return what is read, with its stamp. */
  async read<T extends object>(
    parts: Parts,
    options?: ReadOptions,
    ask: Ask & { method?: "POST" } = {},
  ): Promise<T & Stamp> {
    const { method, ...rest } = ask;
    const answer = await this.send(method ?? "GET", parts, { reads: true, options, ...rest });
    return answer.stamped<T>();
  }

  /** Return what a write answers, with its stamp. */
  async write<T extends object>(
    method: Call["method"],
    parts: Parts,
    body: unknown,
    options?: WriteOptions,
    ask: Ask = {},
  ): Promise<T & Stamp> {
    const answer = await this.send(method, parts, { writes: true, body, options, ...ask });
    return answer.stamped<T>();
  }

  /** Delete something, and return the stamp. */
  async remove(parts: Parts, options?: WriteOptions, query?: Query): Promise<Stamp> {
    const answer = await this.send(
      "DELETE",
      parts,
      query ? { writes: true, options, query } : { writes: true, options },
    );
    return answer.stamp();
  }

  /** Return an answer of no branch, without a stamp. */
  async plain<T>(method: Call["method"], parts: Parts, ask: Ask = {}): Promise<T> {
    return (await this.send(method, parts, ask)).json<T>();
  }

  send(method: Call["method"], parts: Parts, ask: Ask): Promise<Answer> {
    return this.transport.send(this.#call(method, parts, ask));
  }

  open(method: Call["method"], parts: Parts, ask: Ask): Promise<Opened> {
    return this.transport.open(this.#call(method, parts, ask));
  }

  /** Return the listing behind a path. */
  list<T, P extends Paged>(
    parts: Parts,
    rows: (page: P) => readonly T[],
    options: PageOptions & ReadOptions & { query?: Query } = {},
    reads = false,
  ): Listing<T, P> {
    const { limit, cursor, query, ...call } = options;
    const page = async (at: string | undefined): Promise<P> => {
      const answer = await this.send("GET", parts, { reads, options: call, query: { ...query, limit, cursor: at } });
      return reads ? answer.stamped<P>() : answer.json<P>();
    };
    return new Listing(page, rows, cursor);
  }

  #call(method: Call["method"], parts: Parts, ask: Ask): Call {
    const query = { ...ask.query, ...this.query };
    return { ...ask, method, path: path(...this.base, ...parts), query, place: this.place, control: this.control };
  }
}

/** Return null in place of an error that says that one thing is not there. */
export async function orNull<T>(answer: Promise<T>, codes: readonly string[] = ["not_found"]): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof NotFoundError && codes.includes(error.code)) return null;
    throw error;
  }
}

type Known = keyof CallOptions | keyof ReadOptions | keyof WriteOptions;

/** Part what a call is asked for from how it is to be made. */
export function apart<T extends object>(options: T): [ReadOptions & WriteOptions, Omit<T, Known>] {
  const { signal, timeoutMs, at, minTxid, consistency, durability, idempotencyKey, ...rest } = options as T &
    ReadOptions &
    WriteOptions;
  const call: Record<string, unknown> = { signal, timeoutMs, at, minTxid, consistency, durability, idempotencyKey };
  for (const key of Object.keys(call)) if (call[key] === undefined) delete call[key];
  return [call, rest as Omit<T, Known>];
}
