/** Decisions without I/O: the shared vectors, and what is this client's own. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { errorOf } from "../src/core/answers.js";
import { Deadline } from "../src/core/deadline.js";
import { asciiJson, fromBase64, json, toBase64, wire } from "../src/core/encoding.js";
import { failureOf } from "../src/core/failures.js";
import { path, placeOf, queryText, revision } from "../src/core/paths.js";
import { Positions } from "../src/core/positions.js";
import { type Attempts, type Outcome, waitMs } from "../src/core/retries.js";
import { eventsOf, linesOf, objectsOf } from "../src/core/streams.js";
import type { Opened } from "../src/core/transport.js";
import * as sdk from "../src/index.js";

const exported: Record<string, unknown> = { ...sdk };

import { vectors } from "./support/env.js";

test("paths", () => {
  for (const { name, given, expect } of vectors<{ parts: string[] }, { path?: string; error?: string }>(
    "paths",
    ["parts"],
    ["path", "error"],
  )) {
    if (expect.error) assert.throws(() => path(...given.parts), named(expect.error), name);
    else assert.equal(path(...given.parts), expect.path, name);
  }
});

test("names that no URL can hold are refused", () => {
  for (const dots of [".", ".."]) assert.throws(() => path("kv", dots), sdk.InvalidRequestError);
  assert.equal(path("kv", "..."), "/kv/...");
});

test("errors", () => {
  type Given = { status: number; headers?: Record<string, string>; text?: string };
  type Expect = { error: string; code: string; message?: string; retry_after_s?: number | null };
  for (const { name, given, expect } of vectors<Given, Expect>(
    "errors",
    ["status", "headers", "text"],
    ["error", "code", "message", "retry_after_s"],
  )) {
    const error = errorOf(given.status, new Headers(given.headers), given.text ?? "");
    assert.equal(error.constructor, exported[expect.error], `${name}: ${error.name}`);
    assert.equal(error.name, expect.error, name);
    assert.equal(error.code, expect.code, name);
    assert.equal(error.status, given.status, name);
    if (expect.message !== undefined) assert.equal(error.message, expect.message, name);
    if (expect.retry_after_s !== undefined) assert.equal(error.retryAfterS, expect.retry_after_s, name);
  }
});

test("an error says under which id the node knows the request, and which limit was in the way", () => {
  const headers = new Headers({ "Memoturn-Request-Id": "r-1", "Memoturn-Limit": "writes_per_s" });
  const error = errorOf(429, headers, "");
  assert.equal(error.requestId, "r-1");
  assert.equal(error.limit, "writes_per_s");
  assert.ok(error instanceof sdk.RetryableError && error instanceof sdk.MemoturnError && error instanceof Error);
});

test("decisions", () => {
  type Wire = { status: number; code: string; retry_after_s?: number } | { failure: "connect" | "broken" | "timeout" };
  type Given = Omit<Attempts, "leftMs"> & { outcome: Wire; left_ms: number };
  for (const { name, given, expect } of vectors<Given, { wait_ms: number | null }>(
    "decisions",
    ["outcome", "repeatable", "repeats", "retries", "random", "left_ms"],
    ["wait_ms"],
  )) {
    const { outcome, left_ms, ...attempts } = given;
    const known: Outcome = "failure" in outcome ? outcome : { ...outcome, retryAfterS: outcome.retry_after_s ?? null };
    assert.equal(waitMs(known, { ...attempts, leftMs: left_ms }), expect.wait_ms, name);
  }
});

test("positions go up, are replaced when asked, and are bounded", () => {
  const positions = new Positions(2);
  const a = { database: "a", branch: "main" };
  const b = { database: "b", branch: "main" };
  positions.see(a, { txid: 5, durableTxid: 3 });
  positions.see(a, { txid: 4, durableTxid: 4 });
  assert.deepEqual(positions.of(a), { txid: 5, durableTxid: 4 });
  positions.replace(a, { txid: 2, durableTxid: 0 });
  assert.deepEqual(positions.of(a), { txid: 2, durableTxid: 0 });
  positions.see(b, { txid: 1, durableTxid: 0 });
  positions.see(a, { txid: 3, durableTxid: 0 });
  positions.see({ database: "c", branch: "x" }, { txid: 9, durableTxid: 0 });
  assert.equal(positions.of(b).txid, 0, "the one that was used least recently is forgotten");
  assert.equal(positions.of(a).txid, 3);
  positions.see({ database: "c", branch: "y" }, { txid: 9, durableTxid: 0 });
  positions.forget("c", "x");
  assert.equal(positions.of({ database: "c", branch: "y" }).txid, 9);
  positions.forget("c");
  assert.equal(positions.of({ database: "c", branch: "y" }).txid, 0);
});

test("what is sent has the wire's names, and no undefined", () => {
  const at = new Date(1_790_000_000_000);
  const sent = wire({ topicKey: "a", halfLifeS: 1, since: at, keyword: undefined, content: { someKey: at } });
  assert.deepEqual(sent, { topic_key: "a", half_life_s: 1, since: 1_790_000_000_000, content: { someKey: at } });
});

test("JSON takes typed arrays as arrays, and refuses what it has no form for", () => {
  assert.equal(json({ e: new Float32Array([0.5, -1]) }), '{"e":[0.5,-1]}');
  for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY, 1n, undefined, () => 1]) {
    assert.throws(() => json(wrong), sdk.InvalidRequestError);
  }
  const circle: { self?: unknown } = {};
  circle.self = circle;
  assert.throws(() => json(circle), sdk.InvalidRequestError);
});

test("headers are ASCII, blobs are base64", () => {
  assert.equal(asciiJson({ a: "é😀" }), '{"a":"\\u00e9\\ud83d\\ude00"}');
  const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i % 256);
  assert.deepEqual(fromBase64(toBase64(bytes)), bytes);
});

test("revisions, queries and specs", () => {
  assert.equal(revision(new Date(0)), "1970-01-01T00:00:00.000Z");
  assert.equal(revision(7), "7");
  assert.equal(revision("head~3"), "head~3");
  assert.throws(() => revision(new Date("no")), sdk.InvalidRequestError);
  const query = { a: ["x", "y"], b: true, c: false, d: undefined, e: null, f: "+ &", g: 0 };
  assert.equal(queryText(query), "?a=x%2Cy&b=true&f=%2B%20%26&g=0");
  assert.deepEqual(placeOf("a@b"), { database: "a", branch: "b" });
  assert.deepEqual(placeOf("a"), { database: "a", branch: "main" });
});

test("what is known of a failed fetch, in each runtime", () => {
  const caused = (cause: unknown) => Object.assign(new TypeError("fetch failed"), { cause });
  assert.equal(failureOf(caused({ code: "ECONNREFUSED" })), "connect");
  assert.equal(failureOf(caused(caused({ code: "ENOTFOUND" }))), "connect");
  assert.equal(failureOf(Object.assign(new Error("Unable to connect"), { code: "ConnectionRefused" })), "connect");
  assert.equal(failureOf(new TypeError("error sending request: client error (Connect): tcp connect error")), "connect");
  assert.equal(failureOf(caused({ code: "UND_ERR_SOCKET" })), "broken");
  assert.equal(failureOf(new TypeError("Failed to fetch")), "broken");
  assert.equal(failureOf("no error"), "broken");
});

test("a client of what is no URL is refused at once", () => {
  for (const url of ["nonsense", "ftp://x"]) {
    assert.throws(() => sdk.memoturn({ url }), sdk.InvalidRequestError);
  }
  assert.throws(() => sdk.memoturn().memory("", "x"), sdk.InvalidRequestError);
});

test("a client of options that cannot be is refused at once", async () => {
  // pragma: allowlist nextline secret
  for (const url of ["http://ann:secret@x", "http://x?a=b", "http://x#a", "http://x?"]) {
    assert.throws(
      () => sdk.memoturn({ url }),
      (error) => error instanceof sdk.InvalidRequestError && !error.message.includes("secret"),
    );
  }
  for (const secret of ["abc\n", "abc\r\n", " abc", "abc\x00", "ключ", "\u00a0abc"]) {
    for (const kind of ["token", "platformKey"]) {
      const told = (error: unknown) =>
        error instanceof sdk.InvalidRequestError && !error.message.includes(secret.trim());
      assert.throws(() => sdk.memoturn({ [kind]: secret }), told);
    }
  }
  for (const wrong of [-1, Number.NaN]) assert.throws(() => sdk.memoturn({ retries: wrong }), sdk.InvalidRequestError);
  for (const wrong of [0, -1, Number.NaN]) {
    assert.throws(() => sdk.memoturn({ timeoutMs: wrong }), sdk.InvalidRequestError);
    await assert.rejects(sdk.memoturn().health({ timeoutMs: wrong }), sdk.InvalidRequestError);
  }
});

function opened(...chunks: Uint8Array[]): Opened {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  return { response: new Response(body), deadline: new Deadline(10_000, undefined) };
}

async function all<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const row of rows) found.push(row);
  return found;
}

/** A text as two chunks, cut at every byte, and byte by byte. */
function* pieces(text: string): Generator<Uint8Array[]> {
  const bytes = new TextEncoder().encode(text);
  for (let cut = 0; cut <= bytes.length; cut += 1) yield [bytes.subarray(0, cut), bytes.subarray(cut)];
  yield Array.from(bytes, (byte) => Uint8Array.of(byte));
}

