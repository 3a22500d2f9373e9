/** Repeats, idempotency keys and read floors, against a server that answers by a script. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as sdk from "../src/index.js";
import { vectors } from "./support/env.js";
import { type Arrived, type ScriptedAnswer, scripted } from "./support/scripted.js";

type Call = { op: string; min_txid?: number; consistency?: sdk.Consistency } & Partial<Record<Argument, string>>;
type Argument =
  | "ns"
  | "profile"
  | "branch"
  | "summary"
  | "query"
  | "db"
  | "key"
  | "value"
  | "name"
  | "at"
  | "idempotency_key";
type Header = string | null | true | { same_as?: number; not_as?: number };
type Given = { client?: { retries?: number; read_your_writes?: boolean }; calls: Call[]; answers: ScriptedAnswer[] };
type Expect = {
  requests: { method: string; path: string; headers?: Record<string, Header> }[];
  outcomes: ("ok" | { error: string; code: string })[];
  waits_ms?: [number, number][];
};

for (const topic of ["retries", "floors"]) {
  for (const { name, given, expect } of vectors<Given, Expect>(
    topic,
    ["client", "calls", "answers"],
    ["requests", "outcomes", "waits_ms"],
  )) {
    test(`${topic}: ${name}`, async () => {
      const waits: number[] = [];
      const server = await scripted(given.answers);
      try {
        const client = new sdk.Memoturn(
          { url: server.url, ...options(given.client) },
          {
            sleep: async (ms) => {
              waits.push(ms);
            },
          },
        );
        for (const [i, call] of given.calls.entries()) {
          assert.deepEqual(await outcome(client, call), expect.outcomes[i], `call ${i}`);
        }
        compare(server.requests, expect);
        assert.equal(server.left(), 0, "answers are left over");
      } finally {
        await server.close();
      }
      const wanted = expect.waits_ms;
      if (!wanted) return;
      assert.equal(waits.length, wanted.length, `waited ${waits}`);
      for (const [i, [least, most]] of wanted.entries()) {
        assert.ok(least <= waits[i]! && waits[i]! <= most, `waited ${waits}`);
      }
    });
  }
}

function options({ retries, read_your_writes }: NonNullable<Given["client"]> = {}): sdk.MemoturnOptions {
  return { retries, readYourWrites: read_your_writes };
}

async function outcome(client: sdk.Memoturn, call: Call): Promise<Expect["outcomes"][number]> {
  try {
    await make(client, call);
    return "ok";
  } catch (error) {
    if (error instanceof sdk.MemoturnError) return { error: error.name, code: error.code };
    throw error;
  }
}

async function make(client: sdk.Memoturn, { op, ...given }: Call): Promise<void> {
  const { ns, profile, branch, summary, query, db, key, value, name, ...rest } = given;
  const { idempotency_key, min_txid, at, consistency, ...strange } = rest;
  assert.deepEqual(strange, {}, "members that are not known");
  const reading: sdk.ReadOptions = { minTxid: min_txid, at, consistency };
  const writing: sdk.WriteOptions = { idempotencyKey: idempotency_key };
  switch (op) {
    case "ingest":
      await client.memory(ns!, profile!, { branch }).ingest([{ type: "fact", summary: summary! }], writing);
      break;
    case "recall":
      await client.memory(ns!, profile!, { branch }).recall(query!, reading);
      break;
    case "kv_put":
      await client.db(db!).kv.put(ns!, key!, value!, writing);
      break;
    case "kv_get":
      await client.db(db!).kv.get(ns!, key!, reading);
      break;
    case "create_database":
      await client.databases.create(name!, writing);
      break;
    case "delete_database":
      await client.databases.delete(name!, writing);
      break;
    default:
      assert.fail(`no operation ${op}`);
  }
}

function compare(requests: Arrived[], expect: Expect): void {
  assert.deepEqual(
    requests.map(({ method, path }) => `${method} ${path}`),
    expect.requests.map(({ method, path }) => `${method} ${path}`),
  );
  expect.requests.forEach(({ headers }, i) => {
    for (const [name, wanted] of Object.entries(headers ?? {})) {
      const of = (n: number) => requests[n]?.headers[name.toLowerCase()];
      const what = `${name} of request ${i}`;
      if (wanted === null) assert.equal(of(i), undefined, what);
      else if (wanted === true) assert.ok(of(i), what);
      else if (typeof wanted === "string") assert.equal(of(i), wanted, what);
      else if (wanted.same_as !== undefined) assert.equal(of(i), of(wanted.same_as), what);
      else assert.notEqual(of(i), of(wanted.not_as!), what);
    }
  });
}

// ---- what is this client's own

const OK: ScriptedAnswer = { status: 200, headers: { "Memoturn-Txid": "3" }, json: { memories: [], txid: 3 } };

async function against(
  answers: ScriptedAnswer[],
  work: (client: (options?: sdk.MemoturnOptions) => sdk.Memoturn, requests: Arrived[]) => Promise<void>,
): Promise<void> {
  const server = await scripted(answers);
  try {
    await work((options) => new sdk.Memoturn({ url: server.url, ...options }), server.requests);
  } finally {
    await server.close();
  }
}

test("a call ends with its time, whatever the server does", () =>
  against([{ cut: "never" }], async (client) => {
    const began = performance.now();
    const item = { type: "fact" as const, summary: "s" };
    const call = client().memory("a", "b").ingest([item], { timeoutMs: 50, idempotencyKey: "k-1" });
    await assert.rejects(call, (error) => error instanceof sdk.UnknownOutcomeError && error.idempotencyKey === "k-1");
    assert.ok(performance.now() - began < 2000);
  }));

test("the time of a call is that of all its repeats", () =>
  against([{ status: 503 }, { status: 503, headers: { "Retry-After": "1" } }], async (client, requests) => {
    await assert.rejects(client({ timeoutMs: 900 }).memory("a", "b").recall("x"), sdk.UnavailableError);
    assert.equal(requests.length, 2);
  }));

test("the caller's signal ends a call, with its reason", () =>
  against([{ cut: "never" }], async (client, requests) => {
    const controller = new AbortController();
    const call = client()
      .memory("a", "b")
      .ingest([{ type: "fact", summary: "s" }], { signal: controller.signal });
    const reason = new Error("the user went away");
    setTimeout(() => controller.abort(reason), 30);
    await assert.rejects(call, (error) => error === reason);
    assert.equal(requests.length, 1, "it is not sent again");
  }));

test("the caller's signal ends the waiting, too", () =>
  against([{ status: 503, headers: { "Retry-After": "20" } }], async (client) => {
    const signal = AbortSignal.timeout(50);
    await assert.rejects(client().memory("a", "b").recall("x", { signal }), { name: "TimeoutError" });
  }));

test("a signal that has ended sends nothing", () =>
  against([], async (client, requests) => {
    await assert.rejects(client().memory("a", "b").recall("x", { signal: AbortSignal.abort() }), {
      name: "AbortError",
    });
    assert.equal(requests.length, 0);
  }));

test("a node that is not there is unreachable, and nothing was sent", async () => {
  const server = await scripted([]);
  await server.close();
  const client = new sdk.Memoturn({ url: server.url, retries: 1 });
  await assert.rejects(client.memory("a", "b").ingest([{ type: "fact", summary: "s" }]), sdk.UnreachableError);
});

test("what is not Memoturn is said to be so", () =>
  against([{ status: 200 }, { status: 200, json: [] }, { status: 200, json: null }], async (client, requests) => {
    for (let call = 0; call < 3; call += 1) {
      await assert.rejects(client().memory("a", "b").recall("x"), sdk.ServerError);
    }
    assert.equal(requests.length, 3);
  }));

test("where the answer leads elsewhere, the error says where", () =>
  against([{ status: 308, headers: { location: "https://a.example/" } }], async (client) => {
    const call = client().memory("a", "b").recall("x");
    await assert.rejects(call, (error) => error instanceof sdk.ServerError && /a\.example/.test(error.message));
  }));

test("a credential that is empty is none", () =>
  against([OK, { ...OK, json: { databases: [] } }], async (client, requests) => {
    await client({ token: "", platformKey: "p" }).memory("a", "b").recall("x");
    await client({ token: "t", platformKey: "" }).databases.list();
    assert.deepEqual(
      requests.map(({ headers }) => headers.authorization),
      ["Bearer p", "Bearer t"],
    );
  }));

test("credentials: data takes the token first, control the platform key, each falls back", () =>
  against([OK, OK, OK, OK, OK], async (client, requests) => {
    const both = client({ token: "t", platformKey: "p", tenant: "acme" });
    await both.memory("a", "b").recall("x");
    await both.databases.list();
    await client({ token: "t" }).databases.list();
    await client({ platformKey: "p" }).memory("a", "b").recall("x");
    await client().memory("a", "b").recall("x");
    const sent = requests.map(({ headers }) => headers.authorization);
    assert.deepEqual(sent, ["Bearer t", "Bearer p", "Bearer t", "Bearer p", undefined]);
    assert.equal(requests[0]?.headers["memoturn-tenant"], "acme");
  }));

test("an import that can be opened again is sent again where it was turned away, another one never", () =>
  against(
    [
      { status: 503, json: { error: "e", code: "unavailable" } },
      { status: 201, json: { imported: {} } },
      { status: 503 },
    ],
    async (client, requests) => {
      const lines = new TextEncoder().encode("{}\n");
      await client()
        .memory("a", "b")
        .import(() => new Blob([lines]).stream() as ReadableStream<Uint8Array>);
      assert.deepEqual(
        requests.map(({ body }) => body),
        ["{}\n", "{}\n"],
      );
      const once = new Blob([lines]).stream() as ReadableStream<Uint8Array>;
      await assert.rejects(client().memory("a", "b").import(once), sdk.UnavailableError);
    },
  ));

test("an import is not sent again when its answer was lost", () =>
  against([{ cut: "silent" }], async (client, requests) => {
    await assert.rejects(
      client()
        .memory("a", "b")
        .import(new Uint8Array([1])),
      sdk.UnknownOutcomeError,
    );
    assert.equal(requests.length, 1);
  }));

test("a header that cannot be sent is refused before anything is", () =>
  against([], async (client, requests) => {
    const call = client().memory("a", "b").ingest([], { idempotencyKey: "ü\n" });
    await assert.rejects(call, sdk.InvalidRequestError);
    assert.equal(requests.length, 0);
  }));

test("what is written while the owner is asked stays the floor, unless the owner is below the one that was not met", async () => {
  const at = (txid: number) => new Response('{"memories": []}', { headers: { "memoturn-txid": String(txid) } });
  const unmet = () => new Response("{}", { status: 412 });
  const positions: number[] = [];
  const answers = [() => at(5), unmet, () => meanwhile(), unmet, () => at(2)];
  const client = new sdk.Memoturn({ fetch: async () => (answers.shift() ?? unmet)() });
  const profile = client.memory("a", "b");
  const meanwhile = async () => {
    answers.unshift(() => at(12));
    await profile.ingest([]);
    return at(9);
  };
  for (let read = 0; read < 3; read += 1) {
    await profile.recall("x");
    positions.push(profile.lastTxid);
  }
  assert.deepEqual(positions, [5, 12, 2]);
});

test("a feed that lost changes comes back, though the node is away when it asks where to go on", async () => {
  const refused = (status: number, code: string) => new Response(JSON.stringify({ error: "e", code }), { status });
  const answers = [
    refused(410, "changes_gone"),
    refused(503, "unavailable"),
    refused(410, "changes_gone"),
    new Response('{"changes": [], "next_since": 9}'),
    new Response('id: 10\nevent: change\ndata: {"txid": 10, "changes": []}\n\n'),
  ];
  const paths: string[] = [];
  const fetched: typeof fetch = async (input) => {
    paths.push(new URL(String(input)).search);
    return answers.shift() ?? refused(401, "unauthorized");
  };
  const client = new sdk.Memoturn({ fetch: fetched, retries: 0 }, { sleep: async () => {} });
  const told: [string, number][] = [];
  const followed = (async () => {
    for await (const { type, txid } of client.db("d").follow({ since: 1 })) told.push([type, txid]);
  })();
  await assert.rejects(followed, sdk.UnauthorizedError);
  assert.deepEqual(told, [
    ["reset", 9],
    ["change", 10],
  ]);
  assert.deepEqual(paths, ["?since=1", "?limit=1", "?limit=1", "?limit=1", "?since=9", "?since=10"]);
});

test("text that is none is refused before anything is sent", () =>
  against([OK], async (client, requests) => {
    const { kv } = client().db("d");
    await assert.rejects(kv.put("n", "k", "half \ud83d"), sdk.InvalidRequestError);
    assert.equal(requests.length, 0);
    await kv.put("n", "k", "whole \ud83d\ude00");
    assert.equal(requests[0]?.body, "whole 😀");
  }));

test("a source of the client's stands in where an item says none", () =>
  against([{ ...OK, status: 201 }], async (client, requests) => {
    const items = [
      { type: "fact" as const, summary: "s" },
      { type: "fact" as const, summary: "s", source: "own" },
    ];
    await client({ source: "agent" }).memory("a", "b").ingest(items);
    assert.match(requests[0]?.body ?? "", /"source":"agent".*"source":"own"/);
  }));
