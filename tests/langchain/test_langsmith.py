"""What LangSmith's own client posts to a server: one tree a call, each attempt below it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers import LangChainTracer
from langsmith import Client

from _ways import FAST, WAYS, asked
from seawall import Retry, errors
from seawall.langchain import resilient
from seawall.simulator import faults


class Sink:
    """A LangSmith of our own: the runs that it was sent, with what was said of them later."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Runs come as plain JSON then.
                self._answer({"version": "0.10.0", "batch_ingest_config": {**LIMITS, "use_multipart_endpoint": False}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                sink.take([*body.get("post", ()), *body.get("patch", ())] if "batch" in self.path else [body])
                self._answer({})

            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                sink.take([{"id": self.path.rsplit("/", 1)[-1], **body}])
                self._answer({})

            def _answer(self, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *told: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, sent: list[dict[str, Any]]) -> None:
        with self._lock:
            for run in sent:
                kept = self.runs.setdefault(run["id"], {})
                kept.update({name: value for name, value in run.items() if value is not None})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what it has

    @property
    def roots(self) -> list[dict[str, Any]]:
        return self._sorted(run for run in self.runs.values() if not run.get("parent_run_id"))

    def below(self, parent: dict[str, Any]) -> list[dict[str, Any]]:
        return self._sorted(run for run in self.runs.values() if run.get("parent_run_id") == parent["id"])

    @staticmethod
    def _sorted(runs: Any) -> list[dict[str, Any]]:
        return sorted(runs, key=lambda run: run["dotted_order"])

    def check(self) -> None:
        """That each run is where it says that it is, and over."""
        for run in self.runs.values():
            *above, own = run["dotted_order"].split(".")
            assert own.endswith(run["id"])
            assert run["end_time"]
            if above:
                parent = self.runs[run["parent_run_id"]]
                assert ".".join(above) == parent["dotted_order"]
                assert run["trace_id"] == parent["trace_id"]
                assert parent["start_time"] <= run["start_time"]
                assert run["end_time"] <= parent["end_time"]
            else:
                assert run["trace_id"] == run["id"]


LIMITS = {"size_limit": 100, "size_limit_bytes": 20_971_520, "scale_up_qsize_trigger": 1000, "scale_up_nthreads_limit": 16}


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def client(sink: Sink) -> Iterator[Client]:
    client = Client(api_url=sink.url, api_key="lsv2-fake")
    yield client
    client.cleanup()


@pytest.fixture
def tracer(client: Client) -> LangChainTracer:
    return LangChainTracer(client=client, project_name="seawall")


def told(run: dict[str, Any]) -> tuple[Any, ...]:
    metadata = run["extra"]["metadata"]
    return (sorted(run["tags"]), metadata["ls_model_name"], metadata.get("seawall_status"), "error" in run)


def usage(run: dict[str, Any]) -> Any:
    return run["extra"]["metadata"].get("usage_metadata")


@pytest.mark.parametrize("way", WAYS)
async def test_each_attempt_is_posted_below_its_call(sim, llm, sink, client, tracer, way):
    sim.on("gpt-4", faults.status(500), times=3)
    model = llm().with_retry(stop_after_attempt=2, **FAST).with_fallbacks([llm("b").with_retry(**FAST)])
    sim.on("b", faults.rate_limit(retry_after_ms=1), times=1)
    await asked(way, model, {"callbacks": [tracer]})
    client.flush()
    (root,) = sink.roots
    assert (root["run_type"], root["name"], root.get("error")) == ("chain", "ChatOpenAI", None)
    assert [told(run) for run in sink.below(root)] == [
        (["retry:attempt:1"], "gpt-4", 500, True),
        (["retry:attempt:2"], "gpt-4", 500, True),
        (["fallback:1", "retry:attempt:1"], "b", 429, True),
        (["fallback:1", "retry:attempt:2"], "b", None, False),
    ]
    *failed, good = sink.below(root)
    assert all("InternalServerError" in run["error"] or "RateLimitError" in run["error"] for run in failed)
    assert [usage(run) for run in failed] == [None] * 3
    assert usage(good)["total_tokens"] > 0
    assert good["outputs"]["generations"][0][0]["text"].startswith("[b] hello")
    assert root["extra"]["metadata"]["seawall_served_by"] == "b"
    assert "usage_metadata" not in root["extra"]["metadata"]
    sink.check()


@pytest.mark.parametrize("way", WAYS)
async def test_without_policies_the_call_has_the_usage(sim, llm, sink, client, tracer, way):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    await asked(way, llm(), {"callbacks": [tracer]})
    client.flush()
    (root,) = sink.roots
    assert root["run_type"] == "llm"
    assert usage(root)["total_tokens"] > 0
    assert [(told(run)[0], told(run)[3], usage(run)) for run in sink.below(root)] == [
        (["nostream", "retry:attempt:1"], True, None),
        (["nostream", "retry:attempt:2"], False, None),
    ]
    sink.check()


async def test_a_batch_is_a_tree_for_each_input(sim, llm, sink, client, tracer):
    sim.on("gpt-4", faults.status(500), times=2)
    await llm().with_retry(**FAST).abatch(["a", "b", "c"], {"callbacks": [tracer]})
    llm().with_retry(**FAST).batch(["d", "e"], {"callbacks": [tracer]})
    client.flush()
    assert sorted(root["inputs"]["input"] for root in sink.roots) == ["a", "b", "c", "d", "e"]
    assert sum(len(sink.below(root)) for root in sink.roots) == 7
    sink.check()


async def test_a_chains_tree_is_whole(sim, llm, sink, client, tracer):
    sim.on("gpt-4", faults.status(500), times=1)
    chain = ChatPromptTemplate.from_template("{x}") | llm().with_retry(**FAST) | StrOutputParser()
    await chain.ainvoke({"x": "hello"}, {"callbacks": [tracer]})
    foreign = resilient(llm(), retry=Retry(2, **FAST), circuit=None, fallback=[llm("b")])
    sim.on("gpt-4", faults.status(500))
    await foreign.ainvoke("hello", {"callbacks": [tracer]})
    client.flush()
    first, second = sink.roots
    model = sink.below(first)[1]
    assert [run["tags"] for run in sink.below(model)] == [["retry:attempt:1"], ["retry:attempt:2"]]
    assert [sorted(run["tags"]) for run in sink.below(second)] == [
        ["retry:attempt:1"],
        ["retry:attempt:2"],
        ["fallback:1", "retry:attempt:1"],
    ]
    sink.check()


def test_a_call_that_fails_is_posted_with_its_error(sim, llm, sink, client, tracer):
    sim.on("gpt-4", faults.status(401))
    with pytest.raises(errors.AuthenticationError):
        llm().with_retry(**FAST).invoke("hello", {"callbacks": [tracer]})
    client.flush()
    (root,) = sink.roots
    (only,) = sink.below(root)
    assert "AuthenticationError" in root["error"]
    assert told(only) == (["retry:attempt:1"], "gpt-4", 401, True)
    sink.check()


PROGRAM = """
import asyncio, sys
from langchain_core.tracers.langchain import wait_for_all_tracers
from langsmith import traceable
from seawall.langchain import ChatOpenAI

model = ChatOpenAI(model="gpt-4", api_key="sk-test", base_url=sys.argv[1]).with_retry(wait=0.001)

@traceable
def ask():
    return model.invoke("hello").content

ask()
list(ChatOpenAI(model="gpt-4", api_key="sk-test", base_url=sys.argv[1]).stream("hello"))
wait_for_all_tracers()
"""


def test_the_environment_is_enough(sim, sink):
    sim.on("gpt-4", faults.status(500), times=1)
    environment = {"LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": sink.url, "LANGSMITH_API_KEY": "lsv2-fake", "PATH": ""}
    subprocess.run([sys.executable, "-c", PROGRAM, sim.base_url], env=environment, check=True, timeout=60)
    first, second = sink.roots
    assert (first["name"], second["run_type"]) == ("ask", "llm")
    (call,) = sink.below(first)
    assert [told(run)[0] for run in sink.below(call)] == [["retry:attempt:1"], ["retry:attempt:2"]]
    assert sink.below(second) == []
    sink.check()
