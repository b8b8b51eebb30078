"""The five programs, the four scenarios, what they run on, and how to run them all side by side, one simulator each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from seawall.simulator import Simulator, faults

HERE = Path(__file__).parent
MODELS = ("gpt-4", "gpt-3.5-turbo")
REFUSALS = 2
# What stands in the document in place of ours, on an import line and nowhere else.
ORIGINAL_IMPORTS = {
    "from seawall.langchain import ": "from langchain_openai import ",
    "from seawall.errors import ": "from openai import ",
    "from seawall import circuit\n": "from circuitbreaker import circuit\n",
    "from seawall import wait_exponential": "from tenacity import wait_exponential",
}
# Long enough for every wait of every program; whoever takes longer hangs.
LIMIT = 300.0


def _lines(pattern: str) -> Callable[[str], int]:
    return lambda output: len(re.findall(pattern, output, re.MULTILINE))


def _share(pattern: str, of: int) -> Callable[[str], int]:
    def count(output: str) -> int:
        found = re.search(pattern, output, re.MULTILINE)
        return round(float(found[1]) / 100 * of) if found else 0

    return count


@dataclass(frozen=True)
class Program:
    """One of the document's programs; `calls` it makes, and `answers` that its output tells of."""

    file: str
    calls: int
    answers: Callable[[str], int]

    @property
    def path(self) -> Path:
        return HERE / "drop_in" / f"{self.file}.py"

    @property
    def original(self) -> str:
        """The program as the document prints it."""
        text = self.path.read_text(encoding="utf-8")
        for ours, theirs in ORIGINAL_IMPORTS.items():
            text = text.replace(ours, theirs)
        return text

    @property
    def number(self) -> int:
        return int(self.file[0])

    @property
    def title(self) -> str:
        """The first line of its docstring."""
        return self.path.read_text(encoding="utf-8").splitlines()[1]


PROGRAMS = (
    Program("1_circuit_breaker", 7, _lines(r"^✅ 成功: ")),
    Program("2_self_healing_agent", 5, _lines(r" - INFO - (?:自愈)?成功: ")),
    Program("3_monitoring", 20, _share(r"^success_rate: ([\d.]+)%", of=20)),
    Program("4_production_rag", 5, _lines(r" - INFO - 成功，耗时: ")),
    Program("5_error_handling_template", 3, _lines(r" - INFO - 成功: ")),
)


@dataclass(frozen=True)
class Scenario:
    """What the server does; `script` tells it."""

    name: str
    meaning: str
    script: Callable[[Simulator], None]


def _first_down(simulator: Simulator) -> None:
    simulator.on(MODELS[0], faults.status(500))


def _all_down(simulator: Simulator) -> None:
    simulator.on("*", faults.status(500))


def _rate_limited(simulator: Simulator) -> None:
    for model in MODELS:
        simulator.on(model, faults.rate_limit(retry_after=1), times=REFUSALS)


SCENARIOS = (
    Scenario("healthy", "the server answers every request", lambda _: None),
    Scenario("first model down", f"{MODELS[0]} always answers 500, {MODELS[1]} works", _first_down),
    Scenario("everything down", "every request is answered 500", _all_down),
    Scenario("rate limited", f"each model's first {REFUSALS} requests get 429 with Retry-After: 1, then it works", _rate_limited),
)
LIVE = Scenario("live", "the real service", lambda _: None)


@dataclass(frozen=True)
class Stack:
    """What a program runs on. The modules are loaded before its seconds begin."""

    name: str
    python: str
    modules: tuple[str, ...]

    def versions(self) -> str | None:
        """The names and versions of the modules' packages; `None` if one of them is not there."""
        command = [self.python, "-c", _VERSIONS, *self.modules]
        try:
            return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None


_VERSIONS = """
import importlib, importlib.metadata, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(", ".join(f"{name.replace('_', '-')} {importlib.metadata.version(name)}" for name in sys.argv[1:]))
"""
SEAWALL = Stack("seawall", sys.executable, ("seawall.langchain",))


def original(python: str) -> Stack:
    """The libraries that the document names, in the environment of that Python."""
    return Stack("original", python, ("langchain_core", "langchain_openai", "openai", "circuitbreaker", "tenacity"))


@dataclass(frozen=True)
class Seen:
    """A request that reached the server; `time` is in seconds since the server's start."""

    time: float
    path: str
    model: str | None


