"""`seawall.explain`: the story of real calls, in a few lines, without content."""

from __future__ import annotations

import asyncio
import builtins
import copy
import pickle
import re
import string
from typing import Any

import pytest

import seawall
from _things import HOSTILE, KEY, SECRET, Odd, fails, opened, raised, read_out, watched
from seawall import (
    Chaos,
    CircuitBreaker,
    CircuitBreakerError,
    ConfigurationError,
    Fallback,
    MonitoringSystem,
    Pipeline,
    Retry,
    Timeout,
    errors,
    explain,
    guard,
    retry,
    testing,
)
from seawall._explain_words import PHRASES, WORDS, word
from seawall.llm import Attempts, Chat, Embeddings
from seawall.simulator import Simulator, faults


def model(sim: Simulator, name: str, **more: Any) -> Chat:
    return Chat(name, api_key=KEY, base_url=sim.base_url, **more).with_retry(wait=0.01, stop_after_attempt=3)


def plain(told: Any) -> str:
    """The text, with `T` for each time."""
    return re.sub(r"\d+(\.\d+)? m?s\b", "T", str(told))


# -- answers


def test_a_reply_at_the_first_attempt(sim: Simulator):
    told = explain(model(sim, "well").invoke(SECRET))
    assert plain(told) == "well answered at the first attempt, in T.\n  T  attempt 1, well: answered after T"
    (step,) = told.steps
    assert (step.event, step.policy, step.number, step.error, step.status) == ("attempt", "well", 1, None, None)
    assert step.at is not None and step.seconds is not None


def test_a_reply_of_an_alternative_tells_of_all_attempts(sim: Simulator):
    sim.on("down", faults.status(503))
    told = explain(model(sim, "down").with_fallbacks([model(sim, "well")]).invoke(SECRET))
    assert told.headline.startswith("well answered, as alternative 1, after 4 attempts in ")
    attempts = [step for step in told.steps if step.event == "attempt"]
    assert [(step.policy, step.error, step.status) for step in attempts] == [
        *[("down", "ServiceUnavailable", 503)] * 3,
        ("well", None, None),
    ]
    assert [step.at for step in told.steps] == sorted(step.at for step in told.steps)  # type: ignore[type-var]
    waits = [step for step in told.steps if step.event in {"waited", "retry.scheduled"}]
    assert [step.seconds for step in waits] == [0.01, 0.01]


def test_embeddings(sim: Simulator):
    told = explain(Embeddings("e", api_key=KEY, base_url=sim.base_url).invoke(["a", "b"]))
    assert plain(told).startswith("e gave 2 vectors after 1 attempt in T.\n  T  attempt 1, e: answered after T")


def test_a_stream_tells_when_it_is_over(sim: Simulator):
    stream = model(sim, "well").stream(SECRET)
    assert str(explain(stream)) == "The stream is not over: its story can be told when it has ended."
    read_out(stream)
    assert plain(explain(stream)).startswith("The stream of well came to its end after 1 attempt in T.\n  T  attempt 1")
    sim.on("cut", faults.cut(2, "reset"))
    assert plain(explain(read_out(model(sim, "cut").stream("x")))).startswith(
        "The call failed with StreamInterruptedError, after 1"
    )


def test_an_asynchronous_stream(sim: Simulator):
    async def read() -> Any:
        stream = model(sim, "well").astream("x")
        assert "not over" in str(explain(stream))
        async for _ in stream:
            pass
        return explain(stream)

    assert "came to its end after 1 attempt" in str(asyncio.run(read()))


def test_attempts_alone(sim: Simulator):
    sim.on("shaky", faults.status(500), times=1)
    made = model(sim, "shaky").invoke("x").attempts
    assert plain(explain(made)).startswith("shaky answered after 2 attempts in T.")
    assert explain(Attempts()).steps == ()


def test_a_message_of_langchain(sim: Simulator):
    from seawall.langchain import ChatOpenAI

    sim.on("down", faults.status(503))
    where = {"api_key": KEY, "base_url": sim.base_url}
    primary = ChatOpenAI(model="down", **where).with_retry(stop_after_attempt=2, wait=0.01)
    told = explain(primary.with_fallbacks([ChatOpenAI(model="well", **where)]).invoke(SECRET))
    assert told.headline.startswith("well answered, as alternative 1, after 3 attempts in ")
    assert [step.policy for step in told.steps if step.event == "attempt"] == ["down", "down", "well"]
    assert SECRET not in str(told)


