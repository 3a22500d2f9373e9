import assert from "node:assert/strict";
import { test } from "node:test";
import * as sdk from "../../src/index.js";
import { client, fresh, operator } from "../support/env.js";
import type { Recorder } from "../support/recorder.js";

const DAY_MS = 86_400_000;

export function control({ fetch }: Recorder): void {
  const operate = (options: sdk.MemoturnOptions = {}) => operator({ fetch, ...options });

  test("the node's own", async () => {
    const node = operate();
    assert.equal(await node.health(), "ok");
    assert.equal((await node.ready()).store, "ok");
    assert.match(await node.metrics(), /^# HELP /m);
    assert.ok((await node.publishedKeys()).keys.length > 0);
    const overview = await node.cluster({ limit: 1 });
    assert.equal(overview.nodes[0]?.silent, false);
    for await (const placement of node.cluster({ limit: 1 })) assert.ok(placement.database);
  });

  test("databases", async () => {
    const node = operate();
    const name = fresh("dbs");
    const made = await node.databases.create(`${name}-1`);
    assert.equal(made.name, `${name}-1`);
    await assert.rejects(node.databases.create(`${name}-1`), sdk.AlreadyExistsError);
    await node.databases.create(`${name}-2`);
    const page = await node.databases.list({ prefix: name, limit: 1 });
    assert.equal(page.databases.length, 1);
    assert.ok(page.next_cursor);
    const names = (await node.databases.list({ prefix: name, limit: 1 }).all()).map((each) => each.name);
    assert.deepEqual(names, [`${name}-1`, `${name}-2`]);
    await node.databases.delete(`${name}-1`);
    await assert.rejects(node.databases.delete(`${name}-1`), sdk.DatabaseNotFoundError);
    const deleted = await node.databases.list({ deleted: true, prefix: name }).all();
    assert.ok((deleted[0]?.undelete_until ?? 0) > Date.now());
    assert.equal((await node.databases.undelete(`${name}-1`, { uuid: made.uuid })).uuid, made.uuid);
    await node.databases.delete(`${name}-2`);
    await node.databases.undelete(`${name}-2`);
    assert.equal((await node.placement(`${name}-1`)).branch, "main");
  });

  test("tenants", async () => {
    const node = operate();
    const name = fresh("acme");
    assert.equal((await node.tenants.create(name)).name, name);
    assert.equal((await node.tenants.get(name))?.name, name);
    assert.equal(await node.tenants.get(fresh("none")), null);
    assert.ok((await node.tenants.list({ limit: 1 }).all()).some((each) => each.name === name));
    const theirs = operate({ tenant: name });
    await theirs.databases.create("orders");
    assert.deepEqual(
      (await theirs.databases.list()).databases.map((each) => each.tenant),
      [name],
    );
    await assert.rejects(node.tenants.delete(name), sdk.ConflictError);
    const limits = await node.quotas.setTenant(name, {
      databases: 2,
      requestsPerS: 100,
      writesPerS: 100,
      bytes: null,
      memories: null,
    });
    assert.deepEqual(limits.quotas.databases, 2);
    assert.equal((await node.quotas.getTenant(name)).effective.requests_per_s, 100);
    await node.tenants.create(`${name}-2`);
    await node.tenants.delete(`${name}-2`);
    assert.equal(await node.tenants.get(`${name}-2`), null);
  });

  test("quotas of a namespace, and the limit that an error names", async () => {
    const node = operate();
    const ns = fresh("quota");
    const limits = { memories: 1000, bytes: 1_000_000_000, databases: 1, writesPerS: 1000, requestsPerS: 1000 };
    const set = await node.quotas.set(ns, limits);
    assert.equal(set.namespace, ns);
    assert.equal((await node.quotas.get(ns)).quotas.databases, 1);
    const scoped = await client(ns, { fetch, retries: 0 });
    await scoped.memory(ns, "one").ingest([{ type: "fact", summary: "s" }]);
    await assert.rejects(
      scoped.memory(ns, "two").ingest([{ type: "fact", summary: "s" }]),
      (error) => error instanceof sdk.OverloadedError && error.limit === "databases",
    );
  });

  test("tokens", async () => {
    const node = operate();
    const name = fresh("tok");
    await node.databases.create(name);
    const minted = await node.createToken(name, "write", {
      expiresIn: 600,
      subject: "the tests",
      surfaces: ["kv"],
      branches: ["main"],
      limits: { requestsPerS: 100, writesPerS: 50 },
    });
    assert.equal(minted.expires_in, 600);
    const limited = operate({ token: minted.token, platformKey: undefined });
    await limited.db(name).kv.put("n", "k", "v");
    await assert.rejects(limited.db(name).sql("select 1"), sdk.ForbiddenError);
    await assert.rejects(limited.db(name).branch.list(), sdk.ForbiddenError);
    const [shown] = await node.tokens.database(name).list({ limit: 1 }).all();
    assert.equal(shown?.subject, "the tests");
    assert.deepEqual(shown?.limits, { requests_per_s: 100, writes_per_s: 50 });
    await node.tokens.database(name).revoke(minted.id);
    await assert.rejects(limited.db(name).kv.get("n", "k"), sdk.ForbiddenError);
    await assert.rejects(node.tokens.database(name).revoke("none"), sdk.NotFoundError);
    const second = await node.createToken(name, "read");
    assert.equal((await node.tokens.database(name).revokeToken(second.token)).id, second.id);
    assert.ok((await node.tokens.database(name).revokeAll()).revoked_until > 0);

    const ns = fresh("tokns");
    await node
      .createToken(`${ns}--ann`, "read", { profiles: ["ann"] })
      .catch((error) => assert.ok(error instanceof sdk.MemoturnError));
    const wide = await node.createNamespaceToken(ns, "admin", { profiles: ["ann"], surfaces: ["memory"] });
    const [listed] = await node.tokens.namespace(ns).list().all();
    assert.deepEqual(listed?.profiles, ["ann"]);
    await node.tokens.namespace(ns).revoke(wide.id);
    const another = await node.createNamespaceToken(ns, "admin", {
      expiresIn: 60,
      subject: "s",
      limits: {},
      branches: ["main"],
    });
    await node.tokens.namespace(ns).revokeToken(another.token);
    await node.tokens.namespace(ns).revokeAll();
    await assert.rejects(operate({ token: "nonsense" }).memory(ns, "ann").recall("x"), sdk.UnauthorizedError);
  });

  test("every token of a tenant, and the keys", async () => {
    const name = fresh("tenant");
    await operate().tenants.create(name);
    const theirs = operate({ tenant: name });
    const { token } = await theirs.createNamespaceToken("app", "read");
    assert.ok((await theirs.tokens.revokeToken(token)).id);
    assert.ok((await theirs.tokens.revokeAll()).revoked_until > 0);
    const before = await operate().keys.list();
    assert.ok(before.managed);
    const { kid } = await operate().keys.rotate();
    assert.ok((await operate().keys.list()).keys.some((key) => key.kid === kid));
  });

  test("policies", async () => {
    const ns = fresh("pol");
    const node = operate();
    assert.equal(await node.policy.get(ns), null);
    const set = await node.policy.set(ns, { memory: { task_ttl_max_secs: 600 }, audit: { enabled: true } });
    assert.equal((await node.policy.get(ns))?.revision, set.revision);
    await assert.rejects(node.policy.set(ns, {}, { ifMatch: set.revision + 7 }), sdk.PreconditionFailedError);
    await node.policy.set(
      ns,
      { memory: { task_ttl_max_secs: 600 }, audit: { enabled: true } },
      { ifMatch: set.revision },
    );
    const scoped = await client(ns, { fetch });
    const loose = scoped.policy.setProfile(ns, "ann", { memory: { task_ttl_max_secs: 6000 } });
    await assert.rejects(loose, sdk.ConflictError);
    await scoped.policy.setProfile(ns, "ann", { memory: { task_ttl_max_secs: 60 } });
    assert.equal((await scoped.policy.getProfile(ns, "ann")).effective.task_ttl_max_secs, 60);
    const cleared = await scoped.policy.setProfile(ns, "ann", null);
    assert.equal(cleared.override, null);
  });

  test("usage and audit", async () => {
    const ns = fresh("aud");
    const node = operate();
    await node.policy.set(ns, { audit: { enabled: true, include_reads: true } });
    const scoped = await client(ns, { fetch });
    await scoped.memory(ns, "ann").ingest([{ type: "fact", summary: "s" }]);
    await scoped.memory(ns, "ann").recall("s");
    const from = Date.now() - DAY_MS;
    const events = await scoped.auditEvents(ns, { from, to: new Date(), limit: 1 }).all();
    assert.ok(events.some((event) => event.action === "memory.ingest" && event.profile === "ann"));
    const asked = { action: "memory.", profile: "ann", outcome: "ok" as const };
    for await (const event of scoped.auditEvents(ns, asked)) assert.match(event.action, /^memory\./);
    const lines = [];
    for await (const line of scoped.auditExport(ns)) lines.push(line["kind"]);
    assert.equal(lines[0], "header");
    assert.equal(lines.at(-1), "end");

    const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
    const range = { from: day(Date.now() - DAY_MS), to: day(Date.now()), limit: 1 };
    assert.equal((await node.usage.database(`${ns}--ann`, range)).database, `${ns}--ann`);
    assert.ok(Array.isArray(await node.usage.namespace(ns, range).all()));
    assert.ok((await node.namespaces({ limit: 1 }).all()).some((each) => each.namespace === ns));
  });

  test("a database of a SQLite file", async () => {
    const node = operate();
    const name = fresh("imp");
    await node.databases.create(name);
    const { token } = await node.createToken(name, "admin");
    const db = operate({ token }).db(name);
    await db.sql("create table t (a)");
    await db.sql("insert into t values (1)");
    const download = await db.export();
    const file = await download.bytes();
    assert.equal(download.size_bytes, file.length);
    assert.ok(download.txid > 0);
    assert.equal(new TextDecoder().decode(file.slice(0, 15)), "SQLite format 3");
    const made = await node.databases.import(`${name}-2`, file);
    assert.equal(made.name, `${name}-2`);
    await assert.rejects(node.databases.import(`${name}-2`, file), sdk.AlreadyExistsError);
    const branch = await node.databases.import(
      name,
      () => new Blob([file as BlobPart]).stream() as ReadableStream<Uint8Array>,
      {
        branch: "copy",
        ttl: 600,
      },
    );
    assert.equal(branch.branch, "copy");
    assert.deepEqual((await db.onBranch("copy").sql("select a from t")).rows, [[1]]);
    const past = await (await db.export({ at: made.txid })).bytes();
    assert.ok(past.length > 0);
  });
}
