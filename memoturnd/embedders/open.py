"""From settings to the embedder that they mean."""

from memoturnd.config import Settings
from memoturnd.embedders.endpoint import DEFAULT_MODELS, DEFAULT_URLS, Dialect, EndpointEmbedder
from memoturnd.seams.embedder import Embedder, Kind


def open_embedder(settings: Settings) -> Embedder | None:
    """Return the embedder that the settings ask for, not started yet; None where they ask for none."""
    provider = settings.embed_provider
    if provider == "off":
        return None
    dialect: Dialect = provider
    return EndpointEmbedder(
        dialect=dialect,
        model=settings.embed_model or DEFAULT_MODELS[dialect],
        base_url=settings.embed_base_url or DEFAULT_URLS[dialect],
        api_key=settings.embed_api_key.reveal() if settings.embed_api_key is not None else "",
        dimensions=settings.embed_dimensions,
        connections=len(Kind) * settings.embed_concurrency,
    )
