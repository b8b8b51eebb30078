"""`resilient`: any Runnable behind a pipeline, its client's own retries off on a copy."""

from __future__ import annotations

import copy
import pickle
from functools import cached_property
from operator import itemgetter

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSerializable,
)
from langchain_openai import ChatOpenAI as ForeignChatOpenAI
from pydantic import BaseModel

import seawall
from seawall import Fallback, Pipeline, Retry, errors
from seawall.errors import ConfigurationError
from seawall.langchain import Resilient, resilient
from seawall.simulator import faults


class Answer(BaseModel):
    """An answer."""

    text: str


@pytest.fixture
def foreign(sim, key):
    """The client that LangChain's own package has, with its hidden retries."""
    return lambda model="gpt-4", **more: ForeignChatOpenAI(model=model, api_key=key, base_url=sim.base_url, **more)


def retried(attempts, **more):
    return {"retry": Retry(attempts, on=Exception, wait=0.001), "circuit": None, **more}


def inside(foreign):
    """A foreign client at every depth that a chain may have it."""
    model = foreign()
    return {
        "model": model,
        "bound": model.bind(stop=["x"]),
        "tools": model.bind_tools([Answer]),
        "config": model.with_config(tags=["x"]),
        "sequence": ChatPromptTemplate.from_template("{x}") | model | StrOutputParser(),
        "map": RunnableParallel(one=model),
        "assigned": RunnableLambda(lambda asked: {"x": asked}) | RunnablePassthrough.assign(answer=itemgetter("x") | model),
        "branch": RunnableBranch((lambda asked: False, RunnableLambda(str)), model),
        "fallbacks": model.with_fallbacks([foreign()], exceptions_to_handle=(KeyError,)),
        "each": RunnableLambda(lambda asked: [asked]) | model.map(),
        "structured": model.with_structured_output(Answer, method="function_calling"),
        "a choice": model.configurable_alternatives(ConfigurableField(id="m"), b=foreign("b")),
    }


@pytest.mark.parametrize("depth", list(inside(lambda model="gpt-4": ForeignChatOpenAI(model=model, api_key="sk-none"))))
async def test_retries_are_those_of_the_pipeline_at_any_depth(sim, foreign, depth):
    sim.on("gpt-4", faults.status(500))
    guarded = resilient(inside(foreign)[depth], **retried(2))
    with pytest.raises(Exception, match="500"):
        guarded.invoke("hello")
    assert sim.count() == 2
    with pytest.raises(Exception, match="500"):
        await guarded.ainvoke("hello")
    assert sim.count() == 4


def test_the_callers_object_is_never_changed(sim, foreign):
    model = foreign(max_retries=3)
    before = (
        model.max_retries,
        model.root_client.max_retries,
        model.root_async_client.max_retries,
        model.client,
        model.async_client,
    )
    chain = ChatPromptTemplate.from_template("{x}") | model
    guarded = resilient(chain, **retried(2))
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(Exception, match="500"):
        guarded.invoke("hello")
    after = (
        model.max_retries,
        model.root_client.max_retries,
        model.root_async_client.max_retries,
        model.client,
        model.async_client,
    )
    assert before == after
    assert chain.steps[1] is model
    assert guarded.runnable.steps[1] is not model


def test_foreign_errors_are_told_apart(sim, foreign):
    for fault, requests in ((faults.status(401), 1), (faults.status(400), 1), (faults.quota(), 1), (faults.status(503), 3)):
        sim.clear()
        sim.forget()
        sim.on("gpt-4", fault)
        with pytest.raises(Exception, match=r"Error code: 4|Error code: 5"):
            resilient(foreign(), **retried(3)).invoke("hello")
        assert sim.count() == requests


def test_a_foreign_model_is_still_used_like_one(sim, foreign, llm):
    guarded = resilient(foreign(), **retried(2, fallback=[llm("b")]))
    sim.on("gpt-4", faults.status(500))
    assert guarded.invoke("hello").content.startswith("[b]")
    assert guarded.bind_tools([Answer], tool_choice="any").invoke("hello").tool_calls[0]["name"] == "Answer"
    assert guarded.with_structured_output(Answer, method="function_calling").invoke("hello") == Answer(text="text")
    assert "".join(piece.content for piece in guarded.stream("hello")).startswith("[b]")
    assert [answer.content[:5] for answer in guarded.batch(["a", "b"])] == ["[b] a", "[b] b"]


def test_the_words_of_a_chat_model_replace_and_add(sim, foreign):
    sim.on("gpt-4", faults.status(500))
    guarded = resilient(foreign(), **retried(7)).with_retry(stop_after_attempt=3, wait=0.001).with_fallbacks(["sorry"])
    assert isinstance(guarded, Resilient)
    assert guarded.invoke("hello").content == "sorry"
    assert sim.count() == 3
    again = guarded.with_config(tags=["x"]).with_retry(stop_after_attempt=2, wait=0.001).bind(stop=["y"])
    assert again.invoke("hello").content == "sorry"
    assert sim.count() == 5


