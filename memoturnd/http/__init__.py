"""The HTTP API: routes, bodies, errors."""
