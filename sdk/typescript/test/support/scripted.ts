/** A server that gives the answers of a script, one for each request, and keeps what arrived. */

import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface ScriptedAnswer {
  status?: number;
  headers?: Record<string, string>;
  json?: unknown;
  /** Closed without an answer, or in the midst of its body; or never answered. */
  cut?: "silent" | "midway" | "never";
}

export interface Arrived {
  method: string;
  path: string;
  query: string;
  headers: IncomingHttpHeaders;
  body: string;
}

export interface Scripted {
  url: string;
  requests: Arrived[];
  left: () => number;
  close: () => Promise<void>;
}

/** Serve a script; a request beyond its end is answered with 418. */
export async function scripted(answers: readonly ScriptedAnswer[]): Promise<Scripted> {
  const rest = [...answers];
  const requests: Arrived[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (text: string) => {
      body += text;
    });
    request.on("end", () => {
      const [path = "", query = ""] = (request.url ?? "").split("?");
      requests.push({ method: request.method ?? "", path, query, headers: request.headers, body });
      answer(response, rest.shift() ?? { status: 418, json: { error: "the script has ended", code: "ended" } });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    left: () => rest.length,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(response: ServerResponse, { status = 200, headers, json, cut }: ScriptedAnswer): void {
  if (cut === "never") return;
  if (cut === "silent") {
    response.destroy();
    return;
  }
  const body = json === undefined ? "" : JSON.stringify(json);
  response.writeHead(status, {
    ...headers,
    ...(body ? { "content-type": "application/json", "content-length": Buffer.byteLength(body) } : {}),
  });
  if (cut === "midway") response.write(body.slice(0, body.length / 2), () => response.destroy());
  else response.end(body);
}
