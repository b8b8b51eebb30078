"""`Chat` where nothing goes wrong but the caller: what is sent, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import copy
import ctypes
import pickle
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from langchain_core.messages import HumanMessage

from seawall import Cache, CircuitBreaker
from seawall.errors import BadRequestError, ConfigurationError, InternalServerError
from seawall.llm import Chat, Reply
from seawall.simulator import Simulator, faults


def test_a_reply_says_who_answered_after_how_many_attempts_and_seconds_and_for_how_many_tokens(sim, chat) -> None:
    sim.on("m", faults.status(500), times=1)
    reply = chat().with_retry(wait=0.01).invoke("hello")
    assert "hello" in reply.content
    assert (reply.model, reply.finish_reason, reply.alternative) == ("m", "stop", 0)
    assert reply.usage["total_tokens"] == reply.usage["prompt_tokens"] + reply.usage["completion_tokens"] > 0
    assert reply.attempts == 2
    assert [(a.outcome, a.status, a.request_id) for a in reply.attempts] == [
        ("InternalServerError", 500, "req_1"),
        ("ok", None, "req_2"),
    ]
    assert reply.attempts[0].waited == pytest.approx(0.01)
    assert reply.seconds >= 0.01
    assert reply.request_id == reply.headers["x-request-id"] == "req_2"
    assert reply.raw["choices"][0]["message"]["content"] == reply.content == str(reply)


def test_every_way_to_ask_gives_the_same_answer(chat) -> None:
    model = chat()
    expected = model.invoke("hello").content

    async def asked() -> list[str]:
        pieces = [piece.content async for piece in model.astream("hello")]
        return [(await model.ainvoke("hello")).content, "".join(pieces), (await model.abatch(["hello"]))[0].content]

    assert asyncio.run(asked()) == [expected] * 3
    assert "".join(piece.content for piece in model.stream("hello")) == expected
    assert model.batch(["hello"])[0].content == expected


def test_the_key_and_the_base_url_come_from_the_argument_or_else_the_environment(monkeypatch) -> None:
    with Simulator(api_keys=["right-key"]) as sim, Simulator() as other:
        monkeypatch.setenv("OPENAI_API_BASE", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "right-key")
        Chat("m").invoke("x")
        assert sim.count() == 1
        monkeypatch.setenv("OPENAI_BASE_URL", "")  # set and empty is not set
        Chat("m").invoke("x")
        monkeypatch.setenv("OPENAI_BASE_URL", other.base_url)
        Chat("m").invoke("x")
        assert (sim.count(), other.count()) == (2, 1)
        monkeypatch.setenv("OPENAI_API_KEY", "wrong-key")
        Chat("m", api_key="right-key", base_url=sim.base_url + "/").invoke("x")
        assert sim.requests[-1].fault == "ok"


def test_a_prompt_and_messages_in_every_form_reach_the_server_as_the_api_has_them(sim, chat) -> None:
    hello = {"role": "user", "content": "hello"}
    for asked in ("hello", hello, ("user", "hello"), ["hello"], [("human", "hello")], (hello,)):
        chat().invoke(asked)
        assert sim.requests[-1].body["messages"] == [hello], asked
    chat().invoke([("system", "be brief"), hello, ("ai", "yes?"), {"role": "tool", "content": [{"type": "text", "text": "ü"}]}])
    roles = [message["role"] for message in sim.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "tool"]


def test_any_text_arrives_as_it_was(sim, chat) -> None:
    text = '中文 \x00 \u2028 🎉 "quoted" \\ \n' + "long " * 200_000
    chat().invoke(text)
    assert sim.requests[-1].body["messages"][0]["content"] == text


JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**63), 2**64 - 1)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    max_leaves=20,
)


@given(value=JSON)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_arrives_as_it_was(sim, chat, value) -> None:
    chat(mine=value).invoke([{"role": "user", "content": "x", "more": (value,)}], yours=[value])
    body = sim.requests[-1].body
    assert (body["mine"], body["yours"], body["messages"][0]["more"]) == (value, [value], [value])


# Long runs of characters that need no escape, with ones that do among them.
PIECES = strategies.text() | strategies.sampled_from(['"', "\\", "\0", "\x1f", "\x7f", "é", "a" * 70])
TEXTS = strategies.lists(PIECES).map("".join)


@given(text=TEXTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_arrives_as_a_message_of_the_user(sim, chat, text) -> None:
    model = chat(cache=Cache())
    assert not model.invoke(text).cached
    assert sim.requests[-1].body["messages"] == [{"role": "user", "content": text}]
    assert model.invoke([{"role": "user", "content": text}]).cached


def test_parameters_of_a_request_win_over_those_of_the_model(sim, chat) -> None:
    model = chat(
        temperature=0.5,
        max_tokens=5,
        organization="org",
        project="pro",
        default_headers={"x-mine": "1"},
        default_query={"v": "2"},
    )
    assert model.invoke("x", temperature=1, stop=["."]).finish_reason == "length"
    request = sim.requests[-1]
    assert {name: request.body[name] for name in ("model", "temperature", "max_tokens", "stop")} == {
        "model": "m",
        "temperature": 1,
        "max_tokens": 5,
        "stop": ["."],
    }
    sent = {name: request.headers[name] for name in ("openai-organization", "openai-project", "x-mine")}
    assert sent == {"openai-organization": "org", "openai-project": "pro", "x-mine": "1"}


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("input", "error", "words"),
    [
        (None, TypeError, "input must be a text.*not NoneType"),
        (b"bytes", TypeError, "not bytes"),
        ([], ValueError, "empty"),
        ([None], TypeError, r"input\[0\] must be a dict.*not NoneType"),
        ({}, ValueError, "no role"),
        ([{"role": "user", "content": "a"}, {"content": "x"}], ValueError, r"input\[1\] has no role"),
        ([(["a"], "b")], TypeError, r"input\[0\]"),
        (HumanMessage("x"), TypeError, r"HumanMessage.*seawall\.langchain"),
        ([HumanMessage("x")], TypeError, r"HumanMessage.*seawall\.langchain"),
        ("half \ud800", ValueError, r"messages\[0\]\.content holds a lone surrogate"),
        ([{"role": "user", "content": object()}], TypeError, r"messages\[0\]\.content is a object"),
        ([{"role": "user", 1: 2}], TypeError, "keys are text"),
        ([{"role": "user", "content": float("nan")}], ValueError, "nan"),
        ([{"role": "user", "content": 2**70}], ValueError, "too large"),
        ([{"role": "user", "content": CYCLE}], ValueError, "holds itself"),
    ],
)
def test_an_input_that_is_none_is_refused_by_name_before_anything_is_sent(sim, chat, input, error, words) -> None:
    model = chat()
    for ask in (model.invoke, model.stream, model.astream, lambda given: asyncio.run(model.ainvoke(given))):
        with pytest.raises(error, match=words):
            ask(input)
    assert sim.count() == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stream", r"stream\(\)"),
        ("model", "first argument"),
        ("messages", "first argument"),
        ("max_retries", r"Chat\(…, max_retries=…\)"),
        ("http_client", "transport"),
        ("verify", r"ca_bundle=…"),
        ("idle_timeout", r"Chat\(…, idle_timeout=…\)"),
        ("api_key", r"Chat\(…, api_key=…\)"),
        ("openai_api_key", r"Chat\(…, api_key=…\)"),
        ("config", "LangChain"),
    ],
)
def test_what_is_said_elsewhere_is_no_parameter_of_a_request(sim, chat, name, words) -> None:
    model, given = chat(), {name: "x"}
    for ask in (model.invoke, model.stream, model.astream, lambda _, **p: model.batch(["x"], **p)):
        with pytest.raises(ConfigurationError, match=f"{name} is no parameter.*{words}"):
            ask("x", **given)
    for ask in (model.ainvoke, lambda _, **p: model.abatch(["x"], **p)):
        with pytest.raises(ConfigurationError, match=words):
            asyncio.run(ask("x", **given))
    assert sim.count() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": ""}, "model must be"),
        ({"model": None}, "model must be"),
        ({"model": 5}, "model must be a str"),
        ({"timeout": -1}, "timeout must be"),
        ({"timeout": 0}, "more than zero"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"timeout": timedelta(seconds=-1)}, "timeout must be"),
        ({"first_token_timeout": 0}, "first_token_timeout must be more than zero"),
        ({"idle_timeout": float("nan")}, "idle_timeout must be"),
        ({"idle_timeout": "soon"}, "idle_timeout must be"),
        ({"first_token_timeout": 61}, r"first_token_timeout \(61 s\) is longer than timeout \(60 s\)"),
        ({"idle_timeout": timedelta(seconds=3), "timeout": 2}, r"idle_timeout \(3 s\) is longer than timeout \(2 s\)"),
        ({"max_retries": -1}, "max_retries must be"),
        ({"max_retries": True}, "max_retries must be"),
        ({"max_response_bytes": -1}, "max_response_bytes must be"),
        ({"default_headers": ["a"]}, "default_headers must be a dict"),
        ({"default_headers": {"a": 1}}, r"default_headers\['a'\] must be a str"),
        ({"default_headers": {"a b": "1"}}, "no name of an HTTP header"),
        ({"default_headers": {"content-length": "1"}}, "set by the client itself"),
        ({"circuit": True}, "circuit must be a seawall.CircuitBreaker"),
        ({"organization": 5}, "organization must be a str"),
        ({"stream": True}, r"stream\(\)"),
        ({"openai_api_base": "x"}, "base_url"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_when_it_is_written(chat, options, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chat(**options)


def test_alternatives_are_tried_in_order_and_the_reply_says_which_answered(sim, chat) -> None:
    sim.on("a", faults.status(500))
    sim.on("b", faults.unknown_model())
    reply = chat("a", max_retries=1).with_retry(stop_after_attempt=2, wait=0).with_fallbacks([chat("b"), chat("c")]).invoke("x")
    assert (reply.model, reply.asked_model, reply.alternative) == ("c", "c", 2)
    assert [attempt.model for attempt in reply.attempts] == ["a", "a", "b", "c"]
    assert sim.count() == 4


def test_when_all_alternatives_fail_the_first_error_tells_of_the_others(sim, chat) -> None:
    sim.on("*", faults.status(500))
    with pytest.raises(InternalServerError) as raised:
        chat("a", max_retries=0).with_fallbacks([chat("b", max_retries=0)]).invoke("x")
    assert raised.value.model == "a"
    assert [type(other) for other in raised.value.alternatives] == [InternalServerError]
    assert "1 alternative failed too" in raised.value.__notes__[0]


def test_a_wrong_request_is_wrong_anywhere_and_a_wrong_key_only_here(sim, chat) -> None:
    sim.on("a", faults.status(400), times=1)
    sim.on("a", faults.status(401), after=1)
    with pytest.raises(BadRequestError):
        chat("a").with_fallbacks([chat("b")]).invoke("x")
    assert sim.count("b") == 0
    assert chat("a").with_fallbacks([chat("b"), chat("c", api_key="another-key")]).invoke("x").model == "c"
    assert sim.count("b") == 0


@pytest.mark.parametrize("fallbacks", [None, "m", ["m"], {"a": 1}])
def test_alternatives_that_are_no_models_are_refused(chat, fallbacks) -> None:
    with pytest.raises(ConfigurationError, match="fallbacks"):
        chat().with_fallbacks(fallbacks)
    with pytest.raises(ConfigurationError, match="fallbacks must be a list"):
        chat().with_fallbacks(chat())
    with pytest.raises(ConfigurationError, match="63 alternatives"):
        chat().with_fallbacks([chat()] * 64)
    with pytest.raises(TypeError, match="exceptions_to_handle"):
        chat().with_fallbacks([chat()], exceptions_to_handle=5)


def test_a_models_breaker_opens_and_turns_calls_away_without_a_request(sim, chat) -> None:
    sim.on("m", faults.status(500))
    breaker = CircuitBreaker(2)
    model = chat(circuit=breaker, max_retries=0)
    for _ in range(2):
        with pytest.raises(InternalServerError):
            model.invoke("x")
    assert breaker.state == "open"
    assert model.with_fallbacks([chat("other")]).invoke("x").model == "other"
    assert sim.count("m") == 2


def test_models_copy_replies_pickle_and_a_model_with_its_key_does_not(chat) -> None:
    model = chat()
    assert copy.deepcopy({"model": [model]})["model"][0].invoke("x").content == copy.copy(model).invoke("x").content
    with pytest.raises(TypeError, match="API key"):
        pickle.dumps(model)
    reply = model.invoke("x")
    again: Reply = pickle.loads(pickle.dumps(reply))
    for name in (
        "content",
        "model",
        "attempts",
        "seconds",
        "usage",
        "finish_reason",
        "request_id",
        "headers",
        "raw",
        "asked_model",
    ):
        assert getattr(again, name) == getattr(reply, name), name
    assert copy.deepcopy(reply).content == reply.content


def test_every_further_event_loop_works_in_turn_and_in_threads(chat) -> None:
    model = chat()
    assert [asyncio.run(model.ainvoke("x")).attempts for _ in range(3)] == [1, 1, 1]
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(model.ainvoke("x")).attempts == 1
    loop.close()

    async def many() -> list[str]:
        return [reply.content for reply in await asyncio.gather(*(model.ainvoke(f"q{n}") for n in range(20)))]

    answers: dict[int, list[str]] = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: asyncio.run(many())})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert [f"q{k} " in answer for k, answer in enumerate(answers[n])] == [True] * 20


def test_a_call_goes_on_while_someone_else_holds_the_interpreter(chat) -> None:
    model, hold = chat(), ctypes.PyDLL(None).usleep  # PyDLL keeps the GIL

    async def asked() -> tuple[float, float]:
        task = asyncio.create_task(model.ainvoke("x"))
        await asyncio.sleep(0)
        began = time.monotonic()
        hold(500_000)
        held = time.monotonic() - began
        return (await task).seconds, held

    asyncio.run(model.ainvoke("a connection is open now"))
    seconds, held = asyncio.run(asked())
    assert seconds < held


def test_threads_share_a_model(chat: Callable[..., Chat]) -> None:
    model, answers = chat().with_retry(), {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: model.invoke(f"q{n}").content})) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"q{n} " in answers[n] for n in range(16))


def test_a_forked_child_asks_on_its_own_while_its_parent_goes_on(chat, program) -> None:
    process = program(
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from seawall.llm import Chat\n"
        "chat = Chat('m', api_key='k', base_url=base_url)\n"
        "chat.invoke('x')\n"
        "child = os.fork()\n"
        "who = 'parent' if child else 'child'\n"
        "for n in range(50):\n"
        "    assert f'{who} {n} ' in chat.invoke(f'{who} {n}').content\n"
        "if not child: os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "print('both')\n"
    )
    out, err = process.communicate(timeout=60)
    assert out == "both\n", err


def test_the_process_ends_while_a_call_hangs_in_a_daemon_thread(sim, program) -> None:
    sim.on("m", faults.hang())
    process = program(
        "import sys, threading\n"
        "from seawall.llm import Chat\n"
        "chat = Chat('m', api_key='k', base_url=base_url)\n"
        "threading.Thread(target=chat.invoke, args=('x',), daemon=True).start()\n"
        "sys.stdin.read()\n"
    )
    sim.wait_for(1)
    _, err = process.communicate("", timeout=60)
    assert (process.returncode, err) == (0, "")
