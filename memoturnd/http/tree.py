"""Finds the route of a path by walking its parts, without a regular expression per route.

Paths are matched as they came over the wire: a part is split off before it is percent-decoded, so a key
may hold `%2F`. Where a fixed part stands beside a parameter, it ends the path and takes other methods than the
parameter does (`POST .../search` beside `GET .../{id}`), so the walk never turns back and no name is taken from
a user; building the tree proves it.
"""

from collections.abc import Iterable

from memoturnd.errors import invariant
from memoturnd.http.call import decode_part
from memoturnd.http.route import Route


class Tree:
    """The route table as a tree of path parts."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Level()
        for route in routes:
            self._add(route)
        self._root.check()

    def find(self, raw_path: bytes) -> tuple[dict[str, Route], dict[str, str]] | None:
        """Return the routes of a path by method and its decoded parameters, None when nothing is there.

        Raises InvalidRequestError when a parameter is not UTF-8 or holds NUL.
        """
        level, beside = self._root, None
        values: list[bytes] = []
        for part in raw_path.split(b"/")[1:]:
            fixed = level.fixed.get(part)
            if level.parameter is not None:
                values.append(part)
                level, beside = level.parameter, fixed
            elif fixed is not None:
                level, beside = fixed, None
            else:
                return None
        routes = level.routes if beside is None else {**level.routes, **beside.routes}
        if not routes:
            return None
        names = next(iter(routes.values())).parameters
        # Of two that match, the parameter's comes first; without it the last value has no name.
        return routes, {name: decode_part(value) for name, value in zip(names, values, strict=False)}

    def _add(self, route: Route) -> None:
        level = self._root
        for part in route.template.split("/")[1:]:
            if part.startswith("{"):
                level.parameter = level.parameter or _Level()
                following = level.parameter
            else:
                following = level.fixed.setdefault(part.encode(), _Level())
            level = following
        invariant(
            route.method not in level.routes, "two routes for one method and path", template=route.template
        )
        for other in level.routes.values():
            invariant(
                other.parameters == route.parameters,
                "one path with two sets of names",
                template=route.template,
            )
        level.routes[route.method] = route


class _Level:
    __slots__ = ("fixed", "parameter", "routes")

    def __init__(self) -> None:
        self.fixed: dict[bytes, _Level] = {}
        self.parameter: _Level | None = None
        self.routes: dict[str, Route] = {}

    def check(self) -> None:
        """Raise InvariantError where two routes could be meant by one request, here or below."""
        for part, level in self.fixed.items():
            level.check()
            if self.parameter is not None:
                apart = level.routes.keys().isdisjoint(self.parameter.routes)
                invariant(
                    apart and level.parameter is None and not level.fixed,
                    "a fixed part beside a parameter",
                    part=part,
                )
        if self.parameter is not None:
            self.parameter.check()
