import assert from "node:assert/strict";
import { before, test } from "node:test";
import * as sdk from "../../src/index.js";
import { client, fresh, operator } from "../support/env.js";
import type { Recorder } from "../support/recorder.js";

export function memory({ fetch }: Recorder): void {
  const ns = fresh("mem");
  let scoped: sdk.Memoturn;
  before(async () => {
    scoped = await client(ns, { fetch });
  });
  const profile = (name = fresh("p")) => scoped.memory(ns, name);

  test("ingest, supersede, recall", async () => {
    const ann = profile();
    assert.deepEqual((await ann.recall("diet")).memories, []);
    const first = await ann.ingest([{ type: "fact", topicKey: "diet", summary: "Ann eats everything" }]);
    assert.equal(first.results[0]?.status, "created");
    assert.equal(first.durability, "local");
    const second = await ann.ingest(
      [{ type: "fact", topicKey: "diet", summary: "Ann is vegan", content: { since: 2024 }, reason: "she said so" }],
      { durability: "durable" },
    );
    assert.deepEqual(second.results[0]?.superseded, [first.results[0]?.id]);
    assert.equal(second.durability, "durable");
    assert.ok(second.durable_txid >= second.txid);
    const found = await ann.recall({ query: "what does Ann eat", k: 3, explain: true });
    assert.equal(found.memories[0]?.summary, "Ann is vegan");
    assert.ok(found.memories[0]?.explain);
    assert.ok(found.txid >= second.txid);
    assert.equal(ann.lastTxid, second.txid);
    const past = await ann.recall({ topicKey: "diet", at: first.txid });
    assert.deepEqual(
      past.memories.map(({ summary }) => summary),
      ["Ann eats everything"],
    );
    assert.equal(past.txid, first.txid);
  });

  test("every field of an item, and of a recall", async () => {
    const ann = profile();
    await ann.ingest([]);
    await ann.session("s").appendTurns([
      { role: "user", content: "I like tulips" },
      { role: "assistant", content: "Noted" },
    ]);
    const { results } = await ann.ingest([
      {
        type: "fact",
        topicKey: "flower",
        summary: "Ann likes tulips",
        content: { flower: "tulip" },
        keywords: "garden",
        embedding: new Float32Array([1, 0, 0]),
        embeddingModel: "mine",
        sessionId: "s",
        source: "chat",
        sourceTurns: { sessionId: "s", fromSeq: 1, toSeq: 2 },
        pinned: true,
        importance: 0.5,
        reason: "told",
      },
      { type: "task", summary: "Water the tulips", ttl: 600, sessionId: "s" },
    ]);
    const got = await ann.get(results[0]!.id!);
    assert.deepEqual(got?.source_turns, { session_id: "s", from_seq: 1, to_seq: 2 });
    assert.equal(got?.importance, 0.5);
    const hour = 3_600_000;
    const found = await ann.recall({
      query: "tulips",
      embedding: [1, 0, 0],
      embeddingModel: "mine",
      topicKey: "flower",
      types: ["fact"],
      sessionId: "s",
      source: "chat",
      k: 5,
      includeSuperseded: true,
      includeTurns: false,
      explain: true,
      since: new Date(Date.now() - hour),
      until: Date.now() + hour,
      weights: { topic: 2, keyword: 1, vector: 1, recency: 0.5 },
      decay: { halfLifeS: 3600 },
      minScore: 0.01,
      pinnedFirst: true,
      includeContext: true,
      fusion: "relevance",
    });
    assert.equal(found.memories[0]?.context?.turns.length, 2);
    const turns = await ann.recall({ query: "tulips", includeTurns: true });
    assert.equal(turns.turns?.[0]?.content, "I like tulips");
    const skipped = await ann.ingest(
      [
        { type: "fact", summary: " " },
        { type: "fact", summary: "fine" },
      ],
      { onError: "skip" },
    );
    assert.deepEqual(
      skipped.results.map(({ status }) => status),
      ["error", "created"],
    );
  });

  test("get is null and forget false where there is nothing", async () => {
    assert.equal(await profile().get("mem_none"), null);
    assert.equal(await profile().forget("mem_none"), false);
    const ann = profile();
    const { results } = await ann.ingest([{ type: "event", summary: "e" }]);
    const id = results[0]!.id!;
    assert.equal((await ann.get(id))?.summary, "e");
    assert.equal(await ann.get("mem_none"), null);
    assert.equal(await ann.forget(id), true);
    assert.equal(await ann.get(id), null);
    assert.equal((await ann.get(id, { at: "head~1" }))?.summary, "e");
  });

  test("list, in pages and filtered", async () => {
    const ann = profile();
    const items = [1, 2, 3, 4, 5].map((n) => ({
      type: "fact" as const,
      summary: `s${n}`,
      topicKey: `t/${n}`,
      importance: n / 10,
    }));
    await ann.ingest([...items, { type: "event", summary: "e", source: "x", sessionId: "s", pinned: true }]);
    const page = await ann.list({ limit: 2 });
    assert.equal(page.memories.length, 2);
    assert.ok(page.next_cursor);
    assert.equal((await ann.list({ limit: 2 }).all()).length, 6);
    const rest = await ann.list({ limit: 2, cursor: page.next_cursor ?? "" }).all();
    assert.equal(rest.length, 4);
    const hour = 3_600_000;
    const asked: sdk.ListOptions = {
      types: ["event", "fact"],
      sessionId: "s",
      source: "x",
      pinned: true,
      since: Date.now() - hour,
      until: new Date(Date.now() + hour),
      includeSuperseded: true,
      order: "oldest",
    };
    assert.deepEqual(
      (await ann.list(asked).all()).map(({ summary }) => summary),
      ["e"],
    );
    assert.deepEqual((await ann.list({ pinned: false, topicPrefix: "t/" }).all()).length, 5);
    assert.deepEqual((await ann.list({ topicKey: "t/3" }).all()).length, 1);
    assert.equal((await ann.list({ order: "most_important", limit: 1 })).memories[0]?.summary, "s5");
    assert.equal((await ann.list({ at: ann.lastTxid }).all()).length, 6);
    for await (const each of ann.list({ limit: 1 })) {
      assert.ok(each.id);
      break;
    }
  });

  test("patch, history, undo", async () => {
    const ann = profile();
    const ids = [];
    for (const summary of ["one", "two", "three"]) {
      const { results } = await ann.ingest([{ type: "fact", topicKey: "n", summary, content: summary }]);
      ids.push(results[0]!.id!);
    }
    const patched = await ann.patch(ids[2]!, { pinned: true, importance: 0.9, keywords: "k", ttl: 600 });
    assert.ok(patched.pinned && (patched.expires_at ?? 0) > Date.now());
    const kept = await ann.patch(ids[2]!, { expiresAt: new Date(Date.now() + 1e6), importance: null });
    assert.equal(kept.importance, null);
    const history = await ann.history(ids[0]!, { limit: 2 });
    assert.equal(history.count, 3);
    assert.deepEqual(
      (await ann.history(ids[0]!, { limit: 2 }).all()).map(({ summary }) => summary),
      ["three", "two", "one"],
    );
    const undone = await ann.undo(ids[2]!, { reason: "wrong" });
    assert.equal(undone.active, ids[1]);
    assert.equal((await ann.get(ids[1]!))?.reason, "wrong");
    await assert.rejects(ann.undo(ids[2]!), sdk.ConflictError);
    await assert.rejects(ann.patch("mem_none", { pinned: true }), sdk.NotFoundError);
  });

  test("topics, whatever they are called", async () => {
    const ann = profile();
    const odd = "a/b c?#%2F é😀";
    await ann.ingest([
      { type: "fact", topicKey: odd, summary: "f" },
      { type: "instruction", topicKey: odd, summary: "i" },
      { type: "fact", topicKey: "b", summary: "x" },
    ]);
    const all = await ann.topics({ prefix: "a", limit: 1 }).all();
    assert.deepEqual(
      all.map(({ topic_key, type }) => [topic_key, type]),
      [
        [odd, "fact"],
        [odd, "instruction"],
      ],
    );
    assert.equal((await ann.topics({ type: "instruction" })).topics.length, 1);
    assert.equal((await ann.topic(odd))?.chains.length, 2);
    const one = await ann.topic(odd, { type: "fact", limit: 1 });
    assert.equal(one?.chains[0]?.versions[0]?.summary, "f");
    assert.equal(await ann.topic("none"), null);
    const cursor = (await ann.history((await ann.topic(odd))!.chains[0]!.active!, { limit: 1 })).next_cursor;
    assert.equal(cursor, null);
    await ann.ingest([{ type: "fact", topicKey: odd, summary: "g", content: 1 }]);
    const first = await ann.topic(odd, { type: "fact", limit: 1 });
    const next = await ann.topic(odd, { type: "fact", limit: 1, cursor: first?.chains[0]?.next_cursor ?? "" });
    assert.equal(next?.chains[0]?.versions[0]?.summary, "f");
  });

  test("forget many", async () => {
    const ann = profile();
    const { results } = await ann.ingest(
      [1, 2, 3, 4].map((n) => ({
        type: "event" as const,
        summary: `e${n}`,
        source: n > 2 ? "x" : "y",
        sessionId: "s",
      })),
    );
    const ids = results.map(({ id }) => id!);
    const dry = await ann.forgetMany({ source: "x", dryRun: true });
    assert.deepEqual([dry.matched, dry.forgotten], [2, 0]);
    const some = await ann.forgetMany({ ids: [ids[0]!, "mem_none"] });
    assert.deepEqual(
      some.results.map(({ status }) => status),
      ["forgotten", "not_found"],
    );
    const hour = 3_600_000;
    const filtered = await ann.forgetMany({
      types: ["event"],
      source: "x",
      sessionId: "s",
      pinned: false,
      since: Date.now() - hour,
      until: Date.now() + hour,
      includeSuperseded: true,
      limit: 1,
    });
    assert.deepEqual([filtered.forgotten, filtered.more], [1, true]);
    await ann.forgetMany({ topicKey: "none" });
    await ann.forgetMany({ topicPrefix: "none" });
    assert.equal((await ann.forgetMany({ all: true })).forgotten, 2);
    await assert.rejects(ann.forgetMany({}), sdk.InvalidRequestError);
  });

  test("sessions", async () => {
    const ann = profile();
    const odd = "day 1/é";
    await ann.ingest([{ type: "task", summary: "t", sessionId: odd }]);
    await ann.session(odd).appendTurn({ role: "user", content: "hi" });
    await ann.ingest([{ type: "event", summary: "e", sessionId: "two" }]);
    assert.deepEqual((await ann.sessions({ limit: 1 }).all()).map(({ id }) => id).sort(), [odd, "two"]);
    await ann.endSession(odd);
    assert.equal((await ann.session(odd).getWindow()).turns.length, 1);
    await ann.endSession(odd, { turns: true });
    assert.equal((await ann.session(odd).getWindow()).turns.length, 0);
    assert.deepEqual(
      (await ann.sessions()).sessions.map(({ id }) => id),
      ["two"],
    );
  });

  test("transcripts", async () => {
    const ann = profile();
    await ann.ingest([]);
    const session = ann.session("chat");
    const at = Date.now() - 1000;
    const one = await session.appendTurn({
      role: "user",
      content: { text: "hello there" },
      embedding: [1, 0],
      embeddingModel: "m",
      at,
    });
    assert.equal(one.seq, 1);
    const { seqs } = await session.appendTurns([2, 3, 4, 5].map((n) => ({ role: "user", content: `turn ${n}` })));
    assert.deepEqual(seqs, [2, 3, 4, 5]);
    assert.deepEqual(
      (await session.getWindow({ last: 2 })).turns.map(({ seq }) => seq),
      [4, 5],
    );
    assert.deepEqual(
      (await session.getWindow({ before: 3, limit: 1 })).turns.map(({ seq }) => seq),
      [2],
    );
    const all = [];
    for await (const turn of session.turns()) all.push(turn.seq);
    assert.deepEqual(all, [1, 2, 3, 4, 5]);
    assert.equal((await session.get(1))?.created_at, at);
    assert.equal(await session.get(99), null);
    const near = await session.search({ vector: [1, 0], embeddingModel: "m", mode: "vector", k: 1 });
    assert.equal(near.turns[0]?.seq, 1);
    assert.equal((await session.searchSemantic(new Float64Array([1, 0]), { k: 1 })).turns.length <= 1, true);
    const words = await session.search({
      query: "hello",
      role: "user",
      mode: "keyword",
      since: new Date(at - 1),
      until: Date.now(),
    });
    assert.equal(words.turns[0]?.seq, 1);
    assert.equal((await ann.db.searchTurns({ query: "hello", mode: "keyword", k: 1 })).turns[0]?.session_id, "chat");
    await ann.db.searchTurns({ vector: [1, 0], embeddingModel: "m", role: "user", since: 0, until: Date.now() });
    assert.equal(await session.delete(5), true);
    assert.equal(await session.delete(5), false);
    assert.equal((await session.deleteTurns({ from: 2, to: 3 })).deleted, 2);
    assert.equal((await session.deleteTurns({ all: true })).deleted, 2);
  });

  test("a model's answers, and its proposals", async () => {
    const ann = profile();
    assert.equal((await ann.ask("What does Ann like?")).answer, null);
    await ann.ingest([{ type: "fact", summary: "Ann likes tulips", sessionId: "s", source: "x" }]);
    const asked = await ann.ask("Ann likes", {
      types: ["fact"],
      sessionId: "s",
      source: "x",
      k: 3,
      includeSuperseded: false,
    });
    assert.match(asked.answer ?? "", /tulips/);
    assert.deepEqual(asked.sources, [asked.memories[0]?.id]);
    const events: sdk.AskEvent[] = [];
    for await (const event of ann.askStream("Ann likes", { k: 2 })) events.push(event);
    assert.equal(events[0]?.type, "memories");
    const done = events.at(-1);
    assert.ok(done?.type === "done" && done.answer === asked.answer);
    const text = events.map((event) => (event.type === "delta" ? event.text : "")).join("");
    assert.equal(text, asked.answer);

    const turns = [{ role: "user", content: "fact user.diet: vegan", seq: 1 }];
    const proposal = await ann.extract(turns, { dryRun: true, sessionId: "s", source: "chat" });
    assert.equal(proposal.proposed[0]?.topic_key, "user.diet");
    const extracted = await ann.extract(turns);
    assert.equal(extracted.results[0]?.status, "created");
    await ann.session("talk").appendTurns([
      { role: "user", content: "fact a: 1" },
      { role: "user", content: "fact b: 2" },
    ]);
    const stored = await ann.extract(null, { sessionId: "talk", fromSeq: 2, toSeq: 2 });
    assert.equal(stored.results.length, 1);
    await assert.rejects(ann.extract([]), sdk.InvalidRequestError);
  });

  test("leaving an answer in the midst of it ends the request", async () => {
    const ann = profile();
    await ann.ingest([{ type: "fact", summary: "s" }]);
    for await (const event of ann.askStream("s")) {
      assert.equal(event.type, "memories");
      break;
    }
  });

  test("models of embeddings", async () => {
    const ann = profile();
    await ann.ingest([{ type: "fact", summary: "s", embedding: [1, 2] }]);
    const { models, embedder } = await ann.models();
    assert.deepEqual(
      models.map(({ name }) => name),
      [null],
    );
    const job = await ann.reembed({ model: embedder ?? "", scope: "all", onlyMissing: true });
    assert.notEqual(job.state, "none");
    assert.ok((await ann.reembedJob()).state);
    await ann.cancelReembed();
    assert.equal(await ann.dropModel(null), true);
    assert.equal(await ann.dropModel("none/such"), false);
    await assert.rejects(ann.reembed({ model: "none" }), sdk.MemoturnError);
  });

  test("export and import", async () => {
    const ann = profile();
    await ann.ingest([{ type: "fact", topicKey: "t", summary: "one" }]);
    await ann.ingest([{ type: "fact", topicKey: "t", summary: "two", content: 2 }]);
    const download = await ann.export();
    const lines = await download.bytes();
    assert.equal(download.size_bytes, lines.length);
    assert.equal(download.txid, ann.lastTxid);
    const copy = profile();
    const { imported } = await copy.import(lines);
    assert.equal(imported.memory, 2);
    await assert.rejects(copy.import(lines), sdk.ConflictError);
    await copy.import(new Blob([lines as BlobPart]), { replace: true });
    const behind = (text: string) => text.split("\n").slice(1).join("\n");
    assert.equal(behind(await (await copy.export()).text()), behind(new TextDecoder().decode(lines)));
    const past = await (await ann.export({ at: "head~1" })).text();
    assert.ok(!past.includes("two"));
    const streamed = profile();
    await streamed.import((await ann.export()).body);
    assert.equal((await streamed.recall({ topicKey: "t" })).memories[0]?.summary, "two");
  });

  test("profiles of a namespace", async () => {
    const own = fresh("prof");
    const mine = await client(own, { fetch });
    for (const name of ["a", "b", "c"]) await mine.memory(own, name).ingest([{ type: "fact", summary: "s" }]);
    assert.deepEqual(
      (await mine.profiles(own, { limit: 2 }).all()).map((each) => each.profile),
      ["a", "b", "c"],
    );
    assert.equal((await mine.profiles(own)).namespace, own);
  });

  test("erasure", async () => {
    const ann = profile();
    const { results } = await ann.ingest([
      { type: "fact", topicKey: "t", summary: "secret" },
      { type: "event", summary: "e", sessionId: "s" },
    ]);
    await ann.session("s").appendTurn({ role: "user", content: "x" });
    const asked = await ann.erase({ memoryId: results[0]!.id! }, { graceSecs: 0 });
    assert.ok(asked.erasure_id);
    assert.equal(await ann.get(results[0]!.id!), null);
    assert.equal((await ann.erasure(asked.erasure_id))?.target["memory_id"], results[0]!.id);
    assert.equal(await ann.erasure("ers_none"), null);
    await ann.db.kv.put("n", "k", "v");
    const many = await ann.erase([
      { sessionId: "s", turns: true, memories: true },
      { turn: { sessionId: "s", seq: 1 } },
      { kv: { ns: "n", prefix: "k" } },
    ]);
    assert.ok(many.erasure_id);
    await ann.ingest([{ type: "fact", topicKey: "t2", summary: "x" }]);
    await ann.erase({ topicKey: "t2", type: "fact" });
    await ann.erase({ sessionId: "s", turns: true, memories: true });
    await ann.erase({ turn: { sessionId: "s", seq: 1 } });
    await ann.erase({ document: { collection: "c", id: "1" } });
    await ann.erase({ kv: { ns: "n", key: "k" } });
    await ann.erase({ vector: { collection: "c", id: "1" } });
    await ann.erase({ timeline: { name: "t", key: "k" } });
    assert.equal((await ann.erasures({ limit: 3 }).all()).length, 9);

    const db = ann.db;
    await db.erase({ document: { collection: "c", filter: { a: 1 } } }, { graceSecs: 60 });
    await db.erase([{ kv: { ns: "n", key: "z" } }]);
    await db.erase({ sessionId: "s", turns: true, memories: true });
    await db.erase({ turn: { sessionId: "s", seq: 1 } });
    await db.erase({ vector: { collection: "c", id: "1" } });
    await db.erase({ timeline: { name: "t", key: "k" } });
    await db.erase({ kv: { ns: "n", key: "k" } });
    await ann.ingest([{ type: "fact", topicKey: "t3", summary: "x" }]);
    await db.erase({ topicKey: "t3", type: "fact" });
    const again = await ann.ingest([{ type: "event", summary: "again" }]);
    const last = await db.erase({ memoryId: again.results[0]!.id! });
    assert.ok(await db.erasure(last.erasure_id));
    assert.ok((await db.erasures({ limit: 4 }).all()).length > 9);
  });

  test("a client of no credential is refused", async () => {
    const nobody = operator({ platformKey: undefined, fetch });
    await assert.rejects(nobody.memory(ns, "ann").recall("x"), sdk.UnauthorizedError);
  });
}
