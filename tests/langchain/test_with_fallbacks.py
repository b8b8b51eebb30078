"""`with_fallbacks`: alternatives in order, of any kind, in the same pipeline; whoever answered is told."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from seawall import CircuitBreaker, Prompt, errors
from seawall.errors import ConfigurationError
from seawall.langchain import ChatOpenAI, Resilient
from seawall.simulator import Simulator, faults

ONCE = {"stop_after_attempt": 1}
TWICE = {"stop_after_attempt": 2, "wait": 0.001}


class Answer(BaseModel):
    """An answer."""

    text: str
    count: int


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.fixture
def first_down(sim: Simulator) -> Simulator:
    return sim.on("gpt-4", faults.status(500))


def test_each_alternative_is_tried_under_its_own_policies(first_down, llm):
    first_down.on("b", faults.status(503))
    chain = llm().with_retry(**TWICE).with_fallbacks([llm("b").with_retry(stop_after_attempt=3, wait=0), llm("c")])
    assert isinstance(chain, ChatOpenAI)
    told = chain.invoke("hello").response_metadata
    assert (told["served_by"], told["attempts"], told["seawall"]["alternative"]) == ("c", 6, 2)
    assert [first_down.count(model) for model in ("gpt-4", "b", "c")] == [2, 3, 1]


def test_a_healthy_primary_costs_one_request(sim, llm):
    assert llm().with_fallbacks([llm("b")]).invoke("hello").response_metadata["served_by"] == "gpt-4"
    assert sim.count() == 1


def test_if_all_fail_the_first_error_is_raised_with_the_others(first_down, llm):
    first_down.on("b", faults.rate_limit(retry_after_ms=1))
    with pytest.raises(errors.InternalServerError) as raised:
        llm().with_retry(**ONCE).with_fallbacks([llm("b").with_retry(**ONCE)]).invoke("hello")
    assert [type(other).__name__ for other in raised.value.alternatives] == ["RateLimitError"]
    assert [attempt.model for attempt in raised.value.attempts] == ["gpt-4", "b"]


@pytest.mark.parametrize("order", ["retry, fallbacks", "fallbacks, retry", "tools last", "tools first", "bind between"])
def test_the_order_of_the_words_does_not_matter(first_down, llm, order):
    tools = {"tools": [add], "tool_choice": "any"}
    chain = {
        "retry, fallbacks": lambda: llm().with_retry(**TWICE).with_fallbacks([llm("b")]).bind_tools(**tools),
        "fallbacks, retry": lambda: llm().with_fallbacks([llm("b")]).with_retry(**TWICE).bind_tools(**tools),
        "tools last": lambda: llm().with_fallbacks([llm("b")]).bind_tools(**tools).with_retry(**TWICE),
        "tools first": lambda: llm().bind_tools(**tools).with_retry(**TWICE).with_fallbacks([llm("b").bind_tools(**tools)]),
        "bind between": lambda: llm().with_retry(**TWICE).bind(seed=1).with_fallbacks([llm("b")]).bind_tools(**tools),
    }[order]()
    answer = chain.invoke("hello")
    assert answer.tool_calls[0]["name"] == "add"
    assert answer.response_metadata["served_by"] == "b"
    assert (first_down.count("gpt-4"), first_down.count("b")) == (2, 1)


def test_what_is_bound_before_is_the_models_own(first_down, llm):
    chain = llm().bind(temperature=0.5).with_retry(**ONCE).with_fallbacks([llm("b").bind(seed=3), llm("c")])
    chain.invoke("hello", top_p=0.5)
    bodies = [{name: request.body.get(name) for name in ("temperature", "seed", "top_p")} for request in first_down.requests]
    assert bodies == [{"temperature": 0.5, "seed": None, "top_p": 0.5}, {"temperature": None, "seed": 3, "top_p": 0.5}]


def test_a_config_bound_to_one_survives(first_down, llm):
    started = []
    chain = llm().with_listeners(on_start=lambda run: started.append(run.tags)).with_config(tags=["mine"])
    answer = chain.with_retry(**ONCE).with_fallbacks([llm("b")]).invoke("hello")
    assert answer.response_metadata["served_by"] == "b"
    assert started == [["mine"]]
    for listening in (llm().with_listeners(on_start=lambda run: None), llm().with_types(output_type=AIMessage)):
        first_down.forget()
        listening.with_fallbacks([llm("b")]).with_retry(**TWICE).invoke("hello")
        assert (first_down.count("gpt-4"), first_down.count("b")) == (2, 1)


def test_alternatives_of_an_alternative_are_tried_too(first_down, llm):
    nested = llm("b").with_retry(**ONCE).with_fallbacks([llm("c")])
    first_down.on("b", faults.status(500))
    chain = llm().with_retry(**ONCE).with_fallbacks([nested, llm("d")])
    assert isinstance(chain, ChatOpenAI)
    assert chain.invoke("hello").response_metadata["served_by"] == "c"


def test_fallbacks_said_twice_add_up(first_down, llm):
    first_down.on("b", faults.status(500))
    answer = llm().with_retry(**ONCE).with_fallbacks([llm("b", max_retries=0)]).with_fallbacks([llm("c")]).invoke("hello")
    assert answer.response_metadata["served_by"] == "c"


def test_each_call_of_with_fallbacks_is_for_its_own_errors(first_down, llm):
    chain = llm().with_retry(**ONCE)
    chain = chain.with_fallbacks([llm("only limits")], exceptions_to_handle=(errors.RateLimitError,)).with_fallbacks([llm("any")])
    assert chain.invoke("hello").response_metadata["served_by"] == "any"
    assert first_down.count("only limits") == 0
    nested = llm("b").with_fallbacks([llm("only limits")], exceptions_to_handle=(errors.RateLimitError,))
    first_down.on("b", faults.unknown_model())
    with pytest.raises(errors.InternalServerError):
        llm().with_retry(**ONCE).with_fallbacks([nested]).invoke("hello")
    assert first_down.count("only limits") == 0


@pytest.mark.parametrize(
    ("handled", "helped"),
    [
        ((errors.RateLimitError,), False),
        (errors.InternalServerError, True),
        ((errors.RateLimitError, errors.APIError), True),
        (lambda error: error.status_code == 500, True),
        (lambda error: error.status_code == 429, False),
    ],
)
def test_exceptions_to_handle_says_for_what(first_down, llm, handled, helped):
    chain = llm().with_retry(**ONCE).with_fallbacks([llm("b")], exceptions_to_handle=handled)
    if helped:
        assert chain.invoke("hello").response_metadata["served_by"] == "b"
    else:
        with pytest.raises(errors.InternalServerError):
            chain.invoke("hello")
        assert first_down.count() == 1


def test_after_a_wrong_key_only_another_key_is_asked(sim, llm):
    with Simulator(api_keys=["sk-right"]) as keyed:
        place = {"base_url": keyed.base_url}
        chain = llm(**place).with_fallbacks([llm("same key", **place), llm("b", api_key="sk-right", **place)])
        assert chain.invoke("hello").response_metadata["served_by"] == "b"
        assert keyed.count("same key") == 0


def test_a_request_that_is_wrong_anywhere_is_not_sent_elsewhere(sim, llm):
    sim.on("gpt-4", faults.status(400))
    with pytest.raises(errors.BadRequestError):
        llm().with_fallbacks([llm("b")]).invoke("hello")
    assert sim.count() == 1


def test_an_open_breaker_is_passed_over_without_a_request(first_down, llm):
    breaker = CircuitBreaker(1, 60)
    chain = llm(circuit=breaker).with_retry(**ONCE).with_fallbacks([llm("b")])
    for _ in range(3):
        assert chain.invoke("hello").response_metadata["served_by"] == "b"
    assert first_down.count("gpt-4") == 1


def test_alternatives_may_be_anything(first_down, llm):
    down = llm().with_retry(**ONCE)
    assert down.with_fallbacks(["sorry"]).invoke("hello").content == "sorry"
    assert down.with_fallbacks("sorry").invoke("hello").content == "sorry"
    assert down.with_fallbacks([lambda prompt: AIMessage(f"no: {prompt}")]).invoke("hello").content == "no: hello"
    assert down.with_fallbacks([RunnableLambda(lambda prompt: AIMessage("run"))]).invoke("hello").content == "run"
    assert down.with_fallbacks([AIMessage("ready")]).invoke("hello").content == "ready"
    assert down.with_fallbacks([llm("b"), "sorry"]).invoke("hello").response_metadata["served_by"] == "b"
    first_down.on("b", faults.status(500))
    assert down.with_fallbacks([llm("b", max_retries=0), "sorry"]).invoke("hello").content == "sorry"


async def test_and_in_coroutines_too(first_down, llm):
    down = llm().with_retry(**ONCE)

    async def instead(prompt: str) -> AIMessage:
        return AIMessage(f"awaited: {prompt}")

    assert (await down.with_fallbacks([instead]).ainvoke("hello")).content == "awaited: hello"
    assert (await down.with_fallbacks(["sorry"]).ainvoke("hello")).content == "sorry"
    assert (await down.with_fallbacks([llm("b")]).ainvoke("hello")).response_metadata["served_by"] == "b"


def test_a_prompt_asks_the_same_model_differently(sim, llm):
    sim.on("gpt-4", faults.context_window(), times=1)
    assert llm().with_fallbacks([Prompt("briefly: {}")]).invoke("hello").content.startswith("[gpt-4] briefly: hello")


def test_a_text_streams_as_a_piece_and_ends_the_stream(first_down, llm):
    (piece,) = llm().with_retry(**ONCE).with_fallbacks(["sorry"]).stream("hello")
    assert isinstance(piece, AIMessageChunk)
    assert (piece.content, piece.chunk_position) == ("sorry", "last")


def test_a_text_is_no_answer_in_a_schemas_form(first_down, llm):
    chain = llm().with_retry(**ONCE).with_fallbacks([llm("b", max_retries=0), "sorry"])
    with pytest.raises(ConfigurationError, match="sorry"):
        chain.with_structured_output(Answer)
    spare = Answer(text="spare", count=0)
    assert llm().with_structured_output(Answer).with_fallbacks([spare]).with_retry(**TWICE).invoke("hello") is spare


@pytest.mark.parametrize("fallbacks", [None, [None], ["sorry", None]])
def test_none_is_no_answer(llm, fallbacks):
    with pytest.raises(ConfigurationError, match="None"):
        llm().with_fallbacks(fallbacks)


@pytest.mark.parametrize("handled", ["RateLimitError", (5,)])
def test_wrong_exceptions_to_handle_are_refused_when_written(llm, handled):
    for other in (llm("b"), "sorry"):
        with pytest.raises((ConfigurationError, TypeError)):
            llm().with_fallbacks([other], exceptions_to_handle=handled)


def test_langchains_exception_key_still_works(first_down, llm):
    chain = (RunnableLambda(lambda asked: asked["question"]) | llm().with_retry(**ONCE)).with_fallbacks(
        [RunnableLambda(lambda asked: asked)], exception_key="error"
    )
    assert isinstance(chain.invoke({"question": "why?"})["error"], errors.InternalServerError)


def test_a_mixed_one_keeps_every_word(first_down, llm):
    mixed = llm().with_retry(**ONCE).with_fallbacks(["sorry"])
    assert isinstance(mixed, Resilient)
    for again in (
        mixed.bind(stop=["x"]).with_retry(**TWICE),
        mixed.with_config(tags=["x"]).with_retry(**TWICE),
        mixed.bind_tools([add]).with_retry(**TWICE),
        mixed.with_listeners(on_end=lambda run: None).with_retry(**TWICE),
    ):
        first_down.forget()
        assert again.invoke("hello").content == "sorry"
        assert first_down.count() == 2


def test_configured_fields_and_choices_keep_retries_and_alternatives(first_down, llm):
    chain = llm().with_retry(**TWICE).with_fallbacks([llm("b")]).configurable_fields(temperature=ConfigurableField(id="t"))
    assert chain.invoke("hello", {"configurable": {"t": 0.5}}).response_metadata["served_by"] == "b"
    assert [request.body.get("temperature") for request in first_down.requests] == [0.5, 0.5, None]
    tools = chain.bind_tools([add], tool_choice="any").with_config(configurable={"t": 0.25})
    assert tools.invoke("hello").tool_calls
    assert first_down.requests[3].body["temperature"] == 0.25
    choice = llm().configurable_alternatives(ConfigurableField(id="m"), default_key="a", c=lambda: llm("c")).with_retry(**ONCE)
    assert choice.with_fallbacks([llm("b")]).invoke("hello").response_metadata["served_by"] == "b"
    picked = choice.bind_tools([add], tool_choice="any").with_config(configurable={"m": "c"}).invoke("hello")
    assert (picked.response_metadata["served_by"], len(picked.tool_calls)) == ("c", 1)


def test_what_is_bound_to_a_configurable_model_is_its_own_and_it_stays_configurable(sim, llm):
    sim.on("gpt-4", faults.hang())
    model = llm(timeout=None, max_retries=0).configurable_fields(temperature=ConfigurableField(id="t"))
    whole = model.bind(seed=1, timeout=0.05).with_fallbacks([llm("b")])
    assert whole.invoke("hello", {"configurable": {"t": 0.5}}).response_metadata["served_by"] == "b"
    first, second = (request.body for request in sim.requests)
    assert (first["seed"], first["temperature"]) == (1, 0.5)
    assert "seed" not in second
