"""The presets of `guard`, as data: what the document's table recommends for development, testing and production."""

from __future__ import annotations

from typing import Any, NamedTuple

from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

__all__ = ["ALIASES", "PRESETS", "Preset", "development", "get", "production", "show", "testing"]


class Preset(NamedTuple):
    """What a preset sets. Times are seconds.

    `retry` counts attempts, all told. `retry_budget` caps retries at that share of the calls. `circuit` and `monitor` say whether there
    is one of its own. The others are arguments of `guard`: `name`, `fallback` (and whether it has to be said, `fallback_required`),
    `timeout`, `attempt_timeout`.
    """

    name: str
    retry: int
    circuit: bool
    fallback_required: bool = False
    fallback: Any = None
    timeout: float | None = None
    attempt_timeout: float | None = None
    retry_budget: float | None = None
    monitor: bool = False


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("default", retry=3, circuit=True),
        Preset("dev", retry=2, circuit=False),
        Preset("test", retry=3, circuit=True),
        Preset(
            "prod", retry=5, circuit=True, fallback_required=True, timeout=120, attempt_timeout=60, retry_budget=0.2, monitor=True
        ),
    )
}


# The document's own words for them.
ALIASES = {"development": "dev", "testing": "test", "production": "prod"}


def get(name: str | None) -> Preset:
    """The preset of that name; `None` is the default one."""
    known = ", ".join(repr(key) for key in (*PRESETS, *ALIASES))
    if name is not None and not isinstance(name, str):
        raise ConfigurationTypeError(f"preset must be one of {known} or None, not {shown(name)}")
    wanted = "default" if name is None else name
    try:
        return PRESETS[ALIASES.get(wanted, wanted)]
    except KeyError:
        raise ConfigurationError(f"there is no preset {name!r}; there are {known}") from None


development = PRESETS["dev"]
testing = PRESETS["test"]
production = PRESETS["prod"]


def show() -> str:
    """A table of all presets, printed and returned."""
    columns = list(Preset._fields)
    rows = [columns, *([str(getattr(preset, column)) for column in columns] for preset in PRESETS.values())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    text = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    print(text)  # noqa: T201  it is what the function is for
    return text
