"""Ctrl-C and cancellation: at once, and no request stays open on the server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from seawall import CircuitBreaker, Pipeline, Timeout, errors, testing
from seawall.llm import Chat, Embeddings
from seawall.simulator import faults

PROGRAM = """
import asyncio, signal, socket, sys
from seawall import CircuitBreaker
from seawall.llm import Chat
signal.signal(signal.SIGINT, signal.default_int_handler)
# Half open: one call is let in, and as long as it has not given its permit back no other.
circuit = CircuitBreaker(failure_threshold=1, recovery_timeout=0)
circuit.record_failure()
chat = Chat("m", api_key="k", base_url=base_url, timeout=None, max_retries=0, circuit=circuit)
patient = chat.with_retry(wait=600, before_sleep=lambda state: print("waiting", flush=True))

async def read(model):
    async for piece in model.astream("x"): pass

def run(call):
    async def woken():
        # Without a descriptor that a signal writes to, Python notices one that comes just as a loop goes to sleep when the
        # loop next wakes: asyncio's own loops too, whatever they wait for.
        heard, told = socket.socketpair()
        heard.setblocking(False)
        told.setblocking(False)
        asyncio.get_running_loop().add_reader(heard, heard.recv, 64)
        signal.set_wakeup_fd(told.fileno())
        await call

    asyncio.run(woken())

try:
    {call}
except KeyboardInterrupt:
    print("interrupted", len(chat.with_retry().invoke("x", n=2).choices), flush=True)
    sys.stdin.read()
"""

HUNG = {
    "invoke": "chat.invoke('x')",
    "batch": "chat.batch(['x'])",
    "stream": "list(chat.stream('x'))",
    "ainvoke": "run(chat.ainvoke('x'))",
    "abatch": "run(chat.abatch(['x']))",
    "astream": "run(read(chat))",
}


@pytest.mark.parametrize("fault", [faults.hang(), faults.stall(2)], ids=lambda fault: fault.name)
def test_ctrl_c_ends_a_call_that_hangs_and_cuts_its_request(sim, program, fault) -> None:
    sim.on("m", fault, times=len(HUNG))
    processes = [program(PROGRAM.format(call=call)) for call in HUNG.values()]
    sim.wait_for(len(HUNG), timeout=60)
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process, way in zip(processes, HUNG, strict=True):
        assert process.stdout.readline() == "interrupted 2\n", way
    sim.wait_aborted(len(HUNG))
    for process in processes:
        process.communicate("", timeout=30)
        assert process.returncode == 0


def test_ctrl_c_ends_a_wait_between_attempts(sim, program) -> None:
    calls = [call.replace("chat", "patient") for call in HUNG.values()]
    sim.on("m", faults.status(500), times=len(calls))
    processes = [program(PROGRAM.format(call=call)) for call in calls]
    for process in processes:
        assert process.stdout.readline() == "waiting\n"
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process, call in zip(processes, calls, strict=True):
        out, err = process.communicate(timeout=30)
        assert out == "interrupted 2\n", f"{call}: {out}{err}"
    assert sim.count() == 2 * len(calls), "the failures and the calls after the interrupt"


@pytest.mark.parametrize("way", ["ainvoke", "abatch", "astream", "embeddings"])
def test_cancelling_a_task_cuts_its_request_on_the_wire(sim, chat, way) -> None:
    sim.on("*", faults.hang())

    async def cancelled() -> None:
        model = chat(timeout=None)

        async def ask() -> None:
            if way == "ainvoke":
                await model.ainvoke("x")
            elif way == "abatch":
                await model.abatch(["x", "y"])
            elif way == "astream":
                await anext(model.astream("x"))
            else:
                await Embeddings("e", api_key="k", base_url=sim.base_url).ainvoke("x")

        task = asyncio.create_task(ask())
        await asyncio.to_thread(sim.wait_for, 2 if way == "abatch" else 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    sim.wait_aborted(2 if way == "abatch" else 1)
    assert all(request.aborted for request in sim.requests)


def test_a_timeout_around_a_call_cuts_its_request_and_spends_no_further_one(sim, chat) -> None:
    sim.on("m", faults.hang())

    async def limited() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(chat().ainvoke("x"), 0.2)

    asyncio.run(limited())
    sim.wait_aborted(1)
    assert sim.count() == 1


def test_cancelling_a_wait_between_attempts_sends_nothing_more(sim, chat) -> None:
    sim.on("m", faults.status(500))

    async def cancelled() -> None:
        waiting = asyncio.Event()
        loop = asyncio.get_running_loop()
        model = chat().with_retry(wait=600, before_sleep=lambda state: loop.call_soon_threadsafe(waiting.set))
        task = asyncio.create_task(model.ainvoke("x"))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert sim.count() == 1


def test_a_loop_that_ends_with_a_call_under_way_cuts_it(sim, chat) -> None:
    sim.on("m", faults.hang())

    async def left() -> None:
        task = asyncio.create_task(chat().ainvoke("x"))  # noqa: F841
        await asyncio.to_thread(sim.wait_for, 1)

    asyncio.run(left())
    sim.wait_aborted(1)
    sim.clear()
    assert asyncio.run(chat().ainvoke("x")).attempts == 1


# --- every permit comes back


def half_open() -> CircuitBreaker:
    """A breaker that lets one call in, and no other as long as that one has not given its permit back."""
    circuit = CircuitBreaker(failure_threshold=1, recovery_timeout=0)
    circuit.record_failure()
    assert (circuit.state, circuit.metrics().probes) == ("half_open", 0)
    return circuit


def waits(model: Chat, way: str) -> Callable[[], Any]:
    """Asks and waits for the answer; what it gives is awaited in the asynchronous ways."""

    async def read() -> None:
        async for _ in model.astream("x"):
            pass

    return {
        "invoke": lambda: model.invoke("x"),
        "batch": lambda: model.batch(["x"]),
        "stream": lambda: list(model.stream("x")),
        "ainvoke": lambda: model.ainvoke("x"),
        "abatch": lambda: model.abatch(["x"]),
        "astream": read,
    }[way]


def has_no_probe(circuit: CircuitBreaker) -> None:
    """The client's thread gives a permit back a moment after the server has seen the connection go."""
    while circuit.metrics().probes:
        threading.Event().wait(0.001)


