import assert from "node:assert/strict";
import { before, test } from "node:test";
import * as sdk from "../../src/index.js";
import { client, fresh, operator, url } from "../support/env.js";
import type { Recorder } from "../support/recorder.js";

export function history({ fetch }: Recorder): void {
  const ns = fresh("his");
  let scoped: sdk.Memoturn;
  before(async () => {
    scoped = await client(ns, { fetch });
  });
  const profile = (name = fresh("p")) => scoped.memory(ns, name);
  const say = (branch: sdk.MemoryProfile, summary: string) =>
    branch.ingest([{ type: "fact", topicKey: "diet", summary, content: summary }]);
  const said = async (branch: sdk.MemoryProfile, options: sdk.ReadOptions = {}) =>
    (await branch.recall({ topicKey: "diet", ...options })).memories.map(({ summary }) => summary);

  test("fork, checkpoint, rewind, undo, the past", async () => {
    const ann = profile();
    await say(ann, "vegan");
    const monday = await ann.checkpoint("monday");
    await say(ann, "steak");
    const fork = await ann.fork("what-if", { checkpoint: "monday" });
    assert.equal(fork.fork_txid, monday.txid);
    const other = ann.onBranch("what-if");
    assert.deepEqual(await said(other), ["vegan"]);
    await say(other, "fish");
    assert.deepEqual(await said(ann), ["steak"]);
    await other.session("s").appendTurn({ role: "user", content: "on the branch" });
    assert.equal((await ann.session("s").getWindow()).turns.length, 0, "a session stays on its branch");
    const deeper = await other.fork("deeper", { ttl: 600 });
    assert.equal(deeper.parent, "what-if");
    await ann.fork("third", { from: "what-if", at: fork.fork_txid });

    const rewound = await ann.rewind("monday");
    assert.deepEqual(await said(ann), ["vegan"]);
    assert.deepEqual(await said(ann, { at: rewound.undo_txid }), ["steak"]);
    await ann.undoRewind();
    assert.deepEqual(await said(ann), ["steak"]);
    assert.deepEqual(await said(ann, { at: "monday" }), ["vegan"]);
    assert.deepEqual(await said(ann, { at: new Date() }), ["steak"]);

    assert.deepEqual(
      (await ann.checkpoints({ limit: 1 }).all()).map(({ checkpoint }) => checkpoint),
      ["monday"],
    );
    const points = await ann.restorePoints({ limit: 2 }).all();
    assert.ok(points.some(({ kind }) => kind === "checkpoint"));
    const oldest = await ann.restorePoints({ order: "oldest", since: 0, until: new Date() }).all();
    assert.ok(oldest[0]!.txid < points[0]!.txid);
    await ann.branch.deleteCheckpoint("main", "monday");
    await assert.rejects(ann.branch.deleteCheckpoint("main", "monday"), sdk.BranchNotFoundError);

    const names = (await ann.branch.list({ limit: 1 }).all()).map(({ branch }) => branch);
    assert.deepEqual(names, ["deeper", "third", "what-if"]);
    await ann.branch.delete("third");
    await assert.rejects(ann.onBranch("third").recall("x"), sdk.BranchNotFoundError);
    const deleted = (await ann.branch.list({ deleted: true })).branches.filter(({ deleted_at }) => deleted_at);
    assert.deepEqual(
      deleted.map(({ branch }) => branch),
      ["third"],
    );
    assert.equal((await ann.branch.undelete("third")).branch, "third");
    assert.deepEqual(await said(ann.onBranch("third")), ["vegan"]);
    await assert.rejects(ann.rewind("nowhere"), sdk.BranchNotFoundError);
    await assert.rejects(ann.fork("third"), sdk.AlreadyExistsError);
  });

  test("read-your-writes, durability, keys, floors", async () => {
    const ann = profile();
    const { txid } = await say(ann, "vegan");
    assert.equal((await ann.recall("vegan")).txid, txid);
    assert.equal(scoped.memory(ns, ann.profile).lastTxid, txid, "the client remembers, not the object");
    assert.equal(ann.db.lastTxid, txid);
    await assert.rejects(ann.recall("x", { minTxid: txid + 100 }), sdk.PreconditionFailedError);
    assert.equal((await ann.recall("x", { minTxid: txid, consistency: "cached" })).txid, txid);
    const synced = await ann.sync({ txid });
    assert.ok(synced.durable_txid >= txid);
    assert.ok(ann.lastDurableTxid >= txid);
    await ann.sync();
    const key = { idempotencyKey: fresh("key") };
    const item = { type: "event" as const, summary: "once" };
    const first = await ann.ingest([item], key);
    const again = await ann.ingest([item], key);
    assert.deepEqual([again.txid, again.replayed], [first.txid, true]);
    await assert.rejects(ann.ingest([{ ...item, summary: "other" }], key), sdk.IdempotencyKeyReusedError);
  });

  test("a write whose answer is lost is applied once", async () => {
    let losses = 0;
    const losing: typeof fetch = async (input, init) => {
      const answer = await fetch(input, init);
      if (init?.method !== "POST" || losses === 2) return answer;
      losses += 1;
      await answer.arrayBuffer();
      throw new TypeError("the connection broke");
    };
    const ann = profile();
    await ann.ingest([]);
    const { kv } = (await client(ns)).db(ann.spec);
    const lossy = new sdk.Memoturn({
      url: url(),
      token: (await operator().createToken(ann.spec, "write")).token,
      fetch: losing,
    });
    const counted = await lossy.db(ann.spec).kv.increment("n", "k");
    assert.deepEqual([losses, counted.value, counted.replayed], [2, 1, true]);
    assert.equal((await kv.increment("n", "k")).value, 2);
  });

  test("a database that was made again has lower txids, and reads all the same", async () => {
    const node = operator({ fetch });
    const name = fresh("again");
    await node.databases.create(name);
    const { token } = await node.createToken(name, "admin");
    const db = operator({ token, fetch }).db(name);
    for (const value of ["1", "2", "3"]) await db.kv.put("n", "k", value);
    const before = db.lastTxid;
    await node.databases.delete(name);
    await node.databases.create(name);
    const { token: renewed } = await node.createToken(name, "admin");
    const client = operator({ token: renewed, fetch });
    await client.db(name).kv.put("n", "k", "new");
    assert.ok(client.db(name).lastTxid < before);
    // The old client remembers the old database's txid; its token was revoked with it, so only the memory is carried over.
    const stale = operator({ token: renewed, fetch });
    await stale.db(name).kv.put("n", "other", "x");
    assert.equal(await stale.db(name).kv.getText("n", "k"), "new");
  });

  test("changes: a page, a poll, and a feed that is followed", async () => {
    const ann = profile();
    const { txid } = await say(ann, "vegan");
    await ann.db.kv.put("prefs", "k", "v");
    const page = await ann.changes({ since: 0, limit: 1 });
    assert.ok(page.more);
    assert.equal(page.changes[0]?.txid, txid);
    const kv = await ann.changes({ since: page.next_since, surfaces: ["kv"], durable: false, waitS: 1 });
    assert.deepEqual(kv.changes[0]?.changes[0]?.put, ["k"]);
    const database = await ann.db.changes({ since: 0, limit: 10, surfaces: ["kv", "memory"], durable: true, waitS: 1 });
    assert.ok(Array.isArray(database.changes));

    const heard: sdk.FeedEvent[] = [];
    const controller = new AbortController();
    for await (const event of ann.follow({ since: 0, signal: controller.signal })) {
      heard.push(event);
      if (heard.length === 2) await say(ann, "steak");
      if (heard.length === 3) break;
    }
    assert.deepEqual(
      heard.map((event) => event.type === "change" && event.change.changes[0]?.surface),
      ["memory", "kv", "memory"],
    );
    const waiting = ann.follow({ surfaces: ["kv"], durable: true, signal: controller.signal });
    const next = waiting.next();
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await assert.rejects(next, /enough/);
    for await (const event of ann.db.follow({ since: 0 })) {
      assert.equal(event.txid, txid);
      break;
    }
    const beyond = ann.follow({ since: 999_999 });
    const { value: reset } = await beyond.next();
    await beyond.return();
    assert.ok(reset?.type === "reset" && reset.code === "changes_gone");
  });

  test("verification, and settings", async () => {
    const ann = profile();
    await say(ann, "vegan");
    await ann.sync();
    const seen: number[] = [];
    const proof = await ann.db.verify({ deep: true, onProgress: (checked) => seen.push(checked) });
    assert.deepEqual([proof.outcome, proof.findings], ["clean", []]);
    assert.ok((await ann.db.verify({ seed: "a1" })).outcome === "clean");
    assert.deepEqual(await ann.db.settings(), { durability: {} });
    const set = await ann.db.setSettings({ durability: { kv: "durable" } });
    assert.deepEqual(set, { durability: { kv: "durable" } });
    assert.equal((await ann.db.kv.put("n", "k", "v")).durability, "durable");
  });
}
