/**
 * A chat loop that remembers: every turn is kept, what is to be remembered is a memory, and each answer starts from a recall.
 *
 *     MEMOTURN_URL=http://127.0.0.1:8080 node chat.mjs alice
 *
 * Say something; `remember diet: I am vegan` keeps a fact under a topic, so that a later one supersedes it. Ctrl-D ends it.
 * Start it again: it knows what you told it. Put your own model where `reply` is.
 */

import { createInterface } from "node:readline";
import { memoturn } from "@memoturn/sdk";

const REMEMBER = /^remember (?<topic>[\w.-]+): (?<what>.+)$/i;

/**
 * Answer without a model, by what is known; a model would get all three in its prompt.
 *
 * @param {string} said
 * @param {import("@memoturn/sdk").RecallHit[]} known
 * @param {import("@memoturn/sdk").Turn[]} _window
 */
function reply(said, known, _window) {
  if (known.length === 0) return `I know nothing about that yet: '${said}'`;
  return `I know: ${known.map((memory) => memory.summary).join("; ")}`;
}

const client = memoturn({ url: process.env["MEMOTURN_URL"], token: process.env["MEMOTURN_TOKEN"] });
const profile = client.memory("chat", process.argv[2] ?? "alice");
const session = profile.session(`chat-${Date.now().toString(36)}`);

for await (const line of createInterface({ input: process.stdin })) {
  const said = line.trim();
  if (!said) continue;
  await session.appendTurn({ role: "user", content: said });
  const found = REMEMBER.exec(said)?.groups;
  let answer;
  if (found) {
    const { results } = await profile.ingest([
      { type: "fact", topicKey: found["topic"], summary: found["what"] ?? "", sessionId: session.id },
    ]);
    answer = results[0]?.superseded.length ? "Noted, in place of what I knew." : "Noted.";
  } else {
    const { memories } = await profile.recall({ query: said, k: 3 });
    answer = reply(said, memories, (await session.getWindow({ last: 10 })).turns);
  }
  await session.appendTurn({ role: "assistant", content: answer });
  console.log(`> ${answer}`);
}
