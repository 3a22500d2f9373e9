"""The metrics of each process, as the documentation and what monitors them have to name them."""

from memoturn.mcp.metrics import Metrics as McpMetrics

from gateway.metrics import GatewayMetrics
from memoturnd.metrics import Metrics
from memoturnd.workers.metrics import WorkersMetrics


def families(metrics):
    """The families of a registry by the name under which they are scraped: (type, names of labels, help)."""
    found = {}
    for family in metrics.registry.collect():
        collector = metrics.registry._names_to_collectors.get(family.name)
        labels = tuple(getattr(collector, "_labelnames", ()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels, family.documentation)
    return found


def of_each_process():
    """The families of every kind of process."""
    return {
        "node": families(Metrics()),
        "control": families(Metrics(process="control")),
        "gateway": families(GatewayMetrics()),
        "workers": families(WorkersMetrics()),
        "mcp": families(McpMetrics()),
    }
