"""A simulator and models that ask it, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from langchain_core.tracers import BaseTracer, Run

from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Simulator

KEY = "sk-secret-key-of-this-test"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
def llm(sim: Simulator) -> Callable[..., ChatOpenAI]:
    def made(model: str = "gpt-4", **arguments: object) -> ChatOpenAI:
        return ChatOpenAI(**{"model": model, "api_key": KEY, "base_url": sim.base_url, **arguments})

    return made


@pytest.fixture
def embeddings(sim: Simulator) -> Callable[..., OpenAIEmbeddings]:
    def made(**arguments: object) -> OpenAIEmbeddings:
        return OpenAIEmbeddings(**{"model": "small", "api_key": KEY, "base_url": sim.base_url, **arguments})

    return made


@pytest.fixture(autouse=True)
def no_credentials_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_ORGANIZATION"):
        monkeypatch.delenv(name, raising=False)


class Runs(BaseTracer):
    """A tracer that keeps the trees of runs."""

    run_inline = True

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)

    @property
    def all(self) -> list[Run]:
        """Every run, parents first."""
        found, left = [], [*self.roots]
        while left:
            run = left.pop(0)
            found.append(run)
            left = [*run.child_runs, *left]
        return found

    @property
    def root(self) -> Run:
        """The only tree."""
        (root,) = self.roots
        return root


@pytest.fixture
def runs() -> Runs:
    return Runs()
