"""Spans and measures by the real SDK: a span per call, a child per attempt, where the caller stood, however it was called."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from _canary import CANARY
from opentelemetry import context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import seawall
from seawall import CircuitBreaker, errors, guard
from seawall._seawall import span_names
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults
from seawall.telemetry import _delivery, opentelemetry

from .conftest import QUICK, Traces


def chat(sim, model="gpt-4o", **more):
    return Chat(model, api_key=CANARY, base_url=sim.base_url, **more)


def test_a_call_is_a_span_and_each_attempt_its_child(sim, traces):
    sim.on("gpt-4o", faults.status(500), times=2)
    reply = chat(sim).with_retry(wait=QUICK).invoke("my private words")
    call, *attempts = traces.spans()
    host, port = sim.base_url.split("/")[2].split(":")
    assert (call.name, call.kind, call.parent, call.status.status_code) == (
        "chat gpt-4o",
        SpanKind.CLIENT,
        None,
        StatusCode.UNSET,
    )
    assert dict(call.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": False,
        "gen_ai.response.model": reply.response_metadata["model_name"] if hasattr(reply, "response_metadata") else reply.model,
        "gen_ai.usage.input_tokens": reply.usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": reply.usage["completion_tokens"],
        "server.address": host,
        "server.port": int(port),
        "seawall.pipeline": "gpt-4o",
        "seawall.attempts": 3,
        "seawall.retries": 2,
        "seawall.cost": call.attributes["seawall.cost"],
    }
    assert [span.name for span in attempts] == ["attempt gpt-4o"] * 3
    assert all(span.parent.span_id == call.context.span_id and span.kind == SpanKind.CLIENT for span in attempts)
    assert [span.attributes.get("http.response.status_code") for span in attempts] == [500, 500, None]
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert [span.attributes.get("error.type") for span in attempts] == ["InternalServerError"] * 2 + [None]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR] * 2 + [StatusCode.UNSET]
    assert [event.name for event in call.events] == ["seawall.retry.scheduled"] * 2
    assert call.events[0].attributes["error.type"] == "InternalServerError" and call.events[0].attributes["seawall.number"] == 1
    times = [call.start_time, *(time for span in attempts for time in (span.start_time, span.end_time)), call.end_time]
    assert times == sorted(times), "attempts lie in their call, one after another"
    assert call.instrumentation_scope.name == "seawall"
    assert "private" not in str([span.to_json() for span in (call, *attempts)]) and "secret" not in call.to_json()


def test_a_call_ends_when_it_ends_and_not_when_it_is_told(sim, traces):
    with _delivery._telling:
        for _ in range(2):
            chat(sim).invoke("x")
    first, second = traces.spans("chat gpt-4o")
    assert first.start_time < first.end_time <= second.start_time


def test_failures_fallbacks_and_breakers_are_told(sim, traces):
    sim.on("down", faults.status(503))
    breaker = CircuitBreaker(2, 60, name="of-down")
    model = chat(sim, "down", circuit=breaker).with_retry(stop_after_attempt=2, wait=QUICK).with_fallbacks([chat(sim, "up")])
    for _ in range(2):
        model.invoke("x")
    first, second = traces.spans("chat down")
    assert [event.name for event in first.events] == [
        "seawall.retry.scheduled", "seawall.circuit.opened", "seawall.retry.exhausted", "seawall.fallback.used",
    ]  # fmt: skip
    opened = first.events[1]
    assert opened.attributes["seawall.place"] == "of-down"
    assert (first.attributes["seawall.fallback"], first.attributes["seawall.attempts"]) == (True, 3)
    assert "seawall.circuit.rejected" in [event.name for event in second.events]
    assert [span.name for span in traces.spans() if span.parent and span.parent.span_id == second.context.span_id] == [
        "attempt up"
    ]
    sim.on("bad", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        chat(sim, "bad").invoke("x")
    span = traces.one("chat bad")
    assert (span.status.status_code, span.status.description, span.attributes["error.type"]) == (
        StatusCode.ERROR, "AuthenticationError", "AuthenticationError",
    )  # fmt: skip


async def test_the_parent_is_what_was_current_where_the_call_began(sim, traces):
    model = chat(sim)

    async def asking(name):
        with traces.tracer.start_as_current_span(name):
            await asyncio.sleep(0)
            await model.ainvoke("x")

    async def reading():
        with traces.tracer.start_as_current_span("reading"):
            pieces = model.astream("one two")
            async for _ in pieces:
                pass

    def thread(name):
        with traces.tracer.start_as_current_span(name):
            model.invoke("x")

    threads = [threading.Thread(target=thread, args=(f"thread {n}",)) for n in range(4)]
    [each.start() for each in threads]
    await asyncio.gather(*(asking(f"task {n}") for n in range(5)), reading())
    [each.join() for each in threads]
    with traces.tracer.start_as_current_span("batch"):
        model.batch(["a", "b", "c"], max_concurrency=1)
        await model.abatch(["d"])
    with traces.tracer.start_as_current_span("sync stream"):
        stream = model.stream("one two")
    with traces.tracer.start_as_current_span("elsewhere"), stream:
        list(stream)
    with traces.tracer.start_as_current_span("vectors"):
        Embeddings("e", api_key=CANARY, base_url=sim.base_url).invoke(["a"])
    names = {span.context.span_id: span.name for span in traces.spans()}
    parents = Counter(names[span.parent.span_id] for span in traces.spans("chat gpt-4o", "embeddings e"))
    assert parents == {
        **{f"task {n}": 1 for n in range(5)}, **{f"thread {n}": 1 for n in range(4)},
        "reading": 1, "batch": 4, "sync stream": 1, "vectors": 1,
    }  # fmt: skip
    traced = {span.context.trace_id for span in traces.spans("task 1")}
    assert len([span for span in traces.spans() if span.context.trace_id in traced]) == 3
    streams = [span for span in traces.spans("chat gpt-4o") if span.attributes["gen_ai.request.stream"]]
    assert len(streams) == 2 and all(0 < span.attributes["gen_ai.response.time_to_first_chunk"] < 60 for span in streams)


async def test_a_guarded_function_runs_in_its_span(sim, traces):
    model = chat(sim)
    tries = []

    @guard(name="ask", retry=seawall.Retry(3, wait=QUICK, on=ValueError))
    def ask():
        tries.append(trace.get_current_span().get_span_context().span_id)
        if len(tries) < 2:
            raise ValueError
        return model.invoke("x")

    @guard(name="aask")
    async def aask():
        with traces.tracer.start_as_current_span("own"):
            await asyncio.sleep(0)
            await model.ainvoke("x")

    with traces.tracer.start_as_current_span("outer"):
        before = context.get_current()
        ask()
        await aask()
        assert context.get_current() == before
    outer, call, acall, own = (traces.one(name) for name in ("outer", "call ask", "call aask", "own"))
    assert call.kind == SpanKind.INTERNAL and tries == [call.context.span_id] * 2
    assert call.parent.span_id == acall.parent.span_id == outer.context.span_id
    assert own.parent.span_id == acall.context.span_id, "what it makes of its own is inside of it"
    inner, ainner = traces.spans("chat gpt-4o")
    assert inner.parent.span_id == call.context.span_id
    assert ainner.parent.span_id == own.context.span_id, "after it was suspended too"
    assert [span.attributes.get("error.type") for span in traces.spans("attempt ask")] == ["ValueError", None]
    assert call.attributes["seawall.pipeline"] == "ask" and "gen_ai.operation.name" not in call.attributes


async def test_generators_have_their_span_while_they_run_and_consumers_have_theirs(traces):
    seen = []

    @guard(name="items")
    def items():
        seen.append(trace.get_current_span().get_span_context().span_id)
        yield 1
        seen.append(trace.get_current_span().get_span_context().span_id)
        yield 2

    @guard(name="aitems")
    async def aitems():
        for item in (1, 2):
            seen.append(trace.get_current_span().get_span_context().span_id)
            yield item

    with traces.tracer.start_as_current_span("outer"):
        for _ in items():
            assert trace.get_current_span().name == "outer"
        async for _ in aitems():
            assert trace.get_current_span().name == "outer"
    assert seen == [*[traces.one("call items").context.span_id] * 2, *[traces.one("call aitems").context.span_id] * 2]
    assert traces.one("call items").parent.span_id == traces.one("outer").context.span_id


async def test_calls_that_are_given_up_end_their_spans(sim, traces):
    sim.on("hung", faults.hang())
    task = asyncio.create_task(chat(sim, "hung").ainvoke("x"))
    while not sim.count():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    @guard(name="left")
    async def left():
        await asyncio.Event().wait()

    other = asyncio.create_task(left())
    await asyncio.sleep(0)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other

    @guard(name="interrupted")
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    sim.on("gpt-4o", faults.stall(2))
    with chat(sim).stream("one two three") as stream:
        next(iter(stream))
    del stream
    gc.collect()
    while len(traces.spans("chat hung", "call left", "call interrupted", "chat gpt-4o")) < 4:
        pass
    for name in ("chat hung", "call left", "call interrupted", "chat gpt-4o"):
        span = traces.one(name)
        assert (span.attributes["error.type"], span.status.status_code) == ("cancelled", StatusCode.UNSET), name
    for attempt, call in (
        ("attempt hung", "chat hung"),
        ("attempt left", "call left"),
        ("attempt interrupted", "call interrupted"),
    ):
        assert traces.one(attempt).parent.span_id == traces.one(call).context.span_id
        assert traces.one(attempt).attributes["error.type"] == "given up"
    asyncio.create_task(left()).cancel()
    await asyncio.sleep(0)
    assert len(traces.spans("call left")) == 1, "one that never began is no call"


def test_measures_are_those_of_the_conventions(sim, traces):
    sim.on("gpt-4o", faults.status(500), times=1)
    model = chat(sim).with_retry(wait=QUICK)
    model.invoke("x")
    with model.stream("one two") as stream:
        list(stream)
    sim.on("gpt-4o", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        model.invoke("x")
    guard(name="f")(lambda: 1)()
    assert traces.measured() == {
        ("gen_ai.client.operation.duration", None): 2,
        ("gen_ai.client.operation.duration", "AuthenticationError"): 1,
        ("gen_ai.client.token.usage", None): 2,  # of a stream the server says it where it is asked to
        ("gen_ai.client.operation.time_to_first_chunk", None): 1,
        ("seawall.call.duration", None): 1,
        ("seawall.requests", None): 3,
        ("seawall.requests", "InternalServerError"): 1,
        ("seawall.requests", "AuthenticationError"): 1,
    }


def test_every_name_is_of_the_table(sim, traces):
    sim.on("gpt-4o", faults.status(500), times=1)
    model = chat(sim).with_retry(wait=QUICK).with_fallbacks([chat(sim, "up")])
    model.invoke("x")
    with model.stream("x") as stream:
        list(stream)
    guard(name="f")(lambda: 1)()
    places = {place: {name for name, there, _ in span_names()[0] if place in there} for place in ("call", "attempt", "event")}
    used = {"call": set(), "attempt": set(), "event": set()}
    for span in traces.spans():
        used["attempt" if span.name.startswith("attempt") else "call"] |= set(span.attributes)
        for event in span.events:
            used["event"] |= set(event.attributes)
    for place, names in used.items():
        assert names <= places[place], place


def test_names_are_those_of_the_published_conventions():
    from opentelemetry.semconv._incubating.attributes import (
        error_attributes,
        gen_ai_attributes,
        http_attributes,
        server_attributes,
    )
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

    modules = (error_attributes, gen_ai_attributes, http_attributes, server_attributes)
    published = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    attributes, instruments = span_names()
    assert {name for name, *_ in attributes if not name.startswith("seawall.")} <= published | {
        "error.type",
        "server.address",
        "server.port",
    }
    known = {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}
    assert {name for name, *_ in instruments if name.startswith("gen_ai.")} <= known


def test_traceparent_goes_along_where_it_is_wanted(endpoint_seen):
    seen, base_url = endpoint_seen
    traces = Traces()
    model = Chat("m", api_key=CANARY, base_url=base_url, default_headers={"x-own": "1"})
    opentelemetry.instrument(traces.provider, propagate=True)
    try:
        model.invoke("x")
        span = traces.one("chat m")
    finally:
        opentelemetry.instrument(traces.provider)
    model.invoke("x")
    opentelemetry.uninstrument()
    model.invoke("x")
    told = [headers.get("traceparent") for headers in seen]
    flags = span.context.trace_flags
    assert told == [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{flags:02x}", None, None]


def test_nothing_is_made_where_it_is_not_wanted(sim, traces):
    token = context.attach(context.set_value("suppress_instrumentation", True))
    chat(sim).invoke("x")
    context.detach(token)
    assert traces.spans() == []
    opentelemetry.uninstrument()
    opentelemetry.uninstrument()
    chat(sim).invoke("x")
    guard(name="f")(lambda: 1)()
    assert traces.spans() == []
    unsampled = Traces(sampler=ALWAYS_OFF)
    opentelemetry.instrument(unsampled.provider, unsampled.meters)
    chat(sim).invoke("x")
    assert unsampled.spans() == [] and unsampled.measured()["seawall.requests", None] == 1


def test_a_provider_that_fails_breaks_no_call(sim, caplog, recwarn):
    class Broken:
        def get_tracer(self, *_, **__):
            return self

        def start_span(self, *_, **__):
            raise RuntimeError("broken tracer")

    opentelemetry.instrument(Broken())
    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        assert chat(sim).invoke("x").attempts == 1
        assert guard(name="f")(lambda: 7)() == 7
    finally:
        sys.unraisablehook = hook
        opentelemetry.uninstrument()
    assert ["broken tracer"] * 2 == [str(each.exc_value) for each in unraisable]


def test_arguments_that_cannot_be_meant():
    with pytest.raises(TypeError, match="tracer_provider must be a provider of OpenTelemetry's or None, not 3"):
        opentelemetry.instrument(3)
    with pytest.raises(TypeError, match="propagate must be True or False, not 1"):
        opentelemetry.instrument(propagate=1)


def test_spans_of_a_program_are_exported_at_its_end_and_of_a_forked_child_too(sim):
    program = f"""
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
import seawall
from seawall.llm import Chat
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"{{span.name}} {{os.getpid()}}\\n")))
trace.set_tracer_provider(provider)
seawall.telemetry.opentelemetry.instrument()
Chat("parent", api_key="k", base_url={sim.base_url!r}).invoke("x")
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        Chat("child", api_key="k", base_url={sim.base_url!r}).invoke("x")
        seawall.telemetry.opentelemetry.flush()
        os._exit(0)
    os.waitpid(child, 0)
Chat("last", api_key="k", base_url={sim.base_url!r}).invoke("x")
"""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    lines = [line.rsplit(" ", 1) for line in ran.stdout.splitlines()]
    names = Counter(name for name, _ in lines)
    assert names == {f"{what} {model}": 1 for what in ("chat", "attempt") for model in ("parent", "child", "last")}
    assert len({process for _, process in lines}) == 2


async def test_a_context_of_a_task_is_left_as_it_was(sim, traces):
    """Interleaved tasks of one loop each have their own span as the current one, all the while."""

    @guard(name="inter")
    async def inter(n):
        mine = trace.get_current_span().get_span_context().span_id
        for _ in range(5):
            await asyncio.sleep(0)
            assert trace.get_current_span().get_span_context().span_id == mine
        return mine

    found = await asyncio.gather(*(inter(n) for n in range(10)))
    assert len(set(found)) == 10
    assert trace.get_current_span() is trace.INVALID_SPAN
    copied = contextvars.copy_context()
    assert copied.run(trace.get_current_span) is trace.INVALID_SPAN
