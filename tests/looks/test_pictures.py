"""What notebooks show of each object: well-formed, harmless, readable; and the text reprs."""

from __future__ import annotations

import inspect
import pickle
import pkgutil
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from typing import Any

import pytest

import seawall
from _things import HOSTILE, KEY, SECRET, everything, opened, watched
from seawall import CircuitBreaker, Fallback, Guardrails, Monitor, Pipeline, Retry, Timeout, _pictures, guard, wait_fixed
from seawall._html import TONES
from seawall.guardrails import Forbidden, MaxLength, Redact
from seawall.llm import Chat, Reply
from seawall.simulator import Simulator, faults

VOID = {"img", "br", "hr", "input", "link", "meta", "path", "rect"}
# What a picture is made of. Nothing of it fetches, runs or leads anywhere.
TAGS = {
    *("style", "div", "span", "b", "i", "p", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd"),
    *("svg", "g", "title", "path", "rect", "details", "summary"),
}
ATTRIBUTES = {
    *("class", "style", "role", "aria-label", "aria-hidden", "scope", "lang"),
    *("width", "height", "viewbox", "x", "y", "rx", "fill", "d", "stroke", "stroke-opacity", "stroke-dasharray"),
}


class Reader(HTMLParser):
    """Follows which tags are open, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def things() -> Iterator[dict[str, Any]]:
    with Simulator() as sim, pytest.warns(seawall.PipelineOrderWarning):
        made = everything(sim)
    yield made


def test_every_class_that_draws_itself_is_in_the_table(things: dict[str, Any]):
    drawing = set()
    for module in pkgutil.walk_packages(seawall.__path__, "seawall."):
        if not module.name.endswith("__main__"):
            found = vars(import_module(module.name)).values()
            drawing |= {kind for kind in found if inspect.isclass(kind) and "_repr_html_" in vars(kind)}
    drawing = {kind for kind in drawing if kind.__module__.startswith("seawall")}
    shown = {base for thing in things.values() for base in type(thing).__mro__}
    assert len(drawing) > 10 and drawing <= shown


def test_pictures_are_well_formed_and_do_nothing(things: dict[str, Any]):
    for name, thing in things.items():
        html = thing._repr_html_()
        reader = read(html)
        assert {tag for tag, _ in reader.seen} <= TAGS, name
        assert {key for _, attributes in reader.seen for key in attributes} <= ATTRIBUTES, name
        assert "url(" not in html and "http" not in html and "@import" not in html, name
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html), name
        assert reader.text.strip(), name


def test_what_colours_say_is_said_in_words_too(things: dict[str, Any]):
    for name, thing in things.items():
        html = thing._repr_html_()
        groups = [attributes for _, attributes in read(html).seen if attributes.get("role") in {"group", "img"}]
        assert groups and all(group["aria-label"] for group in groups), name
        # A mark is for the eye, and a word stands beside it.
        assert not re.search(r"</i>\s*</", html), name
        # Neither black nor white: what is no accent is the text's own colour, and the page's own ground.
        assert not re.search(r"#(fff|000)|white|black", html.replace("white-space", "")), name


def test_accents_are_seen_on_light_and_on_dark():
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    # 3 is what the guidelines for accessible content ask of shapes; the grounds are those of JupyterLab and VS Code.
    for ground in ("#ffffff", "#f8f8f8", "#111111", "#1e1e1e"):
        for tone, colour in TONES.items():
            darker, lighter = sorted((light(colour), light(ground)))
            assert (lighter + 0.05) / (darker + 0.05) >= 3, (tone, ground)


def test_neither_keys_nor_contents_are_shown(things: dict[str, Any]):
    for name, thing in things.items():
        drawn = thing._repr_html_()
        if not isinstance(thing, Reply):  # an answer is its own content
            drawn += str(thing)
            assert SECRET not in drawn, name
        assert KEY not in drawn + repr(thing), name


def test_texts_are_shown_as_they_are(things: dict[str, Any]):
    shown = HOSTILE.replace("\x1b", "�").replace("\u202e", "�")
    for name in ("breaker, hostile", "pipeline, wrong", "monitor, hostile", "reply, other"):
        assert shown in read(things[name]._repr_html_()).text, name


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("breaker, new", ["(unnamed)", "closed", "failures in a row", "opens at", "5 failures in a row"]),
        ("breaker, rates", ["closed", "0 of 4", "50 % failures over the last 10 calls, from 5 calls"]),
        ("breaker, open", ["payments", "open", "a failure", "tries again", "Odd", "turned away"]),
        ("breaker, half open", ["half open", "with the next call"]),
        ("breaker, forced", ["forced open", "by hand"]),
        ("circuits", ["open", "payments", "rates", "last failure", "Odd"]),
        ("pipeline, wrong", ["stands outside the Fallback", "the Retry stands outside"]),
        (
            "pipeline, whole",
            ["at most 5 s", "print", "up to 5 attempts", "20 %", "at most 60 s", "Watched by monitor", "the call"],
        ),
        ("guarded, rescued", ["calls1", "gave a result after 3 attempts", "rescued(…)", "alternative 1 is tried"]),
        ("monitor, new", ["No calls yet", "normal"]),
        ("monitor, in trouble", ["emergency", "10 failures in a row", "95 %", "The last alerts", "raised", "tokens"]),
        ("monitor, busy", ["critical", "The last 50 calls", "by an alternative"]),
        (
            "reply",
            [
                "shaky",
                SECRET,
                "attempt 1, shaky: InternalServerError 500",
                "tried again at once",
                "attempt 3, shaky: answered",
                "completion tokens",
            ],
        ),
        ("reply, other", ["Alternative 1 answered; down was asked first", "by an alternative"]),
        ("reply, short", ["cut short by its length limit"]),
        ("reply, tools", ["Tools that it calls", "Its reasoning"]),
        ("embeddings", ["vectors2", "numbers in each256"]),
        ("alert", ["raised", "emergency", "failures in a row5", "limit 5"]),
        ("rate limit", ["shared", "500 requests and 200,000 tokens in 60 s; up to 1,000 wait", "requests left now10", "room"]),
        (
            "cache",
            [
                "answers",
                "answers serve for 60 s, and 3600 s more in place of a failure; up to 10,000 answers and",
                "not used yet",
            ],
        ),
        ("hedge", ["hedges0", "asks once more after what 95 % of them take", "delay nownot known yet"]),
        ("bulkhead", ["under way0 of 8", "8 calls at a time; up to 100 wait"]),
        ("event", ["circuit.opened", "loud", "was", "closed", "Odd"]),
    ],
)
def test_pictures_tell_what_matters(things: dict[str, Any], name: str, facts: list[str], monkeypatch: pytest.MonkeyPatch):
    # Circuits that other tests have left are not to push these out.
    monkeypatch.setattr(_pictures, "_CIRCUITS", 10_000)
    told = read(things[name]._repr_html_()).text
    assert not [fact for fact in facts if fact not in told], told


def test_the_order_of_policies_is_the_order_of_boxes(things: dict[str, Any]):
    told = read(things["pipeline, whole"]._repr_html_()).text
    parts = ("at most 5 s", "Fallback", "at most 120 s", "Retry", "CircuitBreaker", "at most 60 s", "the call")
    places = [told.rindex(part) for part in parts]
    assert places == sorted(places)


def test_a_monitor_tells_errors_by_kind_the_last_of_them_and_calls_by_model():
    monitor = Monitor(name="answers")
    for number in range(12):
        failed = number % 4 == 0
        error = ("APITimeoutError" if number else HOSTILE) if failed else None
        monitor.record(
            not failed, retries=2 * failed, latency=1, model=f"gpt-{number % 2}", error=error, cost=0.25, first_token=0.2
        )
    told = read(monitor._repr_html_()).text
    for fact in (
        "Errors",
        "APITimeoutError2",
        "The last of them",
        "gpt-0",
        "took",
        "estimated cost3",
        "to the first token199 ms",
    ):
        assert fact in told, told
    assert "modelcallserrorsretriedmeangpt-0650 %50 %1.00 sgpt-160 %0 %1.00 s" in told, told
    assert "failed with APITimeoutError, 1.00 s, 2 retries" in told


def test_a_monitor_over_a_time_shows_calls_by_time():
    monitor = Monitor(window=60.0, name="answers")
    for number in range(30):
        monitor.record(number > 3, latency=0.1)
    told = read(monitor._repr_html_()).text
    assert "Calls by time, oldest first" in told and "30 calls, 4 failed" in told and "The last 60.00 s count" in told
    assert "The last of them" not in told


def test_what_is_very_long_is_cut(sim: Simulator):
    sim.on("long", faults.reply("x" * 30_000))
    told = read(Chat("long", api_key=KEY, base_url=sim.base_url).invoke("x")._repr_html_()).text
    assert "x" * 20_000 + "… (10,000 more letters)" in told
    sim.on("lines", faults.reply("one\n\ttwo"))
    assert "one\n\ttwo" in read(Chat("lines", api_key=KEY, base_url=sim.base_url).invoke("x")._repr_html_()).text
    many = [CircuitBreaker(name=f"many {number}") for number in range(60)]
    told = read(seawall.circuits._repr_html_()).text
    assert told.count("many ") <= 50 and re.search(r"… and \d+ others\.", told)
    del many


def test_circuits_in_trouble_come_first(things: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_pictures, "_CIRCUITS", 10_000)
    told = read(things["circuits"]._repr_html_()).text
    assert told.index("payments") < told.index("half") < told.index("rates")


def test_a_description_draws_the_order_and_says_what_each_does():
    pipeline = Pipeline(Fallback("sorry"), Timeout(30), Retry(4, wait=2), CircuitBreaker(9, name="api"), name="ask")
    described = pipeline.describe()
    assert str(described).splitlines() == [
        "Pipeline ask, outermost first",
        "└ Fallback                  if all inside fails: 'sorry'",
        "  └ Timeout                 at most 30 s for all inside",
        "    └ Retry                 up to 4 attempts, waits 2 s",
        "      └ CircuitBreaker api  closed; opens at 9 failures in a row; tries again after 30 s",
        "        └ the call",
    ]
    assert isinstance(described, str) and repr(described) == described
    twin = pickle.loads(pickle.dumps(described))
    assert twin == described and twin._repr_html_() == described._repr_html_()


def test_a_description_names_the_rules_of_guardrails():
    rails = Guardrails(input=[MaxLength(10), Redact.secrets()], output=[Forbidden("hush", name="words")])
    _, line, _ = str(Pipeline(rails).describe()).splitlines()
    assert line == "└ Guardrails  of what is asked: max_length, secrets; of what is answered: words"


def test_a_description_warns_and_names_the_monitor():
    with pytest.warns(seawall.PipelineOrderWarning):
        pipeline = Pipeline(Retry(3), Fallback(1), name="a\nb\x1b", monitor=Monitor(name="watch"))
    first, *_, last = str(pipeline.describe()).splitlines()
    assert first == "Pipeline a�b�, outermost first, watched by monitor watch"
    assert last.startswith("! the Retry stands outside the Fallback")


def test_breakers_say_in_a_line_how_they_are():
    assert repr(CircuitBreaker()) == "<CircuitBreaker (unnamed) closed>"
    assert re.fullmatch(
        r"<CircuitBreaker 'api' open: a failure, next attempt in (30|29)\.\d s>", repr(opened("api", ValueError()))
    )
    rates = CircuitBreaker(name="rates", failure_rate=0.9, window=10)
    rates.record_failure()
    rates.record_success()
    assert repr(rates) == "<CircuitBreaker 'rates' closed: 1 of 2 calls failed>"
    row = CircuitBreaker(3, name="row")
    row.record_failure()
    assert repr(row) == "<CircuitBreaker 'row' closed: 1 failure in a row>"
    half = CircuitBreaker(1, recovery_timeout=0, name="half")
    half.record_failure()
    assert repr(half) == "<CircuitBreaker 'half' half_open: 0 probes out>"
    half.force("forced_open")
    assert repr(half) == "<CircuitBreaker 'half' forced_open>"
    assert str(half.metrics()) == "half: forced_open, 1 failures in a row, 1 openings, 0 turned away"


def test_other_reprs_say_what_was_set():
    assert repr(Retry(3)) == "Retry(3)"
    wait = "wait_fixed(wait=1)"
    assert (
        repr(Retry(4, on=ValueError, wait=1, timeout=9, budget=0.2))
        == f"Retry(4, on=ValueError, wait={wait}, timeout=9, budget=0.2)"
    )
    assert repr(Retry(wait=wait_fixed(1))) == f"Retry(3, wait={wait})"
    assert repr(Fallback(1, only_when_open=True)) == "Fallback(1, only_when_open=True)"
    alert = watched("x", failing=12).alerts[0]
    assert str(alert) == alert.message and repr(alert).startswith("Alert(kind='raised'")


def test_replies_and_streams_say_in_a_line_how_they_came(sim: Simulator):
    def chat(model: str) -> Chat:
        return Chat(model, api_key=KEY, base_url=sim.base_url, max_retries=0)

    sim.on("long", faults.reply("x" * 70, finish_reason="length"))
    sim.on("down", faults.status(503))
    sim.on("tools", faults.reply(tool_calls=[("get_weather", {})]))
    told = repr(chat("down").with_fallbacks([chat("long")]).invoke("x"))
    assert re.fullmatch(
        rf"<Reply '{'x' * 60}…' from long in \d\.\d\d s, 2 attempts, alternative 1, cut short by its length limit>", told
    )
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    assert repr(chat("tools").invoke("x", tools=tools)).startswith("<Reply that calls 'get_weather' from tools in ")
    stream = chat("well").stream("x")
    assert repr(stream) == "<Stream, not over yet>"
    list(stream)
    assert repr(chat("well").astream("x")) == "<AsyncStream, not over yet>"
    assert re.fullmatch(r"<Stream, over after \d\.\d\d s, 1 attempt>", repr(stream))


def test_a_bound_method_draws_as_its_function_does():
    class Client:
        @guard
        def ask(self) -> int:
            return 1

    assert "Client.ask(…)" in read(Client().ask._repr_html_()).text


def test_a_failing_foreign_repr_breaks_no_picture():
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert "&lt;Broken&gt;" in Pipeline(Fallback(Broken()))._repr_html_()


def test_pictures_are_loaded_when_asked_for():
    import subprocess
    import sys

    program = """
import sys, seawall
parts = ("_html", "_pictures", "_in_words", "_explain", "_explain_words", "_live")
assert not [part for part in parts if f"seawall.{part}" in sys.modules]
repr(seawall.CircuitBreaker()), str(seawall.Monitor())
assert not [part for part in parts if f"seawall.{part}" in sys.modules]
seawall.CircuitBreaker()._repr_html_()
assert "seawall._pictures" in sys.modules and "IPython" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
