"""Mistakes: type checkers report each line that says so, and no other. Nothing of it is run."""

from typing_extensions import assert_type

from seawall import CircuitBreaker, Pipeline, RateLimit, Retry, circuit, guard, retry
from seawall.llm import Chat


@retry(attempts="three")  # mistake: a text for a number
def words(city: str) -> str:
    return city


@circuit(failure_threshold=5, recovery_timeout="30 s")  # mistake: a text for seconds
def units(city: str) -> str:
    return city


@guard(retries=3)  # mistake: it is called retry
def misspelt(city: str) -> str:
    return city


@guard(rate_limit=60)  # mistake: a number for a RateLimit
def number(city: str) -> str:
    return city


@guard
def fine(city: str, *, days: int = 1) -> str:
    return city * days


@retry
async def later(city: str) -> str:
    return city


async def calls() -> None:
    fine(3)  # mistake: a number for a text
    fine("Trondheim", day=1)  # mistake: no such argument
    fine()  # mistake: an argument is missing
    assert_type(fine("Trondheim"), int)  # mistake: it gives a text
    later("Trondheim").upper()  # mistake: not awaited
    (await later("Trondheim")).spell()  # mistake: no such method


def pipelines(chat: Chat) -> None:
    Pipeline(Retry(3)).call(fine, 3)  # mistake: the function takes a text
    Pipeline(named="x")  # mistake: it is called name
    Retry(3, tries=4)  # mistake: it is called attempts
    RateLimit("many")  # mistake: a text for a number
    CircuitBreaker(failure_treshold=3)  # mistake: misspelt
    chat.invoke("why?").text_of_it  # mistake: no such attribute
    chat.with_retry(stop_after_attempt="3")  # mistake: a text for a number
