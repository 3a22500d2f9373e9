import assert from "node:assert/strict";
import { before, test } from "node:test";
import * as sdk from "../../src/index.js";
import { database, fresh } from "../support/env.js";
import type { Recorder } from "../support/recorder.js";

interface Order {
  _id?: string;
  status: string;
  total: number;
  lines?: { sku: string }[];
}

export function documents({ fetch }: Recorder): void {
  const name = fresh("docs");
  let db: sdk.Db;
  before(async () => {
    db = (await database(name, { fetch })).db(name);
  });

  test("insert, find, update, delete", async () => {
    const orders = db.collection<Order>("orders");
    assert.deepEqual((await orders.find()).docs, []);
    const { ids, txid } = await orders.insert([
      { _id: "a", status: "open", total: 5 },
      { status: "open", total: 9, lines: [{ sku: "x" }] },
      { status: "done", total: 7 },
    ]);
    assert.equal(ids.length, 3);
    const found = await orders.find({ status: "open" }, { sort: { total: -1 }, limit: 1, projection: { total: true } });
    assert.deepEqual(
      found.docs.map(({ total }) => total),
      [9],
    );
    assert.ok(found.next_cursor);
    const totals = [];
    for await (const { total } of orders.find({}, { sort: { total: 1 }, limit: 1 })) totals.push(total);
    assert.deepEqual(totals, [5, 7, 9]);
    assert.deepEqual(
      (await orders.find({}, { sort: { total: 1 }, skip: 1, limit: 1 }).all()).map(({ total }) => total),
      [7, 9],
    );
    assert.equal((await orders.findOne({ _id: "a" }))?.total, 5);
    assert.equal(await orders.findOne({ _id: "none" }), null);
    assert.equal(await orders.count({ total: { $gte: 7 } }), 2);
    assert.deepEqual((await orders.distinct("status", {}, { limit: 5 })).values, ["done", "open"]);
    assert.equal((await orders.update({ status: "open" }, { $inc: { total: 1 } }, { multi: true })).modified, 2);
    assert.equal(
      (await orders.update({ status: "open" }, { $set: { status: "done" } }, { sort: { total: 1 } })).modified,
      1,
    );
    const up = await orders.update({ _id: "new", status: "open" }, { $set: { total: 1 } }, { upsert: true });
    assert.equal(up.upserted_id, "new");
    assert.equal((await orders.delete({ status: "open" }, { sort: { total: 1 } })).deleted, 1);
    assert.equal((await orders.delete({}, { multi: true })).deleted, 3);
    assert.equal(await orders.count({}, { at: txid }), 3);
    await assert.rejects(orders.find({ total: { $near: 1 } }), sdk.InvalidRequestError);
  });

  test("indexes and collections", async () => {
    const users = db.collection("users");
    assert.equal((await users.createIndex("mail", { unique: true })).unique, true);
    await users.createIndex("address.city");
    assert.deepEqual((await users.indexes()).indexes, [
      { path: "address.city", unique: false },
      { path: "mail", unique: true },
    ]);
    await users.insert([{ mail: "a" }]);
    await assert.rejects(users.insert([{ mail: "a" }]), sdk.ConflictError);
    await users.dropIndex("mail");
    await users.insert([{ mail: "a" }]);
    await db.collection("others").insert([{}]);
    const all = await db.collections({ limit: 1 }).all();
    assert.ok(all.some((each) => each.name === "users" && each.count === 2));
    await users.drop();
    assert.ok(!(await db.collections()).collections.some((each) => each.name === "users"));
  });

  test("SQL", async () => {
    await db.sql("create table t (a integer, b)");
    const bytes = new Uint8Array([0, 255, 1]);
    const result = await db.batch([
      { q: "insert into t values (?, ?)", params: [1, bytes] },
      { q: "insert into t values (?, ?), (?, ?)", params: [2n, null, 3, { a: [1] }] },
    ]);
    assert.deepEqual(
      result.results.map(({ rows_affected }) => rows_affected),
      [1, 2],
    );
    const read = await db.sql("select a, b from t where a <= ? order by a", [3]);
    assert.deepEqual(read.columns, ["a", "b"]);
    assert.deepEqual(read.rows, [
      [1, bytes],
      [2, null],
      [3, '{"a":[1]}'],
    ]);
    assert.equal(read.txid, result.txid, "what only reads commits nothing");
    assert.deepEqual((await db.sql("select count(*) from t", [], { at: result.txid })).rows, [[3]]);
    await assert.rejects(db.sql("select * from none"), sdk.InvalidRequestError);
    await assert.rejects(db.sql("select 1", [2n ** 60n]), sdk.InvalidRequestError);
    await assert.rejects(db.sql("select * from __memoturn_memories"), sdk.ForbiddenError);
  });
}
