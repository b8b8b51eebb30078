"""Models that ask the simulator, over real sockets, and who listens to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from _canary import CANARY
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.tracers import BaseTracer, Run

from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Simulator

KEY = CANARY


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


@pytest.fixture
def cache() -> Iterator[None]:
    """LangChain's cache of answers, in memory."""
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


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
