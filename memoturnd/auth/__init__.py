"""Credentials: keys, tokens, revocations, and the admission of requests by them."""
