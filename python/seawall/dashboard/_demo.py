"""What `--demo` runs: calls of models at the simulator, and an outage of one of them now and then."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from seawall import CircuitBreaker, Monitor, guard, transient
from seawall.errors import SeawallError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, distributions, faults

if TYPE_CHECKING:
    from typing_extensions import Self

# Seconds of calm, of an outage, and of what it leaves behind.
CALM, OUTAGE, AFTER = 20, 25, 25
MAIN, SPARE, EMBEDDING = "gpt-4o", "gpt-4o-mini", "text-embedding-3-small"
QUESTION = "What does the wall hold back?"


class Demo:
    """Traffic to a simulator of its own, in threads, until the end of the block.

    Args:
        workers: who ask, one question at a time each.
        lapse: so many times faster than real: for a clock that runs so fast.
        trouble: whether there is an outage now and then.
    """

    def __init__(self, workers: int = 6, lapse: float = 1, trouble: bool = True) -> None:
        self._lapse = lapse
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,), name=f"demo-{number}") for number in range(workers)]
        if trouble:
            self._threads.append(threading.Thread(target=self._trouble, name="demo-trouble"))
        self._sim = Simulator(seed=7)
        self._calls: list[Callable[[], object]] = []

    def _begin(self) -> None:
        sim = self._sim.start()
        for model, median in {MAIN: 0.6, SPARE: 0.35, EMBEDDING: 0.08}.items():
            sim.pace(model, latency=distributions.lognormal(median / self._lapse, 0.4))
        sim.on(MAIN, faults.status(500), probability=0.003)

        def circuit(name: str) -> CircuitBreaker:
            return CircuitBreaker(None, 8, transient, name, failure_rate=0.5, window=15.0, minimum_calls=10)

        def chat(name: str, **settings: object) -> Chat:
            return Chat(name, api_key="sk-demo", base_url=sim.base_url, circuit=circuit(name), **settings)  # type: ignore[arg-type]

        main = chat(MAIN, max_retries=1, monitor=Monitor(name=MAIN)).with_fallbacks([chat(SPARE, max_retries=0)])
        embeddings = Embeddings(EMBEDDING, api_key="sk-demo", base_url=sim.base_url, circuit=circuit(EMBEDDING))
        chance = random.Random(7)  # noqa: S311  no secret comes of it

        @guard(name="prices", retry=2, circuit=CircuitBreaker(5, 30, name="prices"))
        def price() -> float:
            if chance.random() < 0.02:
                raise ConnectionError("the price list is not there")
            return chance.random()

        self._calls = [lambda: main.invoke(QUESTION)] * 6 + [lambda: embeddings.invoke(QUESTION)] * 3 + [price]

    def _work(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311
        while not self._over.wait(chance.uniform(0.2, 1.2) / self._lapse):
            with suppress(SeawallError, ConnectionError):  # the page tells of them
                chance.choice(self._calls)()

    def _trouble(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(CALM):
            self.outage(time.monotonic() - begun, OUTAGE)
            if self._over.wait(OUTAGE + AFTER):
                break

    def outage(self, start: float, span: float) -> None:
        """The main model fails for a time, from so many seconds of the simulator's on, and the spare one does not take all of it."""
        self._sim.outage(MAIN, start=start, until=start + span)
        self._sim.on(SPARE, faults.rate_limit(retry_after=2), probability=0.2, start=start, until=start + span)

    def __enter__(self) -> Self:
        self._begin()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, traceback: TracebackType | None = None
    ) -> None:
        self._over.set()
        self._sim.stop()
        for thread in self._threads:
            thread.join()
