"""What tokens cost: `seawall.prices`, the table by which monitors estimate."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

from seawall import _seawall
from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError


class Price(NamedTuple):
    """What a million tokens cost, in the table's currency (US dollars, as it comes): those of the `prompt`, those of the
    `completion` (0), and of the prompt those that were `cached` (`None`: as the others).
    """

    prompt: float
    """Those of the prompt."""
    completion: float = 0.0
    """Those of the answer, reasoning included."""
    cached: float | None = None
    """Those of the prompt that the provider had in its cache; `None` if they cost what others do."""


class Prices(MutableMapping[str, Price]):
    """Prices by the model's name: a mapping that may be changed at any time, and holds for all monitors of the process.

    As it comes it has OpenAI's list prices of 2025, for orientation: contracts differ and prices change. A model's dated
    snapshots (`gpt-4o-2024-08-06`) cost what the model does unless they have a price of their own; models without a price
    add nothing to `cost`.

        seawall.prices["my-model"] = (0.5, 1.5)           # for a million tokens of prompts, and of answers
        seawall.prices["other"] = Price(0.5, 1.5, cached=0.1)
        seawall.prices.clear()                            # and then one's own table alone

    Raises `ConfigurationError` for prices that cannot be meant.
    """

    def _table(self) -> dict[str, Price]:
        return {model: Price(prompt, completion, cached) for model, prompt, completion, cached in _seawall.prices()}

    def _put(self, table: dict[str, Price]) -> None:
        full = {
            model: price if price.cached is not None else price._replace(cached=price.prompt) for model, price in table.items()
        }
        _seawall.set_prices([(model, list(price)) for model, price in full.items()])

    def __getitem__(self, model: str) -> Price:
        table = self._table()
        if model not in table:
            raise KeyError(
                f"there is no price of {model!r}: give it one, prices[{model!r}] = (prompt, completion), for a million tokens"
            )
        return table[model]

    def __setitem__(self, model: str, price: Any) -> None:
        if not isinstance(model, str) or not model:
            raise ConfigurationError(f"a model's name must be a text, not {shown(model)}")
        if not isinstance(price, tuple) or not 1 <= len(price) <= 3:
            raise ConfigurationTypeError(
                f"prices[{model!r}] must be (prompt, completion) or (prompt, completion, cached), not {shown(price)}"
            )
        self._put(self._table() | {model: Price(*price)})

    def __delitem__(self, model: str) -> None:
        table = self._table()
        del table[model]
        self._put(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())

    def clear(self) -> None:
        """Forgets all prices."""
        self._put({})

    def __repr__(self) -> str:
        return f"<prices of {len(self)} models>"


prices = Prices()
