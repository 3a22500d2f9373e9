"""What is asked of models: the embedder, language models, and the policies that say whether they may be asked."""

from typing import Final

from memoturnd.metrics.base import CACHE_OUTCOMES, Registry

EMBED_CALLS: Final = ("ok", "refused", "failed", "shed")
EMBED_TEXTS: Final = ("cached", "embedded", "failed")
MODEL_OUTCOMES: Final = ("ok", "failed", "shed", "gone")
CALL_OUTCOMES: Final = ("ok", "refused", "failed")
MODEL_SURFACES: Final = ("extract", "ask")
EMBED_SURFACES: Final = ("ingest", "recall")
POLICY_EFFECTS: Final = ("egress", "task_ttl", "retention", "sweep", "reads")
_SHIP_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_MODEL_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)


class ModelMetrics(Registry):
    """What is asked of models: the embedder, language models, and the policies that say whether they may be asked."""

    def _measure_models(self) -> None:
        self._embedding()
        self._models()
        self._policies()

    def _embedding(self) -> None:
        self.embed_calls = self._counters(
            "embed_calls_total",
            "Calls of the embedder: ok, refused (these texts), failed, shed (not made: too many, or an outage).",
            "outcome",
            EMBED_CALLS,
        )
        self.embed_texts = self._counters(
            "embed_texts_total", "Texts that were to be embedded, by outcome.", "outcome", EMBED_TEXTS
        )
        self.embed_seconds = self._histogram(
            "embed_seconds", "Time of a call of the embedder that was answered.", _SHIP_BUCKETS_S
        )
        self.embed_degraded = self._counters(
            "embed_degraded_total",
            "Requests that went on without vectors that the node should have made.",
            "surface",
            EMBED_SURFACES,
        )
        self.embed_outage = self._gauge("embed_outage", "1 while the embedder is left alone after failures.")
        self.embed_waiting = self._gauge("embed_waiting_calls", "Calls that wait for their turn.")
        self.reembed_jobs = self._gauge("reembed_jobs", "Branches that this node embeds again just now.")
        self.embed_cache_bytes = self._gauge("embed_cache_bytes", "Memory of the vectors of texts of late.")
        self.embed_cache_limit_bytes = self._gauge("embed_cache_limit_bytes", "Most memory of these.")

    def _models(self) -> None:
        requests = self._counter(
            "model_requests_total",
            "Requests that waited for a language model, by surface and outcome.",
            "surface",
            "outcome",
        )
        self.model_requests = {
            (surface, outcome): requests.labels(surface, outcome)
            for surface in MODEL_SURFACES
            for outcome in MODEL_OUTCOMES
        }
        self.model_seconds = self._histograms(
            "model_seconds",
            "Time that a request waited for a language model, all of its calls together.",
            _MODEL_BUCKETS_S,
            "surface",
            MODEL_SURFACES,
        )
        self.model_call_seconds = self._histograms(
            "model_call_seconds",
            "Time from a call of a language model's provider to the head of its answer, each attempt by outcome.",
            _MODEL_BUCKETS_S,
            "outcome",
            CALL_OUTCOMES,
        )

    def _policies(self) -> None:
        self.policy_reads_failed = self._counter(
            "policy_reads_failed_total", "Reads of a namespace's policies that failed, or found them damaged."
        )
        self.policy_unknown = self._counters(
            "policy_unknown_total",
            "Times that a policy was not known: egress was refused; task_ttl, retention and sweep bounded nothing; reads showed the newest state.",
            "effect",
            POLICY_EFFECTS,
        )
        self.policy_swept = self._counter(
            "policy_swept_memories_total", "Memories that were deleted for their age or number."
        )
        self.policy_reads = self._counters(
            "policy_cache_reads_total",
            "Looks at a namespace's policies: what was kept still counted (hit), or the store was asked (miss).",
            "outcome",
            CACHE_OUTCOMES,
        )
        self.policy_cache_bytes = self._gauge("policy_cache_bytes", "Memory of the policies that are kept.")
        self.policy_cache_limit_bytes = self._gauge("policy_cache_limit_bytes", "Most memory of these.")
