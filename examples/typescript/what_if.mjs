/**
 * What if: an agent tries something on a fork of its memory, and keeps it, or throws it away.
 *
 *     MEMOTURN_URL=http://127.0.0.1:8080 node what_if.mjs
 *
 * A fork copies no data and takes the same moment for a profile of any size. Nothing on it is seen on main.
 */

import { memoturn } from "@memoturn/sdk";

/**
 * What the profile says of the diet.
 *
 * @param {import("@memoturn/sdk").MemoryProfile} profile
 */
async function diet(profile) {
  return (await profile.recall({ topicKey: "diet", k: 1 })).memories[0]?.summary;
}

const client = memoturn({ url: process.env["MEMOTURN_URL"], token: process.env["MEMOTURN_TOKEN"] });
const alice = client.memory("what-if", "alice");
await alice.ingest([{ type: "fact", topicKey: "diet", summary: "Alice is vegan" }]);

await alice.fork("steakhouse", { ttl: 3600 }); // gone by itself in an hour, should this program die
const trial = alice.onBranch("steakhouse");
await trial.ingest([{ type: "fact", topicKey: "diet", summary: "Alice loves steak" }]);
console.log(`on the fork: ${await diet(trial)}; on main: ${await diet(alice)}`);

// Thrown away: the branch is deleted, and main never knew.
await alice.branch.delete("steakhouse");

// Tried on main after all, and regretted: a rewind is a commit, too, so it can be undone.
await alice.checkpoint("before");
await alice.ingest([{ type: "fact", topicKey: "diet", summary: "Alice eats everything" }]);
await alice.rewind("before");
console.log(`after the rewind: ${await diet(alice)}`);
await alice.undoRewind();
console.log(`after its undo: ${await diet(alice)}`);
