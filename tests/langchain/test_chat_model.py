"""`ChatOpenAI` as a langchain-core chat model: arguments, requests, answers, copies."""

from __future__ import annotations

import asyncio
import copy
import pickle
from datetime import timedelta

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel

from seawall import CircuitBreaker
from seawall.errors import CircuitBreakerError, ConfigurationError, InternalServerError
from seawall.langchain import ChatOpenAI
from seawall.simulator import Simulator, faults


def test_an_answer_says_who_gave_it_after_how_many_attempts(sim, llm):
    sim.on("gpt-4", faults.rate_limit(retry_after_ms=1), times=2)
    answer = llm().invoke("hello")
    assert isinstance(answer, AIMessage)
    assert answer.content.startswith("[gpt-4] hello")
    assert answer.usage_metadata["total_tokens"] == answer.usage_metadata["input_tokens"] + answer.usage_metadata["output_tokens"]
    told = answer.response_metadata
    assert (told["model_name"], told["served_by"], told["attempts"], told["finish_reason"]) == ("gpt-4", "gpt-4", 3, "stop")
    assert [attempt["outcome"] for attempt in told["seawall"]["attempts"]] == ["RateLimitError", "RateLimitError", "ok"]
    assert told["seawall"]["alternative"] == 0
    assert sim.count() == 3


def test_unwrapped_it_retries_as_often_as_max_retries_says(sim, llm):
    sim.on("gpt-4", faults.rate_limit(retry_after_ms=1))
    for arguments, requests in (({}, 3), ({"max_retries": 0}, 1), ({"max_retries": 1}, 2)):
        sim.forget()
        with pytest.raises(Exception, match="429"):
            llm(**arguments).invoke("hello")
        assert sim.count() == requests


def test_every_kind_of_message_reaches_the_server(sim, llm):
    call = {"name": "add", "args": {"a": 1}, "id": "call-1", "type": "tool_call"}
    llm().invoke(
        [
            SystemMessage("be brief"),
            ("human", "one?"),
            HumanMessage(
                [{"type": "text", "text": "and this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
            ),
            AIMessage("", tool_calls=[call]),
            ToolMessage("2", tool_call_id="call-1"),
        ]
    )
    sent = sim.requests[0].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "user", "assistant", "tool"]
    assert sent[2]["content"][1]["image_url"] == {"url": "data:image/png;base64,AA"}
    assert sent[3]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert sent[4]["tool_call_id"] == "call-1"


def test_arguments_become_parameters_under_the_apis_names(sim, llm):
    model = llm(
        temperature=0.5,
        max_tokens=9,
        stop=["x"],
        seed=7,
        n=1,
        logit_bias={"50256": -100},
        reasoning_effort="low",
        model_kwargs={"user": "me"},
        extra_body={"top_k": 4},
        store=True,
    )
    model.invoke("hello", temperature=0.75, max_tokens=5)
    sent = sim.requests[0].body
    assert sent.pop("messages") == [{"role": "user", "content": "hello"}]
    assert sent == {
        "model": "gpt-4",
        "temperature": 0.75,
        "max_completion_tokens": 5,
        "stop": ["x"],
        "seed": 7,
        "n": 1,
        "logit_bias": {"50256": -100},
        "reasoning_effort": "low",
        "user": "me",
        "top_k": 4,
        "store": True,
    }


def test_what_was_not_given_is_not_sent(sim, llm):
    llm(temperature=None, stop=None, http_client=None, use_responses_api=False, disabled_params={}, include=None).invoke("hello")
    assert set(sim.requests[0].body) == {"model", "messages"}


def test_headers_and_query_are_sent_along(sim, llm):
    llm(default_headers={"x-team": "sea"}, default_query={"v": "1"}, organization="org", project="proj").invoke("hello")
    headers = sim.requests[0].headers
    assert (headers["x-team"], headers["openai-organization"], headers["openai-project"]) == ("sea", "org", "proj")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_client", object()),
        ("http_async_client", object()),
        ("root_client", object()),
        ("openai_proxy", "ftp://proxy"),
        ("ca_bundle", "nowhere.pem"),
        ("client_cert", ("nowhere.pem", "nowhere.key")),
        ("max_response_bytes", 0),
        ("idempotency_key", True),
        ("use_responses_api", True),
        ("previous_response_id", "r"),
        ("reasoning", {"effort": "low"}),
        ("output_version", "responses/v1"),
        ("include_response_headers", True),
        ("stream_chunk_timeout", 3),
        ("tiktoken_model_name", "gpt-4"),
        ("disabled_params", {"seed": None}),
        ("stream", True),
        ("extra_headers", {"a": "b"}),
        ("model_kwargs", {"stream": True}),
        ("model_kwargs", {"timeout": 3}),
        ("model_kwargs", {"proxy": "http://proxy"}),
        ("model_kwargs", {"circuit": None}),
        ("max_retries", -1),
        ("timeout", 0),
        ("first_token_timeout", 0),
        ("idle_timeout", 61),
        ("base_url", "nope"),
        ("api_key", ""),
    ],
)
def test_an_argument_without_a_meaning_here_is_refused_by_name(llm, name, value):
    named = next(iter(value)) if name == "model_kwargs" else name.removeprefix("openai_")
    with pytest.raises(ConfigurationError, match="API key" if value == "" else named):
        llm(**{name: value})


