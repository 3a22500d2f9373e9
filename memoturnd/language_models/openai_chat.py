"""Chat completions as OpenAI defined them, and many servers speak them: answers held to a JSON schema.

A server that does not know schemas is asked for any JSON, one that does not know that for text, and one that minds the
limit of tokens without it, from then on: the prompt itself says what JSON is wanted.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import urlsplit

from memoturnd.errors import UpstreamError
from memoturnd.language_models.endpoint import Address, Endpoint, Gate, RefusedError, Response
from memoturnd.seams.clock import Clock
from memoturnd.seams.language_model import ModelStream, Prompt

BASE_URL: Final = "https://api.openai.com"
_OFFICIAL: Final = "api.openai.com"
_LEVELS: Final = 4
"""With the schema, with any JSON, with neither, and without a limit of tokens too, which may be above the model's own."""


class OpenAIModel:
    """A model behind chat completions. Implements memoturnd.seams.language_model.LanguageModel."""

    def __init__(self, address: Address, model: str, gate: Gate, clock: Clock) -> None:
        self._endpoint = Endpoint(address, gate, clock)
        self._model = model
        self._level = 0
        # Newer models at OpenAI take only the one name, other servers often only the other.
        official = urlsplit(address.url).hostname == _OFFICIAL
        self._limit_field = "max_completion_tokens" if official else "max_tokens"

    async def complete(self, prompt: Prompt) -> str:
        """Return the text of the answer. Raises UpstreamError, OverloadedError."""
        answer = await (await self._post(prompt, stream=False)).json()
        choice = _choice(answer)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise UpstreamError(f"{self._what} answered what is no completion")
        self._check(message.get("refusal"), choice.get("finish_reason"))
        content = message.get("content")
        return content if isinstance(content, str) else ""

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
        first = self._level
        for level in range(first, _LEVELS):
            try:
                response = await self._endpoint.post(self._body(prompt, level, stream=stream), stream=stream)
            except RefusedError:
                if level + 1 == _LEVELS:
                    raise
                continue
            self._level = max(self._level, level)
            return response
        raise UpstreamError(f"{self._what} takes no request")

    def _body(self, prompt: Prompt, level: int, *, stream: bool) -> dict[str, Any]:
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        if prompt.repair is not None:
            answer, wrong = prompt.repair
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": wrong}]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
        }
        if level + 1 < _LEVELS:
            body[self._limit_field] = prompt.max_tokens
        if level == 0:
            shape = {"name": prompt.name, "strict": True, "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif level == 1:
            body["response_format"] = {"type": "json_object"}
        if stream:
            body["stream"] = True
        return body

    def _check(self, refusal: object, reason: object) -> None:
        if refusal or reason == "content_filter":
            raise UpstreamError(f"{self._what} declined to answer")
        if reason == "length":
            raise UpstreamError(f"{self._what} was cut off at its limit of tokens: send less at once")


def _choice(answer: object) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


class _Stream:
    def __init__(self, model: OpenAIModel, response: Response) -> None:
        self._model = model
        self._response = response

    async def pieces(self) -> AsyncGenerator[str, None]:
        what = self._model._what  # noqa: SLF001 - of this module
        finished = False
        try:
            async for event in self._response.events():
                if event.data == "[DONE]":
                    finished = True
                    break
                try:
                    message = json.loads(event.data)
                except ValueError as error:
                    raise UpstreamError(f"{what} sent an event that is no JSON") from error
                if isinstance(message, dict) and message.get("error"):
                    raise UpstreamError(f"{what} failed while it answered; try again later")
                choice = _choice(message)
                delta = choice.get("delta")
                if isinstance(delta, dict):
                    self._model._check(delta.get("refusal"), None)  # noqa: SLF001 - of this module
                    if isinstance(delta.get("content"), str):
                        yield delta["content"]
                if choice.get("finish_reason") is not None:
                    self._model._check(None, choice["finish_reason"])  # noqa: SLF001 - of this module
                    finished = True
            if not finished:
                raise UpstreamError(f"{what} broke off its answer; try again later")
        finally:
            self.close()

    def close(self) -> None:
        self._response.close()
