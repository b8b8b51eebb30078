"""tenacity's hooks that log, with its texts; nobody's content and nobody's keys."""

from __future__ import annotations

import functools
import logging
import re
from typing import Any, Protocol

from seawall._retry_state import outcome_of
from seawall._word import Word, shown, whole_number
from seawall.errors import ConfigurationError, ConfigurationTypeError

# What API keys look like, wherever an error's text repeats one. `re` compiles it once, when it is first needed.
_KEY = r"(?a)\b(?:sk|pk|rk|gsk|xai|hf|nvapi|ghp|pplx)[-_][\w-]{6,}|\bAIza[\w-]{20,}|\bAKIA[A-Z0-9]{12,}|(?<=Bearer )\S+"
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}


def _ordinal(number: int) -> str:
    return f"{number}{'th' if 10 < number % 100 < 20 else _ORDINALS.get(number % 10, 'th')}"


def _name(fn: Any) -> str:
    """The function's full name; never a repr, which could show arguments."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if fn is None:
        return "<unknown>"
    named = fn if hasattr(fn, "__qualname__") or hasattr(fn, "__name__") else type(fn)
    name = getattr(named, "__qualname__", None) or named.__name__
    module = getattr(named, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def _shown(value: Any) -> str:
    """A value for a log line: numbers as they are, of anything else only the type, for it may be a prompt or an answer."""
    return str(value) if value is None or isinstance(value, (bool, int, float)) else f"<{type(value).__name__}>"


def _exception_shown(exc: BaseException) -> str:
    text = re.sub(_KEY, "***", str(exc))
    return f"{type(exc).__name__}: {text if len(text) <= 500 else text[:497] + '...'}"


class Logger(Protocol):
    """Anything with `log(level, message, ...)`: `logging`, structlog, loguru."""

    def log(self, level: int, msg: str, /, *args: Any, **kwargs: Any) -> Any:
        """Log the message at the level."""


class _Log(Word):
    __slots__ = ("log_level", "logger")

    def __init__(self, logger: Logger, log_level: int) -> None:
        if not callable(getattr(logger, "log", None)):
            raise ConfigurationTypeError(
                f"{type(self).__name__}: logger must have log(level, message), as logging's have; {shown(logger)} has not"
            )
        self.logger = logger
        # Others than logging's take the name of a level too.
        is_name = isinstance(log_level, str) and not isinstance(logger, (logging.Logger, logging.LoggerAdapter))
        self.log_level = log_level if is_name else whole_number(f"{type(self).__name__}: log_level", log_level, 0)

    def _made_with(self) -> tuple[Any, ...]:
        return self.logger, self.log_level


def before_nothing(retry_state: Any) -> None:
    """Do nothing before an attempt, whatever the `retry_state`."""


def after_nothing(retry_state: Any) -> None:
    """Do nothing after an attempt, whatever the `retry_state`."""


def before_sleep_nothing(retry_state: Any) -> None:
    """Do nothing before a wait, whatever the `retry_state`."""


class before_log(_Log):
    """Log each attempt before it begins: ``Starting call to 'module.f', this is the 2nd time calling it.``

    `logger` is one of `logging`'s or like it, `log_level` one of its levels (`logging.INFO`).
    """

    __slots__ = ()

    def __call__(self, retry_state: Any) -> None:
        attempt = _ordinal(retry_state.attempt_number)
        self.logger.log(self.log_level, f"Starting call to '{_name(retry_state.fn)}', this is the {attempt} time calling it.")


class after_log(_Log):
    """Log each failed attempt: ``Finished call to 'module.f' after 0.5(s), this was the 2nd time calling it.``

    Args:
        logger: any object with `log(level, message)`.
        log_level: the level, as in `logging.INFO`.
        sec_format: how the seconds are written.
    """

    __slots__ = ("sec_format",)

    def __init__(self, logger: Logger, log_level: int, sec_format: str = "%.3g") -> None:
        super().__init__(logger, log_level)
        self.sec_format = _format(sec_format)

    def _made_with(self) -> tuple[Any, ...]:
        return self.logger, self.log_level, self.sec_format

    def __call__(self, retry_state: Any) -> None:
        seconds = self.sec_format % (retry_state.seconds_since_start or 0.0)
        attempt = _ordinal(retry_state.attempt_number)
        self.logger.log(
            self.log_level,
            f"Finished call to '{_name(retry_state.fn)}' after {seconds}(s), this was the {attempt} time calling it.",
        )


class before_sleep_log(_Log):
    """Log each wait before it begins: ``Retrying module.f in 2 seconds as it raised RateLimitError: slow down.``

    What a call returned is never written, only its type; what looks like an API key in an error's text is left out.

    Args:
        logger: any object with `log(level, message)`.
        log_level: the level, as in `logging.WARNING`.
        exc_info: whether to add the traceback.
        sec_format: how the seconds are written.
    """

    __slots__ = ("exc_info", "sec_format")

    def __init__(self, logger: Logger, log_level: int, exc_info: bool = False, sec_format: str = "%.3g") -> None:
        super().__init__(logger, log_level)
        if not isinstance(exc_info, bool):
            raise ConfigurationTypeError(f"before_sleep_log: exc_info must be True or False, not {shown(exc_info)}")
        self.exc_info = exc_info
        self.sec_format = _format(sec_format)

    def _made_with(self) -> tuple[Any, ...]:
        return self.logger, self.log_level, self.exc_info, self.sec_format

    def __call__(self, retry_state: Any) -> None:
        outcome = outcome_of(retry_state)
        if retry_state.next_action is None:
            raise RuntimeError("before_sleep_log was called before a wait was decided on: its retry state has no next_action")
        exc = outcome.exception()
        what = f"returned {_shown(outcome.result())}" if exc is None else f"raised {_exception_shown(exc)}"
        seconds = self.sec_format % retry_state.next_action.sleep
        message = f"Retrying {_name(retry_state.fn)} in {seconds} seconds as it {what}."
        # Only where it is wanted: loguru formats the message as soon as there is any keyword.
        extra = {"exc_info": exc} if self.exc_info and exc is not None else {}
        self.logger.log(self.log_level, message, **extra)


def _format(sec_format: str) -> str:
    may_be = "sec_format must be a %-format for one number, such as '%.3g'"
    if not isinstance(sec_format, str):
        raise ConfigurationTypeError(f"{may_be}, not {shown(sec_format)}")
    try:
        sec_format % 1.5
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{may_be}, not {shown(sec_format)}") from error
    return sec_format
