"""Attempts are told of while they are made, where the call was made, and every run ends."""

from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from _ways import FAST, WAYS, asked, failed
from seawall import errors
from seawall.langchain import _calls, _tracing
from seawall.simulator import faults


class Live(BaseCallbackHandler):
    """Says what is told at the time that it is told."""

    def __init__(self):
        self.second, self.threads = threading.Event(), set()
        self.told = []

    def on_chat_model_start(self, *told, tags, **more):
        self.threads.add(threading.get_ident())
        self.told.append(("start", tags[0]))
        if tags[0] == "retry:attempt:2":
            self.second.set()

    def on_llm_error(self, error, *, tags, **more):
        self.threads.add(threading.get_ident())
        self.told.append(("error", tags[0]))


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_attempts_are_told_while_they_are_made_in_the_callers_thread(sim, llm, way, wrapped):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    sim.on("gpt-4", faults.hang(), after=1)
    live = Live()
    model = llm(timeout=10).with_retry(stop_after_attempt=2, **FAST) if wrapped else llm(timeout=10, max_retries=1)

    def call():
        with pytest.raises(errors.APIConnectionError):
            asyncio.run(asked(way, model, {"callbacks": [live]}))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    sim.wait_for(2)
    assert live.second.wait(10), "the second attempt hangs, and nobody was told of it"
    assert live.told[-3:] == [("start", "retry:attempt:1"), ("error", "retry:attempt:1"), ("start", "retry:attempt:2")]
    sim.stop()
    thread.join(20)
    assert live.threads == {thread.ident}


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch"])
async def test_coroutine_handlers_are_awaited_in_the_callers_loop(sim, llm, way):
    where = []

    class Handler(AsyncCallbackHandler):
        async def on_chat_model_start(self, *told, **more):
            await asyncio.sleep(0)
            where.append(("start", asyncio.get_running_loop()))

        async def on_llm_error(self, *told, **more):
            await asyncio.sleep(0)
            where.append(("error", asyncio.get_running_loop()))

        async def on_llm_end(self, *told, **more):
            await asyncio.sleep(0)
            where.append(("end", asyncio.get_running_loop()))

    sim.on("gpt-4", faults.status(500), times=1)
    await asked(way, llm().with_retry(**FAST), {"callbacks": [Handler()]})
    loop = asyncio.get_running_loop()
    assert where == [(name, loop) for name in ("start", "error", "start", "end")]


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch"])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_cancelled_call_ends_its_runs_and_cuts_the_request(sim, llm, runs, way, wrapped):
    sim.on("gpt-4", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    sim.on("gpt-4", faults.hang(), after=1)
    task = asyncio.create_task(asked(way, llm().with_retry(**FAST) if wrapped else llm(), {"callbacks": [runs]}))
    await asyncio.to_thread(sim.wait_for, 2)
    while "retry:attempt:2" not in {tag for run in runs.run_map.values() for tag in run.tags}:
        await asyncio.sleep(0)
    (second,) = [run for run in runs.run_map.values() if "retry:attempt:2" in run.tags]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert second.end_time and "CancelledError" in second.error
    if wrapped:
        assert "CancelledError" in runs.root.error
        assert [failed(run) for run in runs.root.child_runs] == [True, True]
        assert runs.root.child_runs[1].extra["metadata"]["seawall_outcome"] == "given up"
    assert all(run.end_time for run in runs.all)


async def test_leaving_a_stream_early_ends_its_runs(sim, llm, runs):
    sim.on("gpt-4", faults.stall(after=3))
    pieces = llm().with_retry(**FAST).stream("hello", {"callbacks": [runs]})
    next(pieces)
    pieces.close()
    assert [run.end_time is None for run in runs.all] == [False, False], "at once, and not when it is collected"
    apieces = llm().with_retry(**FAST).astream("hello", {"callbacks": [runs]})
    await anext(apieces)
    await apieces.aclose()
    assert [run.end_time is None for run in runs.all] == [False] * 4
    await asyncio.to_thread(sim.wait_aborted, 2)
    for root in runs.roots:
        (child,) = root.child_runs
        assert child.end_time <= root.end_time
    assert len(runs.roots) == 2


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_stream_that_breaks_off_leaves_what_was_said_in_its_run(sim, llm, runs, way):
    sim.on("gpt-4", faults.cut(after=3))
    with pytest.raises(errors.StreamInterruptedError) as raised:
        await asked(way, llm().with_retry(**FAST), {"callbacks": [runs]})
    (child,) = runs.root.child_runs
    assert child.outputs["generations"][0][0]["text"] == raised.value.partial != ""
    assert child.extra["metadata"]["seawall_outcome"] == "StreamInterruptedError"


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_that_raises_ends_the_call(sim, llm, way):
    class Refuses(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, *told, **more):
            raise KeyError("no")

    sim.on("gpt-4", faults.hang())
    with pytest.raises(KeyError, match="no"):
        await asked(way, llm().with_retry(**FAST), {"callbacks": [Refuses()]})


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_handler_that_raises_over_a_token_cuts_the_request(sim, llm, way, wrapped):
    class Refuses(BaseCallbackHandler):
        raise_error = True

        def on_llm_new_token(self, *told, **more):
            raise KeyError("no")

    sim.on("gpt-4", faults.stall(after=3))
    with pytest.raises(KeyError, match="no") as raised:
        await asked(way, llm().with_retry(**FAST) if wrapped else llm(), {"callbacks": [Refuses()]})
    await asyncio.to_thread(sim.wait_aborted, 1)
    assert raised.value.__traceback__, "which holds the frames of what was under way"


def test_nothing_of_it_is_made_when_nobody_listens(sim, llm, runs, monkeypatch):
    def refused(*told, **more):
        raise AssertionError("somebody is told")

    monkeypatch.setattr(_calls, "Attempts", refused)
    monkeypatch.setattr(_calls, "Call", refused)
    monkeypatch.setattr(_tracing, "Attempts", refused)
    sim.on("*", faults.status(500, headers={"retry-after-ms": "1"}), times=1)
    for model in (llm(), llm().with_retry(**FAST), llm().with_retry(**FAST).with_fallbacks([llm("b")])):
        for way in WAYS:
            asyncio.run(asked(way, model, None))
    with pytest.raises(AssertionError, match="told"):
        llm().invoke("hello", {"callbacks": [runs]})
