"""Batches in which result i belongs to input i and no failure loses a finished answer."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Any

from langchain_core.runnables.config import RunnableConfig, get_config_list

from seawall import _batch, _progress
from seawall._chat_batch import Said, raise_first
from seawall._model import Seconds
from seawall._progress import Progress
from seawall._word import UNSET
from seawall.errors import ConfigurationError

# So many calls at a time where `max_concurrency` says nothing.
CONCURRENCY = 64

Configs = RunnableConfig | Sequence[RunnableConfig] | None


def concurrency_of(configs: list[RunnableConfig]) -> int:
    """Calls under way at a time."""
    return configs[0].get("max_concurrency") or CONCURRENCY


def _waited_for(finished: queue.SimpleQueue[tuple[int, Any]]) -> tuple[int, Any]:
    while True:
        # In slices: a signal that comes just before a wait is noticed only after it.
        with contextlib.suppress(queue.Empty):
            return finished.get(timeout=0.1)


def _completed(
    invoke: Callable[..., Any], inputs: Sequence[Any], configs: list[RunnableConfig], kwargs: dict[str, Any]
) -> Generator[tuple[int, Any], None, None]:
    """Places and results as they finish, exceptions among them.

    The threads are daemons and are not waited for, so that Ctrl-C ends a batch while requests hang.
    """
    places = iter(range(len(inputs)))
    finished: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    lock, over = threading.Lock(), threading.Event()

    def work() -> None:
        while not over.is_set():
            with lock:
                place = next(places, None)
            if place is None:
                return
            try:
                result = invoke(inputs[place], configs[place], **kwargs)
            except BaseException as error:
                result = error
            finished.put((place, result))

    for _ in range(min(concurrency_of(configs), len(inputs))):
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True, name="seawall-batch").start()
    try:
        for _ in inputs:
            place, result = _waited_for(finished)
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            yield place, result
    finally:
        over.set()


async def _acompleted(
    ainvoke: Callable[..., Any], inputs: Sequence[Any], configs: list[RunnableConfig], kwargs: dict[str, Any]
) -> AsyncGenerator[tuple[int, Any], None]:
    """As `_completed`, in tasks of the running loop; whoever leaves cancels them."""
    places = iter(range(len(inputs)))
    finished: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def work() -> None:
        for place in places:
            try:
                result = await ainvoke(inputs[place], configs[place], **kwargs)
            except asyncio.CancelledError as error:
                finished.put_nowait((place, error))
                raise
            except Exception as error:
                result = error
            finished.put_nowait((place, result))

    tasks = [asyncio.create_task(work()) for _ in range(min(concurrency_of(configs), len(inputs)))]
    try:
        for _ in inputs:
            place, result = await finished.get()
            if isinstance(result, asyncio.CancelledError):
                raise result
            yield place, result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Batching:
    """The batch methods of a Runnable, on its `invoke` and `ainvoke`."""

    def _kept(
        self, inputs: Sequence[Any], configs: list[RunnableConfig], said: Said, kwargs: dict[str, Any]
    ) -> Generator[tuple[int, Any], None, None]:
        """Places and results of a batch of which more is said than its inputs, exceptions among them."""
        this: Any = self
        refuse(said, this)
        counts = _Counts(said.progress, len(inputs))
        with counts, contextlib.closing(_completed(this.invoke, inputs, configs, kwargs)) as completed:
            for pair in completed:
                counts.see(pair)
                yield pair

    async def _akept(
        self, inputs: Sequence[Any], configs: list[RunnableConfig], said: Said, kwargs: dict[str, Any]
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """As `_kept`, for an event loop."""
        this: Any = self
        refuse(said, this)
        counts = _Counts(said.progress, len(inputs))
        async with contextlib.aclosing(_acompleted(this.ainvoke, inputs, configs, kwargs)) as completed:
            with counts:
                async for pair in completed:
                    counts.see(pair)
                    yield pair

    def batch(
        self: Any,
        inputs: Sequence[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **kwargs: Any,
    ) -> list[Any]:
        """Invokes for each input, at most `max_concurrency` (64) at a time. Result i belongs to input i.

        Args:
            inputs: what `invoke` takes.
            config: one for all, or one for each.
            return_exceptions: put failures in their places in place of raising the first.
            journal: of a model, a file in which each answer is before it is reported. The same call, begun again however it ended,
                asks only for what is not in it.
            progress: `True` shows it on stderr (rich, tqdm or lines), `"rich"`, `"tqdm"` or `"lines"` in that way; or a function of
                (done, total, failed).
            patience: of a model, seconds for which nothing may be answered (3600 with a journal); `None`: no end.
            retry_failures: ask again for what failed in an earlier run; else the journal's failures are given back.
            kwargs: what `invoke` takes besides.

        Raises:
            Exception: the first failure, unless `return_exceptions`; its `.results` holds every finished answer.
            JournalError: the journal cannot be used, or is of another batch.
            ConfigurationError: a journal or patience of what is no model.
        """
        said = Said(journal, progress, patience, retry_failures)
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        if said.is_nothing:
            results = dict(_one(self.invoke, inputs, configs, kwargs) or _completed(self.invoke, inputs, configs, kwargs))
        else:
            results = {}
            _batch.each(self._kept(inputs, configs, said, kwargs), results.__setitem__)
        return _ordered(results, return_exceptions)

    async def abatch(
        self: Any,
        inputs: Sequence[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **kwargs: Any,
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        said = Said(journal, progress, patience, retry_failures)
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        if said.is_nothing:
            results = {place: result async for place, result in _acompleted(self.ainvoke, inputs, configs, kwargs)}
        else:
            results = {}
            await _batch.aeach(self._akept(inputs, configs, said, kwargs), results.__setitem__)
        return _ordered(results, return_exceptions)

    def batch_as_completed(
        self: Any,
        inputs: Sequence[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Pairs of an input's place and its result, as they finish. Arguments as for `batch`.

        Raises:
            Exception: the first failure, unless `return_exceptions`, after all answers have been given out; its `.results`
                holds them, too.
        """
        said = Said(journal, progress, patience, retry_failures)
        if not inputs:
            return
        configs, results = get_config_list(config, len(inputs)), {}
        completed = (
            _completed(self.invoke, inputs, configs, kwargs) if said.is_nothing else self._kept(inputs, configs, said, kwargs)
        )
        with contextlib.closing(completed):
            for place, result in completed:
                results[place] = result
                if return_exceptions or not isinstance(result, BaseException):
                    yield place, result
        _ordered(results, return_exceptions)

    async def abatch_as_completed(
        self: Any,
        inputs: Sequence[Any],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """As `batch_as_completed`, for an event loop."""
        said = Said(journal, progress, patience, retry_failures)
        if not inputs:
            return
        configs, results = get_config_list(config, len(inputs)), {}
        making = (
            _acompleted(self.ainvoke, inputs, configs, kwargs) if said.is_nothing else self._akept(inputs, configs, said, kwargs)
        )
        async with contextlib.aclosing(making) as completed:
            async for place, result in completed:
                results[place] = result
                if return_exceptions or not isinstance(result, BaseException):
                    yield place, result
        _ordered(results, return_exceptions)


def refuse(said: Said, runnable: Any) -> None:
    """Refuses a journal of what is no model: only what a model is asked is known, so that only its answers are surely those asked for.

    Raises:
        ConfigurationError: it is asked for.
    """
    for name in ("journal", "patience", "retry_failures"):
        if getattr(said, name) != getattr(Said(), name):
            raise ConfigurationError(
                f"{name} is for the batch of a model (ChatOpenAI, bound or with a schema), not of {runnable.get_name()}: what a journal "
                "keeps it keeps for the messages that were sent, which are not known here. Do the steps before the model, then "
                f"model.batch(prompts, {name}=…), then the steps after it"
            )


class _Counts:
    """Shows how far a batch is."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._bar = _progress.progress_bar(_progress.checked(progress), total)
        self._done = self._failed = 0

    def see(self, pair: tuple[int, Any]) -> None:
        self._done += 1
        self._failed += isinstance(pair[1], BaseException)
        if self._bar is not None:
            self._bar.show(self._done, self._failed)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _one(
    invoke: Callable[..., Any], inputs: Sequence[Any], configs: list[RunnableConfig], kwargs: dict[str, Any]
) -> list[tuple[int, Any]] | None:
    """The only input's result, without a thread."""
    if len(inputs) > 1:
        return None
    try:
        return [(0, invoke(inputs[0], configs[0], **kwargs))]
    except Exception as error:
        return [(0, error)]


def _ordered(results: dict[int, Any], return_exceptions: bool) -> list[Any]:
    return raise_first([results[place] for place in range(len(results))], return_exceptions)
