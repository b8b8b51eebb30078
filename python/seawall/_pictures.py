"""What a notebook shows of seawall's objects, one function for each kind. Loaded when something is shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seawall import _html as h
from seawall import _in_words as words
from seawall._explain import ExplainedStep, Explanation, explain
from seawall._explain_words import phrase, word
from seawall._html import Bar, Cell, Span
from seawall._in_words import LEVELS, STATES, plural, share, span

if TYPE_CHECKING:
    from seawall._attempts import Attempts
    from seawall._circuit_reports import CircuitEvent, CircuitMetrics
    from seawall._circuits import Circuits
    from seawall._monitoring import Alert
    from seawall._seawall import Bulkhead, Cache, CircuitBreaker, Guarded, Hedge, Monitor, Pipeline, RateLimit, Reply
    from seawall.llm import EmbeddingsReply

# How many of the last calls a sparkline has, and how many rows a table.
_CALLS = 60
_ROWS = 5
_CIRCUITS = 50
# A call as monitors tell of it: ok, seconds, retries, by an alternative, Unix time, class of its error, model.
Call = tuple[bool, float, int, bool, float, str, str]


def _now() -> str:
    return f"at {time.strftime('%H:%M:%S')}"


def _at(unix: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(unix))
    except (ValueError, OverflowError, OSError):
        return "–"


# -- circuits


def _spaced(word: str) -> str:
    return word.replace("_", " ")


def _state(state: str) -> str:
    return h.badge(_spaced(state), STATES.get(state, "plain"))


def _counts(seen: CircuitMetrics) -> str:
    rows = [("failures in a row", f"{seen.consecutive_failures:,}")]
    if seen.calls is not None:
        rows.append(("failed in the window", f"{seen.failed:,} of {seen.calls:,}"))
        rows.append(("failure rate", share(seen.failure_rate)))
    if seen.slow is not None:
        rows.append(("slow", share(seen.slow_call_rate)))
    rows += [("openings", f"{seen.openings:,}"), ("turned away", f"{seen.rejected:,}")]
    return h.figures(rows)


def _next(seen: CircuitMetrics) -> str | None:
    if seen.retry_after is not None and seen.state == "open":
        return f"in {seen.retry_after:.1f} s"
    if seen.state == "half_open":
        probes = (
            f": {plural(seen.probes, 'probe')} out, {seen.probe_successes} succeeded"
            if seen.probes or seen.probe_successes
            else ""
        )
        return f"with the next call{probes}"
    return "when told to, by hand" if seen.state == "forced_open" else None


def breaker(given: CircuitBreaker) -> str:
    """A breaker: its state and why, when it tries again, its counts, the kind of the last failure."""
    seen = given.metrics()
    why, since = given._why
    rows: list[Sequence[str]] = []
    if since is not None:
        # An open circuit whose time is over reads half open, and nothing has happened to it since it opened.
        untouched = seen.state == "half_open" and not seen.probes and not seen.probe_successes
        rows.append(
            ("opened", f"{span(since)} ago: {why}") if untouched else (f"{_spaced(seen.state)} for", f"{span(since)}: {why}")
        )
    again = _next(seen)
    if again is not None:
        rows.append(("tries again", again))
    if seen.last_failure is not None:
        rows.append(("last failure", words.kind(seen.last_failure)))
    rows.append(("opens at", " or at ".join(words.opens(given))))
    title = "Circuit breaker" if type(given).__name__ == "CircuitBreaker" else type(given).__name__
    return h.card(title, seen.name or "(unnamed)", _counts(seen), h.table(rows), badge=_state(seen.state), note=_now())


def metrics(seen: CircuitMetrics) -> str:
    """A breaker's counts at one moment."""
    rows = [("tries again", again)] if (again := _next(seen)) is not None else []
    if seen.last_failure is not None:
        rows.append(("last failure", words.kind(seen.last_failure)))
    return h.card("Metrics of circuit", seen.name or "(unnamed)", _counts(seen), h.table(rows), badge=_state(seen.state))


def event(told: CircuitEvent) -> str:
    """A change of a breaker's state."""
    rows = [("was", _spaced(told.old)), ("why", told.reason)]
    if told.retry_after is not None:
        rows.append(("tries again", f"in {told.retry_after:.1f} s"))
    if told.last_failure is not None:
        rows.append(("last failure", words.kind(told.last_failure)))
    return h.card(told.name, told.breaker.name or "(unnamed)", h.table(rows), badge=_state(told.new))


