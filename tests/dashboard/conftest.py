"""A dashboard of this process, and plain sockets to it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from seawall import dashboard


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


def _asked(
    served: dashboard.Dashboard, path: str = "/api/state", *, method: str = "GET", host: str | None = None, **headers: str
) -> Answer:
    """Sends one request on a connection of its own; in names of headers `_` is `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{served.port}" if host is None else host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def _told(served: dashboard.Dashboard, data: bytes) -> bytes:
    """Sends these bytes and no more; what comes back until the other side ends it."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as raw:
        heard = b""
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while piece := raw.recv(1 << 16):
                heard += piece
        except OSError:  # it has been dropped
            pass
        return heard


def _until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives once it is true."""
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come about"
    return found


@pytest.fixture
def served() -> Iterator[dashboard.Dashboard]:
    with dashboard.serve(0, title="tests", quiet=True) as running:
        yield running


@pytest.fixture
def ask(served: dashboard.Dashboard) -> Callable[..., Answer]:
    """Sends a request to the dashboard."""
    return lambda *args, **options: _asked(served, *args, **options)


# Does what it is told, a line of JSON at a time, and says so.
LAB = """
import json, logging, sys
import seawall
from seawall import *
from seawall.errors import *
from seawall.llm import Chat
from seawall.simulator import Simulator, faults
logging.disable()
names = globals()
page = seawall.dashboard.serve(0, title="lab", quiet=True)
print(page.url, flush=True)
for line in sys.stdin:
    exec(json.loads(line), names)
    print("done", flush=True)
"""


class Lab:
    """A process of its own with a dashboard: nothing of what other tests did is on its page."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", LAB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stdin is not None
        self.url = self._process.stdout.readline().strip()

    def __call__(self, program: str) -> None:
        """Runs it there, to its end."""
        assert self._process.stdout is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(textwrap.dedent(program)) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", "the program failed: see stderr"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def lab() -> Iterator[Lab]:
    running = Lab()
    yield running
    running.close()


@pytest.fixture
def asked() -> Callable[..., Answer]:
    """Sends a request to a dashboard."""
    return _asked


@pytest.fixture
def told() -> Callable[[dashboard.Dashboard, bytes], bytes]:
    """Sends bytes to a dashboard."""
    return _told


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    """Waits for a condition."""
    return _until
