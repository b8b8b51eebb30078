"""The native client beside others: section 2 of the yardsticks. A server of its own on the loopback; the client's CPU only."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import _clients as clients
from _harness import Rounds, arguments, awaited, called, in_turn, measure, tried
from _report import Report, Table, Yardstick

SERVER = Path(sys.prefix) / "bin" / "seawall-loopback"
# Those who cost so much that a few requests tell it.
SLOW = {clients.HTTPX, clients.SDK, clients.LANGCHAIN, clients.LANGCHAIN_BATCH, clients.LITELLM}
# Those whose streams do.
SLOW_STREAMS = {clients.SDK, clients.LANGCHAIN_STREAM, clients.LITELLM_STREAM}


class Server:
    """The server: where it listens, and the CPU that it has used. It has one thread, so one core is all that it can use."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        # The CPU clock of another process, as Linux numbers it.
        self._clock = (~process.pid << 3) | 2

    def cpu_ns(self) -> int:
        return time.clock_gettime_ns(self._clock)

    @contextmanager
    def watched(self) -> Iterator[list[float]]:
        """Seconds of its CPU and of the clock, once it is over."""
        spent: list[float] = []
        cpu, wall = self.cpu_ns(), time.perf_counter()
        yield spent
        spent += [(self.cpu_ns() - cpu) / 1e9, time.perf_counter() - wall]


