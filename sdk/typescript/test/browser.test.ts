/** Web pages of an allowed origin use the client, in the page and in a module worker; those of another one cannot. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { extname, join, normalize } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import type * as sdk from "../src/index.js";
import { client, fresh, operator, url } from "./support/env.js";

const DIST = fileURLToPath(new URL("../../dist/esm", import.meta.url));
const TYPES: Record<string, string> = { ".js": "text/javascript", ".json": "application/json" };
const WORKER = `
  import { memoturn } from "/sdk/index.js";
  onmessage = async ({ data: { url, token, ns } }) => {
    const found = await memoturn({ url, token }).memory(ns, "ann").recall("tulips");
    postMessage(found.memories.map(({ summary }) => summary));
  };
`;

/** What a page is given. */
interface Given {
  url: string;
  token: string;
  ns: string;
}

describe("pages", () => {
  const ns = fresh("web");
  const pages: Server[] = [];
  let browser: Browser;
  let given: Given;

  before(async () => {
    given = { url: url(), token: (await operator().createNamespaceToken(ns, "admin")).token, ns };
    const executablePath = process.env["MEMOTURN_TEST_CHROMIUM"] ?? "";
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  });
  after(async () => {
    await browser?.close();
    for (const server of pages) server.close();
  });

  async function page(port: number): Promise<Page> {
    const server = createServer(async ({ url: path = "/" }, response) => {
      const file = await content(path);
      response.writeHead(file ? 200 : 404, { "content-type": TYPES[extname(path)] ?? "text/html" });
      response.end(file);
    });
    pages.push(server);
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    const { port: chosen } = server.address() as { port: number };
    const made = await browser.newPage();
    await made.goto(`http://127.0.0.1:${chosen}/`);
    return made;
  }

  test("a page of an allowed origin uses all of it: every header is sent, and every one is seen", async () => {
    const allowed = await page(Number(process.env["MEMOTURN_TEST_PAGES_PORT"]));
    const seen = await allowed.evaluate(async ({ url, token, ns }) => {
      const where = "/sdk/index.js";
      const { memoturn, PreconditionFailedError } = (await import(where)) as typeof sdk;
      const client = memoturn({ url, token });
      const ann = client.memory(ns, "ann");
      const durability = "durable";
      const wrote = await ann.ingest([{ type: "fact", topicKey: "flower", summary: "Ann likes tulips" }], {
        durability,
      });
      const { kv } = ann.db;
      const put = await kv.put("prefs", "a/b é", new Uint8Array([0, 255]), { metadata: { who: "é" }, ttl: 600 });
      const entry = await kv.entry("prefs", "a/b é");
      const refused = await kv.put("prefs", "a/b é", "x", { ifNoneMatch: "*" }).catch((error: unknown) => error);
      const unchanged = await kv.entryIfChanged("prefs", "a/b é", put.etag);
      await ann.patch(wrote.results[0]?.id ?? "", { pinned: true });
      const texts: string[] = [];
      for await (const event of ann.askStream("Ann likes")) if (event.type === "delta") texts.push(event.text);
      const feed: string[] = [];
      for await (const event of ann.follow({ since: 0 })) {
        if (event.type === "change") feed.push(event.change.changes[0]?.surface ?? "");
        if (feed.length === 2) break;
      }
      const lines = await (await ann.export()).text();
      const copy = client.memory(ns, "copy");
      await copy.import(new Blob([lines]));
      await ann.fork("what-if");
      const at = await ann.recall({ topicKey: "flower", at: wrote.txid });
      const deleted = await kv.delete("prefs", "a/b é");
      return {
        durability: wrote.durability,
        durable: wrote.durable_txid >= wrote.txid,
        etag: put.etag.length > 0,
        entry: [
          Array.from(entry?.value ?? []),
          entry?.etag === put.etag,
          entry?.metadata,
          (entry?.expires_at ?? 0) > 0,
        ],
        refused: refused instanceof PreconditionFailedError,
        unchanged,
        asked: texts.join(""),
        feed,
        at: at.memories.length,
        deleted: deleted.txid > put.txid,
        copied: (await copy.onBranch("main").list().all()).length,
      };
    }, given);

    assert.deepEqual(seen, {
      durability: "durable",
      durable: true,
      etag: true,
      entry: [[0, 255], true, { who: "é" }, true],
      refused: true,
      unchanged: "unchanged",
      asked: "Ann likes Ann likes tulips.",
      feed: ["memory", "kv"],
      at: 1,
      deleted: true,
      copied: 1,
    });
    const worked = await allowed.evaluate(
      (data) =>
        new Promise((resolve, reject) => {
          const worker = new Worker("/worker.js", { type: "module" });
          worker.onmessage = (event) => resolve(event.data);
          worker.onerror = (event) => reject(new Error(event.message));
          worker.postMessage(data);
        }),
      given,
    );
    assert.deepEqual(worked, ["Ann likes tulips"]);
  });

  test("a page of another origin is refused, and changes nothing", async () => {
    const foreign = await page(0);

    const error = await foreign.evaluate(async ({ url, token, ns }) => {
      const where = "/sdk/index.js";
      const { memoturn } = (await import(where)) as typeof sdk;
      const evil = memoturn({ url, token, retries: 0 }).memory(ns, "evil");
      return evil.ingest([{ type: "fact", summary: "s" }]).catch((error: sdk.MemoturnError) => error.name);
    }, given);

    assert.equal(error, "UnknownOutcomeError");
    const profiles = await (await client(ns)).profiles(ns).all();
    assert.ok(!profiles.some(({ profile }) => profile === "evil"));
  });

  test("a preflight is answered to the allowed origin alone", async () => {
    const ask = (origin: string) =>
      fetch(`${url()}/v1/memory/${ns}/ann/memories`, {
        method: "OPTIONS",
        headers: {
          Origin: origin,
          "Access-Control-Request-Method": "POST",
          "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,memoturn-durability",
        },
      });
    const allowed = `http://127.0.0.1:${process.env["MEMOTURN_TEST_PAGES_PORT"]}`;

    const answer = await ask(allowed);
    const refused = await ask("http://127.0.0.1:1");

    assert.equal(answer.headers.get("access-control-allow-origin"), allowed);
    assert.match(answer.headers.get("access-control-allow-headers") ?? "", /idempotency-key/i);
    assert.equal(refused.headers.get("access-control-allow-origin"), null);
  });
});

async function content(path: string): Promise<string | Buffer | null> {
  if (path === "/") return "<!doctype html><title>page</title>";
  if (path === "/worker.js") return WORKER;
  const file = normalize(join(DIST, path.replace(/^\/sdk\//, "")));
  return path.startsWith("/sdk/") && file.startsWith(DIST) ? readFile(file) : null;
}