def test_one_of_ours_has_its_retries_taken_over(sim, llm):
    sim.on("gpt-4", faults.status(500))
    for one in (
        llm(max_retries=5),
        llm().with_retry(stop_after_attempt=6),
        llm() | StrOutputParser(),
        resilient(llm(), **retried(4)),
    ):
        sim.forget()
        with pytest.raises(errors.InternalServerError):
            resilient(one, **retried(2)).invoke("hello")
        assert sim.count() == 2


async def test_functions_are_runnables_too():
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        if len(asked) < 3:
            raise ConnectionError
        return f"answer to {question}"

    guarded = resilient(ask, **retried(3))
    assert guarded.invoke("why?") == "answer to why?"
    assert await guarded.ainvoke("how?") == "answer to how?"
    assert (guarded | str.upper).invoke("so?") == "ANSWER TO SO?"
    assert asked == ["why?"] * 3 + ["how?", "so?"]


def test_a_pipeline_may_be_given_and_is_shared(sim, foreign):
    breaker = seawall.CircuitBreaker(3, 60)
    pipeline = Pipeline(Fallback("sorry"), Retry(2, on=Exception, wait=0), breaker, name="chat")
    sim.on("gpt-4", faults.status(500))
    assert resilient(foreign(), pipeline).invoke("hello") == "sorry"
    assert resilient(foreign(), pipeline).invoke("hello") == "sorry"
    assert breaker.state == "open"
    assert sim.count() == 3
    assert "chat" in repr(resilient(foreign(), pipeline))


def test_guards_arguments_make_one(foreign):
    names = [type(policy).__name__ for policy in resilient(foreign(), preset="prod", fallback=["sorry"]).pipeline.policies]
    assert names == ["Fallback", "Timeout", "Retry", "CircuitBreaker", "Timeout"]


def test_wrong_arguments_are_refused(foreign):
    with pytest.raises(TypeError, match="not 5"):
        resilient(5)
    with pytest.raises(ConfigurationError, match="not both"):
        resilient(foreign(), Pipeline(Retry(2)), retry=3)
    with pytest.raises(TypeError, match="Pipeline"):
        resilient(foreign(), Retry(2))
    with pytest.raises(ConfigurationError, match="None"):
        resilient(foreign()).with_fallbacks([None])


def test_a_deep_copy_shares_the_policies(sim, llm):
    breaker = seawall.CircuitBreaker(1, 60)
    guarded = resilient(llm(), retry=None, circuit=breaker)
    again = copy.deepcopy(guarded)
    sim.on("gpt-4", faults.status(500))
    with pytest.raises(errors.InternalServerError):
        again.invoke("hello")
    with pytest.raises(errors.CircuitBreakerError):
        guarded.invoke("hello")


def test_it_names_itself_and_its_types(foreign):
    guarded = resilient(foreign() | StrOutputParser(), **retried(2))
    assert guarded.get_name() == "Resilient<RunnableSequence>"
    assert guarded.OutputType is str
    assert guarded.InputType == foreign().InputType


class CachedClient(RunnableSerializable[str, str]):
    """As some clients are: the part that retries is made at the first call, with the number of then."""

    max_retries: int = 2
    asked: list[int] = []  # noqa: RUF012

    @cached_property
    def _client(self) -> int:
        return self.max_retries

    def invoke(self, input: str, config: object = None, **kwargs: object) -> str:
        self.asked.append(1 + self._client)
        return input


def test_a_client_made_at_the_first_call_is_made_anew():
    client = CachedClient()
    client.invoke("hello")
    resilient(client, **retried(2)).invoke("hello")
    client.invoke("hello")
    assert client.asked == [3, 1, 3]


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("parsed", [False, True])
async def test_a_foreign_stream_is_retried_until_its_first_content_and_not_after_it(sim, foreign, way, parsed):
    chain = foreign() | StrOutputParser() if parsed else foreign()
    guarded = resilient(chain, **retried(2, fallback=["sorry"]))
    seen = []

    async def read():
        seen.clear()
        if way == "stream":
            for piece in guarded.stream("hello"):
                seen.append(piece)
        else:
            async for piece in guarded.astream("hello"):
                seen.append(piece)

    def text():
        return "".join(piece if isinstance(piece, str) else piece.content for piece in seen)

    sim.on("gpt-4", faults.cut(0, "reset"), times=1)
    await read()
    assert text().startswith("[gpt-4] hello")
    assert sim.count() == 2
    sim.on("gpt-4", faults.cut(3, "reset"), times=1)
    with pytest.raises(errors.StreamInterruptedError) as raised:
        await read()
    assert raised.value.partial == text() != ""
    assert isinstance(raised.value, ModelError)
    assert raised.value.__cause__ is not None
    assert sim.count() == 3


def test_it_pickles(sim, llm):
    sim.on("gpt-4", faults.status(500))
    chain = resilient(llm(), Pipeline(Fallback(llm("b"))))
    again = pickle.loads(pickle.dumps(chain))
    assert again.invoke("hello").response_metadata["served_by"] == "b"
    assert repr(again) == repr(chain)
