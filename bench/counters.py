"""A node's own counters, as GET /metrics shows them, and what changed in them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.nodes import Child
from bench.wire import KeptClient

_SETTLE_S: Final = 120.0
_PAUSE_S: Final = 0.1
CONDITIONAL: Final = ("put_if_absent", "put_if_match")


@dataclass(frozen=True, slots=True)
class Counters:
    """Every sample of one scrape by name and labels, as written. Two of them subtract."""

    samples: Mapping[str, float]

    def __sub__(self, earlier: "Counters") -> "Counters":
        return Counters(
            {name: value - earlier.samples.get(name, 0.0) for name, value in self.samples.items()}
        )

    def value(self, name: str, **labels: str) -> float:
        """Return one sample; `name` without the prefix that all share. Raises KeyError."""
        inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
        return self.samples[f"memoturn_{name}{{{inside}}}" if inside else f"memoturn_{name}"]

    def requests(self, *operations: str) -> float:
        """Return the requests to the object store of these kinds."""
        starts = tuple(f'memoturn_store_requests_total{{operation="{operation}"' for operation in operations)
        return sum(value for name, value in self.samples.items() if name.startswith(starts))

    @property
    def all_requests(self) -> float:
        """Return the requests to the object store of all kinds."""
        return sum(v for name, v in self.samples.items() if name.startswith("memoturn_store_requests_total"))


def scrape(child: Child) -> Counters:
    """Read the counters, over a connection of its own: the node closes those that are idle for long."""
    client = KeptClient(child.host, child.port)
    lines = client.send("GET", "/metrics").decode().splitlines()
    client.close()
    pairs = (line.rpartition(" ") for line in lines if line.startswith("memoturn_"))
    return Counters({name: float(value) for name, _, value in pairs})


def settle(child: Child) -> Counters:
    """Wait until everything is shipped, and read the counters. Raises RuntimeError when that does not end."""
    deadline_s = time.monotonic() + _SETTLE_S
    while (seen := scrape(child)).value("unshipped_bytes") > 0:
        if time.monotonic() > deadline_s:
            raise RuntimeError("the node did not ship what it had within the time that this takes")
        time.sleep(_PAUSE_S)
    return seen
