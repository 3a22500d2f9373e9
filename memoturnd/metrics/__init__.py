"""What `GET /metrics` shows of each process; docs/metrics.md has all of it, and a test holds the two together."""

from memoturnd.metrics.base import CONTENT_TYPE, Registry, watch_loop_lag
from memoturnd.metrics.node import Metrics
from memoturnd.metrics.storing import STORE_OPERATIONS

__all__ = ["CONTENT_TYPE", "STORE_OPERATIONS", "Metrics", "Registry", "watch_loop_lag"]
