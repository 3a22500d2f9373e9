/** Whether a request is sent again, and after how long. Pure. */

/** No connection came about; it broke; no answer came in time. */
export type Failure = "connect" | "broken" | "timeout";

/** What became of an attempt: an answer from 400 on, or none. */
export type Outcome =
  | { readonly status: number; readonly code: string; readonly retryAfterS?: number | null }
  | { readonly failure: Failure };

/** `always`: reads, and writes with a key. `unapplied`: where it surely was not applied. */
export type Repeatable = "always" | "unapplied" | "never";

export interface Attempts {
  readonly repeatable: Repeatable;
  /** How often it was sent again already. */
  readonly repeats: number;
  readonly retries: number;
  /** 0 to 1: what the jitter comes to. */
  readonly random: number;
  /** Time left of the call. */
  readonly leftMs: number;
}

const FIRST_MS = 200;
const LONGEST_MS = 5000;
const LONGEST_RETRY_AFTER_S = 30;
const PASSING = new Set([408, 429, 502, 503, 504]);
/** Statuses that say that nothing was changed. */
const TURNED_AWAY = new Set([429, 503]);

/** Return the time to wait before the next attempt, null where there is none. */
export function waitMs(outcome: Outcome, attempts: Attempts): number | null {
  if (attempts.repeats >= attempts.retries || !passes(outcome, attempts.repeatable)) return null;
  const retryAfterS = ("status" in outcome && outcome.retryAfterS) || 0;
  if (retryAfterS > LONGEST_RETRY_AFTER_S) return null;
  const wait = retryAfterS * 1000 + backoffMs(attempts.repeats, attempts.random);
  return wait < attempts.leftMs ? wait : null;
}

/** Whether a write may be applied after an attempt that became of this. */
export function mayBeApplied(outcome: Outcome): boolean {
  if ("failure" in outcome) return outcome.failure !== "connect";
  return (PASSING.has(outcome.status) && !TURNED_AWAY.has(outcome.status)) || outcome.code === "outcome_unknown";
}

/** Whether an attempt that became of this says nothing of those before it: it was not sent, or turned away. */
export function saysNothing(outcome: Outcome): boolean {
  return "failure" in outcome ? outcome.failure === "connect" : TURNED_AWAY.has(outcome.status);
}

/** Return full jitter of a window that doubles. */
export function backoffMs(repeats: number, random: number): number {
  return random * Math.min(LONGEST_MS, FIRST_MS * 2 ** repeats);
}

function passes(outcome: Outcome, repeatable: Repeatable): boolean {
  if (repeatable === "never") return false;
  if ("failure" in outcome) return repeatable === "always" || outcome.failure === "connect";
  if (outcome.code === "unconfigured") return false;
  return (repeatable === "always" ? PASSING : TURNED_AWAY).has(outcome.status);
}