@contextmanager
def served() -> Iterator[Server]:
    """The server. It ends with us."""
    if not SERVER.exists():
        sys.exit(f"{SERVER} is missing: `make bench` builds it")
    with subprocess.Popen([SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.communicate(timeout=5)


def cpu_ns() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e9)


def measured(
    server: Server, loops: dict[str, Callable[[int], Any]], counts: dict[str, int], rounds: int
) -> tuple[Rounds, dict[str, float]]:
    """As `_harness.measure`, by the CPU of all threads of this process; and how busy each kept the server's core."""
    taken = Rounds({name: [] for name in loops})
    seen: dict[str, list[list[float]]] = {name: [] for name in loops}
    for name in in_turn(loops, rounds):
        begun = cpu_ns()
        with server.watched() as spent:
            loops[name](counts[name])
        taken.values[name].append((cpu_ns() - begun) / counts[name])
        seen[name].append(spent)
    busy = {name: sum(cpu for cpu, _ in each) / sum(wall for _, wall in each) for name, each in seen.items()}
    return taken, busy


def ceiling(report: Report, server: Server, *, quick: bool) -> None:
    """What the server can do at most: asked by a program that does nothing else, and by its own CPU."""
    span = 500 if quick else 3000
    command = [str(SERVER), "load", str(server.port), str(clients.CONCURRENCY), str(span)]
    with server.watched() as spent:
        replies = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    cpu, wall = spent
    table = Table("The server's own ceiling", ["0.5 KB replies, 64 at once", "per second"])
    table.add("what a compiled load generator gets", round(replies / wall))
    table.add("what its one core can answer", round(replies / cpu))
    table.notes = [f"{cpu / replies * 1e6:.1f} µs of its CPU a reply; {percent(cpu / wall)} of its core were used"]
    report.table(table, replies=replies, server_seconds=cpu, seconds=wall)


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def not_saturated(report: Report, busy: dict[str, float], what: str) -> None:
    """The server has to be waiting for clients, not they for it."""
    most = max(busy, key=lambda name: busy[name])
    report.judge(Yardstick(f"{what}: the server's core, at most ({most})", busy[most] * 100, 90, None, " %"))


def answering(run: clients.Batch) -> clients.Batch:
    """The client, once it has shown that it gets the answers; its connections are made then."""
    for _ in range(2):
        answers = run(clients.CONCURRENCY)
        assert answers == [clients.ANSWER] * clients.CONCURRENCY, answers[:1]
    return run


def reading(run: clients.Streams, tokens: int) -> clients.Streams:
    seen = run(1)
    assert seen == tokens, f"{seen} tokens of {tokens}"
    return run


def requests(report: Report, server: Server, *, quick: bool) -> None:
    base_url = f"{server.url}/v1"
    ready, skipped = tried((name, lambda make=make: answering(make())) for name, make in clients.requests(base_url))
    counts = {name: (64 if quick else 128) if name in SLOW else (500 if quick else 2000) for name in ready}
    rounds, busy = measured(server, ready, counts, 2 if quick else 7)
    # Nanoseconds a request are milliseconds a million of them.
    thousand = Rounds({name: [value / 1000 for value in values] for name, values in rounds.values.items()})
    title = "Requests, 0.5 KB replies, 64 at once"
    table = Table(title, ["client CPU, ms per 1,000 requests", "median", "min", "× aiohttp", "server busy"], notes=skipped)
    for name in thousand.values:
        ratio = thousand.ratio(name, clients.AIOHTTP)
        table.add(name, thousand.median(name), thousand.low(name), ratio, percent(busy[name]))
    report.table(table, ns_per_request=rounds.values, server_busy=busy)
    not_saturated(report, busy, "requests")
    for name, must, aim in ((clients.BATCH, 3, 5), (clients.AINVOKE, 2, 3), (clients.MONITORED, 2, 3)):
        report.judge(
            Yardstick(f"aiohttp costs, times {name}", rounds.ratio(clients.AIOHTTP, name), must, aim, "×", at_least=True)
        )
    for peer, name, must, aim in (
        (clients.SDK, clients.AINVOKE, None, 50),
        (clients.LITELLM, clients.AINVOKE, None, 50),
        (clients.LANGCHAIN_BATCH, clients.BATCH, None, 50),
        (clients.LANGCHAIN, clients.LAYER, 5, None),
    ):
        if peer in rounds:
            report.judge(Yardstick(f"{peer} costs, times {name}", rounds.ratio(peer, name), must, aim, "×", at_least=True))


def streams(report: Report, server: Server, *, quick: bool) -> None:
    tokens = 500 if quick else 2000
    for events, must, aim in ((1, 15, 8), (16, 5, 3)):
        base_url = f"{server.url}/t{tokens}/e{events}/v1"
        made, skipped = tried((name, lambda make=make: reading(make(), tokens)) for name, make in clients.streams(base_url))
        counts = {name: 1 if name in SLOW_STREAMS else (2 if quick else 4) for name in made}
        rounds, busy = measured(server, made, counts, 2 if quick else 5)
        each = Rounds({name: [value / tokens / 1000 for value in values] for name, values in rounds.values.items()})
        title = f"Streams of {tokens:,} tokens, {events} event{'s' if events > 1 else ''} a write"
        notes = ["four streams at once; the SDK, langchain_openai and litellm one, Chat.stream one after another", *skipped]
        table = Table(title, ["client CPU, µs per token", "median", "min", "× aiohttp", "server busy"], notes=notes)
        for name in each.values:
            table.add(name, each.median(name), each.low(name), each.ratio(name, clients.AIOHTTP), percent(busy[name]))
        report.table(table, us_per_token=each.values, server_busy=busy)
        for name in (clients.STREAM, clients.ASTREAM):
            report.judge(Yardstick(f"a token, {events} a write · {name}", each.median(name), must, aim, " µs"))


def cached(report: Report, server: Server, *, quick: bool) -> None:
    made, skipped = tried(clients.cached(f"{server.url}/v1"))
    question = repr(clients.LONG_QUESTION)
    loops = {
        name: awaited(f"await target({question})", ask, clients.LOOP)
        if name == clients.AHIT
        else called(f"target({question})", ask)
        for name, ask in made.items()
    }
    rounds = measure(loops, rounds=5 if quick else 15, slice_ms=4 if quick else 25)
    each = Rounds({name: [value / 1000 for value in values] for name, values in rounds.values.items()})
    table = Table("An answer from the cache", ["µs of CPU, one message of 100 characters", "median", "min"], notes=skipped)
    for name in each.values:
        table.add(name, each.median(name), each.low(name))
    report.table(table, us_per_hit=each.values)
    report.judge(Yardstick(f"an answer from the cache · {clients.HIT}", each.median(clients.HIT), 2, None, " µs"))


def wheel(report: Report) -> None:
    wheels = sorted((Path(sys.prefix) / "wheels").glob("seawall-*.whl"), key=lambda file: file.stat().st_mtime)
    if wheels:
        report.judge(Yardstick("wheel", wheels[-1].stat().st_size / 1e6, 6, None, " MB"))


def main() -> None:
    quick = arguments(__doc__ or "").quick
    for name in list(os.environ):
        # Everything here stays on the loopback.
        if name.lower().endswith("_proxy") or name.startswith(("LANGSMITH", "LANGCHAIN")):
            del os.environ[name]
    report = Report("client", "The native client", clients.PEERS)
    with served() as server:
        ceiling(report, server, quick=quick)
        requests(report, server, quick=quick)
        streams(report, server, quick=quick)
        cached(report, server, quick=quick)
        clients.close()
    wheel(report)
    report.finish()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
