"""`Embeddings`: one vector for each text, in order, or an error."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from seawall import errors
from seawall.llm import Embeddings
from seawall.simulator import Simulator, faults


@pytest.fixture
def model(sim: Simulator) -> Embeddings:
    return Embeddings("e", api_key="k", base_url=sim.base_url)


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
    assert [len(request.body["input"]) for request in sim.requests] == [2048, 2]
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
    other = Embeddings("other", api_key="k", base_url=sim.base_url)
    assert model.with_retry(wait=0).with_fallbacks([other]).invoke("a").model == "other"
    assert sim.count("e") == 3
    sim.on("e", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        model.with_retry().invoke("a")
    assert sim.count("e") == 4
    with pytest.raises(errors.ConfigurationError, match="input is no parameter"):
        model.batch(["a"], input="b")
