"""`OpenAIEmbeddings`: langchain-core embeddings with the policies of a chat model."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.exceptions import ModelRateLimitError
from langchain_core.vectorstores import InMemoryVectorStore

from seawall import CircuitBreaker, errors
from seawall.errors import ConfigurationError
from seawall.langchain import OpenAIEmbeddings
from seawall.simulator import Simulator, faults


def test_one_vector_per_text_in_their_order(sim, embeddings):
    model = embeddings(chunk_size=2, dimensions=8)
    texts = ["one", "two", "three", "four", "five"]
    vectors = model.embed_documents(texts)
    assert [len(vector) for vector in vectors] == [8] * 5
    assert vectors == [model.embed_query(text) for text in texts]
    assert [len(request.body["input"]) for request in sim.requests[:3]] in ([2, 2, 1], [2, 1, 2], [1, 2, 2])
    assert sim.requests[0].body["dimensions"] == 8
    assert model.embed_documents([]) == []


async def test_and_for_an_event_loop(embeddings):
    model = embeddings(chunk_size=2)
    assert await model.aembed_documents(["one", "two", "three"]) == model.embed_documents(["one", "two", "three"])
    assert await model.aembed_query("one") == model.embed_query("one")
    assert await model.aembed_documents([]) == []


def test_each_asyncio_run_works(embeddings):
    model = embeddings()
    vectors = [asyncio.run(model.aembed_query("one")) for _ in range(3)]
    assert vectors == [vectors[0]] * 3


def test_with_retry_replaces_the_clients_retries(sim, embeddings):
    sim.on("small", faults.status(500))
    for model, requests in (
        (embeddings(max_retries=0), 1),
        (embeddings(max_retries=7).with_retry(stop_after_attempt=4, wait=0.001), 4),
        (embeddings().with_retry(stop_after_attempt=9).with_retry(stop_after_attempt=2, wait=0.001), 2),
    ):
        sim.forget()
        with pytest.raises(errors.InternalServerError):
            model.embed_query("one")
        assert sim.count() == requests


@pytest.mark.parametrize("fault", [faults.status(401), faults.status(400), faults.quota()], ids=lambda fault: fault.name)
def test_what_no_retry_can_mend_costs_one_request(sim, embeddings, fault):
    sim.on("small", fault)
    with pytest.raises(errors.APIStatusError):
        embeddings().with_retry(retry_if_exception_type=(errors.APIError,)).embed_documents(["one"])
    assert sim.count() == 1


async def test_the_same_model_elsewhere_stands_in(sim, embeddings):
    sim.on("small", faults.status(500))
    with Simulator() as other:
        model = embeddings().with_retry(stop_after_attempt=1).with_fallbacks([embeddings(base_url=other.base_url)])
        expected = embeddings(base_url=other.base_url).embed_query("one")
        assert model.embed_query("one") == expected
        assert await model.aembed_documents(["one"]) == [expected]
        assert (sim.count(), other.count()) == (2, 3)


def test_vectors_that_do_not_compare_are_refused(embeddings):
    for other in (embeddings(model="large"), embeddings(dimensions=8)):
        with pytest.raises(ConfigurationError, match="do not compare"):
            embeddings().with_fallbacks([other])
    with pytest.raises(ConfigurationError, match="OpenAIEmbeddings"):
        embeddings().with_fallbacks(["sorry"])
    one = embeddings().with_fallbacks([embeddings()], exceptions_to_handle=(errors.RateLimitError,))
    with pytest.raises(ConfigurationError, match="exceptions_to_handle"):
        one.with_fallbacks([embeddings()])


def test_a_vector_store_works_on_them(embeddings):
    texts = ["retries and waits", "soup with potatoes", "circuit breakers"]
    store = InMemoryVectorStore.from_documents([Document(text) for text in texts], embeddings().with_retry())
    assert store.similarity_search("retry and wait", k=1)[0].page_content == "retries and waits"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"http_client": object()}, "http_client"),
        ({"deployment": "x"}, "deployment"),
        ({"headers": {"a": "b"}}, "default_headers"),
        ({"check_embedding_ctx_length": True}, "check_embedding_ctx_length"),
        ({"show_progress_bar": True}, "show_progress_bar"),
        ({"modle": "x"}, "modle"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"chunk_size": 5000}, "chunk_size"),
        ({"idempotency_key": True}, "idempotency_key"),
        ({"timeout": 0}, "timeout"),
        ({"model": ""}, "model"),
    ],
)
def test_wrong_arguments_are_refused_by_name(embeddings, arguments, named):
    with pytest.raises(ValueError, match=named):
        embeddings(**arguments)


def test_arguments_that_are_off_anyway_are_taken(embeddings):
    assert embeddings(check_embedding_ctx_length=False, tiktoken_enabled=False, http_client=None).embed_query("one")


def test_errors_are_langchains_too_and_hold_no_key(sim, embeddings, key, caplog):
    caplog.set_level(logging.DEBUG)
    sim.on("small", faults.rate_limit(retry_after_ms=1))
    model = embeddings().with_retry(stop_after_attempt=2)
    with pytest.raises(ModelRateLimitError) as raised:
        model.embed_documents(["a secret text"])
    assert isinstance(raised.value, errors.RateLimitError)
    shown = [repr(model), str(model.model_dump()), str(raised.value.__dict__), caplog.text]
    shown += traceback.format_exception(raised.value)
    assert [text for text in shown if key in text] == []
    assert "secret text" not in caplog.text


def test_copies_and_pickles_answer_alike(sim, embeddings):
    sim.on("small", faults.status(500))
    model = embeddings(circuit=CircuitBreaker(50)).with_retry(stop_after_attempt=2, wait=0)
    for again in (copy.copy(model), copy.deepcopy(model), model.model_copy(deep=True)):
        sim.forget()
        with pytest.raises(errors.InternalServerError):
            again.embed_query("one")
        assert sim.count() == 2
    sim.clear()
    assert pickle.loads(pickle.dumps(embeddings())).embed_query("one") == embeddings().embed_query("one")
    copied = embeddings().model_copy(update={"model": "third"})
    model.model = "other"
    for changed in (model, copied):
        changed.embed_query("one")
        assert sim.requests[-1].model == changed.model


def test_the_environment_gives_what_is_missing(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
    model = OpenAIEmbeddings(model="small")
    assert isinstance(model, Embeddings)
    assert model.openai_api_key.get_secret_value() == "sk-env"
    assert model.embed_query("one")
