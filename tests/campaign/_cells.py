"""One cell: a fault, one way of asking, one set of policies, one client. It is asked, watched, and held against the rule."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from _canary import CANARY

from _cases import ANSWERED, BY_THE_OTHER, LIMIT, POLICIES, Case, Expected, Extent, Meets, Policy, expected
from seawall import CircuitBreaker, errors
from seawall.llm import Chat
from seawall.simulator import Simulator

# So long may attempts and waits take beyond what their rule says before they are late, and a call before it is given up as hung.
SLACK = 10.0
WATCHDOG = 60.0
# What a batch asks; the first is what the other ways ask.
QUESTIONS = ("What is a seawall? 什么是海堤？", "And a dyke?", "And a groyne?")


class Way(NamedTuple):
    """A way of asking."""

    name: str
    streams: bool = False
    asynchronous: bool = False
    inputs: int = 1


WAYS = (
    Way("invoke"),
    Way("ainvoke", asynchronous=True),
    Way("stream", streams=True),
    Way("astream", streams=True, asynchronous=True),
    Way("batch", inputs=len(QUESTIONS)),
    Way("abatch", inputs=len(QUESTIONS), asynchronous=True),
)


@dataclass
class Told:
    """What the caller got for one input: the text handed out, how it ended, and what is told of each attempt."""

    text: str = ""
    error: BaseException | None = None
    attempts: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.attempts is None:
            self.attempts = getattr(self.error, "attempts", None)

    @property
    def seconds(self) -> float:
        """What the attempts and the waits between them took, as the caller is told."""
        rows = [row if isinstance(row, dict) else vars(row) for row in self.attempts or ()]
        return sum((row["seconds"] or 0) + (row["waited"] or 0) for row in rows)


class Native:
    """`seawall.llm.Chat`."""

    name = "seawall.llm.Chat"

    @staticmethod
    def model(name: str, **options: Any) -> Any:
        return Chat(name, **options)

    @staticmethod
    def read(reply: Any) -> Told:
        return Told(reply.content, attempts=reply.attempts)

    @staticmethod
    def story(stream: Any, _last: Any) -> Sequence[Any] | None:
        attempts: Sequence[Any] | None = stream.attempts
        return attempts


class LangChain:
    """`seawall.langchain.ChatOpenAI`."""

    name = "seawall.langchain.ChatOpenAI"

    @staticmethod
    def model(name: str, **options: Any) -> Any:
        from seawall.langchain import ChatOpenAI

        return ChatOpenAI(model=name, **options)

    @staticmethod
    def read(reply: Any) -> Told:
        return Told(reply.content, attempts=LangChain.story(None, reply))

    @staticmethod
    def story(_stream: Any, last: Any) -> Sequence[Any] | None:
        told = last.response_metadata.get("seawall", {}).get("attempts")
        assert told is None or len(told) == last.response_metadata["attempts"]
        return told


CLIENTS = (Native, LangChain)
Client = type[Native] | type[LangChain]


def ask(client: Client, model: Any, way: Way) -> list[Told]:
    """What the caller of a synchronous way gets, for each input."""
    if way.inputs > 1:
        return _batch(client, lambda: model.batch(list(QUESTIONS)))
    if not way.streams:
        return [_one(client, lambda: model.invoke(QUESTIONS[0]))]
    told, last = Told(), None
    try:
        stream = model.stream(QUESTIONS[0])
        for last in stream:
            told.text += last.content
        told.attempts = client.story(stream, last)
    except Exception as error:
        told = Told(told.text, error)
    return [told]


async def aask(client: Client, model: Any, way: Way) -> list[Told]:
    """What the caller of an asynchronous way gets, for each input."""
    if way.inputs > 1:
        return await _abatch(client, model.abatch(list(QUESTIONS)))
    if not way.streams:
        return [await _aone(client, model.ainvoke(QUESTIONS[0]))]
    told, last = Told(), None
    try:
        stream = model.astream(QUESTIONS[0])
        async for last in stream:
            told.text += last.content
        told.attempts = client.story(stream, last)
    except Exception as error:
        told = Told(told.text, error)
    return [told]


def _one(client: Client, call: Callable[[], Any]) -> Told:
    try:
        return client.read(call())
    except Exception as error:
        return Told(error=error)


async def _aone(client: Client, call: Awaitable[Any]) -> Told:
    try:
        return client.read(await call)
    except Exception as error:
        return Told(error=error)


def _batch(client: Client, call: Callable[[], Iterable[Any]]) -> list[Told]:
    try:
        return _each(client, call())
    except Exception as error:
        return _carried(client, error)


async def _abatch(client: Client, call: Awaitable[Iterable[Any]]) -> list[Told]:
    try:
        return _each(client, await call)
    except Exception as error:
        return _carried(client, error)


def _carried(client: Client, error: Exception) -> list[Told]:
    """The results that the error of a batch carries; the error is among them."""
    results = getattr(error, "results", None)
    if results is None or not any(result is error for result in results):
        return [Told(error=error)]
    return _each(client, results)


def _each(client: Client, results: Iterable[Any]) -> list[Told]:
    return [Told(error=result) if isinstance(result, BaseException) else client.read(result) for result in results]


async def _on_a_thread(function: Callable[[], Any]) -> Any:
    """On a thread of its own: one that hangs keeps nobody from going on, or from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():  # given up
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # given up, and the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True, name="campaign").start()
    return await future