def is_whole_again(sim, model: Chat, circuit: CircuitBreaker, *, judged: bool, connections: int = 1) -> None:
    """The breaker has its permit back, with or without evidence, and no connection but the last answer's is open."""
    has_no_probe(circuit)
    metrics = circuit.metrics()
    assert (metrics.state, metrics.probes, metrics.openings) == ("half_open", 0, 2 if judged else 1)
    sim.clear()
    assert model.invoke("x").content
    assert (circuit.state, sim.open_connections) == ("closed", connections)


@pytest.mark.parametrize("fault", [faults.hang(), faults.stall(2), faults.stall(2, 0.02)], ids=["hang", "stall", "keepalive"])
@pytest.mark.parametrize("way", ["invoke", "batch", "stream", "ainvoke", "abatch", "astream"])
def test_a_deadline_around_a_call_cuts_the_request_even_where_the_model_has_no_limit(
    sim, chat, way, fault, seawall_clock: testing.clock
) -> None:
    circuit = half_open()
    model = chat(timeout=None, circuit=circuit)
    sim.on("m", fault)
    limited, ask = Pipeline(Timeout(10)), waits(model, way)
    # Time stands still until another thread moves it; what no limit ended would hang for ever.
    mover = threading.Thread(target=lambda: (sim.wait_for(1, timeout=60), seawall_clock.advance(10)))
    rescue = threading.Timer(90, sim.stop)
    mover.start()
    rescue.start()
    with pytest.raises((TimeoutError, errors.StreamInterruptedError)) as raised:
        if way in ("invoke", "batch", "stream"):
            limited.call(ask)
        else:
            asyncio.run(limited.acall(ask))
    rescue.cancel()
    mover.join()
    if isinstance(raised.value, errors.StreamInterruptedError):
        assert isinstance(raised.value.__cause__, errors.Timeout)
    sim.wait_aborted(1)
    assert sim.count() == 1
    has_no_probe(circuit)
    # A limit that passes is evidence, unless the task was cancelled first.
    is_whole_again(sim, model, circuit, judged=circuit.metrics().openings == 2)


@pytest.mark.parametrize("fault", [faults.hang(), faults.stall(2)], ids=lambda fault: fault.name)
@pytest.mark.parametrize("way", ["ainvoke", "abatch", "astream"])
def test_cancelling_a_task_is_neutral(sim, chat, way, fault) -> None:
    circuit = half_open()
    model = chat(timeout=None, circuit=circuit)
    sim.on("m", fault)

    async def cancelled() -> None:
        task = asyncio.ensure_future(waits(model, way)())
        await asyncio.to_thread(sim.wait_for, 1)
        assert circuit.metrics().probes == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    sim.wait_aborted(1)
    is_whole_again(sim, model, circuit, judged=False)


@pytest.mark.parametrize("way", ["close", "with", "drop", "break", "aclose", "async with", "async drop"])
def test_leaving_a_stream_early_is_neutral_and_frees_its_connection(sim, chat, way) -> None:
    circuit = half_open()
    model = chat(timeout=None, circuit=circuit)
    sim.on("m", faults.stall(3))

    def leave() -> None:
        stream = model.stream("x")
        for _ in stream:
            if way == "break":
                break
            assert circuit.metrics().probes == 1, "it is judged when it ends"
            if way == "close":
                stream.close()
            elif way == "with":
                with stream:
                    break
            else:
                break

    async def aleave() -> None:
        stream = model.astream("x")
        await anext(stream)
        if way == "aclose":
            await stream.aclose()
        elif way == "async with":
            async with stream:
                pass

    if way.startswith("a"):
        asyncio.run(aleave())
    else:
        leave()
    gc.collect()
    sim.wait_aborted(1)
    is_whole_again(sim, model, circuit, judged=False)


def test_a_stream_is_judged_by_its_end(sim, chat) -> None:
    circuit = half_open()
    model = chat(circuit=circuit, max_retries=0)
    sim.on("m", faults.stall(3))
    with model.stream("x") as stream:
        assert next(stream)
        assert (circuit.state, circuit.metrics().probes) == ("half_open", 1)
        with pytest.raises(errors.CircuitBreakerError):
            model.invoke("x")
    sim.on("m", faults.cut(3))
    with contextlib.suppress(errors.StreamInterruptedError):
        list(model.stream("x"))
    assert (circuit.state, circuit.metrics().openings) == ("half_open", 2)
    sim.clear()
    assert list(model.stream("x"))
    assert circuit.state == "closed"
