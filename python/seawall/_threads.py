"""Plain functions on threads of their own, so that a time limit can be kept, and so that one can run beside another."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seawall import _seawall

if TYPE_CHECKING:
    from seawall._seawall import Finish

# So long is slept between looks at a clock that a test moves.
_LOOK = 0.005
_SLICE = 0.1


def apart(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, until: int
) -> Callable[[], Any] | None:
    """Runs the function in a copy of this context, on a thread that keeps no program alive.

    Returns:
        A function that gives what it returned or raises what it raised; `None` if that has not come by `until`, in nanoseconds of the
        policies' clock. Then nobody hears of it any more.
    """
    context = contextvars.copy_context()
    ended = threading.Event()
    outcome: list[Callable[[], Any]] = []

    def run() -> None:
        try:
            value = context.run(function, *args, **(kwargs or {}))
        except BaseException as error:
            outcome.append(_raising(error))
        else:
            outcome.append(lambda: value)
        ended.set()

    name = getattr(function, "__qualname__", type(function).__qualname__)
    threading.Thread(target=run, name=f"seawall {name}", daemon=True).start()
    while not ended.is_set():
        left = (until - _seawall.clock_now()) / 1e9
        if left <= 0:
            return None
        # In slices: a signal that comes just before a wait is noticed only after it.
        ended.wait(min(left, _LOOK if _seawall.clock_stands() else _SLICE))
    return outcome.pop()


def _raising(error: BaseException) -> Callable[[], Any]:
    held = [error]

    def raises() -> Any:
        # Out of the frame before it is raised: its traceback would hold it in a circle.
        raise held.pop()

    return raises


def beside(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, finish: Finish, items: bool
) -> None:
    """Runs the function in a copy of this context, on a thread that keeps no program alive; `finish` is told its end. `items`: what
    counts is the first item of what it gives."""

    def call() -> tuple[Any, Any]:
        value = function(*args, **(kwargs or {}))
        if not items:
            return value, None
        source = finish.items(value)
        return next(source), source

    _begin(call, finish, getattr(function, "__qualname__", type(function).__qualname__))


def first_item(source: Any, finish: Finish) -> None:
    """The same for the first item of an iterator that is there already."""
    _begin(lambda: (next(source), source), finish, "stream")


def _begin(call: Callable[[], tuple[Any, Any]], finish: Finish, name: str) -> None:
    context = contextvars.copy_context()

    def run() -> None:
        try:
            value, source = context.run(call)
        except BaseException as error:
            # Without this frame, and the one that it calls.
            mine = error.__traceback__ and error.__traceback__.tb_next
            error.__traceback__ = mine and mine.tb_next
            del mine
            finish(None, error)
            return
        if not finish(value, None, source) and (source is not None or finish.is_open(value)):
            # It was given up while nobody could stop it. What may be read no more is closed.
            close = getattr(value if source is None else source, "close", None)
            if close is not None:
                close()

    threading.Thread(target=run, name=f"seawall {name}", daemon=True).start()
