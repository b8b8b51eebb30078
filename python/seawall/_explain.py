"""`seawall.explain`: the story of one call in a few lines. Loaded when first asked for.

It tells kinds and statuses, names of models, policies and circuits, and times: no content, no text of an error, no key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from seawall import _in_words as words
from seawall._attempts import GIVEN_UP, Attempt, Attempts
from seawall._circuits import circuits
from seawall._classify import classify
from seawall._explain_words import LANGUAGES, PHRASES, phrase, word
from seawall._in_words import kind, printable, share, span
from seawall._monitoring import Alert
from seawall._response import get
from seawall._seawall import CircuitBreaker, Guarded, Reply, Stream
from seawall._story import Step
from seawall._word import shown
from seawall.errors import (
    CallTimeoutError,
    CircuitBreakerError,
    ConfigurationError,
    ConfigurationTypeError,
    Rejected,
    StreamInterruptedError,
)

# Of a group or a chain of failures so many levels are told, and so many members.
_DEEP = 4
_MEMBERS = 10
# What leads to an attempt, or is in its place.
_BEFORE_AN_ATTEMPT = ("circuit.rejected", "circuit.half_opened", "cache.miss")
# Of the steps of a long call so many are shown from its beginning, and as many from its end.
_SHOWN = 12


class ExplainedStep(NamedTuple):
    """Something that happened on the way. What is not known of it is `None`."""

    at: float
    """Seconds since the call began."""
    event: str
    """A name of the table of events (`retry.scheduled`, `circuit.rejected`, `fallback.used`, …), or `attempt`: one from its
    beginning to its end."""
    policy: str | None = None
    """The pipeline, breaker or model at which it happened."""
    number: int | None = None
    """Which attempt or which alternative."""
    seconds: float | None = None
    """How long an attempt took, a wait lasts, a limit is."""
    reason: str | None = None
    """Why, in words."""
    error: str | None = None
    """The class of the failure."""
    status: int | None = None
    """Its HTTP status."""
    alternative: int | None = None
    """Of an attempt: whose it is, 0 for the primary."""
    text: str = ""
    """All this as a sentence."""


class Explanation:
    """What `explain` found out: `str()` is the text, a notebook shows a picture, `steps` is the same as data.

    Attributes:
        headline: the first line: how it came out.
        steps: what was tried, waited and refused, in order: `ExplainedStep`s.
        remarks: what else is known, or is not known, a sentence each.
        parts: of a group of failures, an explanation of each.
        language: the language of the text.
    """

    __slots__ = ("headline", "language", "parts", "remarks", "steps")

    def __init__(
        self,
        headline: str,
        steps: Iterable[ExplainedStep] = (),
        remarks: Iterable[str] = (),
        parts: Iterable[Explanation] = (),
        *,
        language: str = "en",
    ) -> None:
        self.headline = printable(headline)
        self.steps = tuple(steps)
        self.remarks = tuple(map(printable, remarks))
        self.parts = tuple(parts)
        self.language = language

    def _told_steps(self) -> list[ExplainedStep | None]:
        """The steps that are shown; `None` stands for the middle of very many."""
        if len(self.steps) <= 2 * _SHOWN + 1:
            return list(self.steps)
        return [*self.steps[:_SHOWN], None, *self.steps[-_SHOWN:]]

    def _lines(self) -> Iterable[str]:
        last = max((step.at for step in self.steps), default=0.0)
        digits = 3 if last < 10 else 1
        wide = len(f"{last:.{digits}f}")
        for step in self._told_steps():
            if step is None:
                yield phrase("skipped", self.language, count=len(self.steps) - 2 * _SHOWN)
                continue
            yield f"{step.at:{wide}.{digits}f} s  {step.text}"
        for number, part in enumerate(self.parts, 1):
            yield f"{number}. {part.headline}"
            yield from (f"   {line}" for line in part._lines())
        yield from self.remarks

    def __str__(self) -> str:
        return "\n".join((self.headline, *(f"  {line}" for line in self._lines())))

    def __repr__(self) -> str:
        # It is made to be read, at a prompt too.
        return str(self)

    def _repr_html_(self) -> str:
        from seawall._pictures import explanation

        return explanation(self)


def explain(x: Any, language: str = "en") -> Explanation:
    """The story of one call in a few lines: what was tried, waited and refused, and by which policy.

    Args:
        x: a `Reply`, an `EmbeddingsReply`, a stream that is over, a message of the LangChain layer; an exception that came
            out of a guarded call, a model, the LangChain layer or a guarded client of an SDK, refusals and groups too; a guarded
            function (its last call that did not simply pass); a `CircuitBreaker` (why it is in its state); an `Alert`.
        language: `"en"` or `"zh"`.

    Returns:
        An `Explanation`. It holds kinds, statuses and names, never content. What is not known it says.

    Raises:
        ConfigurationError: nothing of the kind can be explained, or not in this language.
    """
    if language not in LANGUAGES:
        raise ConfigurationError(f"language must be one of {', '.join(map(repr, LANGUAGES))}, not {shown(language)}")
    teller = _Teller(language)
    if isinstance(x, BaseException):
        teller.error(x)
    elif isinstance(x, CircuitBreaker):
        teller.breaker(x)
    elif isinstance(x, Alert):
        teller.alert(x)
    elif isinstance(x, Reply):
        teller.answer(x, x.model, alternative=x.alternative)
    elif isinstance(x, Attempts):
        teller.attempts(x)
    else:
        guarded = x if isinstance(x, Guarded) else getattr(x, "__func__", None)
        if isinstance(guarded, Guarded):
            teller.guarded(guarded)
        elif not teller.streamed(x) and not teller.vectors(x) and not teller.message(x):
            raise ConfigurationTypeError(
                "explain tells of a reply, a stream that is over, an exception, a guarded function, a CircuitBreaker or an "
                f"Alert; {shown(x) if callable(x) else type(x).__name__} is none of them"
            )
    return teller.told()


def _listed(x: Any, name: str, kind: type | tuple[type, ...] = object) -> list[Any]:
    """What a foreign attribute lists of that kind; it may be anything, or raise."""
    found = get(x, name)
    return [each for each in found if isinstance(each, kind)] if isinstance(found, (tuple, list)) else []


def _story(x: Any) -> list[Step]:
    """What policies did on the way, where the object carries it: as a tuple, or as the sequence that a guarded call leaves."""
    story = get(x, "story")
    return _listed(x, "story", Step) or _listed(story, "steps", Step)


def _attempts(x: Any) -> list[Attempt]:
    """Its attempts: those of the guarded call that it came out of, whose steps are told of, before those of a model inside."""
    return _listed(get(x, "story"), "attempts", Attempt) or _listed(x, "attempts", Attempt)


def _of_rows(rows: Iterable[Any]) -> list[Attempt]:
    """The attempts as messages carry them: without their beginnings, which follow from one another."""
    made: list[Attempt] = []
    at = 0.0
    for row in rows:
        if isinstance(row, dict):
            known = {name: row.get(name) for name in ("model", "seconds", "outcome", "status", "request_id", "waited")}
            made.append(Attempt(alternative=row.get("alternative") or 0, started=at, **known))  # type: ignore[arg-type]
            at += (row.get("seconds") or 0.0) + (row.get("waited") or 0.0)
    return made


def _merged(attempts: Sequence[ExplainedStep], story: Sequence[ExplainedStep]) -> Iterable[ExplainedStep]:
    """Attempts and what policies did in the order in which they followed from one another. Both are in the order of time; but
    clocks are looked at sparingly, and may stand still, so that at one moment the cause has to say what came first."""
    left, steps, is_due = list(attempts), list(story), True
    while left and steps:
        attempt, step = left[0], steps[0]
        if attempt.at + (attempt.seconds or 0.0) < step.at:
            comes_first = True
        elif attempt.at > step.at:
            comes_first = False
        else:
            comes_first = is_due and step.event not in _BEFORE_AN_ATTEMPT
        yield left.pop(0) if comes_first else steps.pop(0)
        if comes_first or step.event == "circuit.rejected":
            is_due = False
        elif step.event in {"retry.scheduled", "fallback.used"}:
            is_due = True
    yield from left
    yield from steps


class _Teller:
    """Collects the lines and the steps of one explanation."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.headline = ""
        self.steps: list[ExplainedStep] = []
        self.remarks: list[str] = []
        self.parts: list[Explanation] = []

    def told(self) -> Explanation:
        return Explanation(self.headline, self.steps, self.remarks, self.parts, language=self.language)

    def say(self, name: str, **gaps: object) -> str:
        return phrase(name, self.language, **gaps)

    def add(self, name: str, **gaps: object) -> None:
        self.remarks.append(self.say(name, **gaps))

    def word(self, said: str | None) -> str:
        return word(said or "", self.language)

    def count(self, number: int, english: str, chinese: str) -> str:
        return words.plural(number, english) if self.language == "en" else f"{number:,} {chinese}"

    def tried(self, number: int) -> str:
        return self.count(number, "attempt", "次尝试")

    # -- what happened on the way

    def way(self, made: Sequence[Attempt], story: Sequence[Step] = ()) -> None:
        """Tells of the attempts and of what policies did, in the order of time."""
        attempts = []
        for number, attempt in enumerate(made, 1):
            at, took = attempt.started, attempt.seconds
            error = None if attempt.outcome == "ok" else attempt.outcome
            of = attempt.alternative
            attempts.append(ExplainedStep(at, "attempt", attempt.model, number, took, None, error, attempt.status, of))
            if attempt.waited is not None and not story:
                attempts.append(ExplainedStep(at + (took or 0.0), "waited", attempt.model, None, attempt.waited))
        # The beginning of an attempt is told of with its end.
        steps = _merged(attempts, [ExplainedStep(*step) for step in story if step.event != "attempt.started" or not made])
        now = 0.0
        for step in steps:
            now = max(now, step.at)
            self.steps.append(step._replace(at=now, text=printable(self.sentence(step, told=bool(made)))))

    def sentence(self, step: ExplainedStep, *, told: bool) -> str:
        """A step in words; `told`: the failures of attempts are told of with them."""
        policy, seconds = step.policy or "?", span(step.seconds)
        if step.alternative:
            policy = self.say("alternative", policy=policy, number=step.alternative)
        error = "" if step.error is None else step.error if step.status is None else f"{step.error} {step.status}"
        if step.event == "attempt":
            ended = "attempt.ok" if step.error is None else "attempt.dropped" if step.seconds is None else "attempt.failed"
            ended = "attempt.beaten" if error == GIVEN_UP else ended
            return self.say(ended, number=step.number, policy=policy, error=error, seconds=seconds)
        if step.event not in PHRASES:
            reason = f" ({self.word(step.reason)})" if step.reason else ""
            return self.say("unknown_event", policy=policy, event=step.event, reason=reason)
        name = step.event
        if name == "retry.scheduled" and told:
            name = "retry.waited" if step.seconds else "retry.at_once"
        after = "after_error" if step.event == "fallback.used" else "of_error"
        return self.say(
            name,
            policy=policy,
            number=step.number,
            seconds=seconds,
            reason=self.word(step.reason),
            error=self.say(after, error=error) if error else "",
            next=self.say("next_in", seconds=seconds) if step.seconds else "",
        )

    # -- what came of calls

    def answer(self, x: Any, who: str, *, alternative: int = 0) -> None:
        made = _attempts(x)
        self.answered(made, who, alternative, span(x.seconds), is_cached=getattr(x, "cached", False))
        self.way(made, _story(x))

    def answered(self, made: Sequence[Attempt], who: str, alternative: int, seconds: str, *, is_cached: bool) -> None:
        name = "answered_instead" if alternative else "answered_at_once" if len(made) <= 1 else "answered"
        if is_cached and not made:
            name = "answered_by_a_cache"
        self.headline = self.say(name, who=who, number=alternative, attempts=self.tried(len(made)), seconds=seconds)

    def attempts(self, made: Attempts) -> None:
        last = made[-1] if made else None
        seconds = 0.0 if last is None else last.started + (last.seconds or 0.0)
        if last is not None and last.outcome == "ok":
            self.headline = self.say("answered", who=last.model, attempts=self.tried(len(made)), seconds=span(seconds))
        else:
            error = "?" if last is None else last.outcome
            self.headline = self.say("failed_after", error=error, attempts=self.tried(len(made)), seconds=span(seconds))
        self.way(made)

    def streamed(self, x: Any) -> bool:
        inner = getattr(x, "_stream", x)
        stream = x if isinstance(x, Stream) else inner if isinstance(inner, Stream) else None
        if stream is None:
            return False
        if stream.attempts is None or stream.seconds is None:
            self.headline = self.say("stream_open")
            return True
        made = list(stream.attempts)
        last = made[-1] if made else None
        attempts, seconds = self.tried(len(made)), span(stream.seconds)
        if last is not None and last.outcome != "ok":
            self.headline = self.say("failed_after", error=last.outcome, attempts=attempts, seconds=seconds)
        else:
            self.headline = self.say("streamed", who="?" if last is None else last.model, attempts=attempts, seconds=seconds)
        self.way(made, _story(stream))
        return True

    def vectors(self, x: Any) -> bool:
        from seawall.llm import EmbeddingsReply

        if not isinstance(x, EmbeddingsReply):
            return False
        tried, count = self.tried(len(x.attempts)), len(x.vectors)
        self.headline = self.say("vectors", who=x.model or "?", count=count, attempts=tried, seconds=span(x.seconds))
        self.way(x.attempts, _story(x))
        return True

    def message(self, x: Any) -> bool:
        """A message of the LangChain layer, which carries the story in its metadata."""
        metadata = getattr(x, "response_metadata", None)
        told = metadata.get("seawall") if isinstance(metadata, dict) else None
        if not isinstance(told, dict) or not isinstance(told.get("attempts"), list):
            return False
        made = _of_rows(told["attempts"])
        number, who = told.get("alternative") or 0, told.get("served_by") or "?"
        self.answered(made, who, number, span(told.get("seconds")), is_cached=bool(told.get("cached")))
        self.way(made)
        return True

    # -- failures

    def error(self, error: BaseException, depth: int = 0) -> None:
        members = _listed(error, "exceptions", BaseException)
        if members:
            self.headline = self.say("group", error=type(error).__name__, count=len(members))
            self.inside(members, depth)
            return
        made, story = _attempts(error), _story(error)
        if isinstance(error, Rejected):
            self.rejected(error)
        elif isinstance(error, CallTimeoutError):
            limit, elapsed = (None if said is None else span(said) for said in (error.limit, error.elapsed))
            self.headline = self.say("timed_out", policy=error.name or "?", limit=limit or "?", seconds=elapsed or "?")
        elif made:
            # The last wait may have led to no attempt, as when the circuit opened meanwhile.
            seconds = made[-1].started + (made[-1].seconds or 0.0) + (made[-1].waited or 0.0)
            self.headline = self.say("failed_after", error=kind(error), attempts=self.tried(len(made)), seconds=span(seconds))
        else:
            self.headline = self.say("failed", error=kind(error))
        self.way(made, story)
        self.beside(error, depth)

    def beside(self, error: BaseException, depth: int) -> None:
        """What else is known of a failure."""
        made, story = _attempts(error), _story(error)
        others = _listed(error, "alternatives", BaseException)
        inside = _listed(error, "attempts", Attempt)
        if made != inside and len(inside) > 1:
            self.add("inside", attempts=self.tried(len(inside)))
        if others and not any(attempt.alternative for attempt in made):
            for number, other in enumerate(others, 1):
                self.add("alternative_failed", number=number, error=kind(other))
        notes = [note for note in _listed(error, "__notes__", str) if note.startswith("seawall: ")]
        if not story:
            # It says why there was no further attempt.
            for note in notes:
                self.add("note", note=note.removeprefix("seawall: "))
        broke_off = isinstance(error, StreamInterruptedError) and bool(error.partial)
        if broke_off:
            self.add("partial")
        cause = error.__cause__
        if cause is not None and depth < _DEEP:
            self.add("caused", error=kind(cause))
        results = _listed(error, "results")
        if results:
            done = sum(not isinstance(each, BaseException) for each in results)
            self.add("batch", done=done, count=len(results))
        if isinstance(error, (Rejected, CallTimeoutError)):
            return
        if not broke_off:
            self.add(f"class.{classify(error)}")
        if not (made or story or others):
            self.add("untold" if notes else "not_guarded")

    def inside(self, members: Sequence[BaseException], depth: int) -> None:
        """The failures of a group, each with its own story."""
        if depth >= _DEEP:
            return
        for member in members[:_MEMBERS]:
            teller = _Teller(self.language)
            teller.error(member, depth + 1)
            self.parts.append(teller.told())
        if len(members) > _MEMBERS:
            self.add("more", count=len(members) - _MEMBERS)

    def rejected(self, error: Rejected) -> None:
        policy = self.word(error._kind.lower())
        if error.name is not None:
            policy += f" {error.name}"
        self.headline = self.say("refused", policy=policy)
        if not isinstance(error, CircuitBreakerError):
            self.again(error.retry_after)
            return
        breaker = None if error.name is None else circuits.get(error.name)
        if breaker is None:
            self.add("circuit_gone")
        else:
            reason, since = breaker._why
            why = {"state": self.word(breaker.state), "reason": self.word(reason), "policy": error.name}
            self.add("breaker_fresh" if since is None else "circuit_why", seconds=span(since), **why)
        if error.last_failure is not None:
            self.add("last_failure", error=kind(error.last_failure))
        if breaker is not None and breaker.state == "forced_open":
            self.add("again_by_hand")
        else:
            self.again(error.retry_after)

    def again(self, seconds: float | None) -> None:
        if seconds is None:
            self.add("again_unknown")
        else:
            self.add("again_in", seconds=span(seconds))

    # -- things that last

    def guarded(self, function: Guarded) -> None:
        done, who = function.statistics, getattr(function, "__qualname__", None) or "?"
        if not done["calls"]:
            self.headline = self.say("never_called", who=who)
            return
        if done["last_attempts"] is None:
            self.headline = self.say("passed_always", who=who, calls=self.count(done["calls"], "time", "次"))
            return
        error = done["last_error"]
        came = self.say("came_well") if error is None else self.say("came_badly", error=error)
        made, seconds = self.tried(done["last_attempts"]), span(done["last_seconds"])
        self.headline = self.say("last_call", who=who, came=came, attempts=made, seconds=seconds)
        self.way(_attempts(function), _story(function))
        if not self.steps:
            self.add("untold")

    def breaker(self, breaker: CircuitBreaker) -> None:
        seen, said = breaker.metrics(), words.settings(breaker)
        reason, since = breaker._why
        gaps = {"policy": seen.name or "(unnamed)", "state": self.word(seen.state), "reason": self.word(reason)}
        if since is None:
            self.headline = self.say("breaker_fresh", **gaps)
        elif seen.state == "half_open" and reason != "the recovery time was over":
            self.headline = self.say("breaker_over", seconds=span(since), **gaps)
        else:
            self.headline = self.say("breaker", seconds=span(since), **gaps)
        if seen.state == "open" and seen.retry_after is not None:
            self.add("probe_in", seconds=span(seen.retry_after))
        elif seen.state == "half_open" and seen.probes:
            self.add("probes_out", count=self.count(seen.probes, "probe", "次试探"), good=seen.probe_successes)
        elif seen.state == "half_open":
            self.add("probe_now")
        elif seen.state == "forced_open":
            self.add("by_hand")
        elif seen.state in {"closed", "metrics_only"}:
            if breaker.consecutive_threshold is not None:
                self.add("opens_consecutive", limit=breaker.consecutive_threshold, count=seen.consecutive_failures)
            if said.get("failure_rate") is not None:
                self.add("opens_rate", limit=share(said["failure_rate"]), part=seen.failed, calls=seen.calls)
            if seen.slow is not None:
                self.add("opens_slow", limit=share(said.get("slow_call_rate", 1.0)), part=seen.slow, calls=seen.calls)
        if seen.last_failure is not None:
            self.add("last_failure", error=kind(seen.last_failure))
        if seen.openings or seen.rejected:
            openings, rejected = self.count(seen.openings, "opening", "次打开"), self.count(seen.rejected, "call", "次调用")
            self.add("so_far", openings=openings, rejected=rejected)

    def alert(self, alert: Alert) -> None:
        from seawall._pictures import reading

        name = f"alert.{alert.kind}" if f"alert.{alert.kind}" in PHRASES else "alert.other"
        levels = {level: self.word(getattr(alert, level)) for level in ("level", "previous", "peak")}
        who = alert.name or self.say("a_monitor")
        self.headline = self.say(name, who=who, kind=alert.kind, **levels)
        over = "under_limit" if alert.kind == "resolved" else "over_limit"
        for metric, value in alert.metrics.items():
            limit = reading(metric, alert.limits[metric]) if metric in alert.limits else "?"
            self.add(over, metric=self.word(metric), value=reading(metric, value), limit=limit)
        if getattr(alert, "silenced", False):
            self.add("alert.silenced")
        after = span(max(0.0, alert.timestamp - alert.since))
        calls = self.count(alert.calls, "call", "次调用")
        self.add("alert_counts", calls=calls, incident=alert.incident, seconds=after)
