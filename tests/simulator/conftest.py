"""Plain sockets to the simulator: no client of ours stands between it and these tests."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from seawall.simulator import Simulator


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        return [line.removeprefix("data: ") for line in self.raw.decode().split("\n\n") if line.startswith("data: ")]


def asked(sim: Simulator, path: str, body: Any = None, *, method: str | None = None, key: str | None = "k") -> Answer:
    place = urlsplit(sim.base_url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if body is None else "POST"), f"{place.path}/{path}", sent, headers)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


@pytest.fixture
def send(sim: Simulator) -> Callable[..., Answer]:
    """Sends a request for a path under the base URL."""
    return lambda *args, **options: asked(sim, *args, **options)


@pytest.fixture
def talk(sim: Simulator) -> Callable[..., Answer]:
    """Sends a chat request."""

    def ask(text: str = "hello", model: str = "m", **params: Any) -> Answer:
        return asked(sim, "chat/completions", {"model": model, "messages": [{"role": "user", "content": text}], **params})

    return ask