def arrived(sim: Simulator, name: str) -> int:
    """How many requests for a model have arrived."""
    return sim.count(name)


@dataclass
class Cell:
    """What is asked, and what came of it.

    Attributes:
        requests: that the first model saw, for the input that met the fault.
        others: that the alternative saw.
        outcome: as `Expected.outcome`, or what is wrong about it.
        problems: what is not as the rule says.
        missing: of these, that fewer requests arrived than it says.
        names: by which it was asked, the last one its own.
    """

    client: Client
    case: Case
    way: Way
    policy: Policy
    extent: Extent
    name: str
    requests: int = 0
    others: int = 0
    outcome: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def met(self) -> Meets:
        met = self.case.stream if self.way.streams else self.case.whole
        assert met is not None
        return met

    @property
    def expected(self) -> Expected:
        return expected(self.met, self.policy, self.extent, elsewhere=self.case.elsewhere)

    def __str__(self) -> str:
        return f"{self.case.name} · {self.client.name}.{self.way.name} · {self.policy.name} · {self.extent.name.lower()}"

    @property
    def is_spoilt(self) -> bool:
        """Whether nothing is wrong but that a time limit may have ended before its request arrived."""
        return bool(self.missing) and self.problems == self.missing and self.expected.seconds >= LIMIT

    def again(self, number: int) -> Cell:
        """Itself, as if it had not been asked yet: by a name that the simulator has not heard."""
        self.name = f"{self.name}-{number}"
        self.problems.clear()
        self.missing.clear()
        return self

    async def run(self, sim: Simulator, answers: Answers) -> None:
        """Asks, and judges."""
        self.names.append(self.name)
        other = f"{self.name}-other"
        sim.on(self.name, self.case.fault, times=1 if self.extent is Extent.ONCE else None)
        if self.extent is Extent.EVERYWHERE:
            sim.on(other, self.case.fault)
        breakers = [self._breaker(), self._breaker()]
        model = self._model(sim.base_url, other, breakers)
        begun = time.monotonic()
        call = (
            aask(self.client, model, self.way)
            if self.way.asynchronous
            else _on_a_thread(lambda: ask(self.client, model, self.way))
        )
        try:
            told = await asyncio.wait_for(call, WATCHDOG)
        except asyncio.TimeoutError:
            told = None
        self.seconds = time.monotonic() - begun
        self.requests, self.others = arrived(sim, self.name), arrived(sim, other)
        for name in (self.name, other):
            sim.clear(name)
        if told is None:
            self.outcome = "HUNG"
            self.problems.append(f"no end within {WATCHDOG:g} s")
            return
        self._judge(told, answers)
        self._judge_breakers(breakers)

    def _breaker(self) -> CircuitBreaker:
        """One that is half open and stays so: each attempt is a probe, and a permit that does not come back is missed."""
        breaker = CircuitBreaker(1, 0, half_open_max_calls=self.way.inputs)
        breaker.record_failure()
        return breaker

    def _model(self, base_url: str, other: str, breakers: list[CircuitBreaker]) -> Any:
        options = {"api_key": CANARY, "base_url": base_url, "max_retries": 0, **self.met.options}
        model = self.client.model(self.name, circuit=breakers[0], **options)
        if self.policy.attempts > 1:
            model = model.with_retry(stop_after_attempt=self.policy.attempts, wait=0.001)
        if self.policy.others:
            alternative = self.client.model(other, circuit=breakers[1], **{**options, **self.case.other})
            model = model.with_fallbacks([alternative.with_retry(stop_after_attempt=self.policy.others, wait=0.001)])
        return model

    # --- held against the rule

    def _judge(self, told: list[Told], answers: Answers) -> None:
        rule = self.expected
        if len(told) != self.way.inputs:
            self.outcome = "RESULTS LOST"
            self.problems.append(f"{len(told)} results of {self.way.inputs}: {told[0].error!r}")
            return
        outcomes = [self._outcome(each, question, answers) for each, question in zip(told, QUESTIONS, strict=False)]
        single = self.way.inputs == 1 or self.extent is not Extent.ONCE
        # Of a batch only one input meets what happens once; whose it is, is a matter of who comes first.
        well = [ANSWERED] * (0 if single else self.way.inputs - 1)
        met = sorted(outcomes, key=lambda outcome: outcome == ANSWERED)[: self.way.inputs - len(well)]
        self.outcome = " / ".join(dict.fromkeys(met))
        self._says(self.outcome == rule.outcome, f"{self.outcome} for {rule.outcome}")
        self._says(outcomes.count(ANSWERED) >= len(well), f"other inputs of the batch failed too: {outcomes}")
        inputs = self.way.inputs if single else 1
        self._count("requests", rule.requests * inputs + len(well), inputs, len(well))
        self._count("others", rule.others * inputs, inputs, 0)
        whole = rule.requests + rule.others
        for each, outcome in zip(told, outcomes, strict=True):
            made = None if each.attempts is None else len(each.attempts)
            known = single or outcome != ANSWERED
            self._says(made == whole if known else bool(made), f"the caller is told of {made} attempts, there were {whole}")
            late = each.seconds - rule.seconds
            self._says(late <= SLACK, f"attempts and waits of {each.seconds:.2f} s, where {rule.seconds:g} s are enough")
        self._says(self.seconds >= rule.seconds - 0.01, f"{self.seconds:.2f} s, which is sooner than {rule.seconds:g} s")

    def _outcome(self, told: Told, question: str, answers: Answers) -> str:
        if told.error is None:
            if self.case.text is not None and told.text == self.case.text:
                return ANSWERED
            for name, outcome in ((self.name, ANSWERED), (f"{self.name}-other", BY_THE_OTHER)):
                if answers.whole(told.text, name, question):
                    return outcome
            self.problems.append(f"a wrong or cut answer was returned as a success: {told.text!r}")
            return "WRONG ANSWER"
        error = told.error
        if isinstance(error, errors.StreamInterruptedError):
            partial = error.partial or ""
            self._says(partial == told.text, f"{told.text!r} was handed out, the error says {partial!r}")
            self._says(answers.begun(partial, self.name, question), f"{partial!r} begins no answer")
            handed_out = self.met.kind == "interrupted"
            self._says(bool(partial) == handed_out, f"interrupted {'before' if handed_out else 'after'} the first content")
        else:
            self._says(not told.text, f"{told.text!r} was handed out before {type(error).__name__}")
        self._says(isinstance(error, errors.APIError), f"{type(error).__name__} is no APIError")
        return type(error).__name__

    def _count(self, what: str, count: int, inputs: int, well: int) -> None:
        seen = getattr(self, what)
        self._says(seen == count, f"{seen} {what} for {count}")
        if seen < count:
            self.missing.append(self.problems[-1])
        # For the table: those of one input that met the fault.
        each, rest = divmod(seen - well, inputs)
        setattr(self, what, each if not rest else seen)

    def _judge_breakers(self, breakers: list[CircuitBreaker]) -> None:
        for breaker in breakers:
            out = breaker.metrics().probes
            permits = [breaker.try_acquire() for _ in range(self.way.inputs)]
            self._says(out == 0 and None not in permits, f"{out} permits of a breaker did not come back")
        if self.way.inputs > 1:
            return
        rule, counts = self.expected, breakers[0].metrics()
        self._says(counts.openings == 1 + rule.counted, f"the breaker counted {counts.openings - 1} failures of {rule.counted}")
        closed = "closed" if rule.outcome == ANSWERED else "half_open"
        self._says(counts.state == closed, f"the breaker is {counts.state}, not {closed}")

    def _says(self, holds: bool, what: str) -> None:
        if not holds:
            self.problems.append(what)


