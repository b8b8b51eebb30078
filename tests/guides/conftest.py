"""The programs of docs/guides/, as files: what a page shows is what is tested."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from _canary import CANARY

from seawall.simulator import Simulator
from seawall.telemetry import prometheus

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """`program(page, name)`: the program of that page that begins with `# name`, written to a file of that name."""

    def written(page: str, name: str) -> Path:
        text = (GUIDES / page).read_text(encoding="utf-8")
        (found,) = re.findall(rf"^```python\n(# {re.escape(name)}\n.*?)^```\n", text, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(found, encoding="utf-8")
        return tmp_path / name

    return written


@pytest.fixture
def at_the_simulator(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """The simulator, where models find it that are told nothing."""
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    return sim


@pytest.fixture
def service(program: Callable[[str, str], Path], at_the_simulator: Simulator) -> Iterator[ModuleType]:
    """The module of the FastAPI page."""
    spec = importlib.util.spec_from_file_location("service_of_the_page", program("fastapi.md", "app.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = prometheus._metrics
    yield module
    del sys.modules[spec.name]
    if before is None and prometheus._metrics is not None:
        # The app counts until its process ends; the tests after this one are to run as if nobody did.
        prometheus._metrics.close()
        prometheus._metrics = None
