"""One TOML file that describes models, pipelines, circuits, limits, caches, guardrails, monitors and sinks: `seawall.load("seawall.toml")`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from seawall._word import shown
from seawall._wrong_calls import near
from seawall.configuration._document import Problem, Report, read
from seawall.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from seawall import Bulkhead, Cache, CircuitBreaker, Guardrails, Hedge, Monitor, Pipeline, RateLimit
    from seawall._model import Hidden
    from seawall.configuration._build import ConfigurationWarning
    from seawall.sinks import Sink

T = TypeVar("T")


class NoSuchNameError(ConfigurationError, KeyError):
    """The file describes nothing of this name. Also a builtin `KeyError`."""

    __str__ = Exception.__str__


class Things(Mapping[str, T], Generic[T]):
    """What a section of the file describes, by name."""

    def __init__(self, file: str, one: str, things: Mapping[str, T]) -> None:
        self._file, self.one, self._things = file, one, dict(things)

    def __getitem__(self, name: str) -> T:
        try:
            return self._things[name]
        except (KeyError, TypeError):
            meant = Report(self._file).meant(str(name), self._things)
            there = f"; there are {', '.join(map(repr, self._things))}" if self._things else ""
            text = f"{self._file} describes no {self.one} {name!r}{there}" + (f": {meant}" if meant else "")
        raise NoSuchNameError(text)

    def __getattr__(self, name: str) -> Any:
        hint = f": write [{name!r}]" if name in self.__dict__.get("_things", ()) else ""
        raise AttributeError(f"what the file describes is found in brackets, by its name; there is no attribute {name!r}{hint}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __repr__(self) -> str:
        return f"<{self.one}s {', '.join(map(repr, self._things)) or 'none'}>"


class Asked(NamedTuple):
    """Where a model asks, and as whom."""

    base_url: str | None
    key: Hidden
    source: str
    proxy: str | bool | None
    ca_bundle: Any
    made: Any


class Config:
    """What a file describes. Each part is a mapping by name; what is used in two places is one thing.

    Attributes:
        path: the file.
        models: `seawall.llm.Chat` and `Embeddings`, with their retries, breakers and alternatives.
        pipelines: `seawall.Pipeline`, which decorate functions.
        circuits: `seawall.CircuitBreaker`.
        rate_limits: `seawall.RateLimit`.
        hedges: `seawall.Hedge`.
        bulkheads: `seawall.Bulkhead`.
        caches: `seawall.Cache`.
        guardrails: `seawall.Guardrails`.
        monitors: `seawall.Monitor`.
        sinks: functions of an alert, of `seawall.sinks`.
        sections: all of these, by name.
    """

    models: Mapping[str, Any]
    pipelines: Mapping[str, Pipeline]
    circuits: Mapping[str, CircuitBreaker]
    rate_limits: Mapping[str, RateLimit]
    hedges: Mapping[str, Hedge]
    bulkheads: Mapping[str, Bulkhead]
    caches: Mapping[str, Cache]
    guardrails: Mapping[str, Guardrails]
    monitors: Mapping[str, Monitor]
    sinks: Mapping[str, Sink]

    def __init__(self, path: Path, things: Mapping[str, Mapping[str, Any]]) -> None:
        from seawall.configuration._sections import SECTIONS

        self.path = path
        self.sections = {name: Things(str(path), SECTIONS[name].one, found) for name, found in things.items()}
        self.__dict__.update(self.sections)

    def __getattr__(self, name: str) -> Any:
        likely = near(name, self.__dict__.get("sections", ()))
        raise AttributeError(f"a Config has no {name!r}" + (f": is {likely} meant?" if likely else ""))

    def __repr__(self) -> str:
        parts = "; ".join(f"{name} {', '.join(things)}" for name, things in self.sections.items() if things)
        return f"<Config {self.path}: {parts or 'empty'}>"


def load(path: str | os.PathLike[str]) -> Config:
    """What a TOML file describes, built and ready.

    Nothing in the file runs code, and nothing is read but what it names: environment variables and files. Relative paths begin where
    the file is. Secrets are read now, once.

    Args:
        path: the file; at most 256 KB.

    Raises:
        ConfigurationError: the file is wrong; its `problems` are all that is, each with its place.
        OSError: the file cannot be read.

    Warns:
        ConfigurationWarning: of what is hardly meant, such as a key that stands in the file.
        PipelineOrderWarning: of orders and thresholds that are known to be wrong.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationTypeError(f"load takes the path of a TOML file, not {shown(path)}")
    config, report = examined(Path(path))
    error = report.error()
    if error is not None:
        raise error
    for kind, warning in report.warnings:
        warnings.warn(kind(str(warning)), stacklevel=2)
    assert config is not None
    return config


def examined(path: Path, *, is_rehearsal: bool = False, asked: dict[str, Asked] | None = None) -> tuple[Config | None, Report]:
    """What the file describes, unless it is wrong, and what is to be said of it. `asked` gets where each model asks, and as whom."""
    report, root = read(path)
    if root is None:
        return None, report
    from seawall.configuration._build import Builder

    builder = Builder(report, root, path.absolute().parent, os.environ, is_rehearsal=is_rehearsal, asked=asked)
    things = builder.everything()
    return (None if report.problems else Config(path, things)), report


def __getattr__(name: str) -> Any:
    if name == "ConfigurationWarning":
        from seawall.configuration._build import ConfigurationWarning

        return ConfigurationWarning
    raise AttributeError(f"module 'seawall.configuration' has no attribute {name!r}")


__all__ = ["Config", "ConfigurationWarning", "NoSuchNameError", "Problem", "Things", "load"]


def __dir__() -> list[str]:
    return sorted(__all__)
