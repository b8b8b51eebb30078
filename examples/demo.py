"""`make demo`: the document's five programs, unchanged but for their imports, against a server that misbehaves.

`make demo LIVE=1` runs them once against the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
import unicodedata
from pathlib import Path

from dotenv import load_dotenv

from _programs import LIVE, PROGRAMS, SCENARIOS, Fleet, Run

HEARTBEAT = 15.0


def width(text: str) -> int:
    """The columns that a terminal gives a text: two for a Chinese character."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, columns: int, *, right: bool = False) -> str:
    space = " " * (columns - width(text))
    return space + text if right else text + space


def table(runs: list[Run]) -> str:
    """Program by scenario, with the numbers that count."""
    rows = [["program", "scenario", "answers", "requests", "retries", "fallbacks", "openings", "seconds"]]
    found = {(run.program, run.scenario): run for run in runs}
    for program in PROGRAMS:
        label = f"{program.number} {program.title}"
        for scenario in (*SCENARIOS, LIVE):
            run = found.get((program.file, scenario.name))
            if run is None:
                continue
            count = "-" if run.requests is None else str(len(run.requests))
            events = [str(run.events.get(name, 0)) for name in ("retry.scheduled", "fallback.used", "circuit.opened")]
            ending = f"{run.seconds:.1f}" if run.ended else "hung" if run.exit_code is None else "crashed"
            rows.append([label, scenario.name, f"{run.answers}/{run.calls}", count, *events, ending])
            label = ""
    widths = [max(width(row[place]) for row in rows) for place in range(len(rows[0]))]
    texts = ["  ".join(padded(cell, widths[place], right=place > 1) for place, cell in enumerate(row)).rstrip() for row in rows]
    rule = "-" * max(width(text) for text in texts)
    lines = [texts[0], rule]
    for row, text in zip(rows[1:], texts[1:], strict=True):
        if row[0] and len(lines) > 2:
            lines.append("")
        lines.append(text)
    return "\n".join([*lines, rule])


MEANING = """\
answers    calls that the program got an answer for, of the calls it made
requests   requests that really reached the server, by the server's own log
retries    waits that seawall began before asking again
fallbacks  calls that went on to the next model
openings   circuit breakers that opened; calls turned away by one cost no request
seconds    from the program's first line to its last, imports not counted"""


class Screen:
    """What one sees while it runs: a line for each program that ended, and one that moves if this is a terminal."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.moving = sys.stdout.isatty()
        self.ended = 0
        self.last = time.monotonic()

    def _status(self) -> str:
        waiting = len(self.fleet.pairs) - self.ended - self.fleet.running
        return (
            f"  {time.monotonic() - self.fleet.started:3.0f} s   {self.ended} ended, {self.fleet.running} running, {waiting} to come"
            f"   {self.fleet.requests} requests so far"
        )

    def tick(self) -> None:
        if self.moving:
            print(f"\r\x1b[K{self._status()}", end="", flush=True)
        elif time.monotonic() - self.last > HEARTBEAT:
            self.last = time.monotonic()
            print(self._status(), flush=True)

    def report(self, run: Run) -> None:
        self.ended += 1
        self.last = time.monotonic()
        sent = "" if run.requests is None else f"{len(run.requests):3} requests"
        how = "" if run.ended else "  DID NOT RUN TO ITS END"
        name = padded(run.program, 27)
        print(f"{self._line()}  {name}{run.scenario:18}{run.answers:3} of {run.calls:2} answered  {sent}{how}", flush=True)

    def _line(self) -> str:
        return "\r\x1b[K" if self.moving else ""

    def close(self) -> None:
        print(self._line(), end="", flush=True)


async def follow(fleet: Fleet) -> list[Run]:
    screen = Screen(fleet)

    async def ticking() -> None:
        while True:
            screen.tick()
            await asyncio.sleep(0.25)

    ticker = asyncio.ensure_future(ticking())
    runs = []
    try:
        async for run in fleet.runs():
            screen.report(run)
            runs.append(run)
    finally:
        ticker.cancel()
        screen.close()
    return runs


def introduce(live: bool, count: int) -> None:
    print("seawall: the document's five programs, nothing changed but their imports,")
    if live:
        print("once each against the real service. It is paid for with your OPENAI_API_KEY: about 40 short requests.\n")
        return
    print("each against its own HTTP server on this machine, under four scenarios:\n")
    for scenario in SCENARIOS:
        print(f"  {scenario.name:18}{scenario.meaning}")
    print(f"\n{count} runs side by side, about two minutes: the programs really wait before they retry.\n", flush=True)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true", help="use the real service and your OPENAI_API_KEY")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where outputs are saved (.demo)")
    options = parser.parse_args()
    if options.live:
        load_dotenv()
        if not os.environ.get("OPENAI_API_KEY"):
            print(
                "make demo LIVE=1 uses the real service and needs your key: set OPENAI_API_KEY, or put it into .env.",
                file=sys.stderr,
            )
            print("Without a key, `make demo` shows the same programs against a simulator.", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, stop)
    fleet = Fleet((LIVE,) if options.live else SCENARIOS, options.folder)
    introduce(options.live, len(fleet.pairs))
    try:
        runs = asyncio.run(follow(fleet))
    except KeyboardInterrupt:
        print("\nstopped, and every program with it", file=sys.stderr)
        return 130
    results = options.folder / "results.json"
    results.write_text(json.dumps([run.save() for run in runs], indent=1), encoding="utf-8")
    print(f"\n{table(runs)}\n\n{MEANING}\n")
    print(f"Each program's whole output: {options.folder}/<scenario>/<program>.txt; the table as data: {results}")
    failed = [run for run in runs if not run.ended]
    for run in failed:
        print(f"{run.program} did not run to its end ({run.scenario}): see {run.output}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
