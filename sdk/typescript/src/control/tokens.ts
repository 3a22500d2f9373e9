/** Tokens of databases and namespaces, and the keys that sign them. */

import { wire } from "../core/encoding.js";
import type { Listing } from "../core/listing.js";
import { apart, type Target } from "../core/target.js";
import type { CallOptions, PageOptions, Scope } from "../options.js";
import type { MintBody } from "../types/inputs.js";
import type * as types from "../types/wire.js";

export type TokenOptions = Omit<MintBody, "scope">;

/** Tokens of a database or a namespace. */
export class TokensOf {
  readonly #tokens: Target;

  /** @internal */
  constructor(owner: Target) {
    this.#tokens = owner.below("tokens");
  }

  /** Mint a token, which is shown once. */
  create(scope: Scope, options: TokenOptions & CallOptions = {}): Promise<types.MintedToken> {
    const [call, asked] = apart(options);
    const limits = asked.limits ? { limits: wire(asked.limits) } : {};
    const body = { ...wire(asked), ...limits, scope };
    // Nobody would know of a token that was minted a second time.
    return this.#tokens.plain("POST", [], { body, writes: true, repeatable: "unapplied", options: call });
  }

  /** Tokens that have not expired, by id. */
  list(options?: PageOptions & CallOptions): Listing<types.TokenInfo, types.TokenPage> {
    return this.#tokens.list([], (page) => page.tokens, options);
  }

  /** Revoke a token, and every one that was minted with it. Throws NotFoundError. */
  async revoke(id: string, options?: CallOptions): Promise<void> {
    await this.#tokens.send("DELETE", [id], { writes: true, options });
  }

  /** Revoke every token that was issued until now. */
  revokeAll(options?: CallOptions): Promise<types.RevokeResult> {
    // A second time it would take those with it that were minted meanwhile.
    return this.#tokens.plain("POST", ["revoke"], { writes: true, repeatable: "unapplied", options });
  }

  /** Revoke a token that is shown whole. */
  revokeToken(token: string, options?: CallOptions): Promise<types.RevokeResult> {
    return this.#tokens.plain("POST", ["revoke"], { body: { token }, writes: true, options });
  }
}

export class Tokens {
  readonly #root: Target;
  readonly #all: TokensOf;

  /** @internal */
  constructor(root: Target) {
    this.#root = root;
    this.#all = new TokensOf(root);
  }

  /** Tokens of a database. */
  database(db: string): TokensOf {
    return new TokensOf(this.#root.below("databases", db));
  }

  /** Tokens of a namespace. */
  namespace(ns: string): TokensOf {
    return new TokensOf(this.#root.below("namespaces", ns));
  }

  /** Revoke every token of the tenant that was issued until now. */
  revokeAll(options?: CallOptions): Promise<types.RevokeResult> {
    return this.#all.revokeAll(options);
  }

  /** Revoke a token that is shown whole, of whatever database or namespace. */
  revokeToken(token: string, options?: CallOptions): Promise<types.RevokeResult> {
    return this.#all.revokeToken(token, options);
  }
}

/** The keys that sign tokens and receipts. */
export class Keys {
  readonly #root: Target;

  /** @internal */
  constructor(root: Target) {
    this.#root = root;
  }

  list(options?: CallOptions): Promise<types.SigningKeys> {
    return this.#root.plain("GET", ["keys"], { options });
  }

  /** Make a new key, which signs from `signs_from` on. */
  rotate(options?: CallOptions): Promise<types.RotatedKey> {
    return this.#root.plain("POST", ["keys", "rotate"], { writes: true, repeatable: "unapplied", options });
  }
}
