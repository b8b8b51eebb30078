"""The presets of `guard`, as data: what the document's table recommends for development, testing and production."""

# Annotations that are no texts: a NamedTuple would compile each, which takes longest of all here.
from typing import Any, NamedTuple

from seawall._word import shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

__all__ = ["ALIASES", "PRESETS", "Preset", "development", "get", "production", "show", "testing"]


def __dir__() -> list[str]:
    return sorted(__all__)


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


_COLUMNS = ("", "retry", "circuit", "fallback", "timeout", "attempt_timeout", "retries at most", "monitor")
_LEGEND = """
retry: attempts, all told; only transient failures are tried again, after 0.5 s, doubling to 8 s.
circuit: a breaker of its own, which opens at half of 20 attempts or more failing over 30 s.
fallback: where it is needed, fallback=None says that none is wanted. timeout: for the primary with its retries.
monitor: one of its own, guarded.pipeline.monitor.
What is said beside a preset wins: guard("prod", fallback=["sorry"], timeout=30). guard() alone is the default."""


def _cells(preset: Preset) -> tuple[str, ...]:
    seconds = ("–" if limit is None else f"{limit:g} s" for limit in (preset.timeout, preset.attempt_timeout))
    share = "–" if preset.retry_budget is None else f"{preset.retry_budget:.0%} of calls"
    circuit, monitor = ("yes" if part else "–" for part in (preset.circuit, preset.monitor))
    return (preset.name, str(preset.retry), circuit, "needed" if preset.fallback_required else "–", *seconds, share, monitor)


def show() -> str:
    """A table of all presets and what its words mean, printed and returned."""
    rows = [_COLUMNS, *map(_cells, PRESETS.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text = "\n".join(lines) + "\n" + _LEGEND
    print(text)  # noqa: T201  it is what the function is for
    return text
