/** Where a request goes: paths, queries and revisions as they are written. Pure. */

import { InvalidRequestError } from "../errors.js";
import type { At, Time } from "../options.js";
import type { Place } from "./positions.js";

export const MAIN = "main";

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | null | undefined>>;

/** Join parts into a path, each percent-encoded whole. Throws InvalidRequestError. */
export function path(...parts: readonly (string | number)[]): string {
  return parts.map((part) => `/${encoded(String(part))}`).join("");
}

function encoded(part: string): string {
  if (!part) throw invalid("a name in the request is empty; give it a value");
  if (part === "." || part === "..") {
    // URLs have no spelling for them: `%2E` is taken for a dot segment too, and removed.
    throw invalid(`the name "${part}" cannot be in a URL; choose another`);
  }
  return component(part);
}

function component(text: string): string {
  try {
    return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  } catch (cause) {
    throw invalid("a name in the request holds half of a surrogate pair, which is no character", cause);
  }
}

/** Return a query with its question mark, empty where it says nothing. */
export function queryText(query: Query): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === null || value === false) continue;
    parts.push(`${name}=${component(Array.isArray(value) ? value.join(",") : String(value))}`);
  }
  return parts.length > 0 ? `?${parts.join("&")}` : "";
}

/** Return the branch that `name` or `name@branch` stands for. */
export function placeOf(spec: string): Place {
  const [database = "", branch] = spec.split("@", 2);
  return { database, branch: branch || MAIN };
}

/** Return `name@branch`, or the name alone for main. */
export function specOf(place: Place): string {
  return place.branch === MAIN ? place.database : `${place.database}@${place.branch}`;
}

/** Return a revision as it is sent. Throws InvalidRequestError for a Date that is none. */
export function revision(at: At): string {
  return at instanceof Date ? dateOf(at).toISOString() : String(at);
}

/** Return a time as it is sent. Throws InvalidRequestError for a Date that is none. */
export function timeOf(time: Time | null | undefined): number | string | null | undefined {
  return time instanceof Date ? dateOf(time).getTime() : time;
}

function dateOf(date: Date): Date {
  if (Number.isNaN(date.getTime())) throw invalid("a Date in the request is no valid time");
  return date;
}

export function invalid(message: string, cause?: unknown): InvalidRequestError {
  return new InvalidRequestError(message, { code: "invalid_request", cause });
}
