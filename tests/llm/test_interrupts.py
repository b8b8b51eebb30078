"""Ctrl-C and cancellation: at once, and no request stays open on the server."""

from __future__ import annotations

import asyncio
import signal

import pytest

from seawall.llm import Embeddings
from seawall.simulator import faults

PROGRAM = """
import asyncio, signal, socket, sys
from seawall.llm import Chat
signal.signal(signal.SIGINT, signal.default_int_handler)
chat = Chat("m", api_key="k", base_url=base_url, timeout=None, max_retries=0)
patient = chat.with_retry(wait=600, before_sleep=lambda state: print("waiting", flush=True))

async def read():
    async for piece in chat.astream("x"): pass

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
    "astream": "run(read())",
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
    sim.on("m", faults.status(500), times=3)
    calls = ("patient.invoke('x')", "run(patient.ainvoke('x'))", "patient.batch(['x'])")
    processes = [program(PROGRAM.format(call=call)) for call in calls]
    for process in processes:
        assert process.stdout.readline() == "waiting\n"
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process, call in zip(processes, calls, strict=True):
        out, err = process.communicate(timeout=30)
        assert out == "interrupted 2\n", f"{call}: {out}{err}"
    assert sim.count() == 6, "the failures and the calls after the interrupt"


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
