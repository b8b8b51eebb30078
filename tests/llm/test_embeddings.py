"""`Embeddings`: one vector for each text, in order, or an error."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from _canary import CANARY

from seawall import errors
from seawall.llm import Embeddings
from seawall.simulator import Simulator, faults


@pytest.fixture
def model(sim: Simulator) -> Embeddings:
    return Embeddings("e", api_key=CANARY, base_url=sim.base_url)


def test_each_text_has_its_vector_and_the_reply_says_the_rest(sim, model) -> None:
    reply = model.invoke(["one", "two", "three"])
    assert reply.vectors == [model.invoke(text).vectors[0] for text in ("one", "two", "three")]
    assert (len(reply.vectors), reply.model, reply.attempts) == (3, "e", 1)
    assert reply.tokens > 0
    assert reply.seconds > 0
    assert asyncio.run(model.ainvoke(["one", "two", "three"])).vectors == reply.vectors
    assert all(math.isclose(sum(x * x for x in vector), 1, rel_tol=1e-5) for vector in reply.vectors)


def test_more_texts_than_the_api_takes_are_sent_in_parts_and_keep_their_order(sim, model) -> None:
    texts = [f"text {n}" for n in range(2050)]
    reply = model.invoke(texts, dimensions=4)
    assert sorted(len(request.body["input"]) for request in sim.requests) == [2, 2048]
    assert reply.attempts == 2
    assert reply.vectors[2049] == model.invoke("text 2049", dimensions=4).vectors[0]
    assert len(reply.vectors) == 2050


@pytest.mark.parametrize(
    ("input", "error", "words"),
    [
        (None, TypeError, "input must be a text or a list of texts"),
        (b"abc", TypeError, "not bytes"),
        ({"a": 1}, TypeError, "not dict"),
        ({"a", "b"}, TypeError, "not set"),
        (5, TypeError, "not int"),
        ([1, 2], TypeError, r"input\[0\] must be a text"),
        (["a", None], TypeError, r"input\[1\] must be a text"),
        ([], ValueError, "nothing to embed"),
        ("\udc00", ValueError, "surrogate"),
    ],
)
def test_what_is_no_text_is_refused_before_anything_is_sent(sim, model, input: Any, error, words) -> None:
    for ask in (model.invoke, lambda given: asyncio.run(model.ainvoke(given))):
        with pytest.raises(error, match=words):
            ask(input)
    assert sim.count() == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"data": []}, "0 embeddings for 2 inputs"),
        ({"data": [{"index": 0, "embedding": [1]}]}, "1 embeddings for 2 inputs"),
        ({"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}, "two embeddings of index 0"),
        ({"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}, "different lengths"),
        ({"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": [1]}]}, "empty"),
        ("<html>", "HTML page"),
    ],
)
def test_anything_but_one_vector_for_each_text_is_malformed_and_retried(sim, model, body, words) -> None:
    sim.on("e", faults.status(200, body=body))
    with pytest.raises(errors.MalformedResponseError, match=words):
        model.with_retry(wait=0).invoke(["a", "b"])
    assert sim.count() == 3


def test_vectors_are_taken_by_their_index_and_as_base64(sim, model) -> None:
    sim.on("e", faults.status(200, body={"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]}), times=1)
    assert model.invoke(["a", "b"]).vectors == [[1], [2]]
    assert model.invoke("a", encoding_format="base64").vectors == model.invoke("a").vectors


def test_an_alternative_stands_in_and_a_wrong_key_costs_one_request(sim, model) -> None:
    sim.on("e", faults.status(500))
    other = Embeddings("other", api_key=CANARY, base_url=sim.base_url)
    assert model.with_retry(wait=0).with_fallbacks([other]).invoke("a").model == "other"
    assert sim.count("e") == 3
    sim.on("e", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        model.with_retry().invoke("a")
    assert sim.count("e") == 4
    with pytest.raises(errors.ConfigurationError, match="input is no parameter"):
        model.batch(["a"], input="b")


def sizes(sim: Simulator) -> list[int]:
    return sorted(len(request.body["input"]) for request in sim.requests)


def test_no_request_holds_more_texts_or_tokens_than_it_may(sim) -> None:
    model = Embeddings("e", api_key=CANARY, base_url=sim.base_url, max_batch_inputs=3, max_batch_tokens=20, dimensions=4)
    texts = ["a" * 9, "b" * 9, "字", "c", "d", "e", "f", "x" * 100, "g"]
    together = model.invoke(texts)
    # 11; 11, 5 and 3; 3, 3 and 3; 102 alone; 3. Two are counted around each text.
    assert sizes(sim) == [1, 1, 1, 3, 3]
    for request in sim.requests:
        counted = sum(len(text.encode()) + 2 for text in request.body["input"])
        assert counted <= 20 or len(request.body["input"]) == 1
        assert len(request.body["input"]) <= 3
    alone = [model.invoke(text).vectors[0] for text in texts]
    assert together.vectors == alone
    assert asyncio.run(model.ainvoke(texts)).vectors == alone
    (batched,) = model.batch([texts])
    (gathered,) = asyncio.run(model.abatch([texts]))
    assert batched.vectors == gathered.vectors == alone
    assert len(together.attempts) == len(batched.attempts) == len(gathered.attempts) == 5
    assert together.tokens == batched.tokens == sum(model.invoke(text).tokens for text in texts)
    assert together.request_id == together.attempts[0].request_id


def test_by_default_a_request_stays_below_openais_limit_of_tokens(sim, model) -> None:
    texts = ["word " * 10_000] * 13
    model.invoke(texts, dimensions=2)
    assert sizes(sim) == [3, 5, 5]
    sim.forget()
    Embeddings("e", api_key=CANARY, base_url=sim.base_url, max_batch_tokens=None).invoke(texts, dimensions=2)
    assert sizes(sim) == [13]


async def test_the_requests_of_one_call_are_under_way_together(sim) -> None:
    model = Embeddings("e", api_key=CANARY, base_url=sim.base_url, max_batch_inputs=1, max_retries=0)
    texts = [str(n) for n in range(8)]
    sim.on("e", faults.hang())
    task = asyncio.create_task(model.ainvoke(texts))
    await asyncio.to_thread(sim.wait_for, 8)
    task.cancel()
    await asyncio.to_thread(sim.wait_aborted, 8)
    sim.forget()
    waiting = asyncio.create_task(asyncio.to_thread(model.invoke, texts))
    await asyncio.to_thread(sim.wait_for, 8)
    sim.stop()
    with pytest.raises(errors.APIConnectionError):
        await waiting


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_batch_inputs": 0}, "max_batch_inputs must be a whole number from 1 on, not 0"),
        ({"max_batch_inputs": None}, "max_batch_inputs must be"),
        ({"max_batch_tokens": True}, "max_batch_tokens must be"),
        ({"max_batch_tokens": 1.5}, "max_batch_tokens must be"),
        ({"idle_timeout": 1}, "about streams"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(options, words) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        Embeddings("e", api_key=CANARY, **options)


def test_one_failed_request_fails_the_call_and_says_why(sim) -> None:
    model = Embeddings("e", api_key=CANARY, base_url=sim.base_url, max_batch_inputs=1, max_retries=0)
    for ask in (model.invoke, lambda texts: asyncio.run(model.ainvoke(texts))):
        sim.on("e", faults.status(400), times=1)
        with pytest.raises(errors.BadRequestError):
            ask(["a", "b", "c"])
        sim.clear()
    sim.on("e", faults.status(400), times=1)
    results = model.batch([["a", "b"], ["c"]], return_exceptions=True, max_concurrency=1)
    assert isinstance(results[0], errors.BadRequestError)
    assert len(results[1].vectors) == 1


def test_vectors_of_different_models_are_no_answer_together(sim) -> None:
    other = Embeddings("other", api_key=CANARY, base_url=sim.base_url)
    model = Embeddings("e", api_key=CANARY, base_url=sim.base_url, max_batch_inputs=1, max_retries=0).with_fallbacks([other])
    for ask in (model.invoke, lambda texts: asyncio.run(model.ainvoke(texts)), lambda texts: model.batch([texts])):
        sim.on("e", faults.status(500), times=1)
        with pytest.raises(errors.MalformedResponseError, match="do not compare: give alternatives of one model") as raised:
            ask(["a", "b"])
        assert raised.value.attempts == 3
        sim.clear()
    (result,) = model.batch([["a", "b"]], return_exceptions=True)
    assert len(result.vectors) == 2


def test_a_server_without_base64_is_asked_for_floats(sim) -> None:
    Embeddings("e", api_key=CANARY, base_url=sim.base_url, encoding_format="float").invoke("a")
    Embeddings("e", api_key=CANARY, base_url=sim.base_url).invoke("a", encoding_format="float")
    assert [request.body["encoding_format"] for request in sim.requests] == ["float", "float"]
    sim.on("e", faults.status(200, body={"data": [{"index": 0, "embedding": [0.5, -1]}]}))
    assert Embeddings("e", api_key=CANARY, base_url=sim.base_url).invoke("a").vectors == [[0.5, -1]]


def test_a_long_reply_is_read_aside_and_is_the_same(sim, model) -> None:
    texts = [f"text {n}" for n in range(300)]
    long = model.invoke(texts, dimensions=2000)
    assert long.vectors[299] == model.invoke("text 299", dimensions=2000).vectors[0]
