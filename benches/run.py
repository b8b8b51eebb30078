"""Runs every bench, each in a process of its own, and with --docs puts the tables into docs/performance.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from _report import RESULTS, ROOT

BENCHES = ("breaker", "calls", "client", "telemetry", "guardrails", "hedge")
# No bench may hang the rest; building the Rust one is the longest part of any.
LONGEST = 420
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def run(name: str, *, quick: bool) -> bool:
    command = [sys.executable, str(Path(__file__).with_name(f"bench_{name}.py")), *(["--quick"] if quick else [])]
    try:
        return subprocess.run(command, check=False, timeout=LONGEST).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"bench_{name} took longer than {LONGEST} s and was ended", file=sys.stderr)
        return False


def page() -> None:
    """Replaces what is between the marks by the results at hand."""
    names = [name for name in BENCHES if (RESULTS / f"{name}.json").exists()]
    machine = json.loads((RESULTS / f"{names[0]}.json").read_text(encoding="utf-8"))["machine"]
    parts = [(RESULTS / f"{name}.md").read_text(encoding="utf-8") for name in names]
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    tail = rest.split(END)[1]
    body = "\n\n".join([f"Measured {machine.pop('date')}: {'; '.join(machine.values())}.", *(part.strip() for part in parts)])
    PAGE.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a result")
    parser.add_argument("--docs", action="store_true", help="put the results into docs/performance.md")
    given = parser.parse_args()
    for name in BENCHES:
        (RESULTS / f"{name}.json").unlink(missing_ok=True)
    failed = [name for name in BENCHES if not run(name, quick=given.quick)]
    if given.docs and not failed:
        page()
    print(f"\nResults as JSON: {RESULTS.relative_to(ROOT)}/" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
