"""The command line: `python -m seawall.doctor`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from seawall._model import DEFAULT_BASE_URL, Hidden, environment
from seawall.configuration import Asked, examined
from seawall.doctor import Finding, Place, _endpoint, _key, _surroundings
from seawall.errors import ConfigurationError
from seawall.llm import Chat


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seawall.doctor",
        description="Looks for what keeps calls from working: key, endpoint, clock, latency, versions, proxies. It says what it sends before it "
        "does, and shows no key. The exit code is 0 if there is no problem, 1 if there is one, and 2 if it could not begin.",
    )
    parser.add_argument("--config", metavar="FILE", help="look at what this file describes, in place of the environment")
    parser.add_argument("--base-url", metavar="URL", help="the service (OPENAI_BASE_URL, or OpenAI's)")
    parser.add_argument("--model", metavar="NAME", help="a model that is to be there; with --config its name in the file")
    parser.add_argument("--call", action="store_true", help="ask each model for one token, which costs about nothing")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="the longest wait for each step (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="a list with an object for each line")
    return parser


class _CannotBegin(Exception):
    pass


def _of_environment(given: argparse.Namespace) -> list[Place]:
    base_url = environment(given.base_url, "OPENAI_BASE_URL", "OPENAI_API_BASE") or DEFAULT_BASE_URL
    key, source = Hidden(os.environ.get("OPENAI_API_KEY")), "the environment variable OPENAI_API_KEY"
    if not key.value and (named := os.environ.get("OPENAI_API_KEY_FILE")):
        source = f"the file {named} (OPENAI_API_KEY_FILE)"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            key.value = Path(named).read_text().strip()
    name = given.model or ""
    try:
        model = Chat(name or "model", api_key=key.value or "none", base_url=base_url, timeout=given.timeout)
    except ConfigurationError as error:
        if not urlsplit(base_url).hostname:
            raise _CannotBegin(str(error)) from None
        model = None  # what is wrong is told of the key
    return [Place(base_url, key, source, {name: (name, model)})]


def _of_file(given: argparse.Namespace) -> tuple[list[Place], list[Finding]]:
    asked: dict[str, Asked] = {}
    try:
        _, report = examined(Path(given.config), is_rehearsal=True, asked=asked)
    except OSError as error:
        raise _CannotBegin(f"{given.config}: {error.strerror or error}") from None
    wrong = report.error()
    if wrong is not None:
        raise _CannotBegin(str(wrong))
    if given.model is not None and given.model not in asked:
        raise _CannotBegin(f"{given.config} describes no model {given.model!r}; there are {', '.join(asked) or 'none'}")
    places: dict[tuple[str, str], Place] = {}
    for name, each in asked.items():
        if given.model in (None, name):
            base_url = each.base_url or environment(None, "OPENAI_BASE_URL", "OPENAI_API_BASE") or DEFAULT_BASE_URL
            place = places.setdefault(
                (base_url, each.source), Place(base_url, each.key, each.source, {}, each.proxy, each.ca_bundle)
            )
            place.models[name] = (each.made.model, each.made)
    # A key that is not here is told with its place.
    said = [problem for _, problem in report.warnings if "api_key" not in problem.where]
    return list(places.values()), [Finding("file", f"line {each.line}", "warning", each.message, each.hint) for each in said]


def _plan(places: list[Place], call: bool) -> str:
    """What is sent, before it is."""
    hosts = ", ".join(dict.fromkeys(place.base_url.partition("?")[0].rpartition("@")[2] for place in places)) or "nobody"
    asks = f"it asks {hosts} for the list of models, {_endpoint.CONNECTIONS} times without a key and once with it, which costs nothing"
    return f"{asks}; {'and each model for one token' if call else 'no model is called'}"


def _found(places: list[Place], said: list[Finding], given: argparse.Namespace) -> Iterator[tuple[str, Iterable[Finding]]]:
    """Findings, under what they are about."""
    if said:
        yield given.config, said
    installed = _surroundings.installed()
    for place in places:
        where = place.base_url.partition("?")[0].rpartition("@")[2]
        yield where, chain(_key.looked_at(place), _endpoint.looked_at(place, given.timeout, call=given.call))
    yield (
        "this machine",
        chain(
            _surroundings.versions(installed),
            _surroundings.network(places),
            _surroundings.loop(installed),
            _surroundings.retries(installed),
        ),
    )


def _line(finding: Finding) -> str:
    name = " ".join(
        filter(
            None,
            (
                finding.part if finding.part != "endpoint" or not finding.what else "",
                finding.what if finding.part != "key" else "",
            ),
        )
    )
    advice = f"\n{' ' * 11}→ {finding.advice}" if finding.advice else ""
    return f"  {finding.state:<8} {name}: {finding.text}{advice}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; what it returns is the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.call and not (given.model or given.config):
        parser.error("--call needs --model or --config, which say whom to call")
    if given.base_url and given.config:
        parser.error("--base-url is for a look without --config, which says where models are")
    if not given.timeout > 0:
        parser.error("--timeout must be more than zero seconds")
    try:
        places, said = _of_file(given) if given.config else (_of_environment(given), [])
    except _CannotBegin as error:
        sys.stderr.write(f"{error}\n")
        return 2
    everything: list[tuple[str, Finding]] = []
    if not given.json:
        sys.stdout.write(f"seawall doctor: {_plan(places, given.call)}\n")
    for where, findings in _found(places, said, given):
        if not given.json:
            sys.stdout.write(f"\n{where}\n")
        for finding in findings:
            everything.append((where, finding))
            if not given.json:
                sys.stdout.write(_line(finding) + "\n")
                sys.stdout.flush()
    counts = {state: sum(each.state == state for _, each in everything) for state in ("problem", "warning")}
    if given.json:
        sys.stdout.write(
            json.dumps([{"about": where, **each._asdict()} for where, each in everything], ensure_ascii=False, indent=2) + "\n"
        )
    else:
        summary = ", ".join(f"{count} {state}{'' if count == 1 else 's'}" for state, count in counts.items() if count)
        sys.stdout.write(f"\n{summary or 'nothing is wrong'}\n")
    return 1 if counts["problem"] else 0


if __name__ == "__main__":
    sys.exit(main())
