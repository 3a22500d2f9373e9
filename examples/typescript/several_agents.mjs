/**
 * Several agents on one profile: each writes what it learned, one follows the changes, and no write is lost.
 *
 *     MEMOTURN_URL=http://127.0.0.1:8080 node several_agents.mjs
 *
 * They share nothing but the profile's name. Writes are applied one after another, whoever sends them; `source` says who did.
 */

import { memoturn } from "@memoturn/sdk";

const AGENTS = ["planner", "researcher", "writer"];
const FINDINGS = 20;

const options = { url: process.env["MEMOTURN_URL"], token: process.env["MEMOTURN_TOKEN"] };
const profile = memoturn(options).memory("team", "launch");

/**
 * Write down findings, and say at the end that it is done.
 *
 * @param {string} agent
 */
async function work(agent) {
  const own = memoturn({ ...options, source: agent }).memory("team", "launch");
  for (let number = 0; number < FINDINGS; number += 1) {
    await own.ingest([{ type: "event", summary: `Finding ${number} of ${agent}` }]);
  }
  await own.ingest([{ type: "fact", topicKey: `status.${agent}`, summary: `${agent} is done` }]);
}

/**
 * Count the commits of the others as they happen, until every agent is done.
 *
 * @param {number} since
 */
async function follow(since) {
  const done = new Set();
  let commits = 0;
  for await (const { txid } of profile.follow({ since, signal: AbortSignal.timeout(30_000) })) {
    commits += 1;
    for await (const { source } of profile.list({ topicPrefix: "status." })) done.add(source);
    if (AGENTS.every((agent) => done.has(agent))) {
      console.log(`seen ${commits} commits, up to txid ${txid}`);
      return;
    }
  }
}

const begun = await profile.ingest([{ type: "instruction", summary: "Prepare the launch", source: "lead" }]);
await Promise.all([follow(begun.txid), ...AGENTS.map(work)]);
for (const agent of AGENTS) {
  const findings = await profile.list({ types: ["event"], source: agent }).all();
  console.log(`${agent}: ${findings.length} findings`);
}
