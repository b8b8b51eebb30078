"""The cost of a protected call: section 1 of the yardsticks. CPU time, not wall time; nothing here sleeps or is sent."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import _footprint
import _subjects as subjects
from _harness import Loop, Rounds, arguments, awaited, called, measure, tried
from _report import Report, Table, Yardstick
from _subjects import BARE, BREAKER, GUARD, RETRY, SEAWALL, WRAPPER

EMPTY = "(empty loop)"
LANGCHAIN = "langchain with_retry"


class Bench:
    """The rows of section 1, one after another."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.pace: dict[str, Any] = {"rounds": 5, "slice_ms": 4} if quick else {"rounds": 15, "slice_ms": 25}
        self.report = Report("calls", "The cost of a protected call", subjects.PEERS)
        self.single: float | None = None

    def run(self) -> None:
        self.one_argument()
        self.one_keyword()
        self.asynchronous()
        self.failed_attempt()
        self.rejection()
        self.threads()
        self.streams()
        self.memory()
        self.imports()
        self.report.finish()

    def _table(self, title: str, rounds: Rounds, base: str, notes: list[str]) -> None:
        table = Table(title, ["ns of CPU", "median", "min", "more", f"times {base}"], notes=notes)
        for name in rounds.values:
            extra = None if name == base else rounds.over(name, base)
            table.add(name, rounds.median(name), rounds.low(name), extra, rounds.ratio(name, base))
        self.report.table(table, rounds=rounds.values)

    def _calls(self, title: str, makers: list[subjects.Maker], loop: Callable[[Any], Loop], empty: Loop, *, base: str) -> Rounds:
        made, skipped = tried(makers)
        loops, failed = tried((name, lambda target=target: _works(loop(target))) for name, target in made.items())
        rounds = measure({EMPTY: empty, **loops}, **self.pace).without(EMPTY)
        self._table(title, rounds, base, [*skipped, *failed])
        return rounds

    def one_argument(self) -> None:
        def function(value: Any) -> Any:
            return value

        rounds = self._calls(
            "Synchronous, one argument",
            subjects.sync_calls(function, keyword=False),
            lambda target: called("target(1)", target),
            called("pass", None),
            base=BARE,
        )
        wrapper = rounds.over(WRAPPER, BARE)
        self.single = rounds.median(SEAWALL)
        for name in (SEAWALL, GUARD):
            self.report.judge(
                Yardstick(f"sync, 1 argument, over bare · {name}", rounds.over(name, BARE), wrapper, wrapper / 2, " ns")
            )
        for peer, must, aim in (("circuitbreaker", 10, 15), ("tenacity", 200, 400), (LANGCHAIN, 3000, 8000)):
            if peer in rounds:
                times = rounds.ratio(peer, SEAWALL)
                self.report.judge(Yardstick(f"whole call, {peer} costs", times, must, aim, "×", at_least=True))

    def one_keyword(self) -> None:
        def function(value: Any = None) -> Any:
            return value

        rounds = self._calls(
            "Synchronous, one keyword argument",
            subjects.sync_calls(function, keyword=True),
            lambda target: called("target(value=1)", target),
            called("pass", None),
            base=BARE,
        )
        wrapper = rounds.over(WRAPPER, BARE)
        for name in (SEAWALL, GUARD):
            value = rounds.over(name, BARE)
            self.report.judge(Yardstick(f"sync, 1 keyword, over bare · {name}", value, wrapper, wrapper / 3, " ns"))

    def asynchronous(self) -> None:
        async def function(value: Any) -> Any:
            return value

        event_loop = asyncio.new_event_loop()
        rounds = self._calls(
            "Asynchronous, nothing suspends",
            subjects.async_calls(function),
            lambda target: awaited("await target(1)", target, event_loop),
            awaited("pass", None, event_loop),
            base=BARE,
        )
        event_loop.close()
        wrapper = rounds.over(WRAPPER, BARE)
        for name in (SEAWALL, GUARD):
            value = rounds.over(name, BARE)
            self.report.judge(Yardstick(f"async, over bare · {name}", value, wrapper, wrapper * 0.75, " ns"))

    def failed_attempt(self) -> None:
        made, skipped = tried(subjects.failed_attempts())
        loops, failed = tried((name, lambda f=f: _works(called("target(1)", f))) for name, f in made.items())
        rounds = measure(loops, **self.pace, per_turn=subjects.FAILS)
        base = subjects.LOOP
        notes = ["nine failures, then a success; a ninth of the whole each", *skipped, *failed]
        self._table("A failed attempt: raised, classified, no wait", rounds, base, notes)
        # Within each round, as all that is compared here: a machine that gets slower meanwhile makes nobody look worse.
        for name in (SEAWALL, RETRY):
            self.report.judge(Yardstick(f"a failed attempt, times a try-loop · {name}", rounds.ratio(name, base), 1, 0.8, "×"))

    def rejection(self) -> None:
        made, skipped = tried(subjects.rejections())
        body = "try:\n    target(1)\nexcept Exception:\n    pass"
        loops = {name: called(body, target) for name, target in made.items()}
        rounds = measure({EMPTY: called("pass", None), **loops}, **self.pace).without(EMPTY)
        base = subjects.NATIVE
        self._table("A rejection by an open breaker, caught", rounds, base, skipped)
        self.report.judge(Yardstick(f"a rejection, times a raise · {BREAKER}", rounds.ratio(BREAKER, base), unit="×"))

    def threads(self) -> None:
        def function(value: Any) -> Any:
            return value

        keep = {BARE, WRAPPER, SEAWALL, GUARD, BREAKER, "circuitbreaker", "interlock-cb", "pybreaker"}
        makers = [maker for maker in subjects.sync_calls(function, keyword=False) if maker[0] in keep]
        made, skipped = tried(makers)
        one = measure({f"{name}, 1": _crowd(target, 1) for name, target in made.items()}, **self.pace)
        four = measure({f"{name}, 4": _crowd(target, 4) for name, target in made.items()}, **self.pace)
        table = Table("Four threads through one breaker", ["ns of CPU per call", "1 thread", "4 threads", "4 / 1"], notes=skipped)
        for name in made:
            single, crowd = one.median(f"{name}, 1"), four.median(f"{name}, 4")
            table.add(name, single, crowd, crowd / single)
        self.report.table(table, one=one.values, four=four.values)
        for name in (SEAWALL, GUARD):
            ratio = four.median(f"{name}, 4") / one.median(f"{name}, 1")
            self.report.judge(Yardstick(f"four threads, times one · {name}", ratio, 2, None, "×"))

    def streams(self) -> None:
        event_loop = asyncio.new_event_loop()
        kinds: list[tuple[str, list[subjects.Maker], Callable[[Any], Loop]]] = [
            (
                "An item of a protected generator",
                subjects.streams(),
                lambda f: called(f"for item in target({subjects.ITEMS}):\n    pass", f),
            ),
            (
                "An item of a protected asynchronous generator",
                subjects.async_streams(),
                lambda f: awaited(f"async for item in target({subjects.ITEMS}):\n    pass", f, event_loop),
            ),
        ]
        for title, makers, loop in kinds:
            made, skipped = tried(makers)
            loops, failed = tried((name, lambda f=f, loop=loop: _works(loop(f))) for name, f in made.items())
            rounds = measure(loops, **self.pace, per_turn=subjects.ITEMS)
            base = subjects.YIELD
            self._table(title, rounds, base, [*skipped, *failed])
            name = SEAWALL if SEAWALL in rounds else GUARD
            value = rounds.median(name) if name in rounds else None
            why = "refused" if value is None else ""
            self.report.judge(Yardstick(f"{title[0].lower()}{title[1:]}", value, rounds.median(base), None, " ns", why=why))
        event_loop.close()

    def memory(self) -> None:
        if not os.path.exists("/proc/self/statm"):  # noqa: PTH110
            return
        count = 20_000 if self.quick else 100_000
        table = Table(
            "Memory of an object", ["growth of the process", "bytes"], notes=[f"over {count:,} objects in a fresh process"]
        )
        sizes: dict[str, float] = {}
        for name, (setup, make, use) in _footprint.OBJECTS.items():
            try:
                # What is filled first takes its time.
                sizes[name] = _footprint.growth(setup, make, use, count // 10 if "\n" in use else count)
            except Exception as error:
                table.notes.append(f"skipped {name}: {error}")
                continue
            table.add(name, sizes[name])
        self.report.table(table, bytes=sizes)
        for name in ("seawall CircuitBreaker, consecutive", "seawall CircuitBreaker, last 100 calls, new"):
            self.report.judge(Yardstick(f"memory · {name.removeprefix('seawall ')}", sizes.get(name), 1024, None, " B"))

    def imports(self) -> None:
        rounds = 3 if self.quick else 11
        cpu, wall, foreign, standard = _footprint.imports(rounds)
        table = Table("import seawall", ["its own part", "ms"])
        table.add("CPU", cpu)
        table.add("wall", wall)
        for name, spent in _footprint.slowest(rounds):
            table.add(f"  {name} itself, wall", spent)
        table.notes.append(f"third-party modules loaded: {', '.join(foreign) or 'none'}")
        table.notes.append(f"of the standard library, beyond what most programs have: {', '.join(standard) or 'none'}")
        library = _footprint.library()
        if library is not None:
            table.notes.append(f"the native library is {library.stat().st_size / 1e6:.1f} MB")
        self.report.table(table, foreign=foreign, standard=standard)
        self.report.judge(
            Yardstick("import of seawall itself, CPU", cpu, 10, None, " ms"),
            Yardstick("third-party modules it loads", len(foreign), 0, None),
        )


def _works(loop: Loop) -> Loop:
    """The loop, once it has shown that it runs."""
    loop(2)
    return loop


def _crowd(target: Any, threads: int) -> Loop:
    """Calls from so many threads at once; the CPU of the whole process."""

    def run(count: int) -> int:
        share = max(1, count // threads)
        loops = [called("target(1)", target) for _ in range(threads)]
        start = threading.Barrier(threads + 1)
        workers = [threading.Thread(target=lambda loop=loop: (start.wait(), loop(share)), daemon=True) for loop in loops]
        for worker in workers:
            worker.start()
        begun = time.process_time_ns()
        start.wait()
        for worker in workers:
            worker.join()
        return (time.process_time_ns() - begun) * count // (share * threads)

    return run


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.CRITICAL)
    Bench(quick=arguments(__doc__ or "").quick).run()
