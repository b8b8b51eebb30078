"""Every constructor argument of langchain-openai's classes is taken, or refused by its name."""

from __future__ import annotations

import copy
import traceback
from functools import partial
from typing import Any

import langchain_openai
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import InMemoryRateLimiter

from seawall import errors
from seawall.errors import ConfigurationError
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from seawall.simulator import Simulator, faults

# Those that are taken, with a value that says something.
SHARED: dict[str, Any] = {
    "api_key": "sk-x",
    "openai_api_key": "sk-x",
    "base_url": "http://127.0.0.1:9/v1",
    "openai_api_base": "http://127.0.0.1:9/v1",
    "organization": "org",
    "openai_organization": "org",
    "openai_proxy": "http://127.0.0.1:9",
    "timeout": 5,
    "request_timeout": 5,
    "max_retries": 4,
    "default_headers": {"x-team": "sea"},
    "default_query": {"v": "1"},
    "model_kwargs": {"user": "me"},
}
CHAT: dict[str, Any] = {
    **SHARED,
    **dict.fromkeys(("model", "model_name", "name"), "gpt-4"),
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), 0.5),
    **dict.fromkeys(("seed", "n", "max_tokens", "max_completion_tokens", "top_logprobs"), 3),
    **dict.fromkeys(("logprobs", "streaming", "stream_usage", "store", "verbose", "cache", "disable_streaming"), True),
    **dict.fromkeys(("stop", "stop_sequences", "tags"), ["x"]),
    **dict.fromkeys(("reasoning_effort", "verbosity", "service_tier"), "low"),
    **dict.fromkeys(("extra_body", "metadata", "prompt_cache_options"), {"a": 1}),
    "logit_bias": {1: 5},
    "callbacks": [BaseCallbackHandler()],
    "custom_get_token_ids": lambda text: [len(text)],
    "rate_limiter": InMemoryRateLimiter(),
    "output_version": "v1",
    "profile": {"tool_calling": True},
}
EMBEDDINGS: dict[str, Any] = {**SHARED, "model": "small", "dimensions": 8, "chunk_size": 5}


def names(kind: Any) -> list[str]:
    return sorted({name for own, field in kind.model_fields.items() for name in (own, field.alias or own)})


def given(kind: Any, taken: dict[str, Any], name: str) -> None:
    """The argument alone, beside a key and a place under their other names."""
    key = "api_key" if name == "openai_api_key" else "openai_api_key"
    place = "base_url" if name == "openai_api_base" else "openai_api_base"
    rest = {key: "sk-x", place: "http://127.0.0.1:9/v1"}
    if name not in taken:
        with pytest.raises(ConfigurationError, match=rf"^{name} is not taken: \w"):
            kind(**rest, **{name: "on"})
        return
    made = kind(**rest, **{name: taken[name]})  # a warning, as of a name that is not known, is an error here
    fields = {field.alias: own for own, field in kind.model_fields.items()} | {own: own for own in kind.model_fields}
    kept = getattr(made, fields[name]) if name in fields else made.model_kwargs[name]
    if name == "metadata":
        kept = {each: kept[each] for each in taken[name]}  # langchain-core adds its versions
    assert (kept.get_secret_value() if name.endswith("api_key") else kept) == taken[name]


@pytest.mark.parametrize("name", names(langchain_openai.ChatOpenAI))
def test_each_argument_of_a_chat_model_is_taken_or_refused_by_name(name):
    given(ChatOpenAI, CHAT, name)


@pytest.mark.parametrize("name", names(langchain_openai.OpenAIEmbeddings))
def test_each_argument_of_embeddings_is_taken_or_refused_by_name(name):
    given(OpenAIEmbeddings, EMBEDDINGS, name)