def circuits(known: Circuits) -> str:
    """All breakers: a row each, those in trouble first."""
    rows = []
    found = sorted(known, key=lambda one: "bad fair still good".find(STATES[one.state]))
    for each in found[:_CIRCUITS]:
        seen = each.metrics()
        failed = share(seen.failure_rate) if seen.failure_rate is not None else f"{seen.consecutive_failures:,} in a row"
        last = "" if seen.last_failure is None else words.kind(seen.last_failure)
        state = Cell(_spaced(seen.state), STATES[seen.state])
        counts = (Cell(failed, number=True), Cell(f"{seen.rejected:,}", number=True))
        rows.append((Cell(seen.name or "(unnamed)"), state, *counts, _next(seen) or "", last))
    right = [Cell(name, number=True) for name in ("failures", "turned away")]
    table = h.table(rows, ["circuit", "state", *right, "tries again", "last failure"])
    more = h.line(f"… and {plural(len(found) - _CIRCUITS, 'other')}.") if len(found) > _CIRCUITS else ""
    trouble = len(known.open())
    badge = h.badge(f"{trouble} open", "bad") if trouble else h.badge("all closed", "good") if rows else ""
    return h.card("Circuits of this process", None, (table or h.line("There are none.")) + more, badge=badge, note=_now())


# -- limits


def rate_limit(given: RateLimit) -> str:
    """A rate limit: what may go now, and who waits."""
    if given.key is None:
        left = zip(("requests", "tokens"), given.available, strict=True)
        rows = [(f"{what} left now", f"{amount:,}") for what, amount in left if amount is not None]
    else:
        rows = [("keys", f"{len(given.known_keys):,}")]
    rows.append(("waiting", f"{given.queued:,}"))
    paused = given.paused
    if paused is not None:
        badge = h.badge("paused", "bad")
    else:
        busy = given.queued > 0
        badge = h.badge("calls wait" if busy else "room", "fair" if busy else "good")
    said = [("allows", words.policy(given))] + ([("paused for", span(paused))] if paused is not None else [])
    return h.card("Rate limit", given.name or "(unnamed)", h.figures(rows), h.table(said), badge=badge, note=_now())


def bulkhead(given: Bulkhead) -> str:
    """A bulkhead: who is inside, and who waits."""
    active, queued = given.active, given.queued
    tone, state = ("bad", "full") if active >= given.max_concurrency and queued >= given.max_queue else ("good", "room")
    if (state == "full" and given.max_queue > 0) or queued:
        tone, state = ("bad", "full") if queued >= given.max_queue else ("fair", "calls wait")
    figures = h.figures([("under way", f"{active:,} of {given.max_concurrency:,}"), ("waiting", f"{queued:,}")])
    table = h.table([("allows", words.policy(given))])
    return h.card("Bulkhead", given.name or "(unnamed)", figures, table, badge=h.badge(state, tone), note=_now())


def hedge(given: Hedge) -> str:
    """A hedge: when it asks once more, and how often it did."""
    said = given.statistics
    figures = h.figures([(name, f"{said[name]:,}") for name in ("calls", "hedges", "wins", "denied")])
    delay = "not known yet" if given.delay is None else span(given.delay)
    table = h.table([("asks", words.policy(given)), ("delay now", delay)])
    return h.card("Hedge", given.name or "(unnamed)", figures, table, note=_now())


def cache(given: Cache) -> str:
    """A cache: what it keeps, and what has come of the calls."""
    stats = given.stats
    asked = stats.hits + stats.joined + stats.misses
    rows = [
        ("kept", f"{stats.items:,}"),
        ("bytes", f"{stats.bytes:,}"),
        ("hits", f"{stats.hits:,}"),
        ("joined", f"{stats.joined:,}"),
    ]
    rows += [("misses", f"{stats.misses:,}"), ("stale", f"{stats.stale:,}")]
    badge = h.badge(f"{(stats.hits + stats.joined) / asked:.0%} answered", "good") if asked else h.badge("not used yet", "fair")
    table = h.table([("keeps", words.policy(given))])
    return h.card("Cache", given.name or "(unnamed)", h.figures(rows), table, badge=badge, note=_now())


# -- pipelines


def _name(given: Any) -> str:
    return type(given).__name__


def _boxes(policies: Sequence[Any]) -> list[tuple[str, str, str]]:
    from seawall._seawall import CircuitBreaker

    boxes = []
    for each in policies:
        said, tone, title = words.policy(each), "plain", _name(each)
        if isinstance(each, CircuitBreaker):
            state = each.state
            tone, said = STATES[state], f"{_spaced(state)}; {said}"
            title += f" {each.name}" if each.name else ""
        boxes.append((title, said or words.short(each), tone))
    return boxes


