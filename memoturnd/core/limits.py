"""What a tenant or a namespace may use, and how a rate is kept. Pure: whoever asks says what time it is."""

import math
import re
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from memoturnd.core import names

BURST_S: Final = 2.0
"""Seconds of a rate that may come at once after a quiet time; one request at least."""
MOST_RATE: Final = 1_000_000.0
MOST_COUNT: Final = 2**53 - 1
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of a tenant or a namespace; None stands for no limit, or where they are stored, for the default.

    Rates are per second and node; `bytes` are those in object storage, `memories` those on main branches.
    """

    requests_per_s: float | None = None
    writes_per_s: float | None = None
    bytes: int | None = None
    databases: int | None = None
    memories: int | None = None

    def over(self, defaults: "Quotas") -> "Quotas":
        """Return these with the defaults where nothing is set."""
        return Quotas(
            **{
                name: given if (given := getattr(self, name)) is not None else getattr(defaults, name)
                for name in LIMITS
            }
        )


LIMITS: Final[tuple[str, ...]] = tuple(field.name for field in fields(Quotas))
"""Names of the limits, as a request and the header `Memoturn-Limit` have them."""
NO_QUOTAS: Final = Quotas()


class Owner(NamedTuple):
    """Whose quotas: a namespace's, or with an empty `namespace` those of a tenant as a whole."""

    tenant: str = names.DEFAULT_TENANT
    namespace: str = ""

    @property
    def shown(self) -> str:
        """What messages call it."""
        if not self.namespace:
            return f"tenant {self.tenant}"
        return f"namespace {names.qualified(self.tenant, self.namespace)}"


class Defaults(NamedTuple):
    """The quotas of whoever has none of their own."""

    tenant: Quotas = NO_QUOTAS
    namespace: Quotas = NO_QUOTAS

    def of(self, owner: Owner) -> Quotas:
        """Return those of one."""
        return self.namespace if owner.namespace else self.tenant


def parse_quotas(text: str) -> Quotas:
    """Return the quotas that a setting names, as `requests_per_s=100,databases=1000`, or `off` for none; a missing one is no limit.

    Raises ValueError with what the text must be.
    """
    given: dict[str, float] = {}
    if text == "off":
        return NO_QUOTAS
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        is_rate = name.endswith("_per_s")
        number = re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,6})?" if is_rate else r"[0-9]{1,16}", value)
        if name not in LIMITS or name in given or number is None:
            raise ValueError(
                f"must be off, or NAME=NUMBER,... where NAME is one of {', '.join(LIMITS)}, each once"
            )
        most = MOST_RATE if is_rate else MOST_COUNT
        given[name] = float(value)
        if given[name] > most:
            raise ValueError(f"must have a {name} of at most {most:g}")
    counts = {name: int(value) for name, value in given.items()}
    return Quotas(
        given.get("requests_per_s"),
        given.get("writes_per_s"),
        counts.get("bytes"),
        counts.get("databases"),
        counts.get("memories"),
    )


def owner_of(qualified_name: str) -> Owner:
    """Return the namespace that a database belongs to; a database that is no profile is its tenant's alone."""
    tenant, name = names.split_qualified(qualified_name)
    return Owner(tenant, names.namespace_of(name))


class Bucket:
    """A token bucket. It is full at first, and holds `BURST_S` seconds of the rate, one token at least.

    The rate is given with every call, so that a new one holds at once.
    """

    __slots__ = ("_filled_at_s", "_tokens")

    def __init__(self, now_s: float) -> None:
        self._tokens = math.inf
        self._filled_at_s = now_s

    def wait_s(self, rate_per_s: float, now_s: float) -> float:
        """Return in how many seconds a token is there: 0 for now, infinity where the rate is 0."""
        burst = max(1.0, BURST_S * rate_per_s)
        passed_s = max(0.0, now_s - self._filled_at_s)
        self._tokens = min(burst, self._tokens + passed_s * rate_per_s)
        self._filled_at_s = now_s
        if rate_per_s <= 0:
            return math.inf
        return 0.0 if self._tokens >= 1 - _ROUNDING else (1 - self._tokens) / rate_per_s

    def take(self) -> None:
        """Take the token that `wait_s` has just found."""
        self._tokens -= 1


def may_take(held: int, free: int, share: int) -> bool:
    """Return whether somebody who holds `held` places may take one of `free` more.

    Who is alone ends at share / (share + 1) of all places. The more are taken, the fewer one may hold, so that
    something is left for whoever comes next (dynamic thresholds: Choudhury and Hahne, 1998).
    """
    return free > 0 and held < share * free
