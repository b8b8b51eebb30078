"""RateLimit: calls in line for their turn, tokens taken by estimate and settled by use, and what servers say."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from seawall import CircuitBreaker, Fallback, Pipeline, PipelineOrderWarning, RateLimit, Retry, Timeout, explain, guard, testing
from seawall._limits import estimate, used
from seawall.errors import ConfigurationError, ConfigurationTypeError, RateLimitError, RateLimitExceededError


def answer() -> str:
    return "answer"


async def aanswer() -> str:
    return "answer"


def a_hundred(clock: testing.clock, limit: RateLimit, call: Any) -> float:
    """The seconds that a hundred calls take."""
    before = clock.now
    for _ in range(100):
        call()
    return clock.now - before


def test_calls_go_at_the_limits_pace(seawall_clock: testing.clock) -> None:
    limit = RateLimit(600, per=60)
    ask = Pipeline(limit)(answer)
    # Twelve at once, then 9.8 a second.
    assert a_hundred(seawall_clock, limit, ask) == pytest.approx((100 - 12) / 9.8, abs=1e-3)
    eager = RateLimit(600, per=60, burst=100)
    assert a_hundred(seawall_clock, eager, Pipeline(eager)(answer)) == 0
    assert eager.available == (0, None)


def test_tasks_and_threads_stand_in_one_line(seawall_clock: testing.clock) -> None:
    limit = RateLimit(60, per=60)
    went = []

    @Pipeline(limit)
    async def ask(n: int) -> None:
        went.append((n, round(seawall_clock.now - before, 2)))

    async def main() -> None:
        await asyncio.gather(*(ask(n) for n in range(4)))

    before = seawall_clock.now
    asyncio.run(main())
    assert went == [(0, 0.0), (1, 1.02), (2, 2.04), (3, 3.06)]

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(4, 7):
                nursery.start_soon(ask, n)

    trio.run(in_trio)
    assert [n for n, _ in sorted(went)] == list(range(7)) and went[-1][1] == pytest.approx(6 * 1.0204, abs=0.05)


def test_who_cannot_make_it_is_turned_away_at_once(seawall_clock: testing.clock) -> None:
    limit = RateLimit(1, per=98, name="slow")
    ask = Pipeline(limit)(answer)
    ask()
    before = seawall_clock.now
    for pipeline in (Pipeline(Timeout(30), limit), Pipeline(Retry(5, timeout=30), limit)):
        with pytest.raises(RateLimitExceededError, match='Rate limit "slow" is used up, next place in 100.0 s') as raised:
            pipeline.call(answer)
        assert (raised.value.retry_after, raised.value.name) == (pytest.approx(100), "slow")
    with pytest.raises(RateLimitExceededError):
        Pipeline(RateLimitOf(limit, max_wait=99)).call(answer)
    assert seawall_clock.now == before
    assert "rate limit slow" in str(explain(raised.value))
    # Where the deadline allows, a retry waits as long as the limit says, and that was no attempt.
    assert Pipeline(Retry(1, timeout=200), RateLimitOf(limit, max_queue=0)).call(answer) == "answer"
    assert seawall_clock.now - before == pytest.approx(100)


def RateLimitOf(limit: RateLimit, **more: Any) -> RateLimit:  # noqa: N802
    """The like of one that is used up."""
    made = RateLimit(limit.requests, per=limit.per, **more)
    Pipeline(made).call(answer)
    return made


def test_a_call_that_is_cancelled_before_its_turn_took_nothing() -> None:
    limit = RateLimit(1, per=3600)

    async def main() -> None:
        ask = Pipeline(limit)(aanswer)
        await ask()
        waiting = [asyncio.ensure_future(ask()) for _ in range(3)]
        await asyncio.sleep(0)
        assert limit.queued == 3
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert (limit.queued, limit.available) == (0, (0, None))

    asyncio.run(main())


def test_tokens_are_taken_by_estimate_and_settled_by_use(seawall_clock: testing.clock) -> None:
    class Answer:
        usage = {"prompt_tokens": 100, "completion_tokens": 150}

    limit = RateLimit(tokens=60_000, per=60, burst=1000)
    pipeline = Pipeline(limit)
    assert limit.available == (None, 1000)

    def ask(text: str, max_tokens: int) -> Answer:
        # Four letters a token, and the longest answer.
        assert limit.available == (None, 1000 - 500 - 100)
        return Answer()

    pipeline.call(ask, "x" * 400, max_tokens=500)
    assert limit.available == (None, 750)

    def fails(text: str) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pipeline.call(fails, "x" * 4000)
    # It waited for the bucket to be full, and what it took may have been used.
    assert limit.available == (None, 0)
    before = seawall_clock.now
    pipeline.call(str, "x" * 400)
    assert seawall_clock.now - before == pytest.approx(100 / 980, abs=1e-3)


def test_the_users_own_estimate_and_count(seawall_clock: testing.clock, caplog: pytest.LogCaptureFixture) -> None:
    limit = RateLimit(tokens=6000, burst=1000, estimate=lambda text, **_: len(text), settle=len)
    pipeline = Pipeline(limit)
    assert pipeline.call(lambda text: text * 2, "x" * 100) == "x" * 200
    assert limit.available == (None, 800)

    async def doubled(text: str) -> str:
        return text * 2

    asyncio.run(pipeline.acall(doubled, "x" * 100))
    assert limit.available == (None, 600)
    # An answer that cannot be counted is an answer; the estimate holds.
    assert pipeline.call(lambda _: 5, "x" * 100) == 5
    assert limit.available == (None, 500)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    with pytest.raises(TypeError, match="has no len"):
        pipeline.call(answer_of, None)

    def items(text: str) -> Iterator[str]:
        yield text
        return text

    assert "".join(pipeline(items)("x" * 100)) == "x" * 100
    assert limit.available == (None, 400)


def test_where_a_server_goes_by_what_was_asked_for_the_estimate_holds() -> None:
    limit = RateLimit(tokens=6000, burst=1000, settle=False)
    assert Pipeline(limit).call(lambda _: {"usage": {"total_tokens": 1}}, "x" * 400)["usage"]["total_tokens"] == 1
    assert limit.available[1] in (900, 901)


def answer_of(text: Any) -> Any:
    raise AssertionError("not called: its tokens could not be told")


class Usage:
    input_tokens, output_tokens = 3, 4


class Message:
    def __init__(self, content: Any) -> None:
        self.content = content


@pytest.mark.parametrize(
    ("args", "kwargs", "tokens"),
    [
        (("12345",), {}, 2),
        (("äöüß",), {}, 2),
        ((["12", "34"], {"text": "5678", "n": 3}), {}, 2),
        ((Message("1234"), [Message([{"type": "text", "text": "5678"}])]), {}, 3),
        (("1234",), {"max_tokens": 100}, 101),
        (("1234",), {"max_completion_tokens": 50, "max_tokens": 100}, 51),
        (("1234",), {"max_tokens": True}, 1),
        (("1234", object(), 5, None), {"max_tokens": None}, 1),
        (([{"image_url": {"url": "data:image/png;base64," + "A" * 100_000}}],), {}, 1000),
    ],
)
def test_the_cheap_estimate(args: tuple[Any, ...], kwargs: dict[str, Any], tokens: int) -> None:
    assert estimate(args, kwargs) == tokens


def test_what_answers_say_they_have_used() -> None:
    class Foreign:
        def __init__(self, **fields: Any) -> None:
            self.__dict__.update(fields)

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("unread")

    for result, tokens in (
        (Foreign(usage=Foreign(total_tokens=7)), 7),
        (Foreign(usage=Usage), None),
        (Foreign(usage=Usage()), 7),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, 7),
        (Foreign(usage_metadata={"total_tokens": 7, "input_tokens": 1}), 7),
        (Foreign(usage_metadata=Foreign(total_token_count=7)), 7),
        (Foreign(usage={"prompt_tokens": 3, "completion_tokens": None}), 3),
        (Foreign(usage={"total_tokens": "7"}), None),
        ("text", None),
        (Foreign(), None),
    ):
        assert used(result) == tokens, result


def test_a_429_pauses_everybody(seawall_clock: testing.clock, seawall_events: Any) -> None:
    limit = RateLimit(600, name="shared")
    other = Pipeline(limit)(answer)

    def refused() -> None:
        raise RateLimitError("slow down", headers={"retry-after": "30", "x-ratelimit-remaining-requests": "0"}, status_code=429)

    before = seawall_clock.now
    with pytest.raises(RateLimitError):
        Pipeline(limit).call(refused)
    assert limit.paused == pytest.approx(30) and "paused for 30.0 s" in repr(limit) and "paused" in limit._repr_html_()
    with pytest.raises(RateLimitExceededError):
        Pipeline(Timeout(29), limit).call(answer)
    other()
    assert seawall_clock.now - before == pytest.approx(30)
    assert limit.paused is None
    names = [event.name for event in seawall_events]
    assert names == ["rate_limit.paused", "rate_limit.rejected", "rate_limit.waited"]


def test_what_a_failure_says_is_left_is_believed_if_it_is_less() -> None:
    limit = RateLimit(6000, 1_000_000)

    def fails(**headers: str) -> None:
        raise ServerError(headers)

    class ServerError(Exception):
        def __init__(self, headers: dict[str, str]) -> None:
            self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
            self.status_code = 500

    with pytest.raises(ServerError):
        Pipeline(limit).call(fails, x_ratelimit_remaining_requests="99999", x_ratelimit_remaining_tokens="17")
    requests, tokens = limit.available
    assert requests is not None and tokens is not None
    assert requests >= 119 and 17 <= tokens < 20_000


def test_a_full_limit_is_no_evidence_and_an_alternative_serves(seawall_clock: testing.clock) -> None:
    limit, breaker = RateLimit(1, per=60, max_wait=1), CircuitBreaker(1)
    pipeline = Pipeline(Fallback("instead"), breaker, limit)
    assert [pipeline.call(answer) for _ in range(2)] == ["answer", "instead"]
    assert breaker.failure_count == 0


def test_what_waited_is_told(seawall_clock: testing.clock) -> None:
    ask = Pipeline(RateLimit(1, per=98), name="p")(answer)
    ask(), ask()
    assert ask.story is not None
    assert [(step.event, round(step.seconds or 0)) for step in ask.story if step.event != "attempt"] == [
        ("rate_limit.waited", 100)
    ]
    told = str(explain(ask))
    assert "waited 100.00 s for its turn" in told
    # Waiting is no part of the attempt.
    assert ask.story.attempts[0].seconds == pytest.approx(0, abs=1e-3)


def test_ctrl_c_ends_the_wait() -> None:
    import signal

    limit = RateLimit(1, per=3600)
    Pipeline(limit).call(answer)

    def presses() -> None:
        while not limit.queued:
            threading.Event().wait(0.001)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=presses)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        Pipeline(limit).call(answer)
    thread.join()
    assert limit.queued == 0


def size(*args: Any, **kwargs: Any) -> int:
    return 7


def test_it_is_one_wherever_it_goes() -> None:
    limit = RateLimit(5, 1000, per=2, burst=3, max_queue=7, max_wait=1, estimate=size, settle=size, name="l")
    assert copy.copy(limit) is copy.deepcopy(limit) is pickle.loads(pickle.dumps(limit)) is limit
    pipeline = pickle.loads(pickle.dumps(Pipeline(limit, name="p")))
    assert pipeline.policies == (limit,)
    program = "import pickle, sys; a, b = pickle.load(sys.stdin.buffer); assert a is b; print(a)"
    sent = pickle.dumps((RateLimit(5, 1000, per=2, burst=3, max_queue=7, name="l"),) * 2)
    shown = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True).stdout.decode().strip()
    said = "requests=5, tokens=1000, per=2, burst=3, max_queue=7, name='l'"
    assert shown == f"<RateLimit({said}): 3 requests and 600 tokens may go now, 0 waiting>"


def test_guard_and_orders() -> None:
    with pytest.raises(ConfigurationTypeError, match=r"rate_limit must be a seawall.RateLimit or None, not 5 \(int\)"):
        guard(rate_limit=5)  # type: ignore[call-overload]
    with pytest.warns(PipelineOrderWarning, match="the RateLimit stands outside the Retry"):
        Pipeline(RateLimit(5), Retry(2))
    assert "500 requests and 200,000 tokens in 60 s; up to 1,000 wait" in Pipeline(RateLimit(500, 200_000)).describe()
    assert "room" in RateLimit(5)._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "a RateLimit needs requests=, tokens= or both"),
        ({"requests": 0}, "requests must be a number, 1 or more, not 0"),
        ({"requests": 5, "burst": 6}, r"burst must be at most requests \(5\), not 6"),
        ({"tokens": 5, "burst": 6}, r"burst must be at most tokens \(5\), not 6"),
        ({"requests": 5, "per": 0}, "per must be more than zero seconds, not 0"),
        ({"requests": 5, "estimate": len}, "estimate needs tokens="),
        ({"tokens": 5, "settle": aanswer}, "settle must answer at once"),
    ],
)
def test_wrong_numbers_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RateLimit(**arguments)