@pytest.mark.parametrize(
    "arguments", [{"temperature": "hot"}, {"timeout": "soon"}, {"timeout": (1, 2)}, {"n": 0}, {"circuit": 5}]
)
def test_a_wrong_type_is_refused_when_it_is_written(llm, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        llm(**arguments)


def test_a_misspelt_argument_warns_and_a_parameter_of_the_api_does_not(sim, llm):
    with pytest.warns(UserWarning, match="temperture"):
        llm(temperture=0.5)
    llm(prompt_cache_key="k", user="me").invoke("hello")  # warnings are errors here
    assert sim.requests[0].body["prompt_cache_key"] == "k"


def test_one_argument_with_two_names_cannot_be_given_two_values(llm):
    assert llm(model_name="gpt-4").model_name == "gpt-4"
    with pytest.raises(ConfigurationError, match="model and model_name"):
        llm(model_name="other")
    with pytest.raises(ConfigurationError, match="timeout and request_timeout"):
        llm(timeout=1, request_timeout=2)


@pytest.mark.parametrize(
    "name",
    [
        *("first_token_timeout", "idle_timeout", "max_retries", "base_url", "api_key", "extra_headers", "extra_query"),
        *("organization", "project", "default_headers", "default_query", "circuit", "proxy", "ca_bundle", "client_cert"),
        *("max_response_bytes", "idempotency_key", "on_interrupt", "http_client"),
    ],
)
def test_what_a_call_cannot_change_is_refused_by_the_call_and_not_sent(sim, llm, name):
    with pytest.raises(ConfigurationError, match=name):
        llm().invoke("hello", **{name: 1})
    with pytest.raises(ConfigurationError, match=name):
        llm().bind(**{name: 1}).with_fallbacks([llm("b")])
    assert sim.count() == 0


def test_the_environment_is_read_once(sim, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_API_BASE", sim.base_url)
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    model = ChatOpenAI(model="gpt-4")
    assert model.openai_api_key.get_secret_value() == key
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    model.with_retry(stop_after_attempt=1).invoke("hello")
    assert sim.requests[0].headers["openai-organization"] == "org"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        ChatOpenAI(model="gpt-4")


def test_several_choices_are_never_streamed(sim, llm):
    pieces = list(llm(n=2).stream("hello"))
    assert len(pieces) == 1
    assert llm(n=2, streaming=True).invoke("hello").content.startswith("[gpt-4]")
    assert list(llm().stream("hello", n=2))[0].content.startswith("[gpt-4]")
    assert len(llm(n=2).generate([[HumanMessage("hello")]]).generations[0]) == 2
    assert [request.stream for request in sim.requests] == [False] * 4


def test_each_asyncio_run_works(sim, llm):
    model = llm()
    for number in range(1, 5):

        async def ask() -> list[AIMessage]:
            return await asyncio.gather(*(model.ainvoke("hello") for _ in range(3)))

        assert [answer.content[:7] for answer in asyncio.run(ask())] == ["[gpt-4]"] * 3
        assert sim.count() == 3 * number


async def test_a_cancelled_call_cuts_its_request(sim, llm):
    sim.on("gpt-4", faults.hang())
    task = asyncio.create_task(llm().ainvoke("hello"))
    await asyncio.to_thread(sim.wait_for, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(sim.wait_aborted, 1)


def test_a_breaker_of_its_own_sees_attempts(sim, llm):
    sim.on("gpt-4", faults.status(500))
    model = llm(circuit=CircuitBreaker(2, 60)).with_retry(stop_after_attempt=2, wait=0)
    with pytest.raises(InternalServerError):
        model.invoke("hello")
    with pytest.raises(CircuitBreakerError, match="gpt-4"):
        model.invoke("hello")
    assert sim.count() == 2


def test_it_composes_with_prompts_parsers_and_maps(llm):
    chain = ChatPromptTemplate.from_messages([("system", "be {how}"), ("human", "{question}")]) | llm() | StrOutputParser()
    assert chain.invoke({"how": "brief", "question": "why?"}).startswith("[gpt-4] why?")
    both = RunnableParallel(one=llm("a"), two=llm("b")).invoke("hello")
    assert {name: answer.response_metadata["served_by"] for name, answer in both.items()} == {"one": "a", "two": "b"}
    assert llm().invoke(ChatPromptTemplate.from_template("{x}").invoke({"x": "hi"})).content.startswith("[gpt-4] hi")


COPIES = [copy.copy, copy.deepcopy, lambda model: model.model_copy(), lambda model: model.model_copy(deep=True)]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_has_the_same_policies_and_answers(sim, llm, copied):
    sim.on("gpt-4", faults.status(500))
    model = llm(circuit=CircuitBreaker(50)).with_retry(stop_after_attempt=2, wait=0).with_fallbacks([llm("b")])
    again = copied(model)
    assert isinstance(again, ChatOpenAI)
    assert again.invoke("hello").response_metadata["served_by"] == "b"
    assert sim.count("gpt-4") == 2
    again.model_name = "c"
    assert model.model_name == "gpt-4"


def test_a_field_set_or_updated_later_counts(sim, llm):
    model = llm()
    model.invoke("hello")
    model.temperature = 0.5
    model.invoke("hello")
    model.with_retry().model_copy(update={"model_name": "b"}).invoke("hello")
    assert [(request.model, request.body.get("temperature")) for request in sim.requests] == [
        ("gpt-4", None),
        ("gpt-4", 0.5),
        ("b", 0.5),
    ]


def test_an_unwrapped_model_and_its_bindings_pickle(llm):
    for model in (llm(temperature=0.5), llm().bind(stop=["x"])):
        assert pickle.loads(pickle.dumps(model)).invoke("hello").content.startswith("[gpt-4]")


@pytest.mark.parametrize("timeout", [30, 2.5, timedelta(seconds=5), None])
def test_it_dumps_without_a_warning(llm, timeout):
    dumped = llm(timeout=timeout).model_dump()
    assert dumped["request_timeout"] == timeout
    assert llm().model_dump()["request_timeout"] == 60


def test_its_repr_shows_the_policies(llm):
    shown = repr(llm().with_retry(stop_after_attempt=4).with_fallbacks([llm("b")]))
    assert "retry=Retry(4" in shown
    assert "fallbacks=['b']" in shown


def test_what_langchain_asks_of_a_model_is_told(llm):
    model = llm(temperature=0.5)
    assert isinstance(model, BaseChatModel)
    told = model._get_ls_params(stop=["x"], model="other")
    assert (told["ls_provider"], told["ls_model_name"], told["ls_temperature"]) == ("openai", "other", 0.5)
    assert model._llm_type == "openai-chat"
    assert model.lc_secrets == {"openai_api_key": "OPENAI_API_KEY"}


def test_two_servers_and_their_answers_stay_apart(llm):
    with Simulator(models=["gpt-4"]) as other:
        assert llm("b").invoke("hello").content
        with pytest.raises(Exception, match="404"):
            llm("b", base_url=other.base_url).invoke("hello")
