"""LangChain's own standard tests: plain, wrapped in policies, and wrapped with a third of the requests failing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Fault, Simulator, faults

MODEL = "gpt-4"
# What a model has to think of: which tool to call with what, and a joke. All other answers are the simulator's own.
MAGIC = ("magic_function", {"input": 3})
CUSTOMER = ("unicode_customer", {"customer_name": "你好啊集团", "description": "technology"})
OTHER = ("unicode_customer", {"customer_name": "こんにちは株式会社", "description": "trade"})
JOKE = json.dumps({"setup": "Why?", "punchline": "Because."})
SCRIPTS: dict[str, list[Any]] = {
    "test_tool_calling": [MAGIC, MAGIC],
    "test_tool_calling_async": [MAGIC, MAGIC],
    "test_agent_loop": [("get_weather", {"location": "San Francisco"}), "It is sunny."],
    "test_unicode_tool_call_integration": [CUSTOMER, OTHER],
    "test_json_mode": [JOKE] * 4,
}
# They assert that a model's run starts once; under faults each attempt is one.
ONE_START = ("test_structured_output", "test_structured_output_async")


def scripted(answer: Any, stream: bool) -> Fault:
    """An answer of the script: a text, or the call of a tool, whole or in pieces."""
    if isinstance(answer, str):
        return faults.reply(answer)
    name, arguments = answer
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": 0, "id": "call-1", "type": "function", "function": function}],
    }
    reply = {"id": "r", "model": MODEL, "choices": [{"index": 0, "finish_reason": "tool_calls"}]}
    if not stream:
        reply["choices"][0]["message"] = message  # type: ignore[index]
        return faults.status(200, body=reply)
    reply["choices"][0]["delta"] = message  # type: ignore[index]
    return faults.status(200, body=f"data: {json.dumps(reply)}\n\ndata: [DONE]\n\n", content_type="text/event-stream")


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def place(server: Simulator) -> dict[str, Any]:
    return {"model": MODEL, "api_key": "sk-standard", "base_url": server.base_url}


class Standard:
    """What the standard tests ask of whoever takes them."""

    chat_model_class = ChatOpenAI
    supports_json_mode = True
    supports_model_override = True
    model_override_value = "gpt-4o"
    url = "http://127.0.0.1:9/v1"

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "api_key": "sk-standard", "base_url": self.url, "max_retries": 12 if self.troubled else 2}

    troubled = False

    @pytest.fixture(autouse=True)
    def script(self, request: pytest.FixtureRequest, server: Simulator) -> None:
        name, self.url = request.function.__name__, server.base_url
        server.clear()
        answers = SCRIPTS.get(name, [])
        streams = [name.startswith("test_tool_calling") and place == 1 for place in range(len(answers))]
        # A later rule goes before an earlier one: from the end.
        for answer, stream in reversed(list(zip(answers, streams, strict=True))):
            server.on(MODEL, scripted(answer, stream), times=1)
            if self.troubled:
                server.on(MODEL, faults.status(503), times=1)
        if self.troubled and not answers and name not in ONE_START:
            for fault in (faults.broken_json(), faults.rate_limit(retry_after_ms=1), faults.status(500)):
                server.on("*", fault, probability=0.15)

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, server: Simulator) -> BaseChatModel:
        more = getattr(request, "param", None) or {}
        return self.wrapped(ChatOpenAI(**{**place(server), **more}), ChatOpenAI(**{**place(server), **more, "model": "spare"}))

    def wrapped(self, model: ChatOpenAI, spare: ChatOpenAI) -> Any:
        return model


class TestUnits(Standard, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        url = "http://127.0.0.1:9/v1"
        environment = {"OPENAI_API_KEY": "sk-env", "OPENAI_BASE_URL": url, "OPENAI_ORG_ID": "org"}
        return environment, {"model": MODEL}, {"openai_api_key": "sk-env", "openai_api_base": url, "openai_organization": "org"}


class TestPlain(Standard, ChatModelIntegrationTests):
    pass


class TestWrapped(Standard, ChatModelIntegrationTests):
    def wrapped(self, model: ChatOpenAI, spare: ChatOpenAI) -> Any:
        return model.with_retry(stop_after_attempt=3).with_fallbacks([spare])


class TestInTrouble(Standard, ChatModelIntegrationTests):
    troubled = True

    def wrapped(self, model: ChatOpenAI, spare: ChatOpenAI) -> Any:
        return model.with_retry(stop_after_attempt=12, wait=0.001)


class TestEmbeddingsUnits(EmbeddingsUnitTests):
    embeddings_class = OpenAIEmbeddings
    embedding_model_params = {"model": "small", "api_key": "sk-standard", "base_url": "http://127.0.0.1:9/v1"}  # noqa: RUF012

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"OPENAI_API_KEY": "sk-env"}, {"model": "small"}, {"openai_api_key": "sk-env"}


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings

    @pytest.fixture
    def model(self, server: Simulator) -> Embeddings:
        server.clear()
        return OpenAIEmbeddings(**{**place(server), "model": "small"})


class TestEmbeddingsInTrouble(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings

    @pytest.fixture
    def model(self, server: Simulator) -> Embeddings:
        server.clear()
        server.on("small", faults.status(500), times=1)
        model, elsewhere = (OpenAIEmbeddings(**{**place(server), "model": "small", "organization": name}) for name in ("a", "b"))
        return model.with_retry(stop_after_attempt=1).with_fallbacks([elsewhere])
