"""`with_retry` sets the one pipeline: so many requests as it says, and none that cannot help."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel

from seawall import errors
from seawall.errors import ConfigurationError
from seawall.langchain import ChatOpenAI
from seawall.simulator import faults

FAST = {"wait": 0.001}


class Answer(BaseModel):
    """An answer."""

    text: str


ONE_REQUEST = [
    (faults.status(401), errors.AuthenticationError),
    (faults.status(403), errors.PermissionDeniedError),
    (faults.status(400), errors.BadRequestError),
    (faults.status(422), errors.UnprocessableEntityError),
    (faults.unknown_model(), errors.NotFoundError),
    (faults.quota(), errors.QuotaExceededError),
    (faults.context_window(), errors.ContextWindowExceededError),
    (faults.content_filter(), errors.ContentFilterError),
]
RETRIED = [
    (faults.status(500), errors.InternalServerError),
    (faults.status(503), errors.ServiceUnavailable),
    (faults.status(408), errors.APIStatusError),
    (faults.status(409), errors.ConflictError),
    (faults.rate_limit(retry_after_ms=1), errors.RateLimitError),
    (faults.reset(), errors.APIConnectionError),
    (faults.broken_json(), errors.MalformedResponseError),
    (faults.html(), errors.MalformedResponseError),
    (faults.empty_choices(), errors.MalformedResponseError),
]


def ways(llm):
    """The same retries, said in several ways and places."""
    said = {"stop_after_attempt": 3, **FAST}
    return {
        "plain": llm().with_retry(**said),
        "broad classes": llm().with_retry(retry_if_exception_type=(errors.APIError, errors.RateLimitError, Exception), **said),
        "over max_retries": llm(max_retries=7).with_retry(**said),
        "said twice": llm().with_retry(stop_after_attempt=9, **FAST).with_retry(**said),
        "bound": llm().bind(stop=["x"]).with_retry(**said),
        "bound after": llm().with_retry(**said).bind(stop=["x"]),
        "config": llm().with_config(tags=["x"]).with_retry(**said),
        "listeners": llm().with_listeners(on_start=lambda run: None).with_retry(**said),
        "types": llm().with_types(output_type=str).with_retry(**said),
        "tools": llm().bind_tools([Answer]).with_retry(**said),
        "structured": llm().with_structured_output(Answer).with_retry(**said),
        "structured, config": llm().with_structured_output(Answer).with_config(tags=["x"]).with_retry(**said),
        "configurable": llm().configurable_fields(temperature=ConfigurableField(id="t")).with_retry(**said),
        "configured": llm().with_retry(**said).configurable_fields(temperature=ConfigurableField(id="t")),
        "a choice": llm().configurable_alternatives(ConfigurableField(id="m"), b=llm("b")).with_retry(**said),
        "streaming": llm(streaming=True).with_retry(**said),
    }


@pytest.mark.parametrize("way", list(ways(lambda *a, **k: ChatOpenAI(api_key="sk-none", **k))))
def test_stop_after_attempt_3_means_three_requests_wherever_it_is_said(sim, llm, way):
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(errors.InternalServerError) as raised:
        ways(llm)[way].invoke("hello", {"configurable": {"t": 0.5}})
    assert sim.count() == 3
    assert len(raised.value.attempts) in (1, 3)  # around a parser each attempt is a call of the model


@pytest.mark.parametrize(("fault", "error"), ONE_REQUEST, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("listed", [None, (errors.APIError,), (Exception,), (errors.APIStatusError, errors.Timeout)])
def test_what_no_retry_can_mend_costs_one_request(sim, llm, fault, error, listed):
    sim.on("gpt-4", fault)
    arguments = {} if listed is None else {"retry_if_exception_type": listed}
    with pytest.raises(error):
        llm().with_retry(stop_after_attempt=4, **FAST, **arguments).invoke("hello")
    assert sim.count() == 1


@pytest.mark.parametrize("listed", [errors.AuthenticationError, (errors.RateLimitError, errors.AuthenticationError)])
def test_naming_that_very_error_opts_in(sim, llm, listed):
    sim.on("gpt-4", faults.status(401), times=2)
    answer = llm().with_retry(retry_if_exception_type=listed, **FAST).invoke("hello")
    assert answer.response_metadata["attempts"] == 3


@pytest.mark.parametrize(("fault", "error"), RETRIED, ids=lambda value: getattr(value, "__name__", None))
async def test_what_a_retry_may_mend_is_retried_sync_and_async(sim, llm, fault, error):
    model = llm().with_retry(stop_after_attempt=2, **FAST)
    sim.on("gpt-4", fault)
    with pytest.raises(error):
        await model.ainvoke("hello")
    assert sim.count() == 2
    sim.clear()
    sim.on("gpt-4", fault, times=1)
    assert model.invoke("hello").response_metadata["attempts"] == 2


def test_only_the_listed_classes_are_retried(sim, llm):
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(errors.InternalServerError):
        llm().with_retry(retry_if_exception_type=(errors.RateLimitError, errors.Timeout), **FAST).invoke("hello")
    assert sim.count() == 1


def test_hooks_and_waits_are_those_given(sim, llm):
    told = []
    sim.on("gpt-4", faults.status(500))
    model = llm().with_retry(
        stop_after_attempt=3,
        wait=0.002,
        before_sleep=lambda state: told.append(("sleep", state.attempt_number, state.next_action.sleep)),
        after=lambda state: told.append(("after", state.attempt_number, type(state.outcome.exception()).__name__)),
    )
    with pytest.raises(errors.InternalServerError):
        model.invoke("hello")
    assert [row for row in told if row[0] == "sleep"] == [("sleep", 1, 0.002), ("sleep", 2, 0.002)]
    assert ("after", 1, "InternalServerError") in told


def test_exponential_jitter_params_are_langchains(sim, llm):
    waits = []
    sim.on("gpt-4", faults.status(500))
    model = llm().with_retry(
        exponential_jitter_params={"initial": 0.002, "max": 0.003, "exp_base": 2, "jitter": 0},
        before_sleep=lambda state: waits.append(round(state.next_action.sleep, 6)),
    )
    with pytest.raises(errors.InternalServerError):
        model.invoke("hello")
    assert waits == [0.002, 0.003]


def test_retry_after_wins_over_the_computed_wait(sim, llm):
    waits = []
    sim.on("gpt-4", faults.rate_limit(retry_after_ms=3), times=1)
    llm().with_retry(wait=600, before_sleep=lambda state: waits.append(state.next_action.sleep)).invoke("hello")
    assert waits == [0.003]


@pytest.mark.parametrize(
    "arguments",
    [
        {"stop_after_attempt": 0},
        {"stop_after_attempt": -1},
        {"stop_after_attempt": "3"},
        {"stop_after_attempt": 2.0},
        {"retry_if_exception_type": ("RateLimitError",)},
        {"wait": "1"},
        {"stop_after_attempts": 3},
        {"exponential_jitter_params": {"begin": 1}},
    ],
)
def test_wrong_arguments_are_refused_when_they_are_written(llm, arguments):
    with pytest.raises((ConfigurationError, TypeError)):
        llm().with_retry(**arguments)
    with pytest.raises((ConfigurationError, TypeError)):
        llm().bind_tools([Answer]).with_retry(**arguments)


def test_the_first_model_is_not_changed(sim, llm):
    sim.on("gpt-4", faults.status(500))
    model = llm(max_retries=0)
    model.with_retry(stop_after_attempt=5)
    with pytest.raises(errors.InternalServerError):
        model.invoke("hello")
    assert sim.count() == 1


def test_it_is_still_a_chat_model(llm):
    model = llm().with_retry()
    assert isinstance(model, ChatOpenAI)
    assert model.bind_tools([Answer], tool_choice="any").invoke("hello").tool_calls[0]["name"] == "Answer"
    assert model.with_structured_output(Answer).invoke("hello") == Answer(text="text")
    assert "".join(piece.content for piece in model.stream("hello")).startswith("[gpt-4]")
    assert [answer.content[:9] for answer in model.batch(["a", "b"])] == ["[gpt-4] a", "[gpt-4] b"]
    assert model.generate([[HumanMessage("a")]]).generations[0][0].text.startswith("[gpt-4]")


def test_retries_are_logged_without_content_and_keys(sim, llm, caplog, key):
    caplog.set_level(logging.DEBUG)
    sim.on("gpt-4", faults.status(500), times=1)
    llm().with_retry(**FAST).invoke("a secret question")
    assert [record.levelname for record in caplog.records if record.name.startswith("seawall")] == ["INFO"]
    assert "secret question" not in caplog.text
    assert key not in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="Unix signals")
@pytest.mark.parametrize("fault", [faults.hang(), faults.status(500)], ids=["hung", "backoff"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.invoke("hello"),
        lambda model: model.batch(["a", "b", "c"]),
        lambda model: list(model.stream("hello")),
        lambda model: list(model.batch_as_completed(["a", "b"])),
        lambda model: model.with_structured_output(Answer).with_retry(wait=600).invoke("hello"),
    ],
    ids=["invoke", "batch", "stream", "as completed", "structured"],
)
@pytest.mark.parametrize("early", [False, True], ids=["during the wait", "just before it"])
def test_ctrl_c_ends_a_hung_request_and_a_backoff_at_once(sim, llm, fault, ask, early):
    sim.on("gpt-4", fault)
    main = threading.get_ident()

    def interrupt() -> None:
        sim.wait_for(1)
        if early:  # it is noted, and wakes nobody
            _thread.interrupt_main()
        else:
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        ask(llm(timeout=600).with_retry(wait=600))
