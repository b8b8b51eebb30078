"""A simulator and models that ask it, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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
