"""Who is told of a breaker's changes, and how a breaker travels: listeners, the log, pickles and copies."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import subprocess
import sys
import threading

import pytest

import seawall
from seawall import CircuitBreaker, CircuitBreakerError, CircuitEvent, Pipeline, circuit, circuits, wait_none


def down() -> None:
    raise ConnectionError("down")


def is_bad(value: object) -> bool:
    return value == "bad"


def test_listeners_are_told_each_change_with_what_led_to_it() -> None:
    events: list[CircuitEvent] = []
    breaker = CircuitBreaker(2, 60, name="told", listeners=[events.append])
    guarded = Pipeline(breaker)(down)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            guarded()
    with pytest.raises(CircuitBreakerError):
        guarded()
    breaker.force("half_open")
    breaker.acquire().on_success()
    told = [(e.name, e.old, e.new, e.reason) for e in events]
    assert told == [
        ("circuit.opened", "closed", "open", "2 failures in a row"),
        ("circuit.half_opened", "open", "half_open", "by hand"),
        ("circuit.closed", "half_open", "closed", "a probe succeeded"),
    ]
    opened = events[0]
    assert opened.breaker is breaker
    assert opened.retry_after == pytest.approx(60)
    assert isinstance(opened.last_failure, ConnectionError)
    assert events[1].retry_after is None


async def test_asynchronous_calls_and_context_managers_tell_too() -> None:
    news: list[str] = []
    breaker = CircuitBreaker(1, 0, listeners=[lambda event: news.append(event.new)])

    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await breaker.acall(fails)
    async with breaker:
        pass
    with pytest.raises(ConnectionError), breaker:
        raise ConnectionError
    breaker.reset()
    assert news == ["open", "half_open", "closed", "open", "closed"]


def test_a_listeners_error_is_logged_and_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    breaker = CircuitBreaker(1, 60)

    @breaker.add_listener
    def broken(event: CircuitEvent) -> None:
        raise LookupError("in the listener")

    breaker.add_listener(lambda event: heard.append(event.new))
    with caplog.at_level(logging.ERROR, "seawall"), pytest.raises(ConnectionError):
        breaker.call(down)
    assert heard == ["open"]
    assert "broken" in caplog.text
    assert "in the listener" in caplog.text


def test_a_listener_runs_without_the_lock_and_its_own_changes_are_told_in_order() -> None:
    told: list[tuple[str, str]] = []
    breaker = CircuitBreaker(1, 60)

    def listener(event: CircuitEvent) -> None:
        told.append((event.new, breaker.state))
        if event.new == "open":
            # Under a held lock both of these would never end.
            thread = threading.Thread(target=breaker.metrics)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
            breaker.reset()

    breaker.add_listener(listener)
    with pytest.raises(ConnectionError):
        breaker.call(down)
    assert told == [("open", "open"), ("closed", "closed")]


def test_listeners_of_many_threads_hear_a_story_without_gaps() -> None:
    changes: list[tuple[str, str]] = []
    breaker = CircuitBreaker(1, 0, listeners=[lambda e: changes.append((e.old, e.new))])
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(20)
        for turn in range(60):
            permit = breaker.try_acquire()
            if permit is not None:
                permit.on_failure() if turn % 3 else permit.on_success()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert changes
    state = "closed"
    for old, new in changes:
        assert old == state
        state = new


def test_a_listener_can_be_taken_away() -> None:
    heard: list[CircuitEvent] = []
    breaker = CircuitBreaker(1, 60, listeners=[heard.append])
    assert breaker.listeners == (heard.append,)
    breaker.remove_listener(heard.append)
    breaker.force("open")
    assert (heard, breaker.listeners) == ([], ())
    with pytest.raises(ValueError, match="does not listen"):
        breaker.remove_listener(heard.append)


def test_an_interrupt_in_a_listener_goes_on_its_way_and_the_next_change_is_told() -> None:
    heard: list[str] = []
    breaker = CircuitBreaker(1, 60)

    def listener(event: CircuitEvent) -> None:
        heard.append(event.new)
        if event.new == "open":
            raise KeyboardInterrupt

    breaker.add_listener(listener)
    with pytest.raises(KeyboardInterrupt):
        breaker.force("open")
    breaker.reset()
    assert heard == ["open", "closed"]


@pytest.mark.parametrize("by_hand", [True, False])
def test_the_log_tells_of_openings_however_they_came(caplog: pytest.LogCaptureFixture, by_hand: bool) -> None:
    breaker = CircuitBreaker(1, 60, name="logged")
    with caplog.at_level(logging.INFO, "seawall"):
        if by_hand:
            breaker.acquire().on_failure(ConnectionError("secret prompt"))
        else:
            with pytest.raises(ConnectionError):
                Pipeline(breaker)(down)()
        breaker.reset()
    lines = [(r.levelname, r.getMessage()) for r in caplog.records if "circuit" in r.getMessage()]
    assert lines == [
        ("WARNING", "circuit 'logged' opened, next attempt in 60.0 s: a failure"),
        ("INFO", "circuit 'logged' closed: by hand"),
    ]
    assert "secret prompt" not in caplog.text
    assert caplog.records[-1].seawall_event == "circuit.closed"  # type: ignore[attr-defined]


# --- what counts


def test_what_is_ignored_is_neutral_even_where_it_is_expected() -> None:
    class Quota(ConnectionError):
        pass

    def quota() -> None:
        raise Quota

    for ignore in (Quota, (Quota, KeyError), lambda error: isinstance(error, Quota), lambda kind, error: kind is Quota):
        breaker = CircuitBreaker(2, 60, ConnectionError, ignore=ignore)
        for call in (down, quota):
            with pytest.raises(ConnectionError):
                breaker.call(call)
        # Neither counted nor reset.
        assert (breaker.state, breaker.failure_count) == ("closed", 1)
        assert not isinstance(breaker.last_failure, Quota)


def test_an_ignored_probe_gives_its_place_back() -> None:
    breaker = CircuitBreaker(1, 0, ignore=KeyError)
    with pytest.raises(ConnectionError):
        breaker.call(down)
    with pytest.raises(KeyError):
        breaker.call({}.__getitem__, "nothing")
    assert (breaker.state, breaker.metrics().probes) == ("half_open", 0)


def test_results_can_be_failures() -> None:
    guarded = circuit(failure_threshold=2, recovery_timeout=60, on_result=is_bad, name="judges results")(lambda answer: answer)
    assert [guarded(a) for a in ("bad", "good", "bad", "bad")] == ["bad", "good", "bad", "bad"]
    assert circuits["judges results"].state == "open"


def test_circuit_takes_everything_that_the_class_takes() -> None:
    heard: list[CircuitEvent] = []

    @circuit(
        3,
        0,
        (ConnectionError, TimeoutError),
        "with everything",
        failure_rate=0.5,
        slow_call_rate=0.5,
        slow_call_duration=30,
        window=20,
        minimum_calls=4,
        recovery_backoff=wait_none(),
        half_open_max_calls=2,
        success_threshold=2,
        max_half_open_time=5,
        ignore=KeyError,
        on_result=is_bad,
        listeners=[heard.append],
    )
    def call(value: str) -> str:
        return value

    for _ in range(3):
        call("bad")
    breaker = circuits["with everything"]
    assert (breaker.state, [e.new for e in heard]) == ("half_open", ["open"])
    assert (call("good"), call("good"), breaker.state) == ("good", "good", "closed")


def test_a_rate_said_alone_is_the_only_rule() -> None:
    call = circuit(failure_rate=1.0, minimum_calls=8, window=10, name="only a rate")(down)
    for _ in range(7):
        with pytest.raises(ConnectionError):
            call()
    assert circuits["only a rate"].closed


def test_a_subclass_says_its_defaults_as_attributes() -> None:
    class Nervous(CircuitBreaker):
        FAILURE_THRESHOLD = 1
        RECOVERY_TIMEOUT = 0
        EXPECTED_EXCEPTION = ConnectionError

    breaker, guarded = Nervous(), circuit(cls=Nervous, name="nervous")(down)
    with pytest.raises(ConnectionError):
        guarded()
    assert circuits["nervous"].state == "half_open"
    assert isinstance(circuits["nervous"], Nervous)
    assert (breaker.consecutive_threshold, Nervous(failure_threshold=4).consecutive_threshold) == (1, 4)


# --- travelling


def test_a_pickled_breaker_is_found_again_where_it_came_from() -> None:
    one, two = CircuitBreaker(1, 60, name="travels"), CircuitBreaker(2, 60, name="travels")
    pickles = [pickle.dumps(one), pickle.dumps(two)]
    assert pickle.loads(pickles[0]) is one
    assert pickle.loads(pickles[1]) is two


def test_a_breaker_of_that_name_is_found_where_the_original_is_gone() -> None:
    original = CircuitBreaker(1, 60, name="replaced")
    pickled = pickle.dumps(original)
    del original
    there = CircuitBreaker(9, 60, name="replaced")
    assert pickle.loads(pickled) is there


def test_else_it_is_made_anew_with_its_configuration_and_found_from_then_on() -> None:
    options = {
        "recovery_timeout": 7.5,
        "expected_exception": (ConnectionError, TimeoutError),
        "failure_rate": 0.25,
        "slow_call_rate": 0.75,
        "slow_call_duration": 1.5,
        "window": 60.0,
        "minimum_calls": 3,
        "recovery_backoff": seawall.wait_exponential(multiplier=2, max=60),
        "half_open_max_calls": 2,
        "success_threshold": 3,
        "max_half_open_time": 4.0,
        "ignore": KeyError,
        "on_result": is_bad,
        "fallback_function": down,
    }
    original = CircuitBreaker(4, name="made anew", listeners=[print], **options)  # type: ignore[arg-type]
    original.force("open")
    said = original.__reduce__()[1][2]  # type: ignore[index]
    pickled = pickle.dumps(original)
    del original
    new = pickle.loads(pickled)
    assert repr(new.__reduce__()[1][2]) == repr(said)
    assert {**said, "recovery_backoff": options["recovery_backoff"]} == {**options, "failure_threshold": 4, "name": "made anew"}
    # Neither its state nor its listeners travel.
    assert (new.state, new.listeners) == ("closed", ())
    assert pickle.loads(pickled) is new


def test_a_numeric_change_travels() -> None:
    breaker = CircuitBreaker(4)
    breaker.configure(failure_threshold=9)
    assert pickle.loads(pickle.dumps(breaker)).consecutive_threshold == 9


def test_another_process_finds_it_by_name() -> None:
    pickled = pickle.dumps(CircuitBreaker(3, 60, name="of the service"))
    program = (
        "import pickle, sys\nfrom seawall import CircuitBreaker\n"
        "there = CircuitBreaker(8, name='of the service')\n"
        "data = sys.stdin.buffer.read()\n"
        "assert pickle.loads(data) is there\n"
        "del there\n"
        "new = pickle.loads(data)\n"
        "assert new.consecutive_threshold == 3 and pickle.loads(data) is new\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], input=pickled, capture_output=True, timeout=60, env=dict(os.environ))
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_copies_are_the_breaker_itself() -> None:
    breaker = CircuitBreaker(1, 60)
    assert copy.copy(breaker) is breaker
    assert copy.deepcopy({"client": [breaker]})["client"][0] is breaker


def test_its_error_travels_with_what_it_says() -> None:
    breaker = CircuitBreaker(1, 60, name="its error travels")
    breaker.acquire().on_failure(ConnectionError("down"))
    with pytest.raises(CircuitBreakerError) as refused:
        breaker.acquire()
    there = pickle.loads(pickle.dumps(refused.value))
    assert (there.name, there.retry_after, str(there)) == (refused.value.name, refused.value.retry_after, str(refused.value))
    assert isinstance(there.last_failure, ConnectionError)
