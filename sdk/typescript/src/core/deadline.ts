/** The time of a call, and the caller's signal, as one signal. */

/** Aborts `signal` when the time is over or the caller aborts; says afterwards which it was. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #endsMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #expired = false;

  /** Throws the caller's reason where the signal is aborted already. */
  constructor(timeoutMs: number, caller: AbortSignal | undefined) {
    caller?.throwIfAborted();
    this.#caller = caller;
    this.#endsMs = now() + timeoutMs;
    caller?.addEventListener("abort", this.#abort, { once: true });
    this.allow(timeoutMs);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get expired(): boolean {
    return this.#expired;
  }

  get leftMs(): number {
    return Math.max(0, this.#endsMs - now());
  }

  /** Throw the caller's reason if the caller has aborted. */
  throwIfAborted(): void {
    this.#caller?.throwIfAborted();
  }

  /** Let so much time pass from now on before the signal aborts. */
  allow(timeoutMs: number): void {
    clearTimeout(this.#timer);
    // Longer waits overflow the timer, which would end at once.
    const waitMs = Math.min(timeoutMs, 2 ** 31 - 1);
    this.#timer = setTimeout(() => {
      this.#expired = true;
      this.#controller.abort();
    }, waitMs);
  }

  /** Let any time pass. */
  pause(): void {
    clearTimeout(this.#timer);
  }

  /** Let go of the timer and of the caller's signal. Safe to repeat. */
  release(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#abort);
  }

  /** End what goes on, for a reason of the client's own. */
  cancel(): void {
    this.release();
    this.#controller.abort();
  }

  readonly #abort = (): void => this.#controller.abort(this.#caller?.reason);
}

export function now(): number {
  return performance.now();
}

/** Wait, unless the signal aborts, which ends the waiting with its reason. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", ended);
      resolve();
    }, ms);
    const ended = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", ended, { once: true });
  });
}
