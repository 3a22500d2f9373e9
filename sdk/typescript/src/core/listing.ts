/** Listings, which come in pages. */

/** A page as the wire has it; a null cursor ends the list. */
export interface Paged {
  next_cursor?: string | null;
}

/**
 * Rows of a listing. `await` gives the first page as the wire has it, `for await` every row of all pages, `all()` an
 * array of them, `pages()` page by page.
 */
export class Listing<T, P extends Paged> implements Promise<P>, AsyncIterable<T> {
  readonly #page: (cursor: string | undefined) => Promise<P>;
  readonly #rows: (page: P) => readonly T[];
  readonly #cursor: string | undefined;

  /** @internal */
  constructor(
    page: (cursor: string | undefined) => Promise<P>,
    rows: (page: P) => readonly T[],
    cursor: string | undefined,
  ) {
    this.#page = page;
    this.#rows = rows;
    this.#cursor = cursor;
  }

  // biome-ignore lint/suspicious/noThenProperty: a page is what `await` gives
  then<A = P, B = never>(
    fulfilled?: ((page: P) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#page(this.#cursor).then(fulfilled, rejected);
  }

  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<P | B> {
    return this.then(null, rejected);
  }

  finally(ended?: (() => void) | null): Promise<P> {
    return this.then().finally(ended);
  }

  get [Symbol.toStringTag](): string {
    return "Listing";
  }

  /** Yield the pages, each fetched when it is asked for. */
  async *pages(): AsyncGenerator<P, void, undefined> {
    let cursor = this.#cursor;
    do {
      const page = await this.#page(cursor);
      yield page;
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.pages()) yield* this.#rows(page);
  }

  /** Return the rows of all pages. */
  async all(): Promise<T[]> {
    const rows: T[] = [];
    for await (const row of this) rows.push(row);
    return rows;
  }
}