KINDS = [ChatOpenAI, OpenAIEmbeddings]
CALLS = {ChatOpenAI: lambda model: model.invoke("hello"), OpenAIEmbeddings: lambda model: model.embed_query("hello")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_gives_the_key_of_each_attempt(kind):
    keys = iter(["sk-old", "sk-new"])
    with Simulator(api_keys=["sk-old", "sk-new"]) as keyed:
        keyed.on("*", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
        model = kind(model="m", api_key=lambda: next(keys), base_url=keyed.base_url)
        assert CALLS[kind](model)
        assert (keyed.count(), list(keys)) == (2, [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["api_key", "openai_api_key", None])
@pytest.mark.parametrize("wrong", [{"max_retries": "x"}, {"model_kwargs": {"stream": True}}, {"http_client": 1}, {"timeout": -1}])
def test_a_wrong_argument_shows_the_key_in_no_traceback(kind, name, wrong, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with pytest.raises(ValueError) as raised:
        kind(**({} if name is None else {name: "sk-very-secret"}), **wrong)
    error: BaseException | None = raised.value
    while error is not None:
        # The first frame is this test's own.
        story = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True)
        text = "".join(traceback.StackSummary.from_list([each for each in story if each.filename != __file__]).format())
        assert "in __init__" in text and "very-secret" not in text
        error = error.__cause__


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_that_gives_the_key_is_shared_by_copies_and_not_shown(kind):
    class Vault:
        def key(self, name: str) -> str:
            return name

        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("a vault is not copied")

    source = partial(Vault().key, "sk-held-secret")
    model = kind(model="m", api_key=source, base_url="http://127.0.0.1:9/v1")
    assert copy.deepcopy(model).openai_api_key is source
    assert "held-secret" not in repr(model) + str(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", ["proxy", "openai_proxy", "OPENAI_PROXY"])
def test_requests_go_through_the_proxy(sim, monkeypatch, kind, said):
    # For plain HTTP a proxy is a server that is asked for the whole URL.
    there = {"model": "m", "api_key": "sk-x", "base_url": "http://api.invalid/v1"}
    place = sim.base_url.removesuffix("/v1")
    if said == "OPENAI_PROXY":
        monkeypatch.setenv(said, place)
        model = kind(**there)
    else:
        model = kind(**there, **{said: place})
    assert CALLS[kind](model)
    assert sim.requests[0].headers["host"] == "api.invalid"
    assert place not in repr(model) + str(model.model_dump())


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_that_is_too_long_is_refused(sim, kind):
    with pytest.raises(errors.MalformedResponseError, match="max_response_bytes"):
        CALLS[kind](kind(model="m", api_key="k", base_url=sim.base_url, max_response_bytes=20, max_retries=0))


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch"])
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("bound", [False, True])
async def test_a_call_has_a_time_limit_of_its_own(sim, llm, way, heard, bound):
    sim.on("gpt-4", faults.hang())
    config = {"callbacks": [BaseCallbackHandler()]} if heard else {}
    model = llm(timeout=None, max_retries=0)
    asked, limit = (model.bind(timeout=0.05), {}) if bound else (model, {"timeout": 0.05})
    with pytest.raises(errors.APITimeoutError):
        if way == "invoke":
            asked.invoke("hello", config, **limit)
        elif way == "ainvoke":
            await asked.ainvoke("hello", config, **limit)
        elif way == "stream":
            list(asked.stream("hello", config, **limit))
        elif way == "batch":
            asked.batch(["hello"], config, **limit)
        else:
            async for _ in asked.astream("hello", config, **limit):
                pass
    assert "timeout" not in sim.requests[0].body


@pytest.mark.parametrize("first", [False, True])
def test_a_bound_time_limit_is_the_models_own_among_alternatives(sim, llm, first):
    sim.on("gpt-4" if first else "b", faults.hang())
    sim.on("b" if first else "gpt-4", faults.status(500))
    models = [llm(timeout=None, max_retries=0), llm("b", timeout=None, max_retries=0)]
    models[0 if first else 1] = models[0 if first else 1].bind(timeout=0.05)
    with pytest.raises(errors.APIError) as raised:
        models[0].with_fallbacks(models[1:]).invoke("hello")
    both = {type(error).__name__ for error in (raised.value, *raised.value.alternatives)}
    assert both == {"APITimeoutError", "InternalServerError"}


def test_a_wrong_time_limit_is_refused_by_the_call(sim, llm):
    with pytest.raises(ConfigurationError, match="timeout"):
        llm().invoke("hello", timeout=0)
    assert sim.count() == 0