test("events are the same wherever their bytes are parted", async () => {
  const text =
    ': hello\n\nevent: change\nid: 7\ndata: {"s": "é日😀"}\n\nid: 8\n\n' +
    "event:delta\r\ndata:a\r\ndata:  b: c\r\n\r\ndata\n\nevent: lost\ndata: no end";
  const events = [
    { event: "change", data: '{"s": "é日😀"}', id: "7" },
    { event: "", data: "", id: "8" },
    { event: "delta", data: "a\n b: c", id: null },
    { event: "message", data: "", id: null },
  ];
  for (const chunks of pieces(text)) assert.deepEqual(await all(eventsOf(opened(...chunks))), events);
});

test("lines are the same wherever their bytes are parted", async () => {
  const text = '{"s": "é日😀"}\r\n\n{"n": 1}\n{"last": true}';
  for (const chunks of pieces(text)) {
    assert.deepEqual(await all(objectsOf(opened(...chunks))), [{ s: "é日😀" }, { n: 1 }, { last: true }]);
  }
  for (const wrong of ["[1", "7\n", "null\n"]) {
    await assert.rejects(all(objectsOf(opened(new TextEncoder().encode(wrong)))), sdk.ServerError);
  }
});

test("a long line that comes in many pieces is read in one go", async () => {
  const piece = new TextEncoder().encode("x".repeat(4096));
  const began = performance.now();
  const [line] = await all(linesOf(opened(...Array.from({ length: 4096 }, () => piece))));
  assert.equal(line?.length, 4096 * 4096);
  assert.ok(performance.now() - began < 5000);
});

function named(name: string) {
  return (error: unknown) => error instanceof sdk.MemoturnError && error.name === name;
}
