"""Attempts of one call that are awaited beside each other, each in a task of its own: on asyncio's loops, and in runs of trio's."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seawall._seawall import Finish

# Those that were given up: a loop holds its tasks weakly, and nobody else holds these. What is waited for is held by whoever waits,
# so that the garbage collector sees what goes in a circle.
_left: set[asyncio.Task[None]] = set()


class _Runner:
    """One attempt, or the first item of one."""

    __slots__ = ("_awaitable", "_finish", "_source", "begun")

    def __init__(self, awaitable: Awaitable[Any] | None, finish: Finish, source: Any) -> None:
        self._awaitable = awaitable
        self._finish = finish
        self._source = source
        self.begun = False

    async def run(self) -> None:
        awaitable, source, finish, self._awaitable = self._awaitable, self._source, self._finish, None
        if awaitable is None and source is None:
            return  # given up before it began
        self.begun = True
        try:
            value = await (source.__anext__() if awaitable is None else awaitable)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Whoever waits raises it, without this frame. In here an interrupt would end the loop a second time.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            finish(None, error, source)
        except GeneratorExit:
            raise  # nothing can be awaited any more
        except BaseException as error:  # a cancellation: ours, or what the attempt itself came to
            finish(None, error, source)
            await _closed(source)
            raise
        else:
            if not finish(value, None, source):
                await _closed(source if source is not None else value if finish.is_open(value) else None)

    def drop(self) -> None:
        """It is given up: what has not begun is closed, so that nobody is warned that it was never awaited."""
        if self.begun:
            return
        awaitable, self._awaitable, self._source = self._awaitable, None, None
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()


def begin(awaitable: Awaitable[Any] | None, finish: Finish, source: Any) -> Callable[[], None]:
    """Has it awaited, or the next item of `source` if that is what is given.

    Returns:
        A function that stops it, without waiting for its end.
    """
    runner = _Runner(awaitable, finish, source)
    stop = _started(runner.run)

    def cancel() -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            stop()
        runner.drop()

    return cancel


def dispose(thing: Any) -> None:
    """Closes what nobody will read, in a task of its own if that has to be awaited."""
    if inspect.iscoroutine(thing) or inspect.isgenerator(thing):
        thing.close()
    elif _in_trio() is not None:
        _started(lambda: _closed(thing))
    else:
        _leave(asyncio.get_running_loop().create_task(_closed(thing), name="seawall hedge"))


def _in_trio() -> Any:
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def _started(run: Callable[[], Any]) -> Callable[[], Any]:
    trio = _in_trio()
    if trio is not None:
        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await run()

        trio.lowlevel.spawn_system_task(scoped, name="seawall hedge", context=contextvars.copy_context())
        return scope.cancel  # type: ignore[no-any-return]
    task = asyncio.get_running_loop().create_task(run(), name="seawall hedge")

    def stop() -> None:
        if not task.done():
            _leave(task)
            task.cancel()

    return stop


def _leave(task: asyncio.Task[None]) -> None:
    _left.add(task)
    task.add_done_callback(_left.discard)


async def _closed(thing: Any) -> None:
    close = getattr(thing, "aclose", None) or getattr(thing, "close", None)
    if close is None:
        return
    with contextlib.suppress(Exception):  # nobody waits for what it says
        said = close()
        if inspect.isawaitable(said):
            await said
