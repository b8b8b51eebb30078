"""The command line: `python -m seawall.dashboard program.py`, or `python -m seawall.dashboard --demo`."""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from seawall import dashboard
from seawall.errors import ConfigurationError

TOKEN = "SEAWALL_DASHBOARD_TOKEN"  # noqa: S105  a name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seawall.dashboard",
        usage="%(prog)s [--port N] [--host ADDRESS] [--keep] PROGRAM [ARGUMENT ...]\n"
        "       %(prog)s [--port N] [--host ADDRESS] [--keep] -m MODULE [ARGUMENT ...]\n"
        "       %(prog)s [--port N] [--host ADDRESS] --demo",
        description="Runs a Python program with the dashboard on, as `seawall.dashboard.serve()` in it would. A dashboard shows the "
        "process that serves it: there is none without a program.",
    )
    parser.add_argument("--port", type=int, help="where the dashboard listens (8809, or the next that is free; 0 is any)")
    parser.add_argument(
        "--host", default="127.0.0.1", help=f"at which address (%(default)s); any but the loopback asks for the token in {TOKEN}"
    )
    parser.add_argument("--keep", action="store_true", help="when the program has ended, leave the page until Ctrl-C")
    parser.add_argument(
        "--demo", action="store_true", help="no program: some traffic to the simulator, and now and then an outage"
    )
    parser.add_argument("-m", action="store_true", dest="module", help="the program is a module")
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT ...]", help="what runs, with its arguments"
    )
    return parser


def _say(line: str) -> None:
    sys.stderr.write(f"seawall: {line}\n")
    sys.stderr.flush()


def _run(program: Sequence[str], module: bool) -> None:
    """As `python program` or `python -m program` does."""
    sys.argv = list(program)
    if module:
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(program[0]).resolve().parent))
        runpy.run_path(program[0], run_name="__main__")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _kept() -> None:
    """Until Ctrl-C, or the signal that ends programs."""
    for each in (signal.SIGTERM, signal.SIGINT):  # started in the background by a shell, Ctrl-C's would be ignored
        signal.signal(each, _interrupt)
    with suppress(KeyboardInterrupt):
        _say("Ctrl-C ends it")
        threading.Event().wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; what it returns is the exit code."""
    given = _parser().parse_args(arguments)
    if given.demo == bool(given.program):
        _parser().error("say a program to run, or --demo")
    if given.program and not given.module and not Path(given.program[0]).is_file():
        _parser().error(f"there is no file {given.program[0]!r}; a module is run with -m")
    title = "demo" if given.demo else Path(given.program[0]).name
    try:
        served = dashboard.serve(given.port, host=given.host, token=os.environ.get(TOKEN), title=title, quiet=True)
    except (ConfigurationError, OSError) as error:
        _say(str(error))
        return 2
    with served:
        # On the terminal of whoever started it, and nowhere else.
        _say(f"dashboard at {served.url}" + ("" if served.token is None else f"/?token={served.token}"))
        if given.demo:
            from seawall.dashboard import _demo  # the others need no simulator

            with _demo.Demo():
                _kept()
            return 0
        try:
            _run(given.program, given.module)
        finally:
            if given.keep:
                _kept()
    return 0


if __name__ == "__main__":
    sys.exit(main())
