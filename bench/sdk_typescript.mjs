// What the TypeScript client adds to a request of fetch: node bench/sdk_typescript.mjs CLIENT URL TOKEN N
// Prints JSON: the seconds of each request, by its name, of fetch and of the client.
import { randomBytes } from "node:crypto";
import { pathToFileURL } from "node:url";

const [built, url, token, count] = process.argv.slice(2);
const { memoturn } = await import(pathToFileURL(built).href);
const client = memoturn({ url, token });
const alice = client.memory("app", "ann");
const kv = client.db("app--ann").kv;
await alice.ingest([{ type: "fact", topicKey: "t", summary: "likes dark" }]);
await kv.put("s", "k", "v");

const path = `${url}/v1/db/app--ann/kv/s/k`;
const authorization = `Bearer ${token}`;
const recall = JSON.stringify({ query: "dark", k: 8 });
const requests = {
  "key read": [
    async () => (await fetch(path, { headers: { authorization } })).arrayBuffer(),
    async () => kv.get("s", "k"),
  ],
  "key write": [
    // The client sends a key with each write: what it costs the node is not the client's.
    async () => {
      const headers = { authorization, "idempotency-key": randomBytes(16).toString("hex") };
      return (await fetch(path, { method: "PUT", headers, body: "v" })).json();
    },
    async () => kv.put("s", "k", "v"),
  ],
  recall: [
    async () => {
      const headers = { authorization, "content-type": "application/json" };
      return (await fetch(`${url}/v1/memory/app/ann/recall`, { method: "POST", headers, body: recall })).json();
    },
    async () => alice.recall("dark"),
  ],
};

const taken = {};
for (const [name, pair] of Object.entries(requests)) {
  const samples = [[], []];
  // In turn and in both orders, so that whatever else the machine does is shared.
  for (let i = 0; i < Number(count); i++) {
    for (const which of i % 2 ? [0, 1] : [1, 0]) {
      const start = performance.now();
      await pair[which]();
      samples[which].push((performance.now() - start) / 1000);
    }
  }
  taken[name] = { fetch: samples[0], client: samples[1] };
}
console.log(JSON.stringify(taken));