def _order(given: Pipeline, core: str) -> str:
    warnings = "".join(map(h.warning, words.warned(given.policies)))
    watched = given.monitor
    seen = "" if watched is None else h.line(f"Watched by monitor {watched.name or '(unnamed)'}, level {watched.level}.")
    return f"{h.nest(_boxes(given.policies), core)}{seen}{warnings}"


def pipeline(given: Pipeline) -> str:
    """The order of the policies, as boxes inside one another."""
    return h.card("Pipeline", given.name or "(unnamed)", _order(given, "the call"), note="outermost first")


def guarded(given: Guarded) -> str:
    """A guarded function: what is around it, and what has become of its calls."""
    done = given.statistics
    numbers = [(name, f"{done[name]:,}") for name in ("calls", "successes", "failures", "retries", "fallbacks")]
    numbers.append(("waited", span(done["waited"])))
    last = ""
    if done["last_attempts"] is not None:
        told = explain(given)
        last = h.part(told.headline) + _timeline(told)
    name = getattr(given, "__qualname__", None) or "(unnamed)"
    return h.card("Guarded function", name, h.figures(numbers), _order(given.pipeline, f"{name}(…)"), last)


class Description(str):
    """The text of `Pipeline.describe()`, which a notebook shows as a picture and a prompt as it is."""

    __slots__ = ("_picture",)
    _picture: str

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self._picture

    def __reduce__(self) -> tuple[Any, ...]:
        return described_again, (str(self), self._picture)


def described_again(text: str, picture: str) -> Description:
    made = Description(text)
    made._picture = picture
    return made


def described(given: Pipeline) -> Description:
    """The order of the policies in text, a line each."""
    drawn = [("  " * depth + "└ " + title, said) for depth, (title, said, _) in enumerate(_boxes(given.policies))]
    drawn.append(("  " * len(drawn) + "└ the call", ""))
    wide = max(len(left) for left, _ in drawn)
    name = "(unnamed)" if given.name is None else given.name
    watched = "" if given.monitor is None else f", watched by monitor {given.monitor.name or '(unnamed)'}"
    lines = [f"Pipeline {name}, outermost first{watched}"]
    lines += [f"{left:{wide}}  {right}".rstrip() for left, right in drawn]
    lines += [f"! {said}" for said in words.warned(given.policies)]
    return described_again("\n".join(map(words.printable, lines)), pipeline(given))


# -- replies


def attempts(made: Attempts) -> str:
    """The attempts of a call."""
    return h.card("Attempts", None, _timeline(explain(made)), note=plural(len(made), "attempt"))


def _story(x: Any) -> str:
    return h.part("How it came") + _timeline(explain(x))


def reply(given: Reply) -> str:
    """A model's answer, whose it is, its tokens, and how it came."""
    usage = given.usage or {}
    tokens = [(_spaced(name), f"{count:,}") for name, count in usage.items() if name != "total_tokens"]
    numbers = [("seconds", f"{given.seconds:.2f}"), ("attempts", str(len(given.attempts))), *tokens]
    said = h.quote(given.content) if given.content else ""
    if given.refusal:
        said += h.warning("The model refused:") + h.quote(given.refusal)
    calls = [(name, arguments) for _, name, arguments in given.tool_calls]
    if calls:
        said += h.part("Tools that it calls") + h.table(calls)
    if given.reasoning:
        said += h.folded("Its reasoning", h.quote(given.reasoning))
    others = len(given.choices) - 1
    if others > 0:
        said += h.line(f"There {'is' if others == 1 else 'are'} {plural(others, 'more choice')}, in choices.")
    notes = []
    if given.finish_reason == "length":
        notes.append("It was cut short by its length limit.")
    elif given.finish_reason == "content_filter":
        notes.append("A content filter cut it short.")
    if given.cached:
        notes.append("It came from the cache: nothing was asked.")
    if given.alternative and given.attempts:
        notes.append(f"Alternative {given.alternative} answered; {given.attempts[0].model} was asked first.")
    badge = h.badge("complete", "good")
    if notes:
        badge = h.badge("cut short" if given.finish_reason in {"length", "content_filter"} else "by an alternative", "fair")
    warnings = "".join(map(h.warning, notes))
    return h.card("Reply of", given.model, said, warnings, h.figures(numbers), _story(given), badge=badge)


