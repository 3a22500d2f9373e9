/** Bodies that are read as they come: bytes, lines of JSON, server-sent events. */

import { MemoturnError, ServerError, UnknownOutcomeError } from "../errors.js";
import type { Stamp } from "../options.js";
import { numberOf, type Opened, stampOf } from "./transport.js";

/** Longest silence of a stream; the server says something every second, or every ten. */
const IDLE_MS = 30_000;
/** Longest line or event: a page of change events, or a memory with its content. */
const LONGEST = 64 * 1024 * 1024;

/** A body that is being downloaded, and what was said of it before. */
export class Download implements Stamp {
  readonly txid: number;
  readonly durable_txid: number;
  /** Size of the whole, null where that is not said. */
  readonly size_bytes: number | null;
  /** The bytes; it fails where the download breaks off. */
  readonly body: ReadableStream<Uint8Array>;

  /** @internal */
  constructor(opened: Opened) {
    const { headers } = opened.response;
    const stamp = stampOf(headers);
    this.txid = stamp.txid;
    this.durable_txid = stamp.durable_txid;
    this.size_bytes = numberOf(headers, "content-length");
    const chunks = chunksOf(opened);
    this.body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await chunks.return(undefined);
      },
    });
  }

  /** Return all of it. */
  async bytes(): Promise<Uint8Array> {
    return new Uint8Array(await new Response(this.body).arrayBuffer());
  }

  /** Return all of it as text. */
  text(): Promise<string> {
    return new Response(this.body).text();
  }
}

/** Yield the bytes of an answer. Leaving the loop ends the request. */
export async function* chunksOf({ response, deadline }: Opened): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = response.body?.getReader();
  try {
    while (reader) {
      deadline.allow(IDLE_MS);
      const { done, value } = await reader.read();
      // Silence of the server is counted, and not of who reads.
      deadline.pause();
      if (done) return;
      yield value;
    }
  } catch (cause) {
    deadline.throwIfAborted();
    if (cause instanceof MemoturnError) throw cause;
    const what = deadline.expired ? "was silent for too long" : "broke off";
    throw new UnknownOutcomeError(`the answer ${what}`, { code: "unknown_outcome", cause });
  } finally {
    deadline.cancel();
  }
}

/** Yield the lines of an answer, without their ends. */
export async function* linesOf(opened: Opened): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  const chunks = chunksOf(opened);
  let rest = "";
  try {
    for await (const chunk of chunks) {
      const [first = "", ...more] = decoder.decode(chunk, { stream: true }).split("\n");
      // What came before has no end of a line in it: to look again would take long where a line comes in many pieces.
      rest += first;
      if (rest.length > LONGEST) throw unreadable("a line is too long");
      for (const next of more) {
        yield rest.endsWith("\r") ? rest.slice(0, -1) : rest;
        rest = next;
      }
    }
    rest += decoder.decode();
    if (rest) yield rest;
  } finally {
    await chunks.return(undefined);
  }
}

/** Yield the objects of an answer that is lines of JSON. Throws ServerError. */
export async function* objectsOf(opened: Opened): AsyncGenerator<Record<string, unknown>, void, undefined> {
  for await (const line of linesOf(opened)) {
    if (line) yield parsed(line);
  }
}

/** One event of a stream; `id` is the newest that came, by itself too. */
export interface ServerEvent {
  readonly event: string;
  readonly data: string;
  readonly id: string | null;
}

/** Yield the events of a stream, and with the event `""` an id that came alone. */
export async function* eventsOf(opened: Opened): AsyncGenerator<ServerEvent, void, undefined> {
  let event = "";
  let data: string[] = [];
  let id: string | null = null;
  for await (const line of linesOf(opened)) {
    if (line === "") {
      if (data.length > 0 || id !== null)
        yield { event: data.length > 0 ? event || "message" : "", data: data.join("\n"), id };
      event = "";
      data = [];
      id = null;
      continue;
    }
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
    else if (field === "id") id = value;
  }
}

/** Return the object in a text. Throws ServerError. */
export function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw unreadable("a line is no JSON object");
}

function unreadable(what: string): ServerError {
  return new ServerError(`${what}; is the URL that of a Memoturn node?`, { code: "internal" });
}
