"""A simulator for each test, models that ask it, and programs in processes of their own."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from seawall.llm import Chat
from seawall.simulator import Simulator


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "BASE_URL", "API_BASE", "ORG_ID", "ORGANIZATION", "PROJECT_ID"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def chat(sim: Simulator) -> Callable[..., Chat]:
    """Makes a chat model that asks the simulator."""

    def make(model: str = "m", **options: Any) -> Chat:
        return Chat(model, **{"api_key": "sk-a-test-key", "base_url": sim.base_url, **options})

    return make


@pytest.fixture
def program(sim: Simulator) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python program; `base_url` is the simulator's."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(text: str, **environment: str) -> subprocess.Popen[str]:
        whole = f"base_url = {sim.base_url!r}\n{text}"
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", whole], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment or None
        )
        # Whoever waits for its output does not wait for ever.
        limit = threading.Timer(90, process.kill)
        limit.daemon = True
        limit.start()
        started.append((process, limit))
        return process

    yield start
    for process, limit in started:
        limit.cancel()
        process.kill()
        process.communicate()


@dataclass
class Asked:
    """One request as it came over the wire."""

    first_line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class RawServer:
    """Answers request n with the bytes of answer n, the last one for all after it."""

    answers: list[bytes]
    tls: ssl.SSLContext | None = None
    requests: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: list[socket.socket] = [self._listener]
        self._threads[0].start()

    @property
    def base_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that goes, or trusts nobody, is no failure of the server's.
        with suppress(OSError), connection:
            whole = self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
            with whole, whole.makefile("rb") as reader:
                while asked := self._read(reader):
                    self.requests.append(asked)
                    whole.sendall(self.answers[min(len(self.requests), len(self.answers)) - 1])

    @staticmethod
    def _read(reader: Any) -> Asked | None:
        first = reader.readline().decode().strip()
        headers: dict[str, str] = {}
        while line := reader.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Asked(first, headers, reader.read(int(headers.get("content-length", 0)))) if first else None

    def close(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)


def answer(body: str | bytes, *, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    """An answer in HTTP/1.1."""
    body = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def events(*lines: str) -> bytes:
    """A stream of events; each text is sent as it is, with an empty line after it."""
    return answer("".join(f"{line}\n\n" for line in lines), kind="text/event-stream")


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    """Starts servers of raw bytes. `raw.answer` and `raw.events` make what they send."""
    started: list[RawServer] = []

    def start(*answers: bytes, tls: ssl.SSLContext | None = None) -> RawServer:
        started.append(RawServer(list(answers), tls))
        return started[-1]

    start.answer, start.events = answer, events  # type: ignore[attr-defined]
    yield start
    for server in started:
        server.close()
