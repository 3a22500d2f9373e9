"""From settings to the node's language models: which provider, at which address, with which key.

A node without one does not import what speaks to them.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from memoturnd.config import Settings
from memoturnd.seams.clock import Clock
from memoturnd.seams.language_model import LanguageModel, LanguageModels
from memoturnd.settings_table import Secret

if TYPE_CHECKING:
    from memoturnd.language_models.endpoint import Gate

_PATHS: Final[Mapping[str, str]] = {"anthropic": "messages", "openai": "chat/completions"}
_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "anthropic": ("x-api-key", ""),
    "openai": ("authorization", "Bearer "),
}


def open_models(
    settings: Settings, clock: Clock, called: Callable[[str, float], None] = lambda _outcome, _seconds: None
) -> LanguageModels:
    """Return the language models that the settings ask for. No connection is made.

    `called` is told of each attempt of a call: ok, refused or failed, and its seconds.
    """
    if settings.extract_provider == settings.assistant_provider == "off":
        return LanguageModels(None, None, settings.model_timeout_s)
    from memoturnd.language_models.endpoint import Gate

    gate = Gate(settings.model_concurrency, called)
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
    gate: "Gate",
    clock: Clock,
) -> LanguageModel | None:
    if provider == "off":
        return None
    from memoturnd.language_models import anthropic, openai_chat
    from memoturnd.language_models.endpoint import Address

    module = anthropic if provider == "anthropic" else openai_chat
    headers = {"anthropic-version": anthropic.VERSION} if provider == "anthropic" else {}
    if key is not None:
        name, value = _KEYS[provider]
        headers[name] = value + key.reveal()
    address = Address(url_of(base_url or module.BASE_URL, _PATHS[provider]), headers, what)
    kind = anthropic.AnthropicModel if provider == "anthropic" else openai_chat.OpenAIModel
    return kind(address, model or anthropic.MODEL, gate, clock)


def url_of(base_url: str, path: str) -> str:
    """Return the address of a call, whether or not the base URL ends in the API's version already."""
    base = base_url.rstrip("/")
    last = base.rpartition("/")[2]
    versioned = last[:1] == "v" and last[1:2].isdigit()
    return f"{base}/{path}" if versioned else f"{base}/v1/{path}"