def embeddings(given: EmbeddingsReply) -> str:
    """Vectors: how many, how long, whose, and how they came."""
    lengths = sorted({len(vector) for vector in given.vectors})
    numbers = [
        ("vectors", f"{len(given.vectors):,}"),
        ("numbers in each", " or ".join(f"{length:,}" for length in lengths) or "–"),
        ("tokens", f"{given.tokens:,}"),
        ("seconds", f"{given.seconds:.2f}"),
        ("attempts", str(len(given.attempts))),
    ]
    return h.card("Embeddings of", given.model or "(unnamed)", h.figures(numbers), _story(given))


# Of events that take no time.
_EVENTS = {"circuit.closed": "good", "circuit.half_opened": "fair", "fallback.used": "fair", "chaos.injected": "fair"}
_EVENTS |= {"rate_limit.waited": "fair", "bulkhead.waited": "fair", "hedge.started": "fair", "hedge.won": "good"}
_EVENTS |= {"guardrail.redacted": "fair", "guardrail.repaired": "fair"}
_EVENTS |= {"cache.hit": "good", "cache.miss": "fair", "cache.joined": "good", "cache.stale": "fair"}


def _happened(step: ExplainedStep) -> Span:
    start, long = step.at, step.seconds or 0.0
    if step.event == "attempt":
        tone = "good" if step.error is None else "still" if step.seconds is None else "bad"
        return Span(start, start + long, tone, step.text)
    if step.event in {"waited", "retry.scheduled"}:
        return Span(start, start + long, None, step.text)
    return Span(start, start, _EVENTS.get(step.event, "bad"), step.text)


def _timeline(told: Explanation) -> str:
    """The steps along time; of very many, the first and the last."""
    shown = told._told_steps()
    if None not in shown:
        return h.timeline([_happened(step) for step in shown if step is not None], "what happened, in time")
    skipped = phrase("skipped", told.language, count=len(told.steps) - len(shown) + 1)
    spans = [Span(told.steps[0].at, told.steps[-1].at, None, skipped) if step is None else _happened(step) for step in shown]
    return h.timeline(spans, "what happened, in time")


def _explained(told: Explanation) -> str:
    parts = "".join(h.part(part.headline) + _explained(part) for part in told.parts)
    return _timeline(told) + parts + "".join(map(h.line, told.remarks))


def explanation(told: Explanation) -> str:
    """The story of a call: what happened when, and what is known besides."""
    return h.card(phrase("title", told.language), None, h.line(told.headline), _explained(told), language=told.language)


# -- monitors


def _bars(calls: Sequence[Call]) -> list[Bar]:
    longest = max((call[1] for call in calls), default=0.0) or 1.0
    bars = []
    for ok, seconds, retries, by_another, _, error, _ in calls:
        tone = "bad" if not ok else "fair" if retries or by_another else "good"
        said = f"{'succeeded' if ok else 'failed'}{f' with {error}' if error else ''}, {span(seconds)}"
        said += f", {plural(retries, 'retry' if retries == 1 else 'retrie')}" if retries else ""
        bars.append(Bar(seconds / longest, tone, said + (", an alternative answered" if by_another else "")))
    return bars


def _spark(calls: Sequence[Call]) -> str:
    failed = sum(not call[0] for call in calls)
    retried = sum(call[0] and bool(call[2] or call[3]) for call in calls)
    label = f"the last {plural(len(calls), 'call')}: {failed} failed, {retried} succeeded after retries or by an alternative"
    title = f"The last {plural(len(calls), 'call')}, oldest first: seconds; ■ failed, ▲ retried"
    return h.part(title) + h.sparkline(_bars(calls), label)


def _by_time(slots: Sequence[dict[str, Any]]) -> str:
    """Where single calls are not kept: how many there were in each part of the time."""
    most = max((slot["total"] for slot in slots), default=0) or 1
    bars = []
    for slot in slots:
        tone = "bad" if slot["errors"] else "fair" if slot["retried"] or slot["fallbacks"] else "good"
        said = f"{_at(slot['at'])}: {plural(slot['total'], 'call')}, {slot['errors']:,} failed, 95 % {span(slot['p95'])}"
        bars.append(Bar(slot["total"] / most, tone if slot["total"] else "still", said))
    failed = sum(slot["errors"] for slot in slots)
    label = f"calls in {len(slots)} parts of the time, {failed} failed"
    return h.part("Calls by time, oldest first; ■ with failures, ▲ with retries") + h.sparkline(bars, label)


