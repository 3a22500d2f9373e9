"""Anthropic's Messages API: adaptive thinking, and answers held to a JSON schema.

A model that knows neither is asked again without, and from then on: the prompt itself says what JSON is wanted.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any, Final

from memoturnd.errors import UpstreamError
from memoturnd.language_models.endpoint import Address, Endpoint, Gate, RefusedError, Response
from memoturnd.seams.clock import Clock
from memoturnd.seams.language_model import ModelStream, Prompt

BASE_URL: Final = "https://api.anthropic.com"
MODEL: Final = "claude-opus-4-8"
VERSION: Final = "2023-06-01"
_LEVELS: Final = 3
"""With thinking and schema, with the schema alone, with neither."""


class AnthropicModel:
    """A model behind the Messages API. Implements memoturnd.seams.language_model.LanguageModel."""

    def __init__(self, address: Address, model: str, gate: Gate, clock: Clock) -> None:
        self._endpoint = Endpoint(address, gate, clock)
        self._model = model
        self._level = 0

    async def complete(self, prompt: Prompt) -> str:
        """Return the text of the answer. Raises UpstreamError, OverloadedError."""
        answer = await (await self._post(prompt, stream=False)).json()
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), list):
            raise UpstreamError(f"{self._what} answered what is no message")
        self._check_stop(answer.get("stop_reason"))
        return "".join(
            block["text"]
            for block in answer["content"]
            if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)
        )

    async def stream(self, prompt: Prompt) -> ModelStream:
        """Begin an answer. Raises UpstreamError, OverloadedError."""
        return _Stream(self, await self._post(prompt, stream=True))

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    @property
    def _what(self) -> str:
        return self._endpoint.address.what

    async def _post(self, prompt: Prompt, *, stream: bool) -> Response:
        for level in range(self._level, _LEVELS):
            try:
                response = await self._endpoint.post(
                    _body(self._model, prompt, level, stream=stream), stream=stream
                )
            except RefusedError:
                if level + 1 == _LEVELS:
                    raise
                continue
            self._level = max(self._level, level)
            return response
        raise UpstreamError(f"{self._what} takes no request")

    def _check_stop(self, reason: object) -> None:
        if reason == "refusal":
            raise UpstreamError(f"{self._what} declined to answer")
        if reason in ("max_tokens", "model_context_window_exceeded"):
            raise UpstreamError(f"{self._what} was cut off at its limit of tokens: send less at once")


def _body(model: str, prompt: Prompt, level: int, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt.user}]
    if prompt.repair is not None:
        answer, wrong = prompt.repair
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": wrong}]
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": prompt.max_tokens,
        "system": prompt.system,
        "messages": messages,
    }
    if level == 0:
        body["thinking"] = {"type": "adaptive"}
    if level <= 1:
        body["output_config"] = {"format": {"type": "json_schema", "schema": prompt.schema}}
    if stream:
        body["stream"] = True
    return body


class _Stream:
    def __init__(self, model: AnthropicModel, response: Response) -> None:
        self._model = model
        self._response = response

    async def pieces(self) -> AsyncGenerator[str, None]:
        what = self._model._what  # noqa: SLF001 - of this module
        try:
            async for event in self._response.events():
                message = _decoded(event.data, what)
                match message.get("type"):
                    case "content_block_delta":
                        delta = message.get("delta")
                        if isinstance(delta, dict) and delta.get("type") == "text_delta":
                            yield str(delta.get("text", ""))
                    case "message_delta":
                        delta = message.get("delta")
                        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
                        self._model._check_stop(reason)  # noqa: SLF001 - of this module
                    case "message_stop":
                        return
                    case "error":
                        raise UpstreamError(f"{what} failed while it answered; try again later")
            raise UpstreamError(f"{what} broke off its answer; try again later")
        finally:
            self.close()

    def close(self) -> None:
        self._response.close()


def _decoded(data: str, what: str) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except ValueError as error:
        raise UpstreamError(f"{what} sent an event that is no JSON") from error
    return message if isinstance(message, dict) else {}
