"""A log handler that raises changes no call: neither its answer nor its error, nor what policies know of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _canary import CANARY

from seawall import CircuitBreaker, Monitor, Pipeline, Retry
from seawall.errors import InternalServerError
from seawall.llm import Chat
from seawall.simulator import Simulator, faults


@pytest.fixture(params=["seawall", "seawall.monitor"])
def broken(request: pytest.FixtureRequest) -> Iterator[Callable[..., list[str]]]:
    """Has a handler of that logger raise for all that it hears; tells what that was."""
    logger, handler = logging.getLogger("seawall"), logging.Handler()
    level = logger.level

    def begin(error: BaseException, from_level: int = logging.DEBUG) -> list[str]:
        heard: list[str] = []

        def emit(record: logging.LogRecord) -> None:
            if record.name == request.param:
                heard.append(record.getMessage())
                raise error

        handler.emit = emit  # type: ignore[method-assign]
        logger.addHandler(handler)
        logger.setLevel(from_level)
        return heard

    yield begin
    logger.setLevel(level)
    logger.removeHandler(handler)


script: list[bool] = []


def answer() -> str:
    if script.pop(0):
        raise ConnectionError
    return "answer"


async def coroutine() -> str:
    await asyncio.sleep(0)
    return answer()


def items() -> Iterator[str]:
    yield answer()


WAYS: dict[str, Callable[[Pipeline], Any]] = {
    "plain": lambda pipeline: pipeline(answer)(),
    "coroutine": lambda pipeline: asyncio.run(pipeline.acall(coroutine)),
    "items": lambda pipeline: "".join(pipeline(items)()),
}
ways = pytest.mark.parametrize("way", WAYS)


@ways
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_in_a_handler_changes_nothing(broken: Any, way: str, hooks: dict[str, Any]) -> None:
    breaker, monitor = CircuitBreaker(20), Monitor(20)
    pipeline = Pipeline(Retry(2, wait=0, **hooks), breaker, monitor=monitor)
    heard = broken(KeyError("in the handler"))
    # Enough of them for the monitor to raise an alert.
    script[:] = [True, False] * 12
    assert [WAYS[way](pipeline) for _ in range(12)] == ["answer"] * 12
    assert heard
    seen = monitor.snapshot()
    assert (seen["total"], seen["errors"], seen["retried"], seen["level"]) == (12, 0, 12, "critical")
    assert [alert.kind for alert in monitor.alerts] == ["raised"]
    assert breaker.failure_count == 0
    script[:] = [True, True]
    with pytest.raises(ConnectionError) as raised:
        WAYS[way](pipeline)
    assert raised.value.__context__ is None
    assert breaker.failure_count == 2


@ways
@pytest.mark.parametrize("broken", ["seawall"], indirect=True)
def test_an_interrupt_in_a_handler_is_passed_on(broken: Any, way: str, hooks: dict[str, Any]) -> None:
    breaker, interrupt = CircuitBreaker(20), KeyboardInterrupt("in the handler")
    broken(interrupt, logging.INFO)
    script[:] = [True, True]
    with pytest.raises(KeyboardInterrupt) as raised:
        WAYS[way](Pipeline(Retry(2, wait=0, **hooks), breaker))
    assert raised.value is interrupt
    # It came once the first attempt had failed.
    assert (script, breaker.failure_count) == ([True], 1)


async def streamed(model: Chat) -> str:
    return "".join([piece.content async for piece in model.astream("x")])


MODEL_WAYS: dict[str, Callable[[Chat], Any]] = {
    "invoke": lambda model: model.invoke("x"),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("x")),
    "stream": lambda model: list(model.stream("x")),
    "astream": lambda model: asyncio.run(streamed(model)),
    "batch": lambda model: model.batch(["x", "y"], return_exceptions=True),
    "abatch": lambda model: asyncio.run(model.abatch(["x", "y"], return_exceptions=True)),
    "watched": lambda model: list(model._route.watch("chat", [{"role": "user", "content": "x"}])),
}


@pytest.mark.parametrize("asked", ["log", "hook", "predicate"])
@pytest.mark.parametrize("broken", ["seawall"], indirect=True)
@pytest.mark.parametrize("way", MODEL_WAYS)
def test_a_models_caller_gets_the_interrupt_too(broken: Any, way: str, asked: str) -> None:
    breaker, interrupt, hooks = CircuitBreaker(20), KeyboardInterrupt("on another thread"), {}

    def stop(_: Any) -> Any:
        raise interrupt

    if asked == "log":
        broken(interrupt, logging.INFO)
    else:
        hooks = {"before_sleep": stop} if asked == "hook" else {"giveup": stop}
    with Simulator() as sim:
        sim.on("m", faults.status(500))
        model = Chat("m", api_key=CANARY, base_url=sim.base_url, circuit=breaker).with_retry(wait=0, **hooks)
        with pytest.raises(KeyboardInterrupt) as raised:
            MODEL_WAYS[way](model)
        assert raised.value is interrupt
        inputs = 2 if "batch" in way else 1
        assert (sim.count(), breaker.failure_count) == (inputs, inputs)


@pytest.mark.parametrize("broken", ["seawall"], indirect=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nor_does_one_change_what_a_model_answers(broken: Any) -> None:
    with Simulator() as sim:
        breaker = CircuitBreaker(20)
        model = Chat("m", api_key=CANARY, base_url=sim.base_url, circuit=breaker).with_retry(stop_after_attempt=2, wait=0)
        expected = model.invoke("x").content
        heard = broken(KeyError("in the handler"))
        for call in (
            lambda: model.invoke("x").content,
            lambda: asyncio.run(model.ainvoke("x")).content,
            lambda: "".join(piece.content for piece in model.stream("x")),
            lambda: asyncio.run(streamed(model)),
            lambda: model.batch(["x"])[0].content,
        ):
            sim.on("m", faults.status(500), times=1)
            assert call() == expected
        assert len(heard) == 5
        sim.on("m", faults.status(500))
        with pytest.raises(InternalServerError):
            model.invoke("x")
        assert breaker.failure_count == 2
        assert sim.count() == 1 + 5 * 2 + 2
