import assert from "node:assert/strict";
import { before, test } from "node:test";
import * as sdk from "../../src/index.js";
import { database, fresh } from "../support/env.js";
import type { Recorder } from "../support/recorder.js";

export function data({ fetch }: Recorder): void {
  const name = fresh("data");
  let db: sdk.Db;
  before(async () => {
    db = (await database(name, { fetch })).db(name);
  });
  const text = (value: Uint8Array | string | null | undefined) =>
    value instanceof Uint8Array ? new TextDecoder().decode(value) : value;

  test("key-values: bytes and text, whatever the key", async () => {
    const { kv } = db;
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    for (const key of ["plain", "a/b", "a%2Fb", "é 😀?#", "+ &=", "...", "__proto__"]) {
      const put = await kv.put("ns", key, bytes);
      assert.ok(put.etag && put.txid > 0);
      assert.deepEqual(await kv.get("ns", key), bytes, key);
    }
    await kv.put("odd/ns", "t", "grün");
    assert.equal(await kv.getText("odd/ns", "t"), "grün");
    await kv.put("odd/ns", "b", new Uint8Array([255]).buffer);
    await assert.rejects(kv.getText("odd/ns", "b"), sdk.InvalidRequestError);
    assert.equal(await kv.get("ns", "none"), null);
    assert.equal(await kv.getText("ns", "none"), null);
    await kv.put("ns", "empty", "");
    assert.deepEqual(await kv.get("ns", "empty"), new Uint8Array());
    await kv.delete("ns", "empty");
    assert.equal(await kv.get("ns", "empty"), null);
    assert.deepEqual(await kv.get("ns", "empty", { at: "head~1" }), new Uint8Array());
    await kv.put("ns", "gone", "x", { ttl: 0 });
    assert.equal(await kv.get("ns", "gone"), null);
  });

  test("conditions, metadata, lifetimes", async () => {
    const { kv } = db;
    const first = await kv.put("c", "k", "1", { ifNoneMatch: "*", metadata: { who: "é" }, ttl: 600 });
    await assert.rejects(kv.put("c", "k", "2", { ifNoneMatch: "*" }), sdk.PreconditionFailedError);
    const entry = await kv.entry("c", "k");
    assert.deepEqual([text(entry?.value), entry?.etag, entry?.metadata], ["1", first.etag, { who: "é" }]);
    assert.ok((entry?.expires_at ?? 0) > Date.now());
    assert.equal(await kv.entryIfChanged("c", "k", first.etag), "unchanged");
    const second = await kv.put("c", "k", "2", { ifMatch: first.etag });
    const changed = await kv.entryIfChanged("c", "k", first.etag);
    assert.ok(changed !== null && changed !== "unchanged" && text(changed.value) === "2");
    assert.equal(await kv.entryIfChanged("c", "none", first.etag), null);
    await assert.rejects(kv.entry("c", "k", { ifMatch: first.etag }), sdk.PreconditionFailedError);
    await assert.rejects(kv.delete("c", "k", { ifMatch: first.etag }), sdk.PreconditionFailedError);
    await kv.delete("c", "k", { ifMatch: second.etag });
    assert.equal(await kv.entry("c", "k"), null);
  });

  test("listing keys", async () => {
    const { kv } = db;
    await kv.batch("l", { puts: ["a1", "a2", "a3", "b1"].map((key) => ({ key, value: key })) });
    assert.deepEqual(await kv.list("l", { prefix: "a", limit: 2 }).all(), ["a1", "a2", "a3"]);
    const page = await kv.list("l", { limit: 3 });
    assert.equal(page.keys.length, 3);
    assert.deepEqual((await kv.list("l", { limit: 3, cursor: page.next_cursor ?? "" })).keys, ["b1"]);
    assert.deepEqual(
      (await kv.entries("l", { prefix: "b" })).entries.map(({ value }) => value),
      ["b1"],
    );
    const plain = await kv.entries("l", { values: false, limit: 1 }).all();
    assert.deepEqual(plain.map(({ key, value, size_bytes }) => [key, value, size_bytes])[0], ["a1", undefined, 2]);
    await kv.put("l", "bytes", new Uint8Array([255]));
    assert.deepEqual((await kv.entries("l", { prefix: "bytes" }).all())[0]?.value, new Uint8Array([255]));
  });

  test("batches and counters", async () => {
    const { kv } = db;
    const put = await kv.put("b", "old", "o");
    const result = await kv.batch("b", {
      gets: ["old", "none"],
      puts: [
        { key: "text", value: "t", ttl: 600, metadata: { a: 1 } },
        { key: "bytes", value: new Uint8Array([255]), ifNoneMatch: "*" },
      ],
      deletes: ["none", { key: "old", ifMatch: put.etag }],
    });
    const [old] = result.gets;
    assert.ok(old?.value === "o");
    assert.deepEqual(result.gets[1], { key: "none", status: "absent" });
    assert.deepEqual(
      result.puts.map(({ status }) => status),
      ["stored", "stored"],
    );
    assert.deepEqual(
      result.deletes.map(({ status }) => status),
      ["absent", "deleted"],
    );
    const [bytes] = (await kv.batch("b", { gets: ["bytes"] })).gets;
    assert.deepEqual(bytes?.value, new Uint8Array([255]));
    await assert.rejects(
      kv.batch("b", { puts: [{ key: "text", value: "x", ifNoneMatch: "*" }] }),
      sdk.PreconditionFailedError,
    );
    const partial = await kv.batch("b", { puts: [{ key: "text", value: "x", ifNoneMatch: "*" }], partial: true });
    assert.equal(partial.puts[0]?.status, "precondition_failed");
    assert.equal((await kv.increment("b", "n")).value, 1);
    assert.equal((await kv.increment("b", "n", { by: -5, ttl: 600 })).value, -4);
    await assert.rejects(kv.increment("b", "text"), sdk.ConflictError);
  });

  test("vectors", async () => {
    const { vectors } = db;
    assert.equal((await vectors.upsert("c", "a/1", [1, 0], { metadata: { kind: "x" } })).status, "created");
    const many = await vectors.upsertMany("c", [
      { id: "b", embedding: new Float32Array([0, 1]), metadata: { kind: "y" } },
      { id: "d", embedding: [1, 1] },
    ]);
    assert.deepEqual(
      many.results.map(({ status }) => status),
      ["created", "created"],
    );
    const found = await vectors.search("c", [1, 0], {
      k: 2,
      filter: { kind: "x" },
      maxDistance: 0.5,
      minScore: 0.1,
      includeMetadata: true,
      includeEmbedding: true,
    });
    assert.deepEqual(found.hits, [{ id: "a/1", distance: 0, metadata: { kind: "x" }, embedding: [1, 0] }]);
    assert.deepEqual((await vectors.get("c", "a/1"))?.embedding, [1, 0]);
    assert.equal(await vectors.get("c", "none"), null);
    assert.deepEqual(await vectors.list("c", { limit: 1 }).all(), ["a/1", "b", "d"]);
    assert.deepEqual((await vectors.entries("c", { limit: 2 }).all())[1], { id: "b", metadata: { kind: "y" } });
    await vectors.upsert("e", "x", [1]);
    assert.deepEqual(
      (await vectors.collections({ limit: 1 }).all()).map((each) => each.name),
      ["c", "e"],
    );
    await vectors.delete("c", "a/1");
    assert.equal((await vectors.deleteMany("c", ["b", "none"])).results?.length, 2);
    assert.equal((await vectors.deleteMany("c", { filter: {} })).deleted, 1);
    await vectors.drop("e");
    await assert.rejects(vectors.upsert("c", "x", [1, 2, 3]), sdk.InvalidRequestError);
  });

  test("timelines", async () => {
    const { timelines } = db;
    const at = Date.UTC(2026, 0, 1);
    assert.equal((await timelines.append("t", { key: "a", at, data: { ms: 5 } })).appended, 1);
    await timelines.append("t", [
      { key: "a", at: new Date(at + 1000), data: { ms: 7 } },
      { key: "b", at: at + 2000, data: { ms: 9 } },
    ]);
    const rows = [];
    for await (const row of timelines.query("t", { limit: 1 })) rows.push(row.at - at);
    assert.deepEqual(rows, [2000, 1000, 0]);
    const page = await timelines.query("t", {
      keys: ["a", "b"],
      since: new Date(at),
      until: at + 1500,
      filter: { ms: { $gte: 7 } },
      order: "asc",
      limit: 5,
    });
    assert.deepEqual(
      page.rows.map(({ key }) => key),
      ["a"],
    );
    const first = await timelines.query("t", { key: "a", limit: 1 });
    assert.equal((await timelines.query("t", { key: "a", limit: 1, cursor: first.next_cursor })).rows[0]?.at, at);
    const windows = await timelines
      .aggregate("t", { path: "ms", windowMs: 10_000, byKey: true }, { order: "asc" })
      .all();
    assert.deepEqual(
      windows.map(({ key, sum }) => [key, sum]),
      [
        ["a", 12],
        ["b", 9],
      ],
    );
    const set = await timelines.configure("t", { retentionS: 10_000_000_000, retentionRows: 2 });
    assert.equal(set.retention_rows, 2);
    assert.equal((await timelines.get("t"))?.rows, 3);
    assert.equal(await timelines.get("none"), null);
    await timelines.append("u", { key: "k" });
    assert.deepEqual(
      (await timelines.list({ limit: 1 }).all()).map((each) => each.name),
      ["t", "u"],
    );
    await timelines.delete("u");
    assert.equal(await timelines.get("u"), null);
  });

  test("other branches of a database, by their spec", async () => {
    await db.kv.put("n", "k", "main");
    await db.branch.create("side", { ttl: 600 });
    const side = db.onBranch("side");
    assert.equal(side.spec, `${name}@side`);
    await side.kv.put("n", "k", "side");
    assert.equal(await db.kv.getText("n", "k"), "main");
    assert.equal(await side.kv.getText("n", "k"), "side");
    await assert.rejects(db.onBranch("none").kv.get("n", "k"), sdk.BranchNotFoundError);
  });
}
