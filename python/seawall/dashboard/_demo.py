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


class Demo:
    """Traffic to a simulator of its own, in threads, until the end of the block."""

    def __init__(self, workers: int = 6) -> None:
        self._sim = Simulator(seed=7)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,), name=f"demo-{number}") for number in range(workers)]
        self._threads.append(threading.Thread(target=self._trouble, name="demo-trouble"))

    def _begin(self) -> None:
        sim = self._sim.start()
        for model, median in {MAIN: 0.5, SPARE: 0.3, EMBEDDING: 0.08}.items():
            sim.pace(model, latency=distributions.lognormal(median, 0.4))
        sim.on(MAIN, faults.status(500), probability=0.01)

        def breaker(name: str) -> CircuitBreaker:
            return CircuitBreaker(None, 8, transient, name, failure_rate=0.5, window=15.0, minimum_calls=10)

        spare = Chat(SPARE, circuit=breaker(SPARE), max_retries=1, api_key="sk-demo", base_url=sim.base_url)
        main = Chat(MAIN, circuit=breaker(MAIN), max_retries=2, api_key="sk-demo", base_url=sim.base_url)
        embeddings = Embeddings(EMBEDDING, circuit=breaker(EMBEDDING), api_key="sk-demo", base_url=sim.base_url)
        chance = random.Random(7)  # noqa: S311  no secret comes of it
        watched = Monitor(name="answers")

        @guard(name="answers", retry=None, circuit=None, monitor=watched)
        def answer(question: str) -> str:
            return main.with_fallbacks([spare]).invoke(question).content

        @guard(name="search", retry=2, circuit=CircuitBreaker(5, 30, name="search"))
        def search(question: str) -> object:
            return embeddings.invoke(question)

        @guard(name="prices", retry=2, circuit=CircuitBreaker(5, 30, name="prices"))
        def price() -> float:
            if chance.random() < 0.02:
                raise ConnectionError("the price list is not there")
            return chance.random()

        self._calls: list[Callable[[], object]] = (
            [lambda: answer("What does the wall hold back?")] * 6 + [lambda: search("tides")] * 3 + [price]
        )

    def _work(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311
        while not self._over.wait(chance.uniform(0.1, 0.5)):
            with suppress(SeawallError, ConnectionError):  # the page tells of them
                chance.choice(self._calls)()

    def _trouble(self) -> None:
        """Outages, from the beginning of each cycle on the simulator's clock."""
        begun = time.monotonic()
        while not self._over.wait(CALM):
            now = time.monotonic() - begun
            self._sim.outage(MAIN, start=now, until=now + OUTAGE)
            # The spare one does not take all of it.
            self._sim.on(SPARE, faults.status(429), probability=0.2, start=now, until=now + OUTAGE)
            if self._over.wait(OUTAGE + AFTER):
                break

    def __enter__(self) -> Self:
        self._begin()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, traceback: TracebackType | None = None
    ) -> None:
        self._over.set()
        self._sim.stop()  # hung requests end by it
        for thread in self._threads:
            thread.join()
