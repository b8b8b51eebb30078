"""What the core costs with no Python around it: runs benches/breaker.rs and lays its numbers beside the yardsticks."""

from __future__ import annotations

import re
import subprocess

from _harness import arguments
from _report import ROOT, Report, Table, Yardstick

ROW = re.compile(r"^(?P<name>\S.*?)\s+(?P<median>[\d.]+)\s+(?P<low>[\d.]+) ns$")
# must and aim, by the beginning of the name.
LIMITS = {
    "breaker, consecutive, all ok, 1 thread": (3.0, 1.0),
    "breaker, window of 100, all ok, 1 thread": (20.0, 7.0),
}


def main() -> None:
    quick = arguments(__doc__ or "").quick
    report = Report("breaker", "The breaker in Rust", [])
    command = ["cargo", "bench", "--quiet", "--no-default-features", "--bench", "breaker"]
    done = subprocess.run(
        [*command, "--", *(["--quick"] if quick else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=900
    )
    rows = [match for match in map(ROW.match, done.stdout.splitlines()) if match]
    table = Table("Acquire and record", ["ns of CPU per operation", "median", "min"])
    for row in rows:
        table.add(row["name"], float(row["median"]), float(row["low"]))
    report.table(table, ns={row["name"]: [float(row["median"]), float(row["low"])] for row in rows})
    for name, (must, aim) in LIMITS.items():
        value = next((float(row["median"]) for row in rows if row["name"] == name), None)
        report.judge(Yardstick(name, value, must, aim, " ns"))
    report.finish()


if __name__ == "__main__":
    main()
