/** An answer of a language model, as it is written. */

import { errorFor } from "../core/answers.js";
import { eventsOf, parsed } from "../core/streams.js";
import type { Opened } from "../core/transport.js";
import { UnknownOutcomeError } from "../errors.js";
import type * as types from "../types/wire.js";

export type AskEvent =
  | { type: "memories"; memories: types.RecallHit[]; txid: number }
  | { type: "delta"; text: string }
  | ({ type: "done" } & Omit<types.AskResult, "memories">);

const FAILED = 502;

/** Yield the events of an answer. Throws the MemoturnError that came in place of its end. */
export async function* askEvents(opened: Opened): AsyncGenerator<AskEvent, void, undefined> {
  for await (const { event, data } of eventsOf(opened)) {
    if (event === "error") {
      const { error, code } = parsed(data);
      throw errorFor(String(code), String(error), { status: FAILED });
    }
    if (event === "memories" || event === "delta" || event === "done") {
      yield { type: event, ...parsed(data) } as AskEvent;
      if (event === "done") return;
    }
  }
  throw new UnknownOutcomeError("the answer ended before it was done: ask again", { code: "unknown_outcome" });
}
