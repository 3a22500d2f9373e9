/** What the client costs over a bare `fetch` of the same request: prints the difference of the medians, in milliseconds. */

import { memoturn } from "../src/index.js";

const [, , url = "", token = "", name = "", rounds = "1000"] = process.argv;
const client = memoturn({ url, token });
const { kv } = client.db(name);
await kv.put("bench", "k", "value");
const headers = { authorization: `Bearer ${token}`, accept: "application/octet-stream" };
const bare = async () => (await fetch(`${url}/v1/db/${name}/kv/bench/k`, { headers })).arrayBuffer();

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

const median = (times: number[]) => times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;

const ours: number[] = [];
const theirs: number[] = [];
for (let i = 0; i < Number(rounds) + 100; i += 1) {
  const [a, b] = [await timed(bare), await timed(() => kv.get("bench", "k"))];
  if (i < 100) continue;
  theirs.push(a);
  ours.push(b);
}
console.log(
  JSON.stringify({ bare_ms: median(theirs), client_ms: median(ours), overhead_ms: median(ours) - median(theirs) }),
);
