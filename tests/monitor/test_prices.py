"""The table of prices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _canary import CANARY

import seawall
from seawall import Monitor, Price, prices
from seawall.llm import Chat


@pytest.fixture(autouse=True)
def as_they_were() -> Iterator[None]:
    before = dict(prices)
    yield
    prices.clear()
    prices.update(before)


def test_it_is_a_mapping_that_may_be_changed():
    prices["mine"] = (0.5, 1.5)
    prices["embeddings"] = (0.25,)
    assert prices["mine"] == Price(0.5, 1.5, cached=0.5)
    assert prices["embeddings"] == (0.25, 0.0, 0.25)
    del prices["mine"]
    assert "mine" not in prices
    assert len(prices) == len(list(prices))
    with pytest.raises(KeyError):
        prices["mine"]


def test_ones_own_price_is_what_calls_cost(sim):
    prices.clear()
    prices["mine"] = Price(1e6, 2e5)
    monitor = Monitor()
    for name in ("mine", "mine-2025-01-31", "unknown"):
        Chat(name, api_key=CANARY, base_url=sim.base_url, monitor=monitor).invoke("hello")
    apart = monitor.by("model")
    for name in ("mine", "mine-2025-01-31"):
        numbers = apart[name]
        assert numbers["cost"] == numbers["prompt_tokens"] + (numbers["tokens"] - numbers["prompt_tokens"]) / 5
    assert apart["unknown"]["cost"] == 0


@pytest.mark.parametrize("price", [(-1, 1), ("1", 1), (float("nan"), 1), (1, 2, 2e6)])
def test_a_price_that_cannot_be_meant_is_refused(price):
    with pytest.raises(
        seawall.ConfigurationError, match=r"the price of (prompt|completion|cached) tokens must be a number from 0 to 1e6, not"
    ):
        prices["m"] = price
    assert "m" not in prices


@pytest.mark.parametrize("price", [1.0, "free", (), (1, 2, 3, 4)])
def test_what_is_no_price_is_refused(price):
    with pytest.raises(seawall.ConfigurationError, match=r"prices\['m'\] must be \(prompt, completion\)"):
        prices["m"] = price
