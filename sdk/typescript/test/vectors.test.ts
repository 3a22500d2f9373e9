/** The shared vectors that take a live node: ids, values, filters. */

import assert from "node:assert/strict";
import { before, test } from "node:test";
import type * as sdk from "../src/index.js";
import { client, database, fresh, vectors } from "./support/env.js";

let memories: sdk.Memoturn;
let documents: sdk.Memoturn;
const db = fresh("vectors");

before(async () => {
  memories = await client("vectors");
  documents = await database(db);
});

type WireItem = { type: sdk.IngestItem["type"]; summary: string; topic_key?: string; content?: unknown };
type IdsExpect = { ids?: string[]; error?: string };
for (const { name, given, expect } of vectors<{ items: WireItem[] }, IdsExpect>("ids", ["items"], ["ids", "error"])) {
  test(`ids: ${name}`, async () => {
    const profile = memories.memory("vectors", fresh("ids"));
    const ingest = async ({ topic_key, ...item }: WireItem) => {
      const { results } = await profile.ingest([{ ...item, topicKey: topic_key }]);
      return results[0]?.id;
    };
    if (expect.error) return assert.rejects(ingest(given.items[0]!), { name: expect.error });
    for (const [i, item] of given.items.entries()) assert.equal(await ingest(item), expect.ids?.[i]);
    return undefined;
  });
}

for (const { name, given } of vectors<{ document: sdk.Document & { _id: string } }, object>(
  "values",
  ["document"],
  [],
)) {
  test(`values: ${name}`, async () => {
    const collection = documents.db(db).collection(fresh("v"));
    await collection.insert([given.document]);
    const found = await collection.findOne({ _id: given.document._id });
    assert.deepEqual(found, given.document);
    assert.deepEqual(Object.keys(found ?? {}), Object.keys(given.document));
  });
}

type FilterGiven = { docs: sdk.Document[]; filter: sdk.Filter; sort?: sdk.Sort; limit?: number; skip?: number };
for (const { name, given, expect } of vectors<FilterGiven, IdsExpect>(
  "filters",
  ["docs", "filter", "sort", "limit", "skip"],
  ["ids", "error"],
)) {
  test(`filters: ${name}`, async () => {
    const { docs, filter, ...options } = given;
    const collection = documents.db(db).collection(fresh("f"));
    await collection.insert(docs);
    const found = async () => (await collection.find(filter, options)).docs.map(({ _id }) => _id);
    if (expect.error) await assert.rejects(found(), { name: expect.error });
    else assert.deepEqual(await found(), expect.ids);
  });
}
