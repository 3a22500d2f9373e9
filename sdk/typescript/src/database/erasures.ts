/** What is to be erased, as it is sent. Pure. */

import { wire } from "../core/encoding.js";
import type { ErasureTarget } from "../types/inputs.js";

/** Return one target, or several, as a body. */
export function erasureBody(
  target: ErasureTarget | readonly ErasureTarget[],
  graceSecs: number | undefined,
): Record<string, unknown> {
  const what = Array.isArray(target) ? { targets: target.map(targetOf) } : targetOf(target as ErasureTarget);
  return { ...what, ...wire({ graceSecs }) };
}

function targetOf(target: ErasureTarget): Record<string, unknown> {
  const { turn } = target;
  return { ...wire(target), ...(turn ? { turn: wire(turn) } : {}) };
}
