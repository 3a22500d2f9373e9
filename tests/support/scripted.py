"""A server that gives the answers of a script, one for each request, and remembers what arrived.

    with ScriptedServer([{"status": 503}, {"cut": "silent"}, {"status": 200, "json": {}}]) as server:
        ...                      # three requests to server.url
        server.finish()          # every answer was given
        server.compare([{"method": "GET", "path": "/a", "headers": {"X": "y"}}, ...])

`sdk/vectors/README.md` says what an answer and an expected request may be.
"""

import json
import socket
import threading
from dataclasses import dataclass
from typing import Any, Self

_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Arrived:
    """A request; the names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class ScriptedServer:
    """Answers one request after the other, each on a connection of its own."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self._answers = list(answers)
        self._beyond: list[Arrived] = []
        self.requests: list[Arrived] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_PATIENCE_S)

    def finish(self) -> None:
        """Fail unless there was one request for each answer."""
        assert not self._beyond, f"beyond the script: {self._beyond}"
        assert not self._answers, f"answers that nobody asked for: {self._answers}"

    def compare(self, expected: list[dict[str, Any]]) -> None:
        """Fail unless these requests arrived, in this order."""
        assert len(self.requests) == len(expected)
        for arrived, wanted in zip(self.requests, expected, strict=True):
            assert wanted.keys() <= {"method", "path", "headers"}
            assert (arrived.method, arrived.target.partition("?")[0]) == (wanted["method"], wanted["path"])
            for name, value in wanted.get("headers", {}).items():
                self._compare_header(arrived.headers.get(name.lower()), name.lower(), value)

    def _compare_header(self, found: str | None, name: str, wanted: Any) -> None:
        if isinstance(wanted, dict):
            ((how, number),) = wanted.items()
            other = self.requests[number].headers.get(name)
            assert found is not None
            assert (found == other) is {"same_as": True, "not_as": False}[how]
        elif wanted is True:
            assert found is not None, f"{name} is missing"
        else:
            assert found == wanted, f"{name} is {found}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(_PATIENCE_S)
                arrived = _read(connection)
                if arrived is None:
                    continue
                if not self._answers:
                    self._beyond.append(arrived)
                    continue
                self.requests.append(arrived)
                _answer(connection, self._answers.pop(0))


def _read(connection: socket.socket) -> Arrived | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    method, target, _ = first.split(" ")
    return Arrived(method, target, headers, body)


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    assert answer.keys() <= {"status", "headers", "json", "cut"}
    if answer.get("cut") == "silent":
        return
    body = json.dumps(answer["json"]).encode() if "json" in answer else b""
    headers = {"Content-Length": str(len(body)), "Connection": "close", **answer.get("headers", {})}
    if "json" in answer:
        headers.setdefault("Content-Type", "application/json")
    if answer["status"] == 204:
        del headers["Content-Length"]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sent = body[: len(body) // 2] if answer.get("cut") == "midway" else body
    connection.sendall(f"HTTP/1.1 {answer['status']} Scripted\r\n{head}\r\n".encode() + sent)
