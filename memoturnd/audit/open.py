"""From settings to the audit log, and to the models whose calls are told to it."""

from pathlib import Path
from typing import Final, Literal

from memoturnd.audit.egress import AuditedEmbedder, AuditedModel, host_of
from memoturnd.audit.log import AuditLog
from memoturnd.audit.ports import Sign
from memoturnd.config import Settings
from memoturnd.core.self_hosted import is_self_hosted
from memoturnd.engine.services import Services
from memoturnd.seams.clock import Clock
from memoturnd.seams.embedder import Embedder
from memoturnd.seams.language_model import LanguageModel, LanguageModels

WAIT_S: Final = 5.0
"""Longest that a request waits for room for its audit event."""
WAIT_SHARE: Final = 0.9
"""Part of a request's time that it may take, so that its own error comes before the request's."""
_MODELS: Final = {"anthropic": "claude-opus-4-8"}
"""What a provider is asked for where the settings name no model."""


def audit_log(settings: Settings, services: Services, sign: Sign | None) -> AuditLog:
    """Return the node's audit log, which is not started yet."""
    return AuditLog(
        services.store,
        Path(settings.data_dir) / "audit",
        node=settings.node_id,
        sign=sign,
        clock=services.clock,
        randomness=services.randomness,
        metrics=services.metrics,
        flush_ms=settings.audit_flush_ms,
        limit_bytes=settings.audit_spool_bytes,
        wait_s=min(WAIT_S, WAIT_SHARE * settings.request_timeout_s),
        fsync=settings.sync == "full",
    )


def audited_models(models: LanguageModels, clock: Clock, settings: Settings) -> LanguageModels:
    """Return the language models such that the audit stream is told what leaves for them."""

    def audited(
        model: LanguageModel | None, feature: Literal["extract", "assistant"]
    ) -> LanguageModel | None:
        if model is None:
            return None
        base_url = getattr(settings, f"{feature}_base_url")
        return AuditedModel(
            model,
            clock,
            action="ai.extract" if feature == "extract" else "ai.ask",
            provider=getattr(settings, f"{feature}_provider"),
            name=getattr(settings, f"{feature}_model")
            or _MODELS.get(getattr(settings, f"{feature}_provider"), ""),
            host=host_of(base_url),
            self_hosted=base_url is not None and is_self_hosted(base_url, settings.embed_self_hosted_hosts),
        )

    return LanguageModels(
        audited(models.extractor, "extract"), audited(models.assistant, "assistant"), models.timeout_s
    )


def audited_embedder(embedder: Embedder, clock: Clock, settings: Settings) -> Embedder:
    """Return an embedder that is not of this machine such that the audit stream is told what leaves for it."""
    return AuditedEmbedder(
        embedder,
        clock,
        provider=settings.embed_provider,
        host=host_of(settings.embed_base_url),
        self_hosted=settings.embeds_at_home,
    )
