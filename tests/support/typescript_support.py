"""What the tests of the TypeScript client know of the node that they are run against."""

from dataclasses import dataclass

import node_packages
from processes import RunningNode

PLATFORM_KEY = "platform-key-of-the-tests"


@dataclass(frozen=True)
class Served:
    """A node, and what the tests are told of it."""

    node: RunningNode
    pages_port: int
    """Where pages may come from that use the node from a browser."""

    @property
    def env(self) -> dict[str, str]:
        """What the client's tests read."""
        return {
            "MEMOTURN_TEST_URL": self.node.url,
            "MEMOTURN_TEST_PLATFORM_KEY": PLATFORM_KEY,
            "MEMOTURN_TEST_VECTORS": str(node_packages.VECTORS),
            "MEMOTURN_TEST_PAGES_PORT": str(self.pages_port),
        }
