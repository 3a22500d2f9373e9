/** The transcript of a session: turns, numbered from 1. */

import { wire } from "../core/encoding.js";
import { apart, orNull, type Target } from "../core/target.js";
import type { Embedding, ReadOptions, Stamp, WriteOptions } from "../options.js";
import type { TurnInput, TurnSearch } from "../types/inputs.js";
import type * as types from "../types/wire.js";

/** Which turns a page has: the last ones, or those next to a turn's number. */
export interface TurnPageOptions extends ReadOptions {
  last?: number | undefined;
  before?: number | undefined;
  after?: number | undefined;
  limit?: number | undefined;
}

const PAGE = 1000;

export class TranscriptSession {
  readonly id: string;
  readonly #turns: Target;
  readonly #session: Target;

  /** @internal */
  constructor(data: Target, id: string) {
    this.id = id;
    this.#session = data.below("memory", id);
    this.#turns = this.#session.below("turns");
  }

  /** Append a turn. */
  appendTurn(turn: TurnInput, options?: WriteOptions): Promise<types.TurnAppendResult & Stamp> {
    return this.#turns.write("POST", [], wire(turn), options);
  }

  /** Append 1 to 1000 turns as one commit. */
  appendTurns(turns: readonly TurnInput[], options?: WriteOptions): Promise<types.TurnsAppendResult & Stamp> {
    return this.#turns.write("POST", [], { turns: turns.map(wire) }, options);
  }

  /** The last turns, 20 unless `last` says otherwise, or a page `before` or `after` a turn; oldest first. */
  getWindow(options: TurnPageOptions = {}): Promise<types.TurnPage & Stamp> {
    const [call, query] = apart(options);
    return this.#turns.read([], call, { query });
  }

  /** Yield every turn behind the number `after` (0), oldest first. */
  async *turns(
    options: ReadOptions & { after?: number | undefined } = {},
  ): AsyncGenerator<types.Turn, void, undefined> {
    const { after, ...call } = options;
    let next: number | null = after ?? 0;
    while (next !== null) {
      const page: types.TurnPage = await this.getWindow({ ...call, after: next, limit: PAGE });
      yield* page.turns;
      next = page.newer;
    }
  }

  /** One turn, null where there is none of that number. */
  get(seq: number, options?: ReadOptions): Promise<(types.Turn & Stamp) | null> {
    return orNull(this.#turns.read<types.Turn>([seq], options, { one: true }));
  }

  /** Delete a turn; false where there is none of that number. */
  async delete(seq: number, options?: WriteOptions): Promise<boolean> {
    return (await orNull(this.#turns.remove([seq], options))) !== null;
  }

  /** Delete the turns from one number to another, both included, or with `all` every one. `more` says whether to come again. */
  deleteTurns(
    range: { from?: number | undefined; to?: number | undefined; all?: boolean | undefined },
    options?: WriteOptions,
  ): Promise<types.TurnsDeleteResult & Stamp> {
    return this.#turns.write("DELETE", [], undefined, options, { query: range });
  }

  /** Turns with an embedding, nearest first. */
  searchSemantic(
    vector: Embedding,
    options: ReadOptions & { k?: number | undefined } = {},
  ): Promise<types.TurnSearchResult & Stamp> {
    return this.search({ ...options, vector });
  }

  /** Turns by their words, by a vector, or both. */
  search(search: TurnSearch & ReadOptions): Promise<types.TurnSearchResult & Stamp> {
    const [call, asked] = apart(search);
    return this.#session.read(["search"], call, { method: "POST", body: wire(asked) });
  }
}
