/**
 * Time travel: why did the agent say that? Read what it knew when it said it.
 *
 *     MEMOTURN_URL=http://127.0.0.1:8080 node time_travel.mjs
 *
 * Every answer carries the txid of the state that it shows. Keep it beside what the agent did, and any read can be repeated
 * as of that moment: `at` takes a txid, a time, a checkpoint, or `head~3`.
 */

import { memoturn } from "@memoturn/sdk";

const QUESTION = "which city does the customer live in";

const client = memoturn({ url: process.env["MEMOTURN_URL"], token: process.env["MEMOTURN_TOKEN"] });
const customer = client.memory("support", "customer-7");
await customer.ingest([{ type: "fact", topicKey: "city", summary: "The customer lives in the city of Oslo" }]);
const told = await customer.recall(QUESTION);
console.log(`said at txid ${told.txid}: ${told.memories[0]?.summary}`);

await customer.ingest([
  { type: "fact", topicKey: "city", summary: "The customer lives in the city of Bergen", reason: "moved in May" },
]);
console.log(`known now: ${(await customer.recall(QUESTION)).memories[0]?.summary}`);

const then = await customer.recall(QUESTION, { at: told.txid });
console.log(`known then: ${then.memories[0]?.summary}`);
const history = await customer.topic("city");
for (const { version, summary } of history?.chains[0]?.versions ?? []) console.log(`  version ${version}: ${summary}`);