class Answers:
    """What whole answers of the simulator look like."""

    def __init__(self) -> None:
        """Asks a simulator that is well."""
        with Simulator() as well:
            chat = Chat("m", api_key=CANARY, base_url=well.base_url)
            asked = [f"question {number}" for number in range(40)]
            replies = chat.batch(asked)
        self._remarks = {
            reply.content.removeprefix(self._opening("m", question)) for reply, question in zip(replies, asked, strict=True)
        }
        assert all(remark.endswith(".") for remark in self._remarks), self._remarks

    @staticmethod
    def _opening(model: str, question: str) -> str:
        return f"[{model}] {question} — "

    def whole(self, text: str, model: str, question: str) -> bool:
        """Whether it is that model's whole answer to that question."""
        opening = self._opening(model, question)
        return text.startswith(opening) and text.removeprefix(opening) in self._remarks

    def begun(self, text: str, model: str, question: str) -> bool:
        """Whether it is the beginning of that model's answer to that question."""
        opening = self._opening(model, question)
        return any((opening + remark).startswith(text) for remark in self._remarks)


def cells(clients: Iterable[Client], cases: Iterable[Case]) -> list[Cell]:
    """Every fault by every way under every policy, as far as the trouble can reach."""
    made = []
    for client in clients:
        for case in cases:
            for way in WAYS:
                if (case.stream if way.streams else case.whole) is None:
                    continue
                for policy in POLICIES:
                    for extent in Extent:
                        if extent is Extent.EVERYWHERE and not policy.others:
                            continue  # nobody else is asked
                        made.append(Cell(client, case, way, policy, extent, f"m{len(made)}-{client.__name__.lower()}"))
    return made
