"""Callbacks, events and the cache see each attempt once, and no key."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.load import dumpd, dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers import BaseTracer
from pydantic import BaseModel

from _ways import FAST, WAYS, asked
from seawall.langchain import resilient
from seawall.simulator import faults


class Heard(BaseCallbackHandler):
    """What a handler was told, tokens in a row as one."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.text = ""
        self.usage: Any = None

    def _heard(self, name: str) -> None:
        if self.events[-1:] != [name]:
            self.events.append(name)

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self._heard("start")

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **kwargs: Any) -> None:
        assert chunk is not None
        self.text += token
        self._heard("token")

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.usage = response.generations[0][0].message.usage_metadata
        self._heard("end")

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._heard(f"error {type(error).__name__}")


async def collected(pieces: Any) -> list[Any]:
    return [piece async for piece in pieces]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_call_without_trouble_is_one_run_of_the_model(sim, llm, way, streaming, wrapped):
    heard = Heard()
    model = llm(streaming=True) if streaming else llm()
    await asked(way, model.with_retry() if wrapped else model, {"callbacks": [heard]})
    streams = streaming or "stream" in way
    assert heard.events == (["start", "token", "end"] if streams else ["start", "end"])
    assert heard.text.startswith("[gpt-4] hello") == streams
    assert heard.usage["total_tokens"] > 0
    assert [request.stream for request in sim.requests] == [streams]


@pytest.mark.parametrize("way", WAYS)
async def test_each_attempt_is_told_from_its_beginning_to_its_end(sim, llm, way):
    sim.on("gpt-4", faults.status(500), times=1)
    heard = Heard()
    await asked(way, llm().with_retry(**FAST), {"callbacks": [heard]})
    tokens = ["token"] if "stream" in way else []
    assert heard.events == ["start", "error InternalServerError", "start", *tokens, "end"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_failure_is_told_once(sim, llm, way):
    sim.on("gpt-4", faults.status(401))
    heard = Heard()
    with pytest.raises(Exception, match="401"):
        await asked(way, llm().with_retry(), {"callbacks": [heard]})
    assert heard.events == ["start", "error AuthenticationError"]


def test_tokens_are_counted_by_langchains_own_callback(llm):
    with get_usage_metadata_callback() as counted:
        answers = llm().with_fallbacks([llm("b")]).batch(["one", "two"])
    total = sum(answer.usage_metadata["total_tokens"] for answer in answers)
    assert counted.usage_metadata["gpt-4"]["total_tokens"] == total


@pytest.mark.parametrize(
    "made",
    [
        lambda llm: llm(),
        lambda llm: llm().with_retry().with_fallbacks([llm("b")]).bind(stop=["x"]),
        lambda llm: ChatPromptTemplate.from_template("{x}") | llm().with_retry() | StrOutputParser(),
        lambda llm: resilient(llm()),
        lambda llm: llm().with_fallbacks(["sorry"]),
    ],
    ids=["plain", "wrapped", "chain", "resilient", "mixed"],
)
async def test_its_events_begin_stream_and_end(llm, made):
    events = [event async for event in made(llm).astream_events("hello", version="v2")]
    of_model = [event for event in events if event["event"].startswith("on_chat_model")]
    names = [event["event"].removeprefix("on_chat_model_") for event in of_model]
    assert (names[0], names[-1]) == ("start", "end")
    assert set(names[1:-1]) == {"stream"}
    text = "".join(event["data"]["chunk"].content for event in of_model[1:-1])
    assert text == of_model[-1]["data"]["output"].content
    assert text.startswith("[gpt-4] hello")
    assert of_model[-1]["data"]["output"].usage_metadata["total_tokens"] > 0
    assert events[-1]["event"] in ("on_chain_end", "on_chat_model_end")


async def test_a_cached_answer_costs_no_request(sim, llm, cache):
    first = llm().invoke("hello")
    assert (llm().invoke("hello").content, (await llm().ainvoke("hello")).content) == (first.content,) * 2
    assert llm(streaming=True, temperature=0.5).invoke("hello").content == llm(temperature=0.5).invoke("hello").content
    assert [answer.content for answer in llm().batch(["hello", "hello"])] == [first.content] * 2
    assert sim.count() == 2


def test_the_cache_keeps_apart_what_may_answer_differently(sim, llm, cache):
    elsewhere = sim.base_url.replace("127.0.0.1", "localhost")
    different = [
        llm(),
        llm("b"),
        llm(base_url=elsewhere),
        llm(temperature=0.5),
        llm(organization="org"),
        llm(project="proj"),
        llm(default_headers={"x-tenant": "a"}),
        llm(default_headers={"x-tenant": "b"}),
        llm(default_query={"deployment": "a"}),
        llm(extra_body={"top_k": 1}),
        llm().bind(stop=["x"]),
        llm().with_fallbacks([llm("b")]),
        llm().with_fallbacks([llm("b", base_url=elsewhere)]),
    ]
    for number, model in enumerate(different, 1):
        model.invoke("hello")
        assert sim.count() == number, model


def test_an_alternatives_cached_answer_is_not_given_for_the_model_alone(sim, llm, cache):
    sim.on("gpt-4", faults.status(500), times=1)
    assert llm(max_retries=0).with_fallbacks([llm("b")]).invoke("hello").response_metadata["served_by"] == "b"
    assert llm(max_retries=0).invoke("hello").response_metadata["served_by"] == "gpt-4"


class Answer(BaseModel):
    """An answer."""

    text: str


def test_the_key_is_nowhere(sim, llm, key, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    seen: list[Any] = []

    class Tracer(BaseTracer):
        def _persist_run(self, run: Any) -> None:
            seen.append(run.model_dump_json() if hasattr(run, "model_dump_json") else run.json())

    headers = {"authorization": f"Bearer {key}", "x-echo": "ok"}
    sim.on("gpt-4", faults.status(500, f"your key {key} is fine, we are not", headers=headers))
    model = llm(default_headers={"x-proxy-key": key}).with_retry(stop_after_attempt=2, wait=0.001)
    whole = model.with_fallbacks([llm("b"), "sorry"])
    for one in (
        model,
        model.bind(stop=["x"]),
        whole,
        model.with_structured_output(Answer),
        llm(max_retries=0).with_config(tags=["x"]),
    ):
        seen += [repr(one), str(one), dumps(one), str(dumpd(one))]
        try:
            one.invoke("hello", {"callbacks": [Tracer()]})
        except Exception as error:
            seen += [repr(error), str(error), traceback.format_exc(), str(error.__dict__)]
    seen += [str(model.model_dump()), model.model_dump_json(), str(model._identifying_params), model._get_llm_string()]
    seen += [caplog.text, *capsys.readouterr()]
    assert len(seen) > 30
    assert [text for text in seen if key in text] == []