# -- failures


def test_what_comes_out_of_langchain_and_of_guarded_clients_of_sdks(sim: Simulator):
    import openai

    from seawall.langchain import ChatOpenAI

    sim.on("down", faults.status(503))
    where = {"api_key": KEY, "base_url": sim.base_url}
    chain = ChatOpenAI(model="down", **where).with_retry(stop_after_attempt=2, wait=0)
    client = seawall.resilient(openai.OpenAI(**where), retry=Retry(2, wait=0), name="sdk")
    asked = {"model": "down", "messages": [{"role": "user", "content": SECRET}]}
    wrapped = seawall.resilient(ChatOpenAI(model="down", max_retries=0, **where), retry=Retry(2, wait=0), name="chain")
    for call, name in ((lambda: chain.invoke(SECRET), "down"), (lambda: client.chat.completions.create(**asked), "sdk")):
        told = str(explain(raised(call)))
        assert re.match(r"The call failed with (ServiceUnavailable|InternalServerError) 503, after 2 attempts in ", told)
        assert f"{name}: gave up after attempt 2: attempts used up" in told and SECRET not in told
    told = str(explain(raised(lambda: wrapped.invoke(SECRET))))
    assert "ServiceUnavailable 503" in told and "gave up after attempt 2" in told and SECRET not in told


def test_a_failure_of_a_model(sim: Simulator):
    sim.on("down", faults.status(503))
    told = explain(raised(model(sim, "down").invoke, SECRET))
    assert plain(told).startswith("The call failed with ServiceUnavailable 503, after 3 attempts in T.")
    assert "Its class is transient" in str(told)
    assert "attempt 3, down: ServiceUnavailable 503" in str(told)


def test_a_failure_that_no_retry_mends_says_why_there_was_none(sim: Simulator):
    sim.on("auth", faults.status(401))
    told = explain(raised(model(sim, "auth").invoke, "x"))
    assert plain(told).startswith("The call failed with AuthenticationError 401, after 1 attempt in T.")
    assert "Its class is auth: no retry mends them" in str(told)


def test_an_interrupted_stream_says_that_it_was_not_begun_again(sim: Simulator):
    sim.on("cut", faults.cut(3, "reset"))
    told = str(explain(raised(list, model(sim, "cut").stream(SECRET))))
    assert "Text had been handed over before the break" in told and "It came from APIConnectionError." in told
    assert "Its class" not in told and SECRET not in told


def test_a_failure_that_ended_a_batch(sim: Simulator):
    sim.on("half", faults.status(400), times=1)
    told = str(explain(raised(lambda: model(sim, "half").batch(["a", "b", "c"], max_concurrency=1))))
    assert "It ended a batch: 2 of 3 inputs have a result." in told


def test_a_failure_of_a_guarded_function_with_its_alternatives():
    call = fails("ask", Fallback(lambda: {}[SECRET]), Retry(2, wait=0), failure=Odd(SECRET))
    told = explain(raised(call))
    assert plain(told).startswith("The call failed with Odd, after 2 attempts in T.\n")
    assert "<lambda> (alternative 1): KeyError after" in str(told) and "ask: no alternative helped" in str(told)
    assert "Its class is unknown" in str(told) and SECRET not in str(told)


def test_a_guarded_call_of_a_model_tells_of_its_own_attempts_and_of_the_models_in_a_line():
    with Simulator() as api:
        api.on("*", faults.status(500))
        primary, other = (model(api, name).with_retry(stop_after_attempt=2, wait=0) for name in ("gpt-4", "gpt-4o-mini"))
        told = explain(raised(Pipeline(Fallback(other.invoke), Retry(2, wait=0), name="ask")(primary.invoke), "why?"))
    assert [step.event for step in told.steps] == [
        *("attempt", "retry.scheduled", "attempt", "retry.exhausted", "fallback.used", "attempt", "fallback.exhausted")
    ]
    assert plain(told).startswith("The call failed with InternalServerError 500, after 3 attempts in T.\n")
    assert "The failure itself came of 2 attempts further inside." in str(told)


