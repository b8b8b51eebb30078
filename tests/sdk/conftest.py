"""The real SDKs against a simulator that counts what reaches it, and a server of raw bytes for what it does not speak."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from seawall.simulator import Simulator

KEY = "sk-secret-key-of-this-test"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def sdk(sim: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=sim.base_url) as client:
        yield client


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[Any], Any]]:
    """Hands an asynchronous client on, and closes it in its loop."""
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Any] = []
        yield lambda client: clients.append(client) or client
        for client in clients:
            stack.push_async_callback(client.close)


@pytest.fixture
def async_sdk(sim: Simulator, opened: Callable[[Any], Any]) -> openai.AsyncOpenAI:
    made: openai.AsyncOpenAI = opened(openai.AsyncOpenAI(api_key=KEY, base_url=sim.base_url))
    return made


@pytest.fixture
def claude(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=KEY, base_url=sim.origin) as client:
        yield client


@pytest.fixture(autouse=True)
def no_credentials_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class Raw:
    """Answers each request with the next of these bodies; the last one goes on answering.

    Attributes:
        base_url: where it listens.
        requests: what came, head and body.
    """

    def __init__(self, bodies: list[tuple[str, bytes]]) -> None:
        self._bodies = bodies
        self.requests: list[bytes] = []
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = self.rfile.readline()
                    if not line:
                        return
                    head += line
                lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
                body = self.rfile.read(int(lengths[0].split(b":")[1])) if lengths else b""
                kind, answer = owner._next(head + body)
                self.wfile.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode() + answer)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def _next(self, request: bytes) -> tuple[str, bytes]:
        self.requests.append(request)
        return self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def raw() -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def serve(*bodies: Any) -> Raw:
        """Texts are event streams, dicts JSON."""
        import json

        answers = [
            ("text/event-stream", body.encode()) if isinstance(body, str) else ("application/json", json.dumps(body).encode())
            for body in bodies
        ]
        made.append(Raw(answers))
        return made[-1]

    yield serve
    for server in made:
        server.close()
