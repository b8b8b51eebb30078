"""The command line: `python -m seawall.check seawall.toml` says all that is wrong in configuration files, and builds nothing that lasts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from seawall.configuration import Config, Problem, examined


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seawall.check",
        description="Checks configuration files as `seawall.load` does, but for secrets that are not here: those are warned of. Nothing is sent "
        "to anybody. The exit code is 0 if nothing is wrong, 1 if something is, and 2 if a file cannot be read.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="TOML, as docs/configuration.md describes it")
    parser.add_argument("--json", action="store_true", help="a list with an object for each error and warning")
    parser.add_argument("--strict", action="store_true", help="count warnings as errors")
    return parser


def _rows(found: Sequence[tuple[str, Problem]]) -> Iterator[dict[str, Any]]:
    for kind, problem in found:
        names = ("file", "line", "column", "where", "message", "hint")
        yield {"kind": kind, **{name: getattr(problem, name) for name in names}}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _summary(config: Config | None, errors: int, warnings: int) -> str:
    parts = [] if errors else ["ok"]
    parts += [_counted(number, what) for number, what in ((errors, "error"), (warnings, "warning")) if number]
    if config is not None:
        parts += [_counted(len(things), things.one) for things in config.sections.values() if things]
    return ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; what it returns is the exit code."""
    given = _parser().parse_args(arguments)
    code = 0
    rows: list[dict[str, Any]] = []
    for name in given.files:
        try:
            config, report = examined(Path(name), is_rehearsal=True)
        except OSError as error:
            sys.stderr.write(f"{name}: {error.strerror or error}\n")
            code = 2
            continue
        found = [("error", problem) for problem in report.problems] + [("warning", problem) for _, problem in report.warnings]
        found.sort(key=lambda each: (each[1].line, each[1].column))
        if report.problems or (given.strict and report.warnings):
            code = max(code, 1)
        rows += _rows(found)
        if not given.json:
            lines = [f"{problem.told(f'{kind}: ')}\n" for kind, problem in found]
            sys.stdout.write("\n".join([*lines, f"{name}: {_summary(config, report.count, len(report.warnings))}\n"]))
    if given.json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
