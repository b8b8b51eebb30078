"""What tests of all folders use: seawall's own fixtures, as its pytest plugin gives them (here the package is not installed, so
nothing registers it), servers, and the choice of the fast lane or the machine."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from _canary import watched

from seawall._pytest_plugin import (  # noqa: F401
    seawall_cap_attempts,
    seawall_clock,
    seawall_events,
    seawall_no_waits,
    seawall_seed,
)
from seawall.simulator import Simulator

# What clients of all kinds read where nothing is said.
CREDENTIALS = [
    *(f"OPENAI_{name}" for name in ("API_KEY", "BASE_URL", "API_BASE", "ORG_ID", "ORGANIZATION", "PROJECT_ID")),
    *(f"ANTHROPIC_{name}" for name in ("API_KEY", "BASE_URL")),
    "LANGSMITH_TRACING",
    "LANGCHAIN_TRACING_V2",
]
# The beginning of a program whose children end themselves if they hang, with what hangs.
FORKING = '''
import faulthandler, os, traceback, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what is tried here
first = os.getpid()

def end(work, leave=os._exit):
    """Ends the child: well if `work` did."""
    if os.getppid() == first:  # its thread would not be there in a child of a child, and be waited for
        faulthandler.dump_traceback_later(40, exit=True)
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    if os.getppid() == first:
        faulthandler.cancel_dump_traceback_later()
    leave(0)

def forked(work, leave=os._exit):
    """The code with which a child ends that does this work."""
    child = os.fork()
    if not child:
        end(work, leave)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
'''


def pytest_configure(config: pytest.Config) -> None:
    watched(config)


@pytest.fixture(autouse=True)
def no_credentials_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def clients_of_sdks_are_closed() -> Iterator[None]:
    """One that is left open is garbage in a cycle with its socket, and whether the collector ends it or the socket first is chance."""
    made: list[Any] = []

    def noted(init: Callable[..., None]) -> Callable[..., None]:
        def noting(client: Any, *positional: Any, **named: Any) -> None:
            init(client, *positional, **named)
            # One that was given its transport shares it, as LangChain's do with all that ask the same place.
            if named.get("http_client") is None:
                made.append(client)

        return noting

    with pytest.MonkeyPatch.context() as patched:
        for sdk in ("openai", "anthropic"):
            if base := getattr(sys.modules.get(f"{sdk}._base_client"), "SyncAPIClient", None):
                patched.setattr(base, "__init__", noted(base.__init__))
        yield
    for client in made:
        client.close()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


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


@pytest.fixture
def forking() -> str:
    """The beginning of a program that forks: `forked(work)` and `end(work)`."""
    return FORKING


@pytest.fixture(params=[False, True], ids=["lane", "machine"])
def hooks(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keyword arguments of a `Retry` that leave a call its fast lane, or, by a hook on each attempt, force it onto the machine."""
    return {"before": lambda state: None} if request.param else {}
