"""What hedging is for: a server where 2 % of the replies are 20 times slower, without and with a `Hedge` at the 95th percentile."""

from __future__ import annotations

from _harness import arguments
from _report import Report, Table, Yardstick
from seawall import Hedge
from seawall.llm import Chat
from seawall.simulator import Simulator, faults

FAST = (0.040, 0.060)
SLOW = (0.8, 1.2)
AT_ONCE = 32


def asked(calls: int, seed: int, hedge: Hedge | None) -> tuple[list[float], int]:
    """How long the calls took, in order, and how many requests they cost."""
    with Simulator(seed=seed) as sim:
        sim.on("m", faults.latency(FAST))
        sim.on("m", faults.latency(SLOW), probability=0.02)
        chat = Chat("m", api_key="sk-bench", base_url=sim.base_url, max_retries=0, hedge=hedge)
        replies = chat.batch(["hello"] * calls, max_concurrency=AT_ONCE)
        return sorted(reply.seconds for reply in replies), sim.count("m")


def main() -> None:
    quick = arguments(__doc__ or "").quick
    calls = 1000 if quick else 5000
    report = Report("hedge", "Hedging", [])
    table = Table(
        f"{calls:,} calls of a server where 2 % of the replies take 20 times longer",
        ["a call", "p50 ms", "p95 ms", "p99 ms", "max ms", "requests"],
    )
    found = {}
    for name, hedge in (("without", None), ("Hedge(percentile=0.95)", Hedge(percentile=0.95))):
        took, requests = asked(calls, 7, hedge)
        at = {share: 1e3 * took[min(calls - 1, int(calls * share))] for share in (0.5, 0.95, 0.99, 1.0)}
        found[name] = (at[0.99], requests)
        table.add(name, *at.values(), float(requests))
    report.table(table, **{name: list(values) for name, values in found.items()})
    (without, plain), (with_it, hedged) = found.values()
    report.judge(
        Yardstick("p99 with a hedge, of that without", with_it / without, 0.5, 0.25, ""),
        Yardstick("further requests", 100 * (hedged / plain - 1), 6.0, 5.5, " %"),
    )
    report.finish()


if __name__ == "__main__":
    main()
