/** Where the tests run: what `tests/typescript` says in the environment. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Memoturn, type MemoturnOptions } from "../../src/index.js";

function variable(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: tests/typescript starts these tests`);
  return value;
}

export const url = () => variable("MEMOTURN_TEST_URL");
export const platformKey = () => variable("MEMOTURN_TEST_PLATFORM_KEY");

/** A client with the platform key alone. */
export function operator(options: MemoturnOptions = {}): Memoturn {
  return new Memoturn({ url: url(), platformKey: platformKey(), ...options });
}

/** A client of a namespace, with a token that may do everything in it. */
export async function client(ns: string, options: MemoturnOptions = {}): Promise<Memoturn> {
  const { token } = await operator().createNamespaceToken(ns, "admin");
  return operator({ token, ...options });
}

/** A client of a new database. */
export async function database(name: string, options: MemoturnOptions = {}): Promise<Memoturn> {
  await operator().databases.create(name);
  const { token } = await operator().createToken(name, "admin");
  return operator({ token, ...options });
}

/** A case of the vectors that all clients share. */
export interface Case<G, E> {
  name: string;
  given: G;
  expect: E;
}

/** Return the cases of a topic. Fails where one has a member that is not known here. */
export function vectors<G extends object, E extends object>(
  topic: string,
  given: readonly (keyof G)[],
  expect: readonly (keyof E)[],
): Case<G, E>[] {
  const cases = JSON.parse(readFileSync(join(variable("MEMOTURN_TEST_VECTORS"), `${topic}.json`), "utf8")) as Case<
    G,
    E
  >[];
  for (const each of cases) {
    for (const [has, known] of [
      [Object.keys(each), ["name", "given", "expect"]],
      [Object.keys(each.given), given],
      [Object.keys(each.expect), expect],
    ] as [string[], readonly string[]][]) {
      const strange = has.filter((name) => !known.includes(name));
      if (strange.length > 0) throw new Error(`${topic}: ${each.name}: unknown members ${strange.join(", ")}`);
    }
  }
  return cases;
}

let made = 0;
/** A name that no other test has. */
export function fresh(prefix: string): string {
  made += 1;
  return `${prefix}-${process.pid}-${made}`;
}
