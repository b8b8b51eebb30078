"""Tables for people, JSON for programs, and the markdown of docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".bench"


def version(distribution: str) -> str:
    """`name version`, or the name alone where it is not installed."""
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution


def machine() -> dict[str, str]:
    """What a result means nothing without."""
    return {
        "date": date.today().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cpu": f"{_cpu()}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "seawall": f"{version('seawall')}, {_build()}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def _build() -> str:
    """Whether this is the release build that `make bench` makes, and whether a profile guided it."""
    try:
        files = metadata.files("seawall") or []
    except metadata.PackageNotFoundError:
        return "a build of the source tree: its numbers mean nothing"
    if not any(str(file).startswith("seawall/_seawall") for file in files):
        return "build of the source tree"
    made = Path(sys.prefix, "bench")
    return "release build" + (", guided by a profile" if made.exists() and "--pgo" in made.read_text(encoding="utf-8") else "")


@dataclass
class Table:
    """Subjects and their numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, label: str, *cells: float | str | None) -> None:
        self.rows.append([label, *(number(cell) for cell in cells)])

    def text(self) -> str:
        rows = [self.columns, *self.rows]
        widths = [max(len(row[place]) for row in rows) for place in range(len(self.columns))]

        def line(row: list[str]) -> str:
            rest = "  ".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            return f"{row[0].ljust(widths[0])}  {rest}".rstrip()

        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([self.title, rule, line(rows[0]), rule, *map(line, rows[1:]), *notes])

    def markdown(self) -> str:
        head = ["| " + " | ".join(self.columns) + " |", "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([f"**{self.title}**", "", *head, *rows, *notes])


def number(value: float | str | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "–"
    if isinstance(value, (str, int)):
        return f"{value:,}" if isinstance(value, int) else value
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


@dataclass
class Yardstick:
    """One line of the yardsticks: at most `must`, better `aim`, or at least, where more is better."""

    name: str
    value: float | None
    must: float | None = None
    aim: float | None = None
    unit: str = ""
    at_least: bool = False
    why: str = ""

    def reaches(self, limit: float | None) -> bool:
        if self.value is None or limit is None:
            return False
        return self.value >= limit if self.at_least else self.value <= limit

    @property
    def holds(self) -> str:
        if self.value is None or (self.must is None and self.aim is None):
            return "–"
        if self.reaches(self.aim):
            return "yes, and the aim"
        return "yes" if self.reaches(self.must) else "NO"

    def row(self) -> list[str]:
        sign = "≥ " if self.at_least else "≤ "

        def cell(value: float | None, prefix: str = "") -> str:
            return "–" if value is None else f"{prefix}{number(value)}{self.unit}"

        measured = self.why if self.value is None and self.why else cell(self.value)
        return [self.name, measured, cell(self.must, sign), cell(self.aim, sign), self.holds]


class Report:
    """What one bench has to say."""

    def __init__(self, name: str, title: str, peers: list[str]) -> None:
        self.name, self.title, self.peers = name, title, [version(peer) for peer in peers]
        self.machine = machine()
        self.tables: list[Table] = []
        self.yardsticks: list[Yardstick] = []
        self.data: dict[str, Any] = {}
        print(f"\n=== {title}", *self._about(), sep="\n", flush=True)

    def _about(self) -> list[str]:
        facts = [*self.machine.values(), *self.peers]
        lines, line = [], ""
        for fact in facts:
            if line and len(line) + len(fact) > 110:
                lines.append(line)
                line = ""
            line = f"{line}; {fact}" if line else fact
        return [*lines, line]

    def table(self, table: Table, **data: Any) -> None:
        """Prints a table and keeps it; `data` are its raw numbers."""
        self.tables.append(table)
        self.data[table.title] = data
        print(f"\n{table.text()}", flush=True)

    def judge(self, *yardsticks: Yardstick) -> None:
        self.yardsticks.extend(yardsticks)

    def finish(self) -> None:
        """Prints the yardsticks and writes the JSON."""
        table = self._verdict()
        print(f"\n{table.text()}", flush=True)
        RESULTS.mkdir(exist_ok=True)
        whole = {
            "machine": self.machine,
            "peers": self.peers,
            "quick": "--quick" in sys.argv,
            "yardsticks": [{**asdict(each), "holds": each.holds} for each in self.yardsticks],
            "tables": [asdict(table) for table in self.tables],
            "data": self.data,
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
        parts = [f"## {self.title}", "; ".join(self.peers) + "." if self.peers else "", table.markdown()]
        parts += [each.markdown() for each in self.tables]
        (RESULTS / f"{self.name}.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")

    def _verdict(self) -> Table:
        table = Table("Yardsticks", ["what", "measured", "must", "aim", "holds"])
        table.rows = [each.row() for each in self.yardsticks]
        return table