def test_what_policies_did_stands_between_the_attempts_that_it_was_about():
    def divide() -> float:
        return 1 / 0

    divide.__qualname__ = "divide"
    breaker = CircuitBreaker(2, name="payments")
    with pytest.warns(seawall.PipelineOrderWarning):  # one bad call opens it, which is wanted here
        call = fails("ask", Fallback(divide), Retry(5, wait=0.001), breaker, failure=ConnectionError(SECRET))
    assert plain(explain(raised(call))).splitlines() == [
        "The call failed with ConnectionError, after 3 attempts in T.",
        "  T  attempt 1, ask: ConnectionError after T",
        "  T  ask: waited T to try again",
        "  T  attempt 2, ask: ConnectionError after T",
        "  T  circuit payments opened, next attempt in T",
        "  T  ask: waited T to try again",
        "  T  circuit payments turned the call away, next attempt in T",
        "  T  ask: gave up after attempt 2: the circuit opened",
        "  T  ask: alternative 1 is tried, after ConnectionError",
        "  T  attempt 3, divide (alternative 1): ZeroDivisionError after T",
        "  T  ask: no alternative helped",
        "  Its class is transient: such failures are retried, then the next alternative is tried.",
    ]


def test_where_time_stands_still_a_cache_has_no_answer_before_the_first_attempt():
    with testing.clock():
        call = fails("ask", seawall.Cache(60), Retry(2, wait=1), failure=ConnectionError)
        told = explain(raised(call))
    assert [step.event for step in told.steps] == ["cache.miss", "attempt", "retry.scheduled", "attempt", "retry.exhausted"]


def test_what_a_chaos_policy_did_is_told_with_its_attempt_and_no_time_runs_back():
    chaos = Chaos(exception=ConnectionError, exception_rate=1, latency=0.001, latency_rate=1, enabled=True)
    call = Pipeline(Retry(2, wait=0), chaos, name="ask")(lambda: 1)
    told = explain(raised(call))
    injected = ["chaos.injected", "chaos.injected"]
    assert [step.event for step in told.steps] == [
        "attempt",
        *injected,
        "retry.scheduled",
        "attempt",
        *injected,
        "retry.exhausted",
    ]
    times = [step.at for step in told.steps]
    assert times == sorted(times)
    assert "ask: a Chaos policy broke the call on purpose (exception)" in str(told)


def test_an_attempt_that_is_announced_to_hooks_is_told_of_once():
    call = fails("ask", Retry(2, wait=0, before=lambda state: None), failure=Odd())
    told = explain(raised(call))
    assert any(step.event == "attempt.started" for step in call.story)
    assert [step.event for step in told.steps] == ["attempt", "retry.exhausted"]


def test_an_error_without_a_story_tells_by_its_note():
    error = ValueError(SECRET)
    error.__notes__ = ["seawall: 3 attempts in 0.1 s, pipeline 'ask' (attempts used up)"]
    told = str(explain(error))
    assert "Its note says: 3 attempts in 0.1 s, pipeline 'ask' (attempts used up)" in told
    assert "How its attempts went one by one is not known" in told and SECRET not in told


def test_a_refusal_says_which_circuit_why_and_until_when():
    breaker = opened("payments", TimeoutError(SECRET))
    refused = raised(breaker.call, print)
    assert isinstance(refused, CircuitBreakerError)
    told = explain(refused)
    assert plain(told).splitlines() == [
        "The call was refused by circuit payments: the function was not called.",
        "  The circuit is open now: a failure (T ago).",
        "  Its last failure was TimeoutError.",
        "  It was to try again T after the refusal.",
    ]


def test_a_refusal_of_a_circuit_that_is_gone_or_was_opened_by_hand():
    refused = CircuitBreakerError(name="gone")
    assert "not known in this process" in str(explain(refused)) and "not known." in str(explain(refused))
    held = CircuitBreaker(name="held")
    held.force("forced_open")
    assert "does not try again by itself" in str(explain(raised(held.call, print)))