@dataclass
class Run:
    """One program under one scenario. `requests` is `None` where nobody counted them: at the real service."""

    program: str
    scenario: str
    output: str
    stack: str = SEAWALL.name
    exit_code: int | None = None
    answers: int = 0
    calls: int = 0
    seconds: float = 0.0
    requests: list[Seen] | None = None
    events: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the program ran to its end."""
        return self.exit_code == 0

    @property
    def last_line(self) -> str:
        """The last line of its output: of a program that crashed, what it crashed of."""
        lines = Path(self.output).read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else ""

    def save(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def load(cls, saved: Mapping[str, object]) -> Run:
        run = cls(**saved)  # type: ignore[arg-type]
        run.requests = None if run.requests is None else [Seen(**seen) for seen in run.requests]  # type: ignore[arg-type]
        return run


def environment(base_url: str | None) -> dict[str, str]:
    """What the program sees: the caller's environment, pointed at the simulator alone."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    if base_url is not None:
        for name in ("OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID"):
            environment.pop(name, None)
        environment |= {
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "sk-demo",
            "LANGSMITH_TRACING": "false",
            "LANGCHAIN_TRACING_V2": "false",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
    return environment


@contextlib.contextmanager
def _server(scenario: Scenario) -> Iterator[Simulator | None]:
    if scenario is LIVE:
        yield None
        return
    with Simulator(seed=0) as simulator:
        scenario.script(simulator)
        yield simulator


async def _end_of(process: asyncio.subprocess.Process) -> int | None:
    """The exit code; `None` if it had to be stopped. However this ends, the process has ended too."""
    try:
        return await asyncio.wait_for(process.wait(), LIMIT)
    except asyncio.TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Fleet:
    """All runs of some scenarios on some stacks: at most `at_once` at a time, outputs below `folder`."""

    def __init__(
        self, scenarios: tuple[Scenario, ...], folder: Path, stacks: tuple[Stack, ...] = (SEAWALL,), *, at_once: int = 8
    ) -> None:
        # The quick scenario first, so that there is soon something to see; then the slowest, which decide how long it takes.
        slowest = ("healthy", "everything down", "first model down", "rate limited", "live")
        self.cases = [
            (program, scenario, stack)
            for scenario in sorted(scenarios, key=lambda s: slowest.index(s.name))
            for stack in stacks
            for program in sorted(PROGRAMS, key=lambda p: (4, 3, 5, 2, 1).index(p.number))
        ]
        self.stacks = stacks
        self.folder = folder
        self.at_once = at_once
        self.started = time.monotonic()
        self.running = 0
        self._simulators: set[Simulator] = set()
        self._counted = 0

    @property
    def requests(self) -> int:
        """The requests that reached a simulator so far."""
        return self._counted + sum(simulator.count() for simulator in self._simulators)

    async def runs(self) -> AsyncIterator[Run]:
        """Each run as it ends. Leaving early stops every program."""
        slots = asyncio.Semaphore(self.at_once)
        tasks = [asyncio.ensure_future(self._run(slots, *case)) for case in self.cases]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, slots: asyncio.Semaphore, program: Program, scenario: Scenario, stack: Stack) -> Run:
        folder = self.folder / scenario.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        path, name = program.path, program.file
        if stack is not SEAWALL:
            name = f"{program.file}.{stack.name}"
            path = folder / f"{name}.py"
            path.write_text(program.original, encoding="utf-8")
        output, summary = folder / f"{name}.txt", folder / f"{name}.json"
        summary.unlink(missing_ok=True)
        run = Run(program.file, scenario.name, str(output), stack.name, calls=program.calls)
        async with slots:
            with output.open("wb") as into, _server(scenario) as simulator:
                self.running += 1
                if simulator is not None:
                    self._simulators.add(simulator)
                try:
                    process = await asyncio.create_subprocess_exec(
                        stack.python,
                        str(HERE / "_one_program.py"),
                        str(path),
                        str(summary),
                        *stack.modules,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=into,
                        stderr=asyncio.subprocess.STDOUT,
                        env=environment(None if simulator is None else simulator.base_url),
                    )
                    run.exit_code = await _end_of(process)
                finally:
                    self.running -= 1
                    if simulator is not None:
                        self._simulators.discard(simulator)
                        self._counted += simulator.count()
                        run.requests = [Seen(seen.time, seen.path, seen.model) for seen in simulator.requests]
        run.answers = program.answers(output.read_text(encoding="utf-8"))
        if summary.exists():
            told = json.loads(summary.read_text(encoding="utf-8"))
            run.seconds = told["seconds"]
            run.events = told["events"]
        return run
