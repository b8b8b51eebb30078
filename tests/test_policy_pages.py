"""A page for each policy, in one fixed order; its tables are the constructor's, the events' and the metrics' own, and its diagram is a
story that happens."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import seawall
from seawall import (
    Bulkhead,
    Cache,
    Chaos,
    CircuitBreaker,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    Retry,
    Timeout,
    _wrong_calls,
    testing,
)
from seawall._seawall import metric_names, span_names
from seawall.errors import BulkheadFullError, CircuitBreakerError, RateLimitExceededError

ROOT = Path(__file__).parents[1]
POLICIES = re.findall(
    r'PolicyRow \{ kind: "(\w+)", class: "(\w+)"', (ROOT / "src" / "policies" / "mod.rs").read_text(encoding="utf-8")
)
EVENTS: dict[str, str] = dict(
    re.findall(
        r'^    [A-Z_]+ = "([\w.]+)", (\w+), "', (ROOT / "src" / "events" / "mod.rs").read_text(encoding="utf-8"), re.MULTILINE
    )
)
METRICS = {name for name, *_ in metric_names()}
# Guardrails have an order of their own.
CLASSES = {kind: name for kind, name in POLICIES if kind != "guardrails"}
SECTIONS = {
    ".md": ["Use", "Arguments", "Events and metrics", "How it works", "How it goes wrong"],
    ".zh.md": ["使用", "参数", "事件与指标", "工作原理", "会出什么问题"],
}
# Where events do not begin with the policy's kind.
OWN = {"circuit_breaker": ("circuit.",), "guardrails": ("guardrail.",), "retry": ("retry.", "attempt.")}
# What holds where an argument's default is None, as far as an object tells.
HOLDS = {
    ("Retry", "attempts"): Retry().attempts,
    ("CircuitBreaker", "failure_threshold"): CircuitBreaker().consecutive_threshold,
    ("Hedge", "percentile"): Hedge().percentile,
    ("Cache", "stale_if_error"): Cache().stale_if_error,
}


def page(kind: str, suffix: str = ".md") -> str:
    name = "guardrails.md" if kind == "guardrails" else f"policies/{kind}{suffix}"
    path = ROOT / "docs" / name
    assert path.exists(), (
        f"write docs/{name} with these sections: {SECTIONS[suffix]}; docs/policies/bulkhead{suffix} is a short one"
    )
    return re.sub(r"^```python\n.*?^```\n", "```python\n```\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def section(kind: str, title: str, suffix: str = ".md") -> str:
    return page(kind, suffix).split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the table whose first column has that head."""
    table = re.search(rf"^\| {head} \|.*\n\|[-|: ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, f"a table whose first column is {head!r}, with a row at least"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1].splitlines()]


def test_every_policy_has_its_page_and_every_page_its_policy():
    assert len(POLICIES) >= 10, "the table of src/policies/mod.rs is not read"
    pages = {path.name for path in (ROOT / "docs" / "policies").glob("*.md")}
    assert {f"{kind}{suffix}" for kind in CLASSES for suffix in SECTIONS} == pages


@pytest.mark.parametrize("suffix", SECTIONS)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_page_has_the_sections_in_their_order(kind, suffix):
    before, *titles = re.split(r"^## (.*)\n", page(kind, suffix), flags=re.MULTILINE)
    order = SECTIONS[suffix]
    assert titles[0::2][: len(order)] == order
    assert re.fullmatch(r"# [^\W\d_a-z][\w ]+\n\n[^|#`\n].*\n\n", before, re.DOTALL), "what it is, and why one wants it"
    use, _, _, works, wrong = (section(kind, title, suffix) for title in order)
    assert "```python\n" in use
    assert works.startswith("\n```mermaid\nsequenceDiagram\n")
    pairs = re.findall(r"^- ❌ (?:(?!^- ).)+ ?✅ ", wrong, re.MULTILINE | re.DOTALL)
    assert len(pairs) == wrong.count("❌") == wrong.count("✅") >= 3


@pytest.mark.parametrize("kind", CLASSES)
def test_the_arguments_are_the_constructor_s(kind):
    name = CLASSES[kind]
    parameters = inspect.signature(getattr(seawall, name)).parameters
    table = rows(section(kind, "Arguments"), "argument")
    assert [cell.strip("`*") for cell, *_ in table] == list(parameters)
    for argument, default, meaning in table:
        parameter = parameters[argument.strip("`*")]
        assert meaning
        assert default.count("**needed**") == (
            parameter.kind is parameter.VAR_POSITIONAL or parameter.default is parameter.empty
        ), argument
        if parameter.default not in (None, parameter.empty):
            assert default == f"`{parameter.default}`", argument
        elif literal := re.match(r"`([^`]*)`", default):
            assert float(literal[1]) == HOLDS[name, parameter.name], argument


@pytest.mark.parametrize("kind", [kind for kind, _ in POLICIES])
def test_the_events_are_all_of_its_events_at_their_level(kind):
    told = {event.strip("`"): level for event, level, *_ in rows(section(kind, "Events and metrics"), "event")}
    assert told == {event: EVENTS.get(event, "no such event").upper() for event in told}
    own = OWN.get(kind, (f"{kind}.",))
    assert {event for event in EVENTS if event.startswith(own)} == set(told)


def test_every_event_is_some_policy_s():
    assert all(any(event.startswith(OWN.get(kind, (f"{kind}.",))) for kind, _ in POLICIES) for event in EVENTS)
    assert len(EVENTS) > 20


@pytest.mark.parametrize("kind", [kind for kind, _ in POLICIES])
def test_metrics_and_attributes_have_names_that_there_are(kind):
    text = section(kind, "Events and metrics")
    listed = [metric.strip("`") for metric, _ in rows(text, "metric")]
    assert listed
    assert set(listed) <= METRICS
    attributes, instruments = ({name for name, *_ in table} for table in span_names())
    for name in re.findall(r"`((?:seawall|gen_ai|http|error)[._][\w.]+)`", text):
        assert name in METRICS | attributes | instruments | {"seawall.explain"}, name


@pytest.mark.parametrize("kind", CLASSES)
def test_what_a_page_shows_of_a_file_is_loaded(kind, tmp_path):
    (shown,) = re.findall(r"^```toml\n(.*?)^```\n", page(kind), re.MULTILINE | re.DOTALL)
    (tmp_path / "seawall.toml").write_text(shown, encoding="utf-8")
    assert seawall.load(tmp_path / "seawall.toml").pipelines["search"]


# The stories of the diagrams, under a clock that the test moves.


class TooMany(Exception):
    status_code = 429
    response = type("Response", (), {"status_code": 429, "headers": {"retry-after": "10"}})()


def replies(*these: Any) -> Callable[..., str]:
    left = iter(these)

    def ask(*_: Any) -> str:
        reply = next(left)
        if isinstance(reply, type):
            raise reply
        return reply

    return ask


def failed(error: type[BaseException], call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(error):
        call(*args)


def together(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)

    return asyncio.run(all_of_them())


def retry(clock: testing.clock) -> None:
    failed(ConnectionError, Pipeline(Retry(3, wait=1))(replies(ConnectionError, TooMany, ConnectionError)))


def circuit_breaker(clock: testing.clock) -> None:
    ask = Pipeline(CircuitBreaker(3, 30))(replies(*[ConnectionError] * 3, "answer"))
    for _ in range(3):
        failed(ConnectionError, ask)
    failed(CircuitBreakerError, ask)
    clock.advance(30)
    assert ask() == "answer"


def hedge(clock: testing.clock) -> None:
    takes = iter([50, 0.5])

    async def ask() -> str:
        await clock.asleep(next(takes))
        return "answer"

    assert together(Pipeline(Hedge(0.8))(ask)) == ["answer"]


def fallback(clock: testing.clock) -> None:
    assert Pipeline(Fallback(lambda _: "answer"), Retry(2, wait=1))(replies(*[ConnectionError] * 2))("why?") == "answer"


def timeout(clock: testing.clock) -> None:
    begun = clock.now
    (error,) = together(Pipeline(Timeout(10), Retry(3, wait=1), Timeout(5))(clock.asleep))
    assert isinstance(error, TimeoutError)
    assert clock.now - begun == 10


def rate_limit(clock: testing.clock) -> None:
    ask = Pipeline(RateLimit(60, max_wait=5))(replies("answer", TooMany))
    assert ask() == "answer"
    failed(TooMany, ask)
    failed(RateLimitExceededError, ask)


def bulkhead(clock: testing.clock) -> None:
    async def ask() -> str:
        await clock.asleep(1)
        return "answer"

    a, b, c = together(*[Pipeline(Bulkhead(1, max_queue=1))(ask)] * 3)
    assert a == b == "answer"
    assert isinstance(c, BulkheadFullError)


def cache(clock: testing.clock) -> None:
    reply = replies("answer", ConnectionError)

    async def asked(question: str) -> str:
        await clock.asleep(1)
        return reply()

    ask = Pipeline(Cache(300, stale_if_error=3600))(asked)
    calls = [lambda: ask("why?")]
    assert together(*calls * 2) == ["answer"] * 2
    clock.advance(60)
    assert together(*calls) == ["answer"]
    clock.advance(240)
    assert together(*calls) == ["answer"]


def chaos(clock: testing.clock) -> None:
    harm = Chaos(exception=ConnectionError, exception_rate=0.5, seed=5, enabled=True)
    assert Pipeline(Retry(3, wait=1), harm)(lambda: "answer")() == "answer"


STORIES = [retry, circuit_breaker, hedge, fallback, timeout, rate_limit, bulkhead, cache, chaos]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_the_diagram_tells_what_happens(story, seawall_clock, seawall_events):
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```\n", page(story.__name__), re.MULTILINE | re.DOTALL)
    story(seawall_clock)
    told = re.findall(rf"Note over \w+: ({'|'.join(map(re.escape, EVENTS))})\b(?:, .*?([\d.]+) s$)?", diagram, re.MULTILINE)
    happened = [event for event in seawall_events if event.name != "attempt.started"]
    assert [name for name, _ in told] == [event.name for event in happened]
    spans = [(float(seconds), event.span) for (_, seconds), event in zip(told, happened, strict=True) if seconds]
    assert all(said == pytest.approx(span, abs=0.005) for said, span in spans)


def test_every_diagram_has_its_story():
    told = {story.__name__ for story in STORIES}
    assert told == set(CLASSES), "what a page's diagram shows is lived through by a function of the policy's kind in STORIES"


@pytest.mark.parametrize(("kind", "name"), POLICIES)
def test_a_policy_is_known_wherever_policies_are_listed(kind, name):
    """The lists that nothing else would miss it in: what is to be done for a new one."""

    def has(place: str, word: str) -> bool:
        return (ROOT / place).exists() and word in (ROOT / place).read_text(encoding="utf-8")

    todo = {
        "python/seawall/__init__.py: import it, and name it in __all__": name in seawall.__all__,
        "python/seawall/_seawall.pyi: its constructor and attributes": has("python/seawall/_seawall.pyi", f"\nclass {name}:"),
        "python/seawall/_guarded.py: _POLICIES": has("python/seawall/_guarded.py", f"_seawall.{name},")
        or has("python/seawall/_guarded.py", f"_seawall.{name})"),
        "python/seawall/_wrong_calls.py: _DECORATORS, unless it decorates functions": name
        in {*_wrong_calls._DECORATORS, "CircuitBreaker"},
        "src/python/wrong_calls.rs: its class in set()": has("src/python/wrong_calls.rs", f"get_type::<{name}>()"),
        "python/seawall/_decorators.py: an argument of guard, in the canonical order": has(
            "python/seawall/_decorators.py", f"    {name},"
        ),
        "python/seawall/configuration/_tables.py: what a file says of it": has(
            "python/seawall/configuration/_tables.py", f'Option("{kind}",'
        )
        or kind == "circuit_breaker",
        "tests/test_pickling.py: that it survives": any(
            has(place, f"{name}(")
            for place in ("tests/test_pickling.py", f"tests/policies/test_{kind}.py", "tests/guardrails/test_rules.py")
        ),
        "tests/test_configuration.py: its arguments, given what they cannot be": has("tests/test_configuration.py", name)
        or name in ("Guardrails", "Hedge"),  # tests/guardrails/test_rules.py, tests/policies/test_hedge.py
        "mkdocs.yml, docs/README.md and docs/README.zh.md: its page": kind == "guardrails"
        or all(
            has(place, f"policies/{kind}{suffix}")
            for place, suffix in (("mkdocs.yml", ".md"), ("docs/README.md", ".md"), ("docs/README.zh.md", ".zh.md"))
        ),
    }
    left = [what for what, is_done in todo.items() if not is_done]
    assert not left, "\n".join(left)
