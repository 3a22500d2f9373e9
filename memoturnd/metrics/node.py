"""A node's metrics, recorded through attributes that are bound once. A control plane alone has them too; most of them stay 0 there.

Every bound of the node that can be reached has its current value and its limit here.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from memoturnd.metrics.models import ModelMetrics
from memoturnd.metrics.serving import ServingMetrics
from memoturnd.metrics.storing import StoringMetrics


class Metrics(ServingMetrics, StoringMetrics, ModelMetrics):
    """Every metric of one node."""

    def __init__(self, *, process: str = "node") -> None:
        super().__init__(process=process)
        self._measure_serving()
        self._measure_storing()
        self._measure_models()

    def recall_timer(self, channel: str) -> AbstractContextManager[object]:
        """Return what records the time of one channel of a recall while it is entered."""
        return self.recall_channels[channel].time()

    def recall_looked(self, hit: bool) -> None:
        """Count a look into the cache of recall."""
        self.recall_cache_reads["hit" if hit else "miss"].inc()

    def model_called(self, outcome: str, seconds: float) -> None:
        """Record one attempt of a call of a language model's provider."""
        self.model_call_seconds[outcome].observe(seconds)

    def request_timer(self, route: str, method: str, status_class: str) -> Callable[[float], None]:
        """Return the function that records one request's seconds; `route` is a template, never a path."""
        return self.request_seconds.labels(route, method, status_class).observe
