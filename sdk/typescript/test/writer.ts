/** Counts up in a database, one increment after the other, and says after each what the node answered. */

import { memoturn } from "../src/index.js";

const [, , url = "", token, name = "", total = "0"] = process.argv;
const client = memoturn({ url, token, retries: 50, timeoutMs: 60_000 });
for (let i = 0; i < Number(total); i += 1) {
  const { value } = await client.db(name).kv.increment("counters", "n");
  console.log(value);
}
