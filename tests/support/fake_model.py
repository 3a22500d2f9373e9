"""A language model of the tests, over real HTTP: deterministic answers in both protocols, and every fault.

Asked about a transcript it proposes one memory for each turn (`fact user.diet: vegan` becomes a fact of that topic,
anything else an event); asked a question it answers from the first memory. `script` says what comes instead, one step
a request.
"""

import asyncio
import contextlib
import json
import re
from contextlib import asynccontextmanager

from aiohttp import web
from beside import beside

KEY = "sk-test-9876543210"


def section(prompt, tag):
    """The lines of JSON between two tags of a prompt, decoded; [] where it has no such tags."""
    found = re.findall(rf"^<{tag}>\n(.*?)\n?^</{tag}>$", prompt, flags=re.MULTILINE | re.DOTALL)
    assert len(found) <= 1, f"{tag} stands twice"
    return [json.loads(line) for line in found[0].splitlines()] if found else []


def default_answer(prompt):
    """What the model says to a prompt of ours."""
    turns = section(prompt, "transcript")
    if turns:
        return {"memories": [proposal(turn["text"], turn["turn"]) for turn in turns]}
    memories = section(prompt, "memories")
    (question,) = section(prompt, "question")
    return {"answer": f"{question} {memories[0]['summary']}.", "sources": [memories[0]["id"]]}


def proposal(text, turn, **changes):
    fact = re.match(r"fact ([\w.]+): (.*)", text, flags=re.DOTALL)
    return {
        "type": "fact" if fact else "event",
        "topic_key": fact[1] if fact else None,
        "summary": fact[2] if fact else text[:200],
        "details": "",
        "keywords": "said",
        "first_turn": turn,
        "last_turn": turn,
        **changes,
    }


class Status:
    """Answer with an error status."""

    def __init__(self, status, **headers):
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Text:
    """Answer with this text, ending for this reason (of Anthropic's)."""

    def __init__(self, text, reason="end_turn"):
        self.text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        self.reason = reason


class FakeModel:
    """What the model was asked, and how it answers."""

    def __init__(self):
        self.url = ""
        self.requests = []
        self.headers = []
        self.paths = []
        self.script = []
        """Steps of Status, Text, `hang`, `cut`, `huge`, `no json`, `error event`; then the default goes on."""
        self.unknown = set()
        """Fields that the server refuses with 400, as an older one does."""
        self.piece = 7
        """Characters of one piece of a streamed answer."""
        self.pause_s = 0.0
        """Time between two pieces."""
        self.latency_s = 0.0
        """Time before an answer begins."""
        self.at_once = self.most_at_once = 0
        self.ended = asyncio.Event()
        """Set when a streamed answer is over, also when the client has gone."""
        self.gone = False

    @property
    def prompts(self):
        """What the user's message of each request says."""
        return [
            next(message["content"] for message in request["messages"] if message["role"] == "user")
            for request in self.requests
        ]

    async def handle(self, request):
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.latency_s)
            return await self._answer(request, body)
        except (ConnectionResetError, asyncio.CancelledError):
            self.gone = True
            raise
        finally:
            self.at_once -= 1
            self.ended.set()

    async def _answer(self, request, body):
        unknown = self.unknown & set(body)
        if unknown:
            return web.json_response({"error": {"message": f"unknown field {min(unknown)}"}}, status=400)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Status):
            key = request.headers.get(
                "x-api-key", request.headers.get("authorization", "").removeprefix("Bearer ")
            )
            said = {"error": {"message": f"no, and the key was {key}"}}
            return web.json_response(said, status=step.status, headers=step.headers)
        if step == "hang":
            await asyncio.sleep(3600)
        if step == "no json":
            return web.Response(body=b"<html>busy</html>")
        if step == "huge":
            return await self._huge(request)
        if step is None or isinstance(step, str):
            user = next(message["content"] for message in body["messages"] if message["role"] == "user")
            text = Text(default_answer(user))
        else:
            text = step
        anthropic = request.path.endswith("/messages")
        if body.get("stream"):
            return await self._stream(request, text, step, anthropic=anthropic)
        if step == "cut":
            request.transport.close()
        return web.json_response(anthropic_answer(text) if anthropic else openai_answer(text))

    async def _huge(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while True:
                await response.write(b" " * 65536)
        return response

    async def _stream(self, request, text, step, *, anthropic):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        pieces = [text.text[at : at + self.piece] for at in range(0, len(text.text), self.piece)]
        events = anthropic_events(pieces, text.reason) if anthropic else openai_events(pieces, text.reason)
        for number, event in enumerate(events):
            if step in ("cut", "error event") and number > len(events) // 2:
                if step == "error event":
                    await response.write(
                        b'event: error\ndata: {"type": "error", "error": {"message": "x"}}\n\n'
                    )
                request.transport.close()
                return response
            await response.write(event)
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        return response


def anthropic_answer(text):
    return {
        "type": "message",
        "content": [{"type": "thinking", "thinking": "{"}, {"type": "text", "text": text.text}],
        "stop_reason": text.reason,
    }


def openai_answer(text):
    refused = text.reason == "refusal"
    return {
        "choices": [
            {
                "message": {
                    "role": "assistant",
                    "content": None if refused else text.text,
                    "refusal": "I cannot" if refused else None,
                },
                "finish_reason": {"max_tokens": "length"}.get(text.reason, "stop"),
            }
        ]
    }


def event(name, data):
    return f"event: {name}\r\ndata: {json.dumps({'type': name, **data})}\r\n\r\n".encode()


def anthropic_events(pieces, reason):
    deltas = [
        event("content_block_delta", {"index": 1, "delta": {"type": "text_delta", "text": piece}})
        for piece in pieces
    ]
    thinking = event(
        "content_block_delta", {"index": 0, "delta": {"type": "thinking_delta", "thinking": "{"}}
    )
    return [
        event("message_start", {"message": {}}),
        event("ping", {}),
        thinking,
        *deltas,
        event("message_delta", {"delta": {"stop_reason": reason}}),
        event("message_stop", {}),
    ]


def openai_events(pieces, reason):
    def chunk(delta, finish=None):
        choice = {"delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()

    if reason == "refusal":
        return [chunk({"refusal": "I cannot"}), b"data: [DONE]\n\n"]
    finish = {"max_tokens": "length"}.get(reason, "stop")
    return [
        chunk({"role": "assistant"}),
        *(chunk({"content": piece}) for piece in pieces),
        chunk({}, finish),
        b": the end\n\n",
        b"data: [DONE]\n\n",
    ]


@asynccontextmanager
async def serving_model():
    """Serve a fake model on a free port of this machine."""
    fake = FakeModel()
    app = web.Application(client_max_size=1 << 30)
    for path in ("/v1/messages", "/v1/chat/completions", "/api/v3/chat/completions"):
        app.router.add_post(path, fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = site._server.sockets[0].getsockname()[:2]
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def serving_model_beside():
    """The same on a thread of its own, for tests that are not asynchronous."""
    return beside(serving_model)


def settings_of(fake, provider="anthropic", **more):
    """The node's settings for this model, without their prefix."""
    return {
        "EXTRACT_PROVIDER": provider,
        "EXTRACT_API_KEY": KEY,
        "EXTRACT_BASE_URL": fake.url,
        "EXTRACT_MODEL": "test-model",
        **more,
    }
