/** Every method, end to end, against a node with authentication on; and that nothing of the API is left out. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { operator } from "./support/env.js";
import { Recorder } from "./support/recorder.js";
import { control } from "./surface/control.js";
import { data } from "./surface/data.js";
import { documents } from "./surface/documents.js";
import { history } from "./surface/history.js";
import { memory } from "./surface/memory.js";

const recorder = new Recorder();

describe("surface", () => {
  // All wait for the node most of the time, and each has names of its own.
  describe("methods", { concurrency: true }, () => {
    for (const group of [control, memory, history, documents, data])
      describe(group.name, { concurrency: 1 }, () => group(recorder));
  });

  test("every operation of the API was used, with every query value and every field of its body", async () => {
    const description = await operator({ fetch: recorder.fetch }).openapi();
    assert.deepEqual(recorder.unused(description as never), []);
  });
});
