"""From settings to the embedder that they mean."""

from pathlib import Path

from memoturnd.config import Settings
from memoturnd.embedders import local
from memoturnd.embedders.files import find_files
from memoturnd.embedders.local import LocalEmbedder
from memoturnd.errors import ConfigurationError
from memoturnd.seams.clock import Clock
from memoturnd.seams.embedder import Embedder, Kind


def open_embedder(settings: Settings, clock: Clock) -> Embedder | None:
    """Return the embedder that the settings ask for, not started yet; None where they ask for none.

    Raises ConfigurationError when the local one is asked for and not installed.
    """
    provider = settings.embed_provider
    if provider == "off":
        return None
    if provider == "local":
        return LocalEmbedder(_local_folder(settings.embed_local_path), clock=clock)
    from memoturnd.embedders.endpoint import DEFAULT_MODELS, DEFAULT_URLS, Dialect, EndpointEmbedder

    dialect: Dialect = provider
    return EndpointEmbedder(
        dialect=dialect,
        model=settings.embed_model or DEFAULT_MODELS[dialect],
        base_url=settings.embed_base_url or DEFAULT_URLS[dialect],
        api_key=settings.embed_api_key.reveal() if settings.embed_api_key is not None else "",
        dimensions=settings.embed_dimensions,
        connections=len(Kind) * settings.embed_concurrency,
    )


def _local_folder(path: Path | None) -> Path:
    folder = path or find_files()
    if folder is None or not local.can_run():
        missing = "the model's files are" if folder is None else "the package `tokenizers` is"
        raise ConfigurationError(
            f"MEMOTURN_EMBED_PROVIDER=local, and {missing} not here: {local.how_to_install()}"
        )
    return folder
