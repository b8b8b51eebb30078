"""Alternatives that call the primary again with another input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError


class Prompt:
    """A fallback that asks the primary again, differently.

    `Prompt("answer briefly: {}")` puts the first argument into the text; `Prompt(function)` calls the function with it.

    Args:
        change: a text with `{}` where the first argument goes, or a function of it.

    Raises:
        ConfigurationError: for anything else.
    """

    _seawall_prompt = True

    def __init__(self, change: str | Callable[[Any], Any]) -> None:
        if isinstance(change, str) and "{}" not in change:
            raise ConfigurationError(f"Prompt: change must have {{}} where the input goes, not {shown(change)}")
        if not isinstance(change, str) and not callable(change):
            raise ConfigurationTypeError(
                f"Prompt: change must be a text with {{}} or a function of the input, not {shown(change)}"
            )
        self._change = change

    def change(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The call's arguments with the first one changed."""
        if not args:
            raise TypeError("a Prompt changes the first positional argument, and the call has none")
        first, *rest = args
        changed = self._change.replace("{}", str(first)) if isinstance(self._change, str) else self._change(first)
        return (changed, *rest)

    def __repr__(self) -> str:
        return f"Prompt({self._change!r})"
