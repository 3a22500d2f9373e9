/** Idempotency keys. */

const BYTES = 16;

/** Return a new key. It has to be unlike any other of the sender's, and need not be secret. */
export function randomKey(): string {
  const bytes = new Uint8Array(BYTES);
  // Node 18 has no global `crypto`, and `randomUUID` is missing on pages that are not secure.
  const source = (globalThis as { crypto?: Crypto }).crypto;
  if (source?.getRandomValues) source.getRandomValues(bytes);
  else for (let i = 0; i < BYTES; i += 1) bytes[i] = Math.floor(Math.random() * 256);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
