/** Why `fetch` failed. It says so in no standard way: every runtime hides it somewhere else. Pure. */

import type { Failure } from "./retries.js";

/** Codes of errors from before anything was sent: Node's and Bun's. */
const UNCONNECTED = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
  "ConnectionRefused",
  "FailedToOpenSocket",
]);
/** What Deno says. */
const UNCONNECTED_TEXT = /client error \(Connect\)|Connection refused|dns error/i;
const DEPTH = 5;

/** Return what is known of a failure; without a sign that nothing was sent, it may have been. */
export function failureOf(error: unknown): Failure {
  let cause: unknown = error;
  for (let depth = 0; depth < DEPTH && typeof cause === "object" && cause !== null; depth += 1) {
    const { code, message, cause: next } = cause as { code?: unknown; message?: unknown; cause?: unknown };
    if (typeof code === "string" && UNCONNECTED.has(code)) return "connect";
    if (typeof message === "string" && UNCONNECTED_TEXT.test(message)) return "connect";
    cause = next;
  }
  return "broken";
}
