"""Models that ask the simulator, and programs in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _canary import CANARY

from seawall.llm import Chat
from seawall.simulator import Simulator


@pytest.fixture
def chat(sim: Simulator) -> Callable[..., Chat]:
    """Makes a chat model that asks the simulator."""

    def make(model: str = "m", **options: Any) -> Chat:
        return Chat(model, **{"api_key": CANARY, "base_url": sim.base_url, **options})

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
