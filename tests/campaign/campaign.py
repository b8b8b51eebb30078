"""Every fault of the simulator by every way of asking under every policy, with both clients: `python tests/campaign/campaign.py`.

It prints the table of docs/campaign.md and writes that page; it ends with 1 if anything was not as the rule says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from _cases import ANSWERED, BY_THE_OTHER, CASES, POLICIES, Extent, Policy, makers
from _cells import CLIENTS, WAYS, Answers, Cell, Way, cells
from _leaks import Leaks
from seawall.simulator import Simulator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "campaign.md"
BEGIN, END = "<!-- campaign: begin -->", "<!-- campaign: end -->"
# Cells under way at once: those that mostly wait, for limits that end together, and those that keep the processor busy.
WAITING, BUSY = 64, 24
# A machine that stands still for a second ends attempts whose requests have not arrived yet. So many cells of a client of which nothing
# else is wrong may be asked again for it, alone, and so often: what is wrong of itself is wrong again.
SPOILT, AGAIN = 24, 3


class Campaign:
    """The cells, in batches with a look for what was left over after each."""

    def __init__(self, made: list[Cell], told: Callable[[str], None] = lambda line: None, whole: int | None = None) -> None:
        self.cells = made
        self.whole = whole or len(made)
        self.leaks: list[str] = []
        self.told = told

    @property
    def batches(self) -> list[list[Cell]]:
        by_client = itertools.groupby(self.cells, lambda cell: cell.client)
        return [list(batch) for _, batch in by_client]

    @property
    def problems(self) -> list[str]:
        return [f"{cell}: {problem}" for cell in self.cells for problem in cell.problems] + self.leaks

    async def run(self) -> None:
        answers = Answers()
        with Simulator() as sim:
            for client in dict.fromkeys(cell.client for cell in self.cells):
                # What is loaded and started once is no leak of a batch.
                await client.model("warm", api_key="k", base_url=sim.base_url).ainvoke("x")
            for batch in self.batches:
                leaks, begun = Leaks(sim), time.monotonic()
                waiting, busy = asyncio.Semaphore(WAITING), asyncio.Semaphore(BUSY)

                async def one(cell: Cell, places: asyncio.Semaphore) -> None:
                    async with places:
                        await cell.run(sim, answers)

                # The longest first, so that the others run beside them.
                batch.sort(key=lambda cell: -cell.expected.seconds)
                await asyncio.gather(*(one(cell, waiting if cell.expected.seconds >= 0.5 else busy) for cell in batch))
                again = await self._ask_again(batch, sim, answers)
                where = batch[0].client.name
                self.leaks += [f"after {where}: {leak}" for leak in await leaks.check(batch)]
                wrong = sum(bool(cell.problems) for cell in batch)
                seconds = time.monotonic() - begun
                self.told(f"{where}: {len(batch)} cells, {again} asked again, {wrong} not as the rule says, {seconds:.0f} s")
                sim.forget()

    @staticmethod
    async def _ask_again(batch: list[Cell], sim: Simulator, answers: Answers) -> int:
        """Asks once more what a second's stillness may have spoilt: how many cells that were."""
        spoilt = [cell for cell in batch if cell.is_spoilt]
        if len(spoilt) > SPOILT:
            return 0
        for cell in spoilt:
            for number in range(AGAIN):
                if cell.is_spoilt:
                    await cell.again(number).run(sim, answers)
        return len(spoilt)


# --- the table

# Of the plain policy only what lasts: whether a fault comes again is all the same to who asks once.
COLUMNS = [
    (policy, extent)
    for policy in POLICIES
    for extent in Extent
    if (policy.attempts > 1 or extent is Extent.LASTING) and (policy.others or extent is not Extent.EVERYWHERE)
]


def _heading(policy: Policy, extent: Extent) -> str:
    return policy.name if extent is Extent.LASTING else f"{policy.name}, {extent.name.lower()}"


