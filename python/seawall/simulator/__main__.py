"""The command line: `python -m seawall.simulator --script outage.toml --port 8808`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from seawall.errors import ConfigurationError
from seawall.simulator import Request, Simulator, _script

PORT = 8808
KEY = "sk-simulator"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seawall.simulator",
        description="A server with OpenAI's and Anthropic's API that misbehaves as a script says. docs/simulator.md describes scripts.",
    )
    parser.add_argument("--script", metavar="FILE", help="what goes wrong, when and how often: TOML")
    parser.add_argument("--check", action="store_true", help="only check the script")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="0 is any that is free (%(default)s)")
    parser.add_argument("--seed", type=int, help="of answers, shares and latencies (0, or the script's)")
    parser.add_argument("--model", action="append", metavar="NAME", help="a model that there is; others get 404. May be repeated")
    parser.add_argument("--no-key", action="store_true", help="answer requests without a key, as Ollama and vLLM do")
    parser.add_argument("--log", action="store_true", help="a line for each request")
    return parser


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _made(arguments: argparse.Namespace) -> tuple[Simulator, str, str]:
    """The simulator, what its script holds, and a key that is right."""
    given = {"seed": arguments.seed, "models": arguments.model, "require_key": False if arguments.no_key else None}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings |= {"host": arguments.host, "port": arguments.port}
    if arguments.script is None:
        return Simulator(**settings), "", KEY
    script = _script.read(Path(arguments.script))
    sim = Simulator._made(script, settings)
    counts = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in script.counts.items()]
    keys = script.settings.nodes.get("api_keys")
    key = KEY if keys is None or not keys.plain else min([keys.plain] if isinstance(keys.plain, str) else keys.plain)
    return sim, f"{arguments.script}: {', '.join(counts) or 'nothing goes wrong'}", key


def _line(request: Request) -> str:
    status = "-" if request.status is None else str(request.status)
    took = "" if request.seconds is None else f"{request.seconds * 1000:.0f} ms"
    ending = ", the client left" if request.aborted else ""
    return f"{request.time:9.3f} s {status:>4} {took:>9}  {request.model or '-'}  {request.fault}{ending}  {request.path}"


class _Summary:
    """What the requests met, by model."""

    def __init__(self, log: bool) -> None:
        self._log = log
        self._met: Counter[tuple[str, str]] = Counter()

    def take(self, requests: list[Request]) -> None:
        for request in requests:
            self._met[request.model or "-", request.fault] += 1
            if self._log:
                _say(_line(request))

    def tell(self) -> None:
        total = sum(self._met.values())
        _say(f"{total} request{'' if total == 1 else 's'}{':' if total else ''}")
        width = max((len(model) for model, _ in self._met), default=0)
        for (model, fault), count in sorted(self._met.items()):
            _say(f"  {model:{width}}  {count:6}  {fault}")


class _Terminated:
    """Whether a signal has asked for the end. It interrupts nothing: a request that was taken out of the log is counted."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)
        # Started in the background by a shell, Ctrl-C's signal would be ignored.
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked


def _serve(sim: Simulator, what: str, key: str, log: bool) -> None:
    summary, terminated = _Summary(log), _Terminated()
    sim.ended()
    sim.start()
    _say(f"The simulator listens at {sim.origin}")
    if what:
        _say(f"  {what}")
    _say(f"  export OPENAI_BASE_URL={sim.base_url} OPENAI_API_KEY={key}")
    _say(f"  export ANTHROPIC_BASE_URL={sim.origin} ANTHROPIC_API_KEY={key}")
    _say("Ctrl-C ends it.")
    while not terminated:
        summary.take(sim.ended(timeout=0.2))
    sim.stop()
    summary.take(sim.ended())
    summary.tell()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; what it returns is the exit code."""
    given = _parser().parse_args(arguments)
    if given.check and given.script is None:
        _parser().error("--check needs --script")
    try:
        sim, what, key = _made(given)
    except (ConfigurationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if given.check:
        _say(what)
        return 0
    try:
        _serve(sim, what, key, given.log)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
