/** What a client remembers of branches: the newest txids in their answers. As a read floor it makes one read its writes. */

/** A branch of a database. A profile's is that of the database `{namespace}--{profile}`. */
export interface Place {
  readonly database: string;
  readonly branch: string;
}

/** The newest txid, and the newest one that object storage has. */
export interface Position {
  readonly txid: number;
  readonly durableTxid: number;
}

const LIMIT = 10_000;
const NOWHERE: Position = { txid: 0, durableTxid: 0 };

/** The positions of the `limit` branches that were used last. */
export class Positions {
  readonly #limit: number;
  // A Map keeps the order in which its keys came: the first is the one that was used least recently.
  readonly #known = new Map<string, Position>();

  constructor(limit = LIMIT) {
    this.#limit = limit;
  }

  /** Return the position of a branch, that of an empty one where it is not known. */
  of(place: Place): Position {
    return this.#known.get(keyOf(place)) ?? NOWHERE;
  }

  /** Take the txids of an answer; older ones change nothing. */
  see(place: Place, seen: Position): void {
    const known = this.of(place);
    this.#put(place, {
      txid: Math.max(known.txid, seen.txid),
      durableTxid: Math.max(known.durableTxid, seen.durableTxid),
    });
  }

  /** Take the txids of an answer though they are lower: the name stands for another branch by now. */
  replace(place: Place, seen: Position): void {
    this.#put(place, seen);
  }

  /** Forget a branch, or all of a database. */
  forget(database: string, branch?: string): void {
    for (const key of [...this.#known.keys()]) {
      const [name, of] = key.split("@");
      if (name === database && (branch === undefined || of === branch)) this.#known.delete(key);
    }
  }

  #put(place: Place, position: Position): void {
    const key = keyOf(place);
    this.#known.delete(key);
    if (position.txid > 0 || position.durableTxid > 0) this.#known.set(key, position);
    if (this.#known.size > this.#limit) {
      for (const oldest of this.#known.keys()) {
        this.#known.delete(oldest);
        break;
      }
    }
  }
}

function keyOf(place: Place): string {
  return `${place.database}@${place.branch}`;
}