def test_a_circuit_that_has_closed_since_says_so():
    breaker = opened("flaky", Odd())
    refused = raised(breaker.call, print)
    breaker.reset()
    assert "The circuit is closed now: by hand (" in str(explain(refused))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.RateLimitExceededError(name="api", retry_after=2.5), "refused by rate limit api"),
        (errors.BulkheadFullError(), "refused by bulkhead"),
        (errors.Rejected(name="x"), "refused by policy x"),
        (errors.CallTimeoutError(limit=2, elapsed=2, name="ask"), "The time limit ask of 2.00 s passed, after 2.00 s."),
        (ValueError(SECRET), "It carries nothing of seawall's"),
        (KeyboardInterrupt(), "The call failed with KeyboardInterrupt."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_failures(error: BaseException, said: str):
    told = str(explain(error))
    assert said in told and SECRET not in told


@pytest.mark.filterwarnings("ignore:the Timeout of:seawall.PipelineOrderWarning")
def test_a_time_limit():
    with testing.clock():
        told = explain(raised(fails("slow", Timeout(5), Retry(wait=60), failure=ConnectionError())))
    assert "no time left for another attempt" in str(told)


def test_a_group_tells_of_each():
    own = builtins if hasattr(builtins, "ExceptionGroup") else pytest.importorskip("exceptiongroup")
    group_type = own.ExceptionGroup
    inner = group_type(SECRET, [ValueError(SECRET)])
    group = group_type(SECRET, [raised(retry(lambda: 1 / 0)), raised(opened("p", Odd()).call, print), inner, *[Odd()] * 9])
    told = explain(group)
    assert len(told.parts) == 10
    lines = str(told).splitlines()
    assert lines[0] == "ExceptionGroup: 12 failures together." and "… and 2 more." in lines[-1]
    assert any(line.startswith("  1. The call failed with ZeroDivisionError, after 1 attempt") for line in lines)
    assert "  2. The call was refused by circuit p: the function was not called." in lines
    assert any(line.startswith("     1. The call failed with ValueError") for line in lines)
    assert SECRET not in str(told)


def test_hostile_errors_are_told_all_the_same():
    class Hostile(Exception):
        @property
        def story(self) -> Any:
            raise RuntimeError

        attempts = property(lambda self: 1 / 0)
        exceptions = 3
        alternatives = "none"
        results = property(lambda self: 1 / 0)
        status_code = property(lambda self: 1 / 0)
        __notes__ = 3

    assert str(explain(Hostile(SECRET))).startswith("The call failed with Hostile.")
    loop = ValueError()
    loop.__cause__ = loop
    assert "It came from ValueError." in str(explain(loop))


# -- what lasts


def test_a_guarded_function_tells_of_its_last_call_in_trouble():
    outcomes: list[Any] = [1, ConnectionError(SECRET), 2, 3]

    @retry(wait=0)
    def work() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    name = work.__qualname__
    assert str(explain(work)) == f"{name} has not been called yet."
    work()
    assert str(explain(work)) == f"{name} has been called 1 time; each call simply passed."
    work()
    work()
    assert plain(explain(work)).startswith(
        f"The last call of {name} that did not simply pass gave a result after 2 attempts in T."
    )
    assert SECRET not in str(explain(work))


def test_a_guarded_method():
    class Client:
        @guard
        def ask(self) -> int:
            return 1

    client = Client()
    client.ask()
    assert "ask has been called 1 time" in str(explain(client.ask))


def test_a_breaker_says_why_it_is_as_it_is():
    fresh = CircuitBreaker(name="fresh", failure_rate=0.5, slow_call_duration=2, failure_threshold=4)
    assert str(explain(fresh)).splitlines() == [
        "Circuit fresh is closed and has never been in another state.",
        "  It opens at 4 failures in a row: 0 so far.",
        "  It opens at a failure rate of 50 %: 0 of 0 failed so far.",
        "  It opens at a share of slow calls of 100 %: 0 of 0 so far.",
    ]
    breaker = opened("api", Odd(SECRET))
    assert plain(explain(breaker)).splitlines() == [
        "Circuit api has been open for T: a failure.",
        "  In T it lets a probe through.",
        "  Its last failure was Odd.",
        "  So far: 1 opening, 0 calls turned away.",
    ]
    breaker.force("forced_open")
    assert "forced open" in str(explain(breaker)) and "It goes on when its isolation ends" in str(explain(breaker))
    half = CircuitBreaker(1, recovery_timeout=0, name="half")
    half.record_failure()
    assert plain(explain(half)).startswith("Circuit half is half open: its recovery time is over. It opened T ago: a failure.")
    with half.acquire():
        assert "1 probe out, 0 succeeded so far." in str(explain(half))


def test_an_alert():
    system = MonitoringSystem()
    for _ in range(6):
        system.record_request(False, True, 0.4)
    told = str(explain(system.alerts[0]))
    assert told.startswith("A monitor: an incident began, level emergency.\n  failures in a row: 5, limit 5.")
    assert str(explain(system.alerts[0], language="zh")).startswith("监控：告警开始，级别紧急。\n  连续失败次数：5，上限 5。")
    again = system.alerts[0]._replace(
        kind="resolved", level="normal", previous="emergency", name="x", metrics={"p95": 3.0, "new": 2}
    )
    told = str(explain(again))
    assert told.startswith(
        "x: the incident is over; its worst level was emergency.\n  p95 latency had been 3.00 s, limit ?.\n  new had"
    )
    for kind, said in (
        ("escalated", "became worse, from"),
        ("deescalated", "eased, from"),
        ("reminder", "goes on"),
        ("odd", "odd, level"),
    ):
        assert said in str(explain(again._replace(kind=kind)))
    assert "answers: an incident began" in str(explain(watched("answers", failing=20).alerts[0]))


# -- the explanation itself


def test_of_a_long_call_the_middle_is_left_out_of_the_text_alone():
    with testing.clock():
        told = explain(raised(fails("ask", Retry(30, wait=1), failure=ConnectionError())))
    # The clock stands still while an attempt runs and is judged, so only causes tell what came first.
    assert [step.event for step in told.steps] == [*["attempt", "retry.scheduled"] * 29, "attempt", "retry.exhausted"]
    lines = str(told).splitlines()
    assert len(lines) == 27 and lines[13] == f"  … {len(told.steps) - 24} more …"
    assert "gave up after attempt 30" in lines[-2]
    drawn = told._repr_html_()
    assert drawn.count("<tr>") == 25 and f"… {len(told.steps) - 24} more …" in drawn


def test_it_is_read_as_text_and_as_a_picture(sim: Simulator):
    sim.on("down", faults.status(503))
    told = explain(raised(model(sim, "down").invoke, "x"))
    assert repr(told) == str(told) and isinstance(told, seawall.Explanation)
    drawn = told._repr_html_()
    assert told.headline in drawn and all(step.text in drawn for step in told.steps)
    assert told.language == "en"
    for twin in (copy.copy(told), copy.deepcopy(told), pickle.loads(pickle.dumps(told))):
        assert str(twin) == str(told) and twin.steps == told.steps


@pytest.mark.parametrize("thing", [3, "text", None, print, object(), [], KEY], ids=repr)
def test_what_cannot_be_explained_is_refused(thing: Any):
    with pytest.raises(ConfigurationError, match="explain tells of a reply") as caught:
        explain(thing)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("language", ["fr", "", None, 3])
def test_only_two_languages_are_spoken(language: Any):
    with pytest.raises(ConfigurationError, match="language must be one of 'en', 'zh'"):
        explain(ValueError(), language=language)


def test_names_cannot_break_the_lines():
    told = str(explain(raised(opened(HOSTILE + "\n", Odd()).call, print)))
    assert "\x1b" not in told and len(told.splitlines()) == 4


def test_both_languages_say_the_same():
    for name, (english, chinese) in PHRASES.items():
        gaps = [{field for _, field, _, _ in string.Formatter().parse(text) if field} for text in (english, chinese)]
        assert gaps[0] == gaps[1] and english != chinese, name
        assert not re.search(r"[\u4e00-\u9fff]", english), name


def test_every_reason_of_the_core_has_chinese_words():
    from pathlib import Path

    root = Path(__file__).parents[2] / "src" / "policies"
    reasons = re.findall(r'pub const \w+: &str = "(.+)";', (root / "retry" / "mod.rs").read_text(encoding="utf-8"))
    assert len(reasons) >= 7 and set(reasons) <= set(WORDS)
    causes = re.findall(
        r'=> (?:format!\()?"([^"]+)"',
        (root / "circuit_breaker" / "config.rs").read_text(encoding="utf-8").split("Cause {", 2)[-1],
    )
    said = [re.sub(r"\{[^}]*\}", "3", cause) for cause in causes if "{" in cause or " " in cause]
    assert len(said) >= 10
    for cause in said:
        assert word(cause, "zh") != cause, cause


def test_every_event_and_class_has_a_sentence():
    from pathlib import Path

    table = (Path(__file__).parents[2] / "src" / "events" / "mod.rs").read_text(encoding="utf-8")
    events = re.findall(r'^    [A-Z_]+ = "([a-z_.]+)"', table, re.MULTILINE)
    assert len(events) >= 11 and set(events) <= set(PHRASES)
    assert {f"class.{name}" for name, *_ in seawall._seawall.CLASSES} <= set(PHRASES)
