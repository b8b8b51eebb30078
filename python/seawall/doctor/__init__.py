"""What keeps calls from working, looked for before they are made: `python -m seawall.doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from seawall._model import Hidden

State = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at. `advice` is what to do, where there is something; `figures` are numbers, times in seconds."""

    part: str
    what: str
    state: State
    text: str
    advice: str = ""
    figures: dict[str, float] = {}  # noqa: RUF012  never changed


@dataclass
class Place:
    """A service, and as whom it is asked: what one or several models have in common."""

    base_url: str
    key: Hidden
    source: str
    """Where the key is from, or should be, in words."""
    models: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """By the file's name: the model's own name, and the model."""
    proxy: str | bool | None = None
    ca_bundle: Any = None
