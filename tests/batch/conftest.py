"""Models that ask the simulator, journals, and programs in processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from _canary import CANARY

from seawall.llm import Chat
from seawall.simulator import Simulator


@pytest.fixture
def chat(sim: Simulator) -> Callable[..., Chat]:
    """Makes a chat model that asks the simulator."""

    def make(model: str = "m", **options: object) -> Chat:
        return Chat(model, **{"api_key": CANARY, "base_url": sim.base_url, **options})

    return make


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "run.db")
