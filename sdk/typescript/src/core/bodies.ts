/** Bodies of imports, which may be larger than memory. */

import type { BytesSource } from "../options.js";
import type { Repeatable } from "./retries.js";
import type { Body } from "./transport.js";

/** Time of an import: it takes as long as the bytes take to come. */
const TRANSFER_MS = 3_600_000;

/** Return how a source is sent. One that can be opened once is sent once. */
export function bytesSource(source: BytesSource): {
  data: () => Body;
  repeatable: Repeatable;
  timeoutMs: number;
} {
  // An import finds what it did before in its way: it is only repeated where it surely was not applied.
  const common = { repeatable: "unapplied" as Repeatable, timeoutMs: TRANSFER_MS };
  if (typeof source === "function") return { ...common, data: source };
  if (source instanceof ReadableStream) return { ...common, repeatable: "never", data: () => source };
  return { ...common, data: () => source as Body };
}
