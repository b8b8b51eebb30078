"""What the core costs with no Python around it: runs benches/breaker.rs and lays its numbers beside the yardsticks."""

from __future__ import annotations

import re
import subprocess
from statistics import median

from _harness import arguments
from _report import ROOT, Report, Table, Yardstick

ROW = re.compile(r"^(?P<name>\S.*?)\s+(?P<median>[\d.]+)\s+(?P<low>[\d.]+) ns$")
# must and aim, by the beginning of the name.
LIMITS = {
    "breaker, consecutive, all ok, 1 thread": (3.0, 1.0),
    "breaker, window of 100, all ok, 1 thread": (20.0, 7.0),
}


# Where things lie in memory moves a row of a few nanoseconds by half of itself: each process has its own place for them.
PROCESSES = 5


def measured(quick: bool) -> dict[str, tuple[float, float]]:
    """Of each row, the median of the processes' medians and the least of all."""
    command = ["cargo", "bench", "--quiet", "--no-default-features", "--bench", "breaker", "--", *(["--quick"] if quick else [])]
    taken: dict[str, list[tuple[float, float]]] = {}
    for _ in range(1 if quick else PROCESSES):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
        for row in filter(None, map(ROW.match, done.stdout.splitlines())):
            taken.setdefault(row["name"], []).append((float(row["median"]), float(row["low"])))
    return {name: (median(one[0] for one in runs), min(one[1] for one in runs)) for name, runs in taken.items()}


def main() -> None:
    quick = arguments(__doc__ or "").quick
    report = Report("breaker", "The breaker in Rust", [])
    rows = measured(quick)
    table = Table("Acquire and record", ["ns of CPU per operation", "median", "min"])
    if not quick:
        table.notes.append(f"the median of {PROCESSES} processes, each with the median of its own rounds")
    for name, (middle, low) in rows.items():
        table.add(name, middle, low)
    report.table(table, ns={name: list(row) for name, row in rows.items()})
    for name, (must, aim) in LIMITS.items():
        report.judge(Yardstick(name, rows[name][0] if name in rows else None, must, aim, " ns"))
    report.finish()


if __name__ == "__main__":
    main()
