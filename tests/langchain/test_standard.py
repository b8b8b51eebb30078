"""LangChain's own standard tests: plain and wrapped in policies, and both again with a fifth of the requests failing.

All are run but one, and what they would fetch from the web (a picture, a sound, a document) is given to them here. `test_serdes` skips
itself: `langchain_core.load` makes only classes of a list of its own, on which there are LangChain's and its partners' alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from _canary import CANARY
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from seawall.errors import APIError
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Simulator

MODEL = "gpt-4"
# 1 - 14/15 * 13/14 * 12/13 = 1/5 of all requests, in three ways.
TROUBLE = """
seed = 20

[[rule]]
fault = { name = "status", code = 503, headers = { retry-after-ms = "1" } }
probability = 0.06667

[[rule]]
fault = { name = "rate_limit", retry_after_ms = 1 }
probability = 0.07143

[[rule]]
fault = { name = "broken_json" }
probability = 0.07692
"""
# They assert that a model's run starts once; under faults each attempt is one.
ONE_START = ("test_structured_output", "test_structured_output_async")
# Of both models and every wrapping: 0.2 ** 12 never happens.
ATTEMPTS = 12

# langchain-core's word on documents without a name, which the standard tests send.
pytestmark = pytest.mark.filterwarnings("ignore:OpenAI may require a filename")


@pytest.fixture(scope="module")
def calm() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def troubled() -> Iterator[Simulator]:
    with Simulator.loads(TROUBLE) as simulator:
        yield simulator


def place(server: Simulator) -> dict[str, Any]:
    return {"model": MODEL, "api_key": CANARY, "base_url": server.base_url}


def test_a_fifth_of_the_requests_fails_in_three_ways():
    failures = []
    with Simulator.loads(TROUBLE) as server:
        model = ChatOpenAI(**place(server), max_retries=0)
        for _ in range(300):
            try:
                model.invoke("hello")
            except APIError as error:
                failures.append(type(error).__name__)
    assert 45 <= len(failures) <= 75
    assert set(failures) == {"ServiceUnavailable", "RateLimitError", "MalformedResponseError"}


class Standard:
    """What the standard tests ask of whoever takes them."""

    chat_model_class = ChatOpenAI
    supports_json_mode = True
    supports_model_override = True
    model_override_value = "gpt-4o"
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = True
    supports_audio_inputs = True
    supports_anthropic_inputs = True
    enable_vcr_tests = True

    in_trouble = False
    url = "http://127.0.0.1:9/v1"

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "api_key": CANARY, "base_url": self.url, "max_retries": ATTEMPTS}

    @pytest.fixture(autouse=True)
    def server(self, request: pytest.FixtureRequest) -> Simulator:
        fails = self.in_trouble and request.function.__name__ not in ONE_START
        server: Simulator = request.getfixturevalue("troubled" if fails else "calm")
        self.url = server.base_url
        return server

    @pytest.fixture(autouse=True)
    def no_outside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "seawall")
        monkeypatch.setattr(httpx, "get", lambda url, **how: SimpleNamespace(content=f"what is at {url}".encode()))

    @pytest.fixture
    def vcr(self) -> Any:
        """For the test that times a stream: as if its answer had been recorded."""
        return SimpleNamespace(responses=["one"])

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, server: Simulator) -> BaseChatModel:
        more = {**place(server), "max_retries": ATTEMPTS, **(getattr(request, "param", None) or {})}
        return self.wrapped(ChatOpenAI(**more), ChatOpenAI(**{**more, "model": "spare"}))

    def wrapped(self, model: ChatOpenAI, spare: ChatOpenAI) -> Any:
        return model


class Wrapped(Standard):
    def wrapped(self, model: ChatOpenAI, spare: ChatOpenAI) -> Any:
        spares = [spare.with_retry(stop_after_attempt=ATTEMPTS, wait=0.001)]
        return model.with_retry(stop_after_attempt=2, wait=0.001).with_fallbacks(spares)


class TestUnits(Standard, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        url = "http://127.0.0.1:9/v1"
        environment = {"OPENAI_API_KEY": "sk-env", "OPENAI_BASE_URL": url, "OPENAI_ORG_ID": "org"}
        return environment, {"model": MODEL}, {"openai_api_key": "sk-env", "openai_api_base": url, "openai_organization": "org"}


class TestPlain(Standard, ChatModelIntegrationTests):
    pass


class TestWrapped(Wrapped, ChatModelIntegrationTests):
    pass


class TestPlainInTrouble(Standard, ChatModelIntegrationTests):
    in_trouble = True


class TestWrappedInTrouble(Wrapped, ChatModelIntegrationTests):
    in_trouble = True


class TestEmbeddingsUnits(EmbeddingsUnitTests):
    embeddings_class = OpenAIEmbeddings
    embedding_model_params = {"model": "small", "api_key": CANARY, "base_url": "http://127.0.0.1:9/v1"}  # noqa: RUF012

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"OPENAI_API_KEY": "sk-env"}, {"model": "small"}, {"openai_api_key": "sk-env"}


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    state = "calm"

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest) -> Embeddings:
        server = request.getfixturevalue(self.state)
        here, elsewhere = (
            OpenAIEmbeddings(**{**place(server), "model": "small", "organization": name}, max_retries=ATTEMPTS) for name in "ab"
        )
        return self.wrapped(here, elsewhere)

    def wrapped(self, here: OpenAIEmbeddings, elsewhere: OpenAIEmbeddings) -> Embeddings:
        return here


class TestWrappedEmbeddings(TestEmbeddings):
    def wrapped(self, here: OpenAIEmbeddings, elsewhere: OpenAIEmbeddings) -> Embeddings:
        spares = [elsewhere.with_retry(stop_after_attempt=ATTEMPTS, wait=0.001)]
        return here.with_retry(stop_after_attempt=2, wait=0.001).with_fallbacks(spares)


class TestEmbeddingsInTrouble(TestEmbeddings):
    state = "troubled"


class TestWrappedEmbeddingsInTrouble(TestWrappedEmbeddings):
    state = "troubled"