def _failures(given: Monitor, calls: Sequence[Call]) -> str:
    """What went wrong, by kind; and the last ones, where single calls are kept."""
    kinds = sorted(given.by("error").items(), key=lambda found: -found[1])[:_ROWS]
    rows = [(Cell(name or "(of no known kind)"), Cell(f"{count:,}", number=True)) for name, count in kinds]
    counted = h.part("Errors") + h.table(rows, ("kind", Cell("calls", number=True))) if rows else ""
    last = [call for call in calls if not call[0]][-_ROWS:]
    told = [
        (_at(at), error or "–", model or "–", span(took), f"{retries:,}")
        for _, took, retries, _, at, error, model in reversed(last)
    ]
    named = any(call[5] or call[6] for call in last)
    table = h.table(told, ("at", "kind", "model", "took", "retries"))
    return counted + (h.part("The last of them") + table if named else "")


def _apart(given: Monitor, what: str) -> str:
    """A row for each pipeline or model, where there are several."""
    found = given.by(what)
    if len(found) < 2:
        return ""
    rows = []
    for name, sums in sorted(found.items(), key=lambda one: -one[1]["total"])[:_ROWS]:
        numbers = (f"{sums['total']:,}", share(sums["error_rate"]), share(sums["retry_rate"]), span(sums["avg_latency"]))
        rows.append((Cell(name or "(unnamed)"), *(Cell(number, number=True) for number in numbers)))
    right = (Cell(title, number=True) for title in ("calls", "errors", "retried", "mean"))
    return h.table(rows, (what, *right))


def alert(told: Alert) -> str:
    """One moment of an incident."""
    rows = []
    for name, value in told.metrics.items():
        limit = f"limit {reading(name, told.limits[name])}" if name in told.limits else ""
        rows.append((word(name, "en"), reading(name, value), limit))
    rows.append(("incident", f"no. {told.incident}, since {_at(told.since)}", f"at worst {told.peak}"))
    badge, at = h.badge(told.level, LEVELS.get(told.level, "plain")), f"at {_at(told.timestamp)}"
    return h.card(f"Alert {told.kind}", told.name, h.line(told.message), h.table(rows), badge=badge, note=at)


def reading(metric: str, value: float) -> str:
    """A metric's value as people read it."""
    if metric.endswith("_rate"):
        return share(value)
    return span(value) if metric in {"avg_latency", "p95", "p99", "first_token"} else f"{value:g}"


def monitor(given: Monitor, *, note: str | None = None) -> str:
    """How things are: level, rates, latencies, the last calls, errors and alerts."""
    now = given.snapshot()
    calls = given._recent(_CALLS)
    badge = h.badge(now["level"], LEVELS.get(now["level"], "plain"))
    if not now["total"]:
        return h.card(_name(given), given.name, h.line("No calls yet."), badge=badge, note=note or _now())
    numbers = [
        ("calls", f"{now['total']:,}"),
        ("errors", share(now["error_rate"])),
        ("retried", share(now["retry_rate"])),
        ("by an alternative", share(now["fallback_rate"])),
        ("median", span(now["p50"])),
        ("95 %", span(now["p95"])),
        ("99 %", span(now["p99"])),
    ]
    if now["first_token_p50"] is not None:
        numbers.append(("to the first token", span(now["first_token_p50"])))
    if now["tokens"]:
        numbers.append(("tokens", f"{now['tokens']:,}"))
    if now["cost"]:
        numbers.append(("estimated cost", f"{now['cost']:.4g}"))
    window = now["window"]
    over = plural(window, "call") if isinstance(window, int) else span(window)
    since = h.line(f"The last {over} count; {plural(now['lifetime']['total'], 'call')} seen in all.")
    row = now["consecutive_failures"]
    trouble = h.warning(f"{plural(row, 'failure')} in a row, up to now.") if row > 1 else ""
    spark = _spark(calls) if calls else _by_time(given.timeline(_CALLS))
    past = given.alerts[-_ROWS:]
    told = [(Cell(_at(one.timestamp)), one.kind, Cell(one.level, LEVELS.get(one.level)), one.message) for one in reversed(past)]
    alerts = h.part("The last alerts") + h.table(told, ("at", "what", "level", "message")) if told else ""
    apart = _apart(given, "pipeline") + _apart(given, "model")
    parts = (h.figures(numbers), trouble, spark, alerts, _failures(given, calls), apart, since)
    return h.card(_name(given), given.name, *parts, badge=badge, note=note or _now())
