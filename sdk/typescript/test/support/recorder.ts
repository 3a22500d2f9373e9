/** A `fetch` that notes which operations of the API were used, with which query values and fields of bodies. */

import type { MemoturnOptions } from "../../src/index.js";

interface Operation {
  parameters?: { name: string; in: string }[];
  requestBody?: { content: Record<string, { schema?: Schema }> };
}
interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  properties?: Record<string, unknown>;
}
interface Description {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

const METHODS = ["get", "put", "post", "delete", "patch"];
/** What every listing or read takes in one and the same way. */
const COMMON = ["?limit", "?cursor", "?branch", "?at"];

/** What was used of the API. */
export class Recorder {
  readonly #used = new Map<string, Set<string>>();

  /** Send a request, and note it. */
  readonly fetch: NonNullable<MemoturnOptions["fetch"]> = (input, init) => {
    const url = new URL(String(input));
    const fields = [...url.searchParams.keys()].map((name) => `?${name}`);
    if (typeof init?.body === "string") fields.push(...Object.keys(JSON.parse(init.body) as object));
    const key = `${init?.method} ${url.pathname}`;
    this.#used.set(key, new Set([...(this.#used.get(key) ?? []), ...fields]));
    return globalThis.fetch(input, init);
  };

  /** Return what the description of the API has, and was not used: operations, their query values, fields of their bodies. */
  unused(description: Description): string[] {
    const missing: string[] = [];
    for (const [path, operations] of Object.entries(description.paths)) {
      if (path.startsWith("/internal")) continue;
      for (const method of METHODS) {
        const operation = operations[method];
        if (!operation) continue;
        const name = `${method.toUpperCase()} ${path}`;
        const used = this.#fields(method.toUpperCase(), path, description.paths);
        if (used === null) missing.push(name);
        else
          for (const field of fieldsOf(operation, description))
            if (!used.has(field) && !COMMON.includes(field)) missing.push(`${name} ${field}`);
      }
    }
    return missing;
  }

  #fields(method: string, path: string, paths: Description["paths"]): Set<string> | null {
    let all: Set<string> | null = null;
    for (const [key, fields] of this.#used) {
      const [sent, url = ""] = key.split(" ");
      if (sent === method && bestOf(url, Object.keys(paths)) === path) all = new Set([...(all ?? []), ...fields]);
    }
    return all;
  }
}

/** Return the path that a URL is of: the one with the most literal parts. */
function bestOf(url: string, paths: string[]): string | undefined {
  const parts = url.split("/");
  const literal = (path: string) => path.split("/").filter((part) => !part.startsWith("{")).length;
  return paths
    .filter((path) => {
      const wanted = path.split("/");
      return wanted.length === parts.length && wanted.every((part, i) => part.startsWith("{") || part === parts[i]);
    })
    .sort((a, b) => literal(b) - literal(a))[0];
}

function fieldsOf(operation: Operation, { components }: Description): string[] {
  const queries = (operation.parameters ?? []).filter((each) => each.in === "query").map(({ name }) => `?${name}`);
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const properties = (each: Schema | undefined): string[] => {
    if (each?.$ref) return properties(components.schemas[each.$ref.split("/").pop() ?? ""]);
    return [...Object.keys(each?.properties ?? {}), ...(each?.anyOf ?? []).flatMap(properties)];
  };
  return [...queries, ...properties(schema)];
}
