"""Runs one program as it stands and writes down what seawall did meanwhile: `_one_program.py PROGRAM SUMMARY MODULE …`.

The modules are loaded first, so that the seconds are the program's own, without the imports.

The program is not touched: retries, fallbacks and openings are counted from the records of the logger `seawall`.
"""

import collections
import importlib
import json
import logging
import runpy
import sys
import time
from pathlib import Path


class Counted(logging.Handler):
    """Counts the records that name an event."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.events: collections.Counter[str] = collections.Counter()

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "seawall_event", None)
        if event is not None:
            self.events[event] += 1


def main() -> None:
    program, summary = Path(sys.argv[1]), Path(sys.argv[2])
    for module in sys.argv[3:]:
        importlib.import_module(module)
    counted = Counted()
    logger = logging.getLogger("seawall")
    logger.addHandler(counted)
    logger.setLevel(logging.INFO)
    sys.argv = [str(program)]
    sys.path[0] = str(program.parent)
    started = time.perf_counter()
    try:
        runpy.run_path(str(program), run_name="__main__")
    finally:
        seconds = time.perf_counter() - started
        summary.write_text(json.dumps({"seconds": seconds, "events": counted.events}), encoding="utf-8")


main()
