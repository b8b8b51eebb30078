"""`make demo`: the document's five programs, unchanged but for their imports, against a server that misbehaves.

`make demo PEERS=1` runs the originals beside them, on the libraries that they name.
`make demo LIVE=1` runs them once against the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
import unicodedata
from pathlib import Path

from dotenv import load_dotenv

from _programs import LIVE, PROGRAMS, SCENARIOS, SEAWALL, Fleet, Run, Stack, original

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
            events = [str(run.events.get(name, 0)) for name in ("retry.scheduled", "fallback.used", "circuit.opened")]
            rows.append([label, scenario.name, f"{run.answers}/{run.calls}", _count(run), *events, ending(run)])
            label = ""
    return ruled(rows)


def _count(run: Run) -> str:
    return "-" if run.requests is None else str(len(run.requests))


def ending(run: Run) -> str:
    return f"{run.seconds:.1f}" if run.ended else "hung" if run.exit_code is None else "crashed"


def ruled(rows: list[list[str]], heads: int = 1) -> str:
    """Rows under each other, an empty line before each program; the first `heads` of them are the heading."""
    widths = [max(width(row[place]) for row in rows) for place in range(len(rows[0]))]
    texts = ["  ".join(padded(cell, widths[place], right=place > 1) for place, cell in enumerate(row)).rstrip() for row in rows]
    rule = "-" * max(width(text) for text in texts)
    lines = [*texts[:heads], rule]
    for row, text in zip(rows[heads:], texts[heads:], strict=True):
        if row[0] and len(lines) > heads + 1:
            lines.append("")
        lines.append(text)
    return "\n".join([*lines, rule])


def beside(runs: list[Run]) -> str:
    """Program by scenario, seawall's numbers beside those of the original libraries."""
    rows = [
        ["", "", "seawall", "", "", "original", "", ""],
        ["program", "scenario", *("answers", "requests", "seconds") * 2],
    ]
    found = {(run.program, run.scenario, run.stack): run for run in runs}
    for program in PROGRAMS:
        label = f"{program.number} {program.title}"
        for scenario in SCENARIOS:
            pair = [found.get((program.file, scenario.name, stack)) for stack in (SEAWALL.name, "original")]
            numbers = [
                ("-", "-", "-") if run is None else (f"{run.answers}/{run.calls}", _count(run), ending(run)) for run in pair
            ]
            rows.append([label, scenario.name, *(number for one in numbers for number in one)])
            label = ""
    return ruled(rows, heads=2)


def crashes(runs: list[Run]) -> str:
    """What each original crashed of, once for each program."""
    found = {run.program: run.last_line for run in runs if run.stack != SEAWALL.name and run.exit_code not in (0, None)}
    return "\n".join(f"{program} crashes: {line}" for program, line in sorted(found.items()))


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
        waiting = len(self.fleet.cases) - self.ended - self.fleet.running
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
        ours = run.stack == SEAWALL.name
        how = "" if run.ended else "  DID NOT RUN TO ITS END" if ours else f"  {ending(run)}"
        name = padded(run.program if ours else f"{run.program} (original)", 27 if len(self.fleet.stacks) == 1 else 38)
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


def introduce(live: bool, count: int, versions: str | None) -> None:
    print("seawall: the document's five programs, nothing changed but their imports,")
    if live:
        print("once each against the real service. It is paid for with your OPENAI_API_KEY: about 40 short requests.\n")
        return
    print("each against its own HTTP server on this machine, under four scenarios:\n")
    for scenario in SCENARIOS:
        print(f"  {scenario.name:18}{scenario.meaning}")
    if versions:
        print(f"\nBeside them the originals, on {versions}.")
    minutes = "five" if versions else "two"
    print(f"\n{count} runs side by side, about {minutes} minutes: the programs really wait before they retry.\n", flush=True)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true", help="use the real service and your OPENAI_API_KEY")
    parser.add_argument("--peers", metavar="PYTHON", help="run the originals too, with this Python, which has their libraries")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where outputs are saved (.demo)")
    options = parser.parse_args()
    if options.live and options.peers:
        parser.error("the originals are not run against the real service: leave --peers or --live away")
    stacks: tuple[Stack, ...] = (SEAWALL,)
    versions = None
    if options.peers:
        peers = original(options.peers)
        stacks, versions = (peers, SEAWALL), peers.versions()
        if versions is None:
            parser.error(
                f"{options.peers} does not have the libraries {', '.join(peers.modules)}: make demo PEERS=1 installs them"
            )
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
    # It warns where a program that is stopped as it starts is gone before the thread that waits for it looks.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # The originals wait for minutes, so that more of them run at a time.
    fleet = Fleet((LIVE,) if options.live else SCENARIOS, options.folder, stacks, at_once=12 if options.peers else 8)
    introduce(options.live, len(fleet.cases), versions)
    try:
        runs = asyncio.run(follow(fleet))
    except KeyboardInterrupt:
        print("\nstopped, and every program with it", file=sys.stderr)
        return 130
    results = options.folder / "results.json"
    results.write_text(json.dumps([run.save() for run in runs], indent=1), encoding="utf-8")
    if options.peers:
        told = [beside(runs), crashes(runs), f"original: {versions}"]
        print("\n" + "\n\n".join(part for part in told if part) + "\n")
    else:
        print(f"\n{table(runs)}\n\n{MEANING}\n")
    print(f"Each program's whole output: {options.folder}/<scenario>/<program>.txt; the table as data: {results}")
    failed = [run for run in runs if not run.ended and run.stack == SEAWALL.name]
    for run in failed:
        print(f"{run.program} did not run to its end ({run.scenario}): see {run.output}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
