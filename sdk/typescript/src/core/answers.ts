/** Which error an answer becomes. Pure. */

import * as errors from "../errors.js";

type ErrorClass = new (message: string, details: errors.ErrorDetails) => errors.MemoturnError;

const BY_CODE: Readonly<Record<string, ErrorClass>> = {
  already_exists: errors.AlreadyExistsError,
  branch_not_found: errors.BranchNotFoundError,
  changes_gone: errors.ChangesGoneError,
  conflict: errors.ConflictError,
  database_not_found: errors.DatabaseNotFoundError,
  forbidden: errors.ForbiddenError,
  idempotency_key_reused: errors.IdempotencyKeyReusedError,
  internal: errors.ServerError,
  invalid_request: errors.InvalidRequestError,
  method_not_allowed: errors.InvalidRequestError,
  not_durable: errors.NotDurableError,
  not_found: errors.NotFoundError,
  outcome_unknown: errors.UnknownOutcomeError,
  overloaded: errors.OverloadedError,
  payload_too_large: errors.InvalidRequestError,
  precondition_failed: errors.PreconditionFailedError,
  request_timeout: errors.RequestTimeoutError,
  unauthorized: errors.UnauthorizedError,
  unavailable: errors.UnavailableError,
  unconfigured: errors.UnconfiguredError,
  unsupported_media_type: errors.InvalidRequestError,
};

/** What stands in where an answer has no code, as from a proxy in between. */
const CODE_BY_STATUS: Readonly<Record<number, string>> = {
  400: "invalid_request",
  401: "unauthorized",
  403: "forbidden",
  404: "not_found",
  405: "method_not_allowed",
  408: "request_timeout",
  409: "conflict",
  410: "changes_gone",
  412: "precondition_failed",
  413: "payload_too_large",
  415: "unsupported_media_type",
  422: "invalid_request",
  429: "overloaded",
  502: "unavailable",
  503: "unavailable",
  504: "unavailable",
};

const TEXT_SHOWN = 200;

/** Return the error of an answer from 400 on. */
export function errorOf(
  status: number,
  headers: { get(name: string): string | null },
  text: string,
): errors.MemoturnError {
  const fallback = codeOf(status);
  const envelope = envelopeOf(text);
  const shown = text.split(/\s+/).filter(Boolean).join(" ").slice(0, TEXT_SHOWN);
  const plain = shown ? `status ${status}: ${shown}` : `status ${status} without an explanation`;
  return errorFor(envelope?.code ?? fallback, envelope?.error ?? plain, {
    status,
    retryAfterS: secondsOf(headers.get("retry-after")),
    requestId: headers.get("memoturn-request-id"),
    limit: headers.get("memoturn-limit"),
  });
}

/** Return the error of a code; one of a later release goes by the status. */
export function errorFor(code: string, message: string, details: errors.ErrorDetails): errors.MemoturnError {
  const Class = own(BY_CODE, code) ?? own(BY_CODE, codeOf(details.status ?? 500)) ?? errors.ServerError;
  return new Class(message, { ...details, code });
}

function codeOf(status: number): string {
  return CODE_BY_STATUS[status] ?? (status >= 500 ? "internal" : "invalid_request");
}

function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

function envelopeOf(text: string): { error: string; code: string } | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const { error, code } = (value ?? {}) as { error?: unknown; code?: unknown };
  return typeof error === "string" && typeof code === "string" ? { error, code } : null;
}

function secondsOf(value: string | null): number | null {
  // The other form that HTTP allows, a date, is not sent by Memoturn.
  return value !== null && /^[0-9]{1,9}$/.test(value) ? Number(value) : null;
}