def _shown(several: Iterable[Cell]) -> str:
    """What the cells have in common: requests, how it ended, and the seconds that it takes by the rule."""
    texts = []
    for cell in several:
        requests = f"{cell.requests} + {cell.others}" if cell.others else f"{cell.requests}"
        error = cell.met.error
        how = (
            "✓" if cell.outcome in (ANSWERED, BY_THE_OTHER) else "✗" if error and cell.outcome == error.__name__ else cell.outcome
        )
        seconds = f" {cell.expected.seconds:g} s" if cell.expected.seconds else ""
        texts.append(f"{requests} {how}{seconds}{' **?**' if cell.problems else ''}")
    return " / ".join(dict.fromkeys(texts))


def _ways(ways: list[Way], asked: int) -> str:
    if len(ways) == asked == len(WAYS):
        return "all"
    for name, streams in (("whole", False), ("stream", True)):
        if ways == [way for way in WAYS if way.streams == streams]:
            return name
    return ", ".join(way.name for way in ways)


def table(made: list[Cell]) -> str:
    """What came of everything, in markdown: a line for a fault, or several where the ways of asking differ."""
    head = ["fault", "ways", "error", *(_heading(*column) for column in COLUMNS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case, several in itertools.groupby(sorted(made, key=lambda cell: CASES.index(cell.case)), lambda cell: cell.case):
        found: dict[Way, dict[tuple[Policy, Extent], list[Cell]]] = {}
        for cell in several:
            found.setdefault(cell.way, {}).setdefault((cell.policy, cell.extent), []).append(cell)
        rows: dict[tuple[str, ...], list[Way]] = {}
        for way in WAYS:
            if way in found:
                met = case.stream if way.streams else case.whole
                error = met.error.__name__ if met and met.error else "–"
                rows.setdefault((error, *(_shown(found[way][column]) for column in COLUMNS)), []).append(way)
        label = f"`{case.name}`"
        for texts, ways in rows.items():
            lines.append("| " + " | ".join([label, _ways(ways, len(found)), *texts]) + " |")
            label = ""
    return "\n".join(lines)


def results(campaign: Campaign) -> str:
    """What the page says between its marks: the same in every run that finds the same."""
    made = campaign.cells
    total = f"{len(makers())} kinds of faults in {len(dict.fromkeys(cell.case.name for cell in made))} forms, {campaign.whole:,} cells"
    whole = [f"{total}: all as the rule says, nothing left over."]
    if campaign.problems:
        whole = [f"{total}. Not as the rule says:", "\n".join(f"- {problem}" for problem in campaign.problems)]
    return "\n\n".join([*whole, table(made)])


def page(text: str) -> str:
    """The page with these results."""
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def bare_environment() -> None:
    """Everything stays on the loopback, whoever's keys and proxies are set."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "LANGSMITH", "LANGCHAIN")):
            del os.environ[name]


@contextlib.contextmanager
def logging_to_nobody() -> Iterator[None]:
    """Everything is logged, as in a program that watches it, and nothing is shown."""
    logger, nobody = logging.getLogger("seawall"), logging.NullHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(nobody)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(nobody)
        logger.setLevel(level)
        logger.propagate = propagate


def carried_out(only: str = "", told: Callable[[str], None] = lambda line: None, *, half: bool = False) -> Campaign:
    """The campaign, over.

    Args:
        only: of the faults whose names contain this.
        told: hears of each client.
        half: each cell with one of the clients, in turn.
    """
    made = cells(CLIENTS, [case for case in CASES if only in case.name])
    each = len(made) // len(CLIENTS)
    chosen = [cell for place, cell in enumerate(made) if place % each % len(CLIENTS) == place // each] if half else made
    campaign = Campaign(chosen, told, whole=len(made))
    with logging_to_nobody():
        asyncio.run(campaign.run())
    return campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="the faults whose name contains this; the page is left as it is")
    given = parser.parse_args()
    bare_environment()
    begun = time.monotonic()
    unknown = makers() - {case.maker for case in CASES}
    if unknown:
        print(f"no line in tests/campaign/_cases.py for {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    campaign = carried_out(given.only, told=lambda line: print(line, file=sys.stderr, flush=True))
    text = results(campaign)
    print(text)
    if not given.only:
        PAGE.write_text(page(text), encoding="utf-8")
    print(f"\n{len(campaign.problems)} problems, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    sys.exit(main())
