/**
 * The client's errors, by what the caller should do next; the same names as in the Python client.
 *
 *     MemoturnError
 *       InvalidRequestError          fix the request                             400, 405, 413, 415, 422
 *         IdempotencyKeyReusedError  use a new key for another request           422
 *       UnauthorizedError            send a credential                           401
 *       ForbiddenError               ask for another scope, or do not do that    403
 *       NotFoundError                name something that exists                  404
 *         DatabaseNotFoundError
 *         BranchNotFoundError
 *       ConflictError                read again, then decide                     409
 *         AlreadyExistsError         choose another name
 *       ChangesGoneError             read again what you keep a copy of          410
 *       PreconditionFailedError      the state asked for is not there (yet)      412
 *       RetryableError               send it again after `retryAfterS`           408, 429, 502, 503, 504
 *         OverloadedError                                                        429
 *         RequestTimeoutError                                                    408
 *         UnavailableError                                                       502, 503, 504
 *       UnconfiguredError            switch the feature on at the node           503 unconfigured
 *       NotDurableError              do not repeat it; `sync` waits for it       500 not_durable
 *       ServerError                  look into the node's log                    other 5xx, 3xx, unreadable answers
 *       UnreachableError             start the node; the request was not sent    -
 *       UnknownOutcomeError          send it again under its key, or look first  500 outcome_unknown
 */

/** What an error knows besides its message. */
export interface ErrorDetails {
  status?: number;
  code?: string;
  retryAfterS?: number | null;
  idempotencyKey?: string | null;
  requestId?: string | null;
  limit?: string | null;
  cause?: unknown;
}

/** Base of all errors of this package. */
export class MemoturnError extends Error {
  /** HTTP status, 0 where there was no answer. */
  readonly status: number;
  /** Stable identifier. */
  readonly code: string;
  /** Seconds that the server asks to wait, null where it does not say. */
  readonly retryAfterS: number | null;
  /** Under which the node's log has the request. */
  readonly requestId: string | null;
  /** Name of the limit of a tenant, namespace or token that was in the way. */
  readonly limit: string | null;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.className;
    this.status = details.status ?? 0;
    this.code = details.code ?? "";
    this.retryAfterS = details.retryAfterS ?? null;
    this.requestId = details.requestId ?? null;
    this.limit = details.limit ?? null;
  }

  /** The name as it is written here; minifiers change that of the class. */
  protected static get className(): string {
    return "MemoturnError";
  }
}

/** The request is wrong; sending it again unchanged cannot succeed. Nothing was changed. */
export class InvalidRequestError extends MemoturnError {
  protected static override get className(): string {
    return "InvalidRequestError";
  }
}

/** The idempotency key came with another request before. */
export class IdempotencyKeyReusedError extends InvalidRequestError {
  protected static override get className(): string {
    return "IdempotencyKeyReusedError";
  }
}

/** No valid credential came with the request. */
export class UnauthorizedError extends MemoturnError {
  protected static override get className(): string {
    return "UnauthorizedError";
  }
}

/** The credential does not cover the request, or the request reaches for what is reserved. */
export class ForbiddenError extends MemoturnError {
  protected static override get className(): string {
    return "ForbiddenError";
  }
}

/** The thing named by the request does not exist. */
export class NotFoundError extends MemoturnError {
  protected static override get className(): string {
    return "NotFoundError";
  }
}

/** No database or profile of that name exists. */
export class DatabaseNotFoundError extends NotFoundError {
  protected static override get className(): string {
    return "DatabaseNotFoundError";
  }
}

/** No branch or checkpoint of that name exists. */
export class BranchNotFoundError extends NotFoundError {
  protected static override get className(): string {
    return "BranchNotFoundError";
  }
}

/** The state does not allow this now. */
export class ConflictError extends MemoturnError {
  protected static override get className(): string {
    return "ConflictError";
  }
}

/** The name is taken. */
export class AlreadyExistsError extends ConflictError {
  protected static override get className(): string {
    return "AlreadyExistsError";
  }
}

/** The changes asked for are not kept any more: read again what you keep a copy of. */
export class ChangesGoneError extends MemoturnError {
  protected static override get className(): string {
    return "ChangesGoneError";
  }
}

/** A condition sent with the request does not hold. */
export class PreconditionFailedError extends MemoturnError {
  protected static override get className(): string {
    return "PreconditionFailedError";
  }
}

/** The server could not do it now; the same request may be sent again. */
export class RetryableError extends MemoturnError {
  protected static override get className(): string {
    return "RetryableError";
  }
}

/** A bound of the server, or a limit, is reached. */
export class OverloadedError extends RetryableError {
  protected static override get className(): string {
    return "OverloadedError";
  }
}

/** The request ran past the server's deadline. */
export class RequestTimeoutError extends RetryableError {
  protected static override get className(): string {
    return "RequestTimeoutError";
  }
}

/** It cannot be served now. */
export class UnavailableError extends RetryableError {
  protected static override get className(): string {
    return "UnavailableError";
  }
}

/** The feature is not switched on at the server. */
export class UnconfiguredError extends MemoturnError {
  protected static override get className(): string {
    return "UnconfiguredError";
  }
}

/** The write is applied, and did not reach object storage in time. Never send it again: `sync` waits for it. */
export class NotDurableError extends MemoturnError {
  protected static override get className(): string {
    return "NotDurableError";
  }
}

/** The server failed, or what answered is not a Memoturn server. */
export class ServerError extends MemoturnError {
  protected static override get className(): string {
    return "ServerError";
  }
}

/** No connection could be made; the request was not sent. */
export class UnreachableError extends MemoturnError {
  protected static override get className(): string {
    return "UnreachableError";
  }
}

/** The request was sent and no whole answer came back; a write may or may not have been applied. */
export class UnknownOutcomeError extends MemoturnError {
  /** Key of the write: under it, it may be sent again, and takes effect once. Null of what is no write. */
  readonly idempotencyKey: string | null;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.idempotencyKey = details.idempotencyKey ?? null;
  }

  protected static override get className(): string {
    return "UnknownOutcomeError";
  }
}
