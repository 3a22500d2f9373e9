/** Values as they are sent: JSON, camelCase into the wire's names, base64. Pure. */

import type { Bytes } from "../options.js";
import { invalid, timeOf } from "./paths.js";

/** Return a value as JSON. Throws InvalidRequestError for what JSON has no form for. */
export function json(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value, plain);
  } catch (cause) {
    throw invalid(`the request is not valid JSON: ${(cause as Error).message}`, cause);
  }
  if (text === undefined) throw invalid("the request is not valid JSON: it is undefined or a function");
  return text;
}

function plain(this: unknown, _key: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`${value} is no JSON number`);
  // JSON.stringify would make an object of a typed array, with its indexes as keys.
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    return Array.from(value as unknown as ArrayLike<number>);
  }
  return value;
}

const TIMES = new Set(["since", "until", "at", "expiresAt"]);

/** Return an object with its own keys as the wire names them; what is undefined is left out, dates are milliseconds. */
export function wire(input: object): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(input)) {
    if (value === undefined) continue;
    out[snake(key)] = TIMES.has(key) ? timeOf(value) : value;
  }
  return out;
}

function snake(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

export function bytesOf(value: Bytes): Uint8Array {
  return value instanceof Uint8Array ? value : new Uint8Array(value);
}

/** Return a text in UTF-8. Throws InvalidRequestError for half of a surrogate pair, which would be stored as another character. */
export function utf8(text: string): Uint8Array {
  if (/\p{Surrogate}/u.test(text)) throw invalid("the text holds half of a surrogate pair, which is no character");
  return new TextEncoder().encode(text);
}

const CHUNK = 0x8000;

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += CHUNK) {
    text += String.fromCharCode(...bytes.subarray(i, i + CHUNK));
  }
  return btoa(text);
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** Return what stands for a blob in JSON as bytes, and anything else as it is. */
export function unblob(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { $base64 } = value as { $base64?: unknown };
  return typeof $base64 === "string" ? fromBase64($base64) : value;
}

/** Return a JSON text in ASCII, as headers take it. */
export function asciiJson(value: unknown): string {
  return json(value).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
