"""Every attempt is a run under the call's, and each token and each usage is counted once."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableParallel
from pydantic import BaseModel

import seawall
from _ways import FAST, WAYS, asked, failed, seen, tokens, usage
from seawall import Fallback, Pipeline, Retry, errors
from seawall._prompt import Prompt
from seawall.langchain import resilient
from seawall.simulator import faults


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streaming", [False, True])
async def test_each_attempt_is_a_run_below_the_calls(sim, llm, runs, way, streaming):
    sim.on("gpt-4", faults.status(500), times=2)
    model = llm(streaming=True) if streaming else llm()
    answer = await asked(way, model.with_retry(**FAST), {"callbacks": [runs]})
    root = runs.root
    assert (root.run_type, root.name, root.error) == ("chain", "ChatOpenAI", None)
    assert [run.run_type for run in root.child_runs] == ["llm"] * 3
    assert [seen(run) for run in root.child_runs] == [(n, 0, "gpt-4", [f"retry:attempt:{n}"]) for n in (1, 2, 3)]
    assert [failed(run) for run in root.child_runs] == [True, True, False]
    streams = streaming or "stream" in way
    assert [tokens(run) > 0 for run in root.child_runs] == [False, False, streams]
    assert [usage(run) for run in root.child_runs] == [0, 0, answer.usage_metadata["total_tokens"]]
    assert str(root.child_runs[2].id) in answer.id
    assert all(run.start_time <= run.end_time for run in runs.all)
    assert all(before.end_time <= after.start_time for before, after in zip(root.child_runs, root.child_runs[1:], strict=False))


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_known_of_an_attempt_is_in_its_runs_metadata(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(503), times=1)
    answer = await asked(way, llm().with_retry(wait=0.02), {"callbacks": [runs]})
    first, second = (run.extra["metadata"] for run in runs.root.child_runs)
    told = answer.response_metadata["seawall"]["attempts"]
    for metadata, row in zip((first, second), told, strict=True):
        assert metadata["seawall_model"] == row["model"]
        assert metadata["seawall_outcome"] == row["outcome"]
        assert metadata["seawall_seconds"] == row["seconds"]
        assert metadata["seawall_request_id"] == row["request_id"] is not None
        assert metadata.get("seawall_status") == row["status"]
        assert metadata.get("seawall_waited") == row["waited"]
    assert (first["seawall_status"], first["seawall_waited"], first["seawall_outcome"]) == (503, 0.02, "ServiceUnavailable")
    assert "seawall_status" not in second
    call = runs.root.extra["metadata"]
    assert (call["seawall_attempts"], call["seawall_served_by"]) == (2, "gpt-4")


def test_a_failed_attempts_handler_is_told_its_status(sim, llm):
    told = []

    class Errors(BaseCallbackHandler):
        def on_llm_error(self, error, *, response, tags, **more):
            told.append((error, tags, response.generations[0][0].message.response_metadata))

    sim.on("gpt-4", faults.status(429), times=1)
    llm().with_retry(**FAST).invoke("hello", {"callbacks": [Errors()]})
    ((error, tags, metadata),) = told
    assert isinstance(error, errors.RateLimitError)
    assert tags == ["retry:attempt:1"]
    assert (metadata["status_code"], metadata["request_id"]) == (429, error.request_id)
    assert error.request_id.startswith("req_")
    assert metadata["seawall"]["waited"] == 0.001


@pytest.mark.parametrize("way", WAYS)
async def test_alternatives_are_told_apart(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(500))
    sim.on("b", faults.status(500), times=1)
    model = llm().with_retry(stop_after_attempt=2, **FAST).with_fallbacks([llm("b", temperature=0.5).with_retry(**FAST)])
    begun = []

    class Begun(BaseCallbackHandler):
        def on_chat_model_start(self, *told, metadata, **more):
            begun.append(metadata["seawall_model"])

    answer = await asked(way, model, {"callbacks": [runs, Begun()]})
    assert begun == ["gpt-4", "gpt-4", "b", "b"]
    assert [seen(run) for run in runs.root.child_runs] == [
        (1, 0, "gpt-4", ["retry:attempt:1"]),
        (2, 0, "gpt-4", ["retry:attempt:2"]),
        (1, 1, "b", ["retry:attempt:1", "fallback:1"]),
        (2, 1, "b", ["retry:attempt:2", "fallback:1"]),
    ]
    assert [failed(run) for run in runs.root.child_runs] == [True, True, True, False]
    assert runs.root.child_runs[3].extra["invocation_params"]["temperature"] == 0.5
    assert runs.root.extra["metadata"]["seawall_served_by"] == answer.response_metadata["served_by"] == "b"


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_fails_ends_every_run(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(500))
    sim.on("b", faults.status(401))
    model = llm().with_retry(stop_after_attempt=2, **FAST).with_fallbacks([llm("b")])
    with pytest.raises(errors.InternalServerError) as raised:
        await asked(way, model, {"callbacks": [runs]})
    assert "InternalServerError" in runs.root.error
    assert [run.extra["metadata"]["seawall_outcome"] for run in runs.root.child_runs] == [
        attempt.outcome for attempt in raised.value.attempts
    ]
    assert "AuthenticationError" in runs.root.child_runs[2].error
    assert all(run.end_time for run in runs.all)


@pytest.mark.parametrize("way", WAYS)
async def test_a_timed_out_attempts_run_says_so(sim, llm, runs, way):
    sim.on("gpt-4", faults.hang(), times=1)
    await asked(way, llm(timeout=0.5).with_retry(**FAST), {"callbacks": [runs]})
    first, second = runs.root.child_runs
    assert "APITimeoutError" in first.error
    assert not failed(second)


@pytest.mark.parametrize("way", WAYS)
async def test_without_policies_a_call_is_one_run(llm, runs, way):
    await asked(way, llm(), {"callbacks": [runs]})
    (run,) = runs.all
    assert run.run_type == "llm"
    assert usage(run) > 0


@pytest.mark.parametrize("way", WAYS)
async def test_without_policies_attempts_are_told_below_it_once_there_are_two(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=2)
    answer = await asked(way, llm(), {"callbacks": [runs]})
    assert runs.root.run_type == "llm"
    assert [seen(run) for run in runs.root.child_runs] == [(n, 0, "gpt-4", [f"retry:attempt:{n}", "nostream"]) for n in (1, 2, 3)]
    assert [failed(run) for run in runs.root.child_runs] == [True, True, False]
    assert (tokens(runs.root) > 0) == ("stream" in way)
    assert usage(runs.root) == answer.usage_metadata["total_tokens"]
    assert [(tokens(run), usage(run)) for run in runs.root.child_runs] == [(0, 0)] * 3
    assert all(run.end_time for run in runs.all)


@pytest.mark.parametrize("way", WAYS)
async def test_without_policies_a_final_failure_is_one_run(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        await asked(way, llm(), {"callbacks": [runs]})
    (run,) = runs.all
    assert failed(run)


class Counted(BaseCallbackHandler):
    """Counts what is told of tokens and usage."""

    def __init__(self):
        self.text, self.usage, self.asked = "", [], 0

    def on_chat_model_start(self, *told, **more):
        self.asked += 1

    def on_llm_new_token(self, token, *, chunk=None, **more):
        self.text += token

    def on_llm_end(self, response, **more):
        used = response.generations[0][0].message.usage_metadata
        if used:
            self.usage.append(used["total_tokens"])


KINDS = {
    "plain": lambda llm: llm(),
    "streaming": lambda llm: llm(streaming=True),
    "retry": lambda llm: llm().with_retry(**FAST),
    "fallbacks": lambda llm: llm().with_retry(**FAST).with_fallbacks([llm("b")]),
    "tools": lambda llm: llm().with_retry(**FAST).bind(seed=1),
    "configured": lambda llm: llm().with_retry(**FAST).with_config(tags=["x"]),
    "configurable": lambda llm: llm().with_retry(**FAST).configurable_fields(temperature=ConfigurableField("t")),
    "resilient": lambda llm: resilient(llm(), retry=Retry(3, **FAST), circuit=None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_each_token_and_each_usage_is_counted_once(sim, llm, kind, way):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    counted = Counted()
    with get_usage_metadata_callback() as total:
        answer = await asked(way, KINDS[kind](llm), {"callbacks": [counted]})
    assert total.usage_metadata["gpt-4"]["total_tokens"] == answer.usage_metadata["total_tokens"]
    assert counted.usage == [answer.usage_metadata["total_tokens"]]
    streams = "stream" in way or kind == "streaming"
    assert counted.text == (answer.content if streams else "")


@pytest.mark.parametrize("kind", KINDS)
async def test_events_have_each_token_once_under_the_right_parents(sim, llm, kind):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    chain = ChatPromptTemplate.from_template("{x}") | KINDS[kind](llm) | StrOutputParser()
    events = [event async for event in chain.astream_events({"x": "hello"}, version="v2")]
    pieces = [event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(pieces) == events[-1]["data"]["output"]
    starts = [event for event in events if event["event"].endswith("_start")]
    known = {event["run_id"]: event["parent_ids"] for event in starts}
    for event in starts[1:]:
        *above, parent = event["parent_ids"]
        assert known[parent] == above
    outputs = [event["data"]["output"] for event in events if event["event"] == "on_chat_model_end"]
    assert [bool(output.usage_metadata) for output in outputs].count(True) == 1


@pytest.mark.filterwarnings("ignore:.*beta:Warning", "ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("kind", ["plain", "retry"])
async def test_the_protocol_of_content_blocks_counts_once(sim, llm, runs, kind):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    with get_usage_metadata_callback() as total:
        stream = await KINDS[kind](llm).astream_events("hello", {"callbacks": [runs]}, version="v3")
        text = "".join([piece async for piece in stream.text])
        message = await stream.output
        while not total.usage_metadata:  # what produces the stream tells of its end by itself
            await asyncio.sleep(0)
    assert text == message.text
    assert total.usage_metadata["gpt-4"]["total_tokens"] == message.usage_metadata["total_tokens"]
    assert [run.tags for run in runs.root.child_runs] == [["retry:attempt:1", "nostream"], ["retry:attempt:2", "nostream"]]


async def test_parents_are_right_in_chains_and_side_by_side(sim, llm, runs):
    sim.on("gpt-4", faults.status(500), times=1)
    prompt = ChatPromptTemplate.from_template("{x}")
    one = prompt | llm().with_retry(**FAST).with_config(run_name="one") | StrOutputParser()
    other = prompt | llm("b").with_fallbacks([llm("c")]).with_config(run_name="other") | StrOutputParser()
    await RunnableParallel(one=one, other=other).ainvoke({"x": "hello"}, {"callbacks": [runs]})
    sequences = {run.child_runs[1].name: run.child_runs[1] for run in runs.root.child_runs}
    assert {name: len(run.child_runs) for name, run in sequences.items()} == {"one": 2, "other": 1}
    for run in runs.all:
        for child in run.child_runs:
            assert child.parent_run_id == run.id
            assert child.dotted_order.startswith(run.dotted_order + ".")
    assert len(runs.roots) == 1


@pytest.mark.parametrize("way", ["batch", "abatch", "batch_as_completed", "abatch_as_completed"])
async def test_each_input_of_a_batch_has_its_own_tree(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(500), times=2)
    model = llm().with_retry(**FAST)
    configs = [{"callbacks": [runs], "tags": [name]} for name in "abc"]
    if way == "batch":
        model.batch(["a", "b", "c"], configs)
    elif way == "abatch":
        await model.abatch(["a", "b", "c"], configs)
    elif way == "batch_as_completed":
        list(model.batch_as_completed(["a", "b", "c"], configs))
    else:
        _ = [pair async for pair in model.abatch_as_completed(["a", "b", "c"], configs)]
    assert sorted((run.inputs["input"], run.tags[0]) for run in runs.roots) == [("a", "a"), ("b", "b"), ("c", "c")]
    assert sum(len(run.child_runs) for run in runs.roots) == 5
    assert all(child.tags[0] == run.tags[0] for run in runs.roots for child in run.child_runs)


# --- what else a call's run meets


def test_an_open_breaker_makes_no_run(sim, llm, runs):
    breaker = seawall.CircuitBreaker(1, name="primary")
    sim.on("gpt-4", faults.status(500), times=1)
    model = llm(circuit=breaker, max_retries=0).with_fallbacks([llm("b")])
    model.invoke("hello")
    model.invoke("hello", {"callbacks": [runs]})
    (child,) = runs.root.child_runs
    assert seen(child) == (1, 1, "b", ["retry:attempt:1", "fallback:1"])
    assert runs.root.extra["metadata"]["seawall_refused"] == ["primary"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_answer_out_of_the_cache_is_a_run_without_an_attempt(sim, llm, runs, cache, way):
    model = llm().with_retry(**FAST)
    first = await asked(way, model, {"callbacks": [runs]})
    again = await asked(way, model, {"callbacks": [runs]})
    assert again.content == first.content
    assert sim.count() == 1
    made, cached = (root.child_runs[0] for root in runs.roots)
    assert (made.tags, cached.tags) == (["retry:attempt:1"], [])
    assert "seawall_attempt" not in cached.extra["metadata"]
    assert usage(cached) > 0
    assert runs.roots[1].extra["metadata"]["seawall_attempts"] == 0
    # Who listens and who does not share what is in the cache.
    assert model.invoke("hello").content == first.content
    assert sim.count() == 1


def test_the_rate_limiter_is_asked_once_a_call(sim, llm, runs):
    class Limiter(BaseRateLimiter):
        asked = 0

        def acquire(self, *, blocking=True):
            Limiter.asked += 1
            return True

        async def aacquire(self, *, blocking=True):
            Limiter.asked += 1
            return True

    sim.on("gpt-4", faults.status(500), times=1)
    model = llm(rate_limiter=Limiter()).with_retry(**FAST)
    for place, way in enumerate(WAYS, 1):
        asyncio.run(asked(way, model, {"callbacks": [runs]}))
        assert Limiter.asked == place


@pytest.mark.parametrize("way", WAYS)
async def test_listeners_hear_of_a_call_once(sim, llm, way):
    sim.on("gpt-4", faults.status(500), times=2)
    heard = []
    model = llm().with_retry(**FAST)
    listening = model.with_listeners(on_start=lambda run: heard.append("start"), on_end=lambda run: heard.append("end"))
    await asked(way, listening, None)
    assert heard == ["start", "end"]


async def test_coroutine_listeners_hear_of_a_call_once(sim, llm):
    sim.on("gpt-4", faults.status(500), times=2)
    heard = []

    async def started(run):
        heard.append(("start", run.run_type))

    async def ended(run):
        heard.append(("end", run.run_type))

    await llm().with_retry(**FAST).with_alisteners(on_start=started, on_end=ended).ainvoke("hello")
    assert heard == [("start", "chain"), ("end", "chain")]


def test_what_is_configured_reaches_the_call_and_its_attempts(llm, runs):
    model = llm(tags=["mine"], metadata={"mine": 1}).with_retry(**FAST)
    configured = model.with_config(tags=["call"], metadata={"call": 1}, run_name="question", callbacks=[runs])
    configured.invoke("hello")
    root, child = runs.all
    assert (root.name, root.tags) == ("question", ["call"])
    assert (child.name, sorted(child.tags)) == ("ChatOpenAI", ["call", "mine", "retry:attempt:1"])
    assert root.extra["metadata"]["call"] == child.extra["metadata"]["call"] == child.extra["metadata"]["mine"] == 1


@pytest.mark.parametrize("way", WAYS)
async def test_callbacks_of_the_constructor_hear_of_both(llm, runs, way):
    await asked(way, llm(callbacks=[runs]).with_retry(**FAST), None)
    assert [run.run_type for run in runs.all] == ["chain", "llm"]
    assert len(runs.roots) == 1


class Answer(BaseModel):
    """An answer."""

    text: str


def test_structured_output_and_tools_are_in_the_attempts_runs(sim, llm, runs):
    model = llm().with_retry(**FAST)
    sim.on("gpt-4", faults.reply('{"text": "yes"}'))
    model.with_structured_output(Answer, method="json_schema").invoke("hello", {"callbacks": [runs]})
    model.bind_tools([Answer]).invoke("hello", {"callbacks": [runs]})
    structured, tools = (next(run for run in root_runs(root) if run.run_type == "llm") for root in runs.roots)
    assert structured.extra["options"]["ls_structured_output_format"]["schema"]["title"] == "Answer"
    assert tools.extra["invocation_params"]["tools"][0]["function"]["name"] == "Answer"


def root_runs(root):
    return [root, *(run for child in root.child_runs for run in root_runs(child))]


@pytest.mark.parametrize("way", WAYS)
async def test_blocks_of_version_1_are_as_without_listeners(llm, runs, way):
    model = llm(output_version="v1").with_retry(**FAST)
    unheard = await asked(way, model, None)
    heard = await asked(way, model, {"callbacks": [runs]})
    assert heard.content == unheard.content
    assert isinstance(heard.content, list)


def test_an_answer_of_several_choices_is_not_streamed_here_either(sim, llm, runs):
    pieces = list(llm(n=2).with_retry(**FAST).stream("hello", {"callbacks": [runs]}))
    assert len(pieces) == 1
    assert [run.run_type for run in runs.all] == ["chain", "llm"]
    assert len(runs.all[1].outputs["generations"][0]) == 2


# --- any runnable


@pytest.mark.parametrize("way", WAYS)
async def test_each_attempt_of_a_foreign_runnable_is_a_run(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(500), times=2)
    chain = resilient(llm(), retry=Retry(2, **FAST), circuit=None, fallback=[llm("b")])
    await asked(way, chain, {"callbacks": [runs]})
    assert runs.root.name == "Resilient<ChatOpenAI>"
    assert [(run.tags, failed(run)) for run in runs.root.child_runs] == [
        (["retry:attempt:1"], True),
        (["retry:attempt:2"], True),
        (["retry:attempt:1", "fallback:1"], False),
    ]
    metadata = [run.extra["metadata"] for run in runs.root.child_runs]
    assert [(each["seawall_attempt"], each["seawall_alternative"]) for each in metadata] == [(1, 0), (2, 0), (1, 1)]


def test_alternatives_are_numbered_in_the_order_in_which_they_are_tried(sim, llm, runs):
    sim.on("*", faults.status(500), times=3)
    models = [llm(name, max_retries=0) for name in ("gpt-4", "b", "c", "d")]
    chain = resilient(models[0], retry=None, circuit=None).with_fallbacks(models[1:3]).with_fallbacks(models[3:])
    assert chain.invoke("hello", {"callbacks": [runs]}).response_metadata["served_by"] == "d"
    tags = [["retry:attempt:1"], *(["retry:attempt:1", f"fallback:{n}"] for n in (1, 2, 3))]
    assert [run.tags for run in runs.root.child_runs] == tags
    assert [run.extra["metadata"]["ls_model_name"] for run in runs.root.child_runs] == ["gpt-4", "b", "c", "d"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_prompts_attempts_are_those_of_an_alternative(sim, llm, runs, way):
    sim.on("gpt-4", faults.status(500), times=1)
    chain = resilient(llm(max_retries=0), Pipeline(Fallback(Prompt("short: {}"))))
    answer = await asked(way, chain, {"callbacks": [runs]})
    assert "short: hello" in answer.content
    assert [run.tags for run in runs.root.child_runs] == [["retry:attempt:1"], ["retry:attempt:1", "fallback:1"]]


def test_functions_and_texts_as_alternatives_still_answer(sim, llm, runs):
    sim.on("gpt-4", faults.status(500))
    told = []

    def function(prompt, config):
        told.append(config["callbacks"].parent_run_id)
        return "sorry"

    assert resilient(llm(max_retries=0), Pipeline(Fallback(function))).invoke("hello", {"callbacks": [runs]}) == "sorry"
    assert told == [runs.root.id]
    assert llm(max_retries=0).with_fallbacks(["sorry"]).invoke("hello").content == "sorry"


async def test_a_runnables_own_runs_are_below_the_attempts(runs):
    inner = RunnableLambda(lambda text: text.upper()).with_config(run_name="inner")
    chain = resilient(RunnableLambda(lambda text: inner.invoke(text)), retry=None, circuit=None)
    await chain.ainvoke("hello", {"callbacks": [runs]})
    assert [run.name for run in runs.all] == ["Resilient<RunnableLambda>", "RunnableLambda", "inner"]
