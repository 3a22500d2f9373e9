"""From settings to the node's language models: which provider, at which address, with which key."""

from collections.abc import Mapping
from typing import Final, Literal

from memoturnd.config import Settings
from memoturnd.language_models.anthropic import BASE_URL as ANTHROPIC_URL
from memoturnd.language_models.anthropic import MODEL, VERSION, AnthropicModel
from memoturnd.language_models.endpoint import Address, Gate
from memoturnd.language_models.openai_chat import BASE_URL as OPENAI_URL
from memoturnd.language_models.openai_chat import OpenAIModel
from memoturnd.seams.clock import Clock
from memoturnd.seams.language_model import LanguageModel, LanguageModels
from memoturnd.settings_table import Secret

_PATHS: Final[Mapping[str, str]] = {"anthropic": "messages", "openai": "chat/completions"}
_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "anthropic": ("x-api-key", ""),
    "openai": ("authorization", "Bearer "),
}
_URLS: Final[Mapping[str, str]] = {"anthropic": ANTHROPIC_URL, "openai": OPENAI_URL}


def open_models(settings: Settings, clock: Clock) -> LanguageModels:
    """Return the language models that the settings ask for. No connection is made."""
    gate = Gate(settings.model_concurrency)
    extractor = _open(
        settings.extract_provider,
        settings.extract_api_key,
        settings.extract_base_url,
        settings.extract_model,
        what="the language model of MEMOTURN_EXTRACT_*",
        gate=gate,
        clock=clock,
    )
    assistant = _open(
        settings.assistant_provider,
        settings.assistant_api_key,
        settings.assistant_base_url,
        settings.assistant_model,
        what="the language model of MEMOTURN_ASSISTANT_*",
        gate=gate,
        clock=clock,
    )
    return LanguageModels(extractor, assistant, settings.model_timeout_s)


def _open(
    provider: Literal["off", "anthropic", "openai"],
    key: Secret | None,
    base_url: str | None,
    model: str | None,
    *,
    what: str,
    gate: Gate,
    clock: Clock,
) -> LanguageModel | None:
    if provider == "off":
        return None
    headers = {"anthropic-version": VERSION} if provider == "anthropic" else {}
    if key is not None:
        name, value = _KEYS[provider]
        headers[name] = value + key.reveal()
    address = Address(url_of(base_url or _URLS[provider], _PATHS[provider]), headers, what)
    kind = AnthropicModel if provider == "anthropic" else OpenAIModel
    return kind(address, model or MODEL, gate, clock)


def url_of(base_url: str, path: str) -> str:
    """Return the address of a call, whether or not the base URL ends in the API's version already."""
    base = base_url.rstrip("/")
    last = base.rpartition("/")[2]
    versioned = last[:1] == "v" and last[1:2].isdigit()
    return f"{base}/{path}" if versioned else f"{base}/v1/{path}"
