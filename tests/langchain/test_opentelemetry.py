"""OpenTelemetry sees the same tree: by an instrumentation of LangChain, and by LangSmith's client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers import LangChainTracer
from langsmith import Client
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from _ways import FAST, WAYS, asked
from seawall.simulator import faults


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def instrumented(provider: TracerProvider) -> Iterator[None]:
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield
    instrumentor.uninstrument()


def tree(spans: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
    """The only root, and whoever is below a span, in order."""
    (root,) = [span for span in spans if span.parent is None]
    assert {span.context.trace_id for span in spans} == {root.context.trace_id}

    def below(parent: Any) -> list[Any]:
        children = [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]
        return sorted(children, key=lambda span: span.start_time)

    return root, below


@pytest.mark.parametrize("way", WAYS)
async def test_an_instrumentation_of_langchain_sees_each_attempt_below_its_call(sim, llm, instrumented, exporter, way):
    sim.on("gpt-4", faults.status(500), times=2)
    model = llm().with_retry(stop_after_attempt=2, **FAST).with_fallbacks([llm("b")])
    await asked(way, ChatPromptTemplate.from_template("{x}") | model | StrOutputParser(), question={"x": "hello"})
    root, below = tree(exporter.get_finished_spans())
    call = below(root)[1]
    attempts = below(call)
    told = [json.loads(span.attributes["metadata"]) for span in attempts]
    assert [(each["seawall_attempt"], each["seawall_alternative"], each["seawall_outcome"]) for each in told] == [
        (1, 0, "InternalServerError"),
        (2, 0, "InternalServerError"),
        (1, 1, "ok"),
    ]
    assert [span.status.is_ok for span in attempts] == [False, False, True]
    assert [span.attributes["llm.model_name"] for span in attempts] == ["gpt-4", "gpt-4", "b"]
    assert [span.attributes.get("llm.token_count.total") is not None for span in attempts] == [False, False, True]
    assert "llm.token_count.total" not in call.attributes
    assert all(call.start_time <= span.start_time <= span.end_time <= call.end_time for span in attempts)


@pytest.mark.parametrize("way", WAYS)
async def test_langsmiths_client_exports_the_same(sim, llm, provider, exporter, way):
    sim.on("gpt-4", faults.status(500), times=1)
    client = Client(api_url="http://127.0.0.1:9", api_key="lsv2-fake", otel_tracer_provider=provider, tracing_mode="otel")
    model = llm().with_retry(**FAST)
    await asked(way, model, {"callbacks": [LangChainTracer(client=client)]})
    client.flush()
    client.cleanup()
    root, below = tree(exporter.get_finished_spans())
    attempts = below(root)
    assert [span.attributes["langsmith.span.tags"] for span in attempts] == ["retry:attempt:1", "retry:attempt:2"]
    assert [span.status.is_ok for span in attempts] == [False, True]
    assert [span.attributes.get("gen_ai.usage.total_tokens") is not None for span in attempts] == [False, True]
