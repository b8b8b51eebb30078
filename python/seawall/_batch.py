"""A batch whose inputs come one by one and whose results are given out as they come or in order: for threads and for event loops."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from seawall import _seawall
from seawall._progress import Progress, progress_bar
from seawall.errors import JournalError

if TYPE_CHECKING:
    import asyncio

Pair = tuple[int, Any]
# What is sent in a request: its content, and parameters of its own.
Content = tuple[Any, dict[str, Any] | None]

_log = logging.getLogger("seawall")


class Question(NamedTuple):
    """What is sent for an input as it is, with parameters of its own; or why it cannot be sent."""

    content: Any
    params: dict[str, Any] | None = None


class Job(NamedTuple):
    """What a batch is to do."""

    run: Callable[[], _seawall.Run]
    # The requests of an input, at its place: most take one; or why it cannot be sent.
    contents: Callable[[Any, int], list[Content] | Exception]
    # One result of those of an input that takes several.
    joined: Callable[[list[Any]], Any]
    inputs: Iterable[Any] | AsyncIterable[Any]
    # Inputs taken on whose results have not been given out: what bounds the memory that it takes.
    window: int
    in_order: bool
    return_exceptions: bool
    journal: str | None
    progress: Progress
    total: int | None


class _Several:
    """The results of an input's requests, as they come."""

    def __init__(self, at: int, count: int) -> None:
        self.at, self.missing = at, count
        self.results: list[Any] = [None] * count


class _Batch:
    """The state of one batch, whoever drives it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process = os.getpid()
        self.bar = progress_bar(job.progress, job.total)
        self.run = job.run()
        self.accepted = self.given_out = self.done = self.failed = 0
        self.first_failure: BaseException | None = None
        # In order: what came before its turn.
        self.early: dict[int, Any] = {}
        # Requests put. An input that takes several of them has as many rows in a journal, one after another.
        self.rows = 0
        # Of the rows that are not at their inputs' places: which part of which input they are.
        self.parts: dict[int, tuple[_Several, int]] = {}

    @property
    def has_room(self) -> bool:
        return self.accepted - self.given_out < self.job.window and not self.run.is_ready

    def accept(self, input: Any) -> list[Pair]:
        """Takes an input on. One that cannot be sent is its own result."""
        at = self.accepted
        self.accepted += 1
        contents = self.job.contents(input, at)
        if isinstance(contents, Exception):
            self.rows += 1
            return [(at, contents)]
        first, self.rows = self.rows, self.rows + len(contents)
        if first != at or len(contents) > 1:
            several = _Several(at, len(contents))
            self.parts.update((first + part, (several, part)) for part in range(len(contents)))
        refused: list[Pair] = []
        for row, content in enumerate(contents, first):
            try:
                self.run.put(row, *content)
            except (TypeError, ValueError) as error:
                refused.append((row, error))
        return self.whole(refused)

    def whole(self, rows: list[Pair]) -> list[Pair]:
        """The inputs that are finished with these rows."""
        if not self.parts:  # as most batches have none
            return rows
        pairs: list[Pair] = []
        for row, result in rows:
            several, part = self.parts.pop(row, (None, 0))
            if several is None:
                pairs.append((row, result))
                continue
            several.results[part] = result
            several.missing -= 1
            if not several.missing:
                pairs.append((several.at, self.job.joined(several.results)))
        return pairs

    def came(self, pairs: list[Pair]) -> Iterator[Pair]:
        """The results to be given out now."""
        if not self.job.in_order:
            for pair in pairs:
                self._count(pair)
            self._show()
            for pair in pairs:
                if self._passes(pair):
                    yield pair
            return
        for pair in pairs:
            self._count(pair)
            self.early[pair[0]] = pair[1]
        self._show()
        while self.given_out in self.early:
            pair = (self.given_out, self.early.pop(self.given_out))
            if self._passes(pair):
                yield pair

    def _count(self, pair: Pair) -> None:
        self.done += 1
        if isinstance(pair[1], BaseException):
            self.failed += 1
            if self.first_failure is None:
                self.first_failure = pair[1]

    def _show(self) -> None:
        if self.bar is not None:
            self.bar.show(self.done, self.failed)

    def _passes(self, pair: Pair) -> bool:
        # Counted before it is handed over: whoever has it may take as long as they like.
        self.given_out += 1
        return self.job.return_exceptions or not isinstance(pair[1], BaseException)

    def over(self) -> None:
        """All is done: raises the first failure, unless failures were given out."""
        failure = self.first_failure
        if failure is not None and not self.job.return_exceptions:
            if self.failed > 1:
                _annotate(failure, f"{self.failed} of {self.done} inputs failed; this is the first failure")
            raise failure

    def broken_off(self, error: BaseException) -> None:
        """It ends before its end. What has finished is on disk."""
        self.run.close()
        # A forked child has its parent's batch, which goes on there; SQLite may have been in the middle of something as it was forked.
        is_copy = os.getpid() != self.process
        if self.job.journal is None or is_copy or isinstance(error, (GeneratorExit, JournalError)):
            return
        answered = self.done - self.failed
        with contextlib.suppress(JournalError):  # it knows of answers that nobody has taken yet
            answered = _seawall.JournalReader(self.job.journal).counts()[0]
        is_even = self.rows == self.accepted
        of = f" of {self.job.total}" if is_even and self.job.total is not None else ""
        text = f"{answered}{of} {'inputs' if is_even else 'requests'} are answered and in {self.job.journal}; the same call goes on from there"
        _annotate(error, text)
        _log.warning("the batch was broken off: %s", text)

    def close(self) -> None:
        self.run.close()
        if self.bar is not None:
            self.bar.close()


def _annotate(error: BaseException, note: str) -> None:
    # Python 3.10 has no add_note.
    with contextlib.suppress(AttributeError, TypeError):
        notes = [*getattr(error, "__notes__", ()), f"seawall: {note}"]
        setattr(error, "__notes__", notes)


def each(pairs: Generator[Pair, None, None], take: Callable[[int, Any], object]) -> None:
    """Hands each pair over. An interrupt that comes between two of them is told as one that comes inside of the batch."""
    try:
        for at, result in pairs:
            take(at, result)
    except BaseException as error:
        pairs.throw(error)
        raise


async def aeach(pairs: AsyncGenerator[Pair, None], take: Callable[[int, Any], object]) -> None:
    """The same for an event loop."""
    try:
        async for at, result in pairs:
            take(at, result)
    except BaseException as error:
        await pairs.athrow(error)
        raise


def results(job: Job) -> Generator[Pair, None, None]:
    """Pairs of an input's place and its result."""
    assert isinstance(job.inputs, Iterable)
    batch = _Batch(job)
    inputs, has_more = iter(job.inputs), True
    try:
        while True:
            while has_more and batch.has_room:
                try:
                    input = next(inputs)
                except StopIteration:
                    has_more = False
                    break
                yield from batch.came(batch.accept(input))
            if not has_more and not batch.run.outstanding:
                break
            yield from batch.came(batch.whole(batch.run.take()))
        batch.run.close()
    except BaseException as error:
        batch.broken_off(error)
        raise
    finally:
        batch.close()
    batch.over()


async def aresults(job: Job) -> AsyncGenerator[Pair, None]:
    """The same for an event loop. The inputs may come from an asynchronous iterator."""
    batch = _Batch(job)
    coming = _Coming(job.inputs)
    try:
        while True:
            async for pairs in coming.accepted(batch):
                for pair in batch.came(pairs):
                    yield pair
            if not coming.has_more and not batch.run.outstanding:
                break
            for pair in batch.came(batch.whole(await coming.taken(batch.run))):
                yield pair
        batch.run.close()
    except BaseException as error:
        batch.broken_off(error)
        raise
    finally:
        batch.close()
        await coming.close()
    batch.over()


class _Coming:
    """The inputs, whoever gives them."""

    def __init__(self, inputs: Any) -> None:
        self.has_more = True
        self._plain = None if isinstance(inputs, AsyncIterable) else iter(inputs)
        self._async = aiter(inputs) if self._plain is None else None
        # In asyncio the next input is awaited while results are: one may be made of the other.
        self._next: asyncio.Task[Any] | None = None

    async def accepted(self, batch: _Batch) -> AsyncIterator[list[Pair]]:
        """Fills the batch with the inputs that there are; gives the results that there are at once."""
        import asyncio  # a program without loops of its own loads none

        while self.has_more and batch.has_room:
            if self._plain is not None:
                input = next(self._plain, _NO_MORE)
            elif self._next is None and _in_asyncio():
                self._next = asyncio.ensure_future(_awaited(self._async))
                await asyncio.sleep(0)
                continue
            elif self._next is None:
                input = await _awaited(self._async)
            elif self._next.done():
                input, self._next = self._next.result(), None
            else:
                return
            if input is _NO_MORE:
                self.has_more = False
            else:
                yield batch.accept(input)

    async def taken(self, run: _seawall.Run) -> list[Pair]:
        """What has come; nothing, where an input comes first."""
        if self._next is None:
            pairs: list[Pair] = await run.start_take()
            return pairs
        import asyncio

        taking = run.start_take() if run.outstanding else None
        await asyncio.wait([self._next, *([] if taking is None else [taking])], return_when=asyncio.FIRST_COMPLETED)
        if taking is not None and not taking.done():
            # What comes later is taken by the next.
            taking.cancel()
            return []
        return [] if taking is None else taking.result()

    async def close(self) -> None:
        if self._next is not None:
            import asyncio

            self._next.cancel()
            await asyncio.wait([self._next])


_NO_MORE: Any = object()


async def _awaited(inputs: Any) -> Any:
    try:
        return await anext(inputs)
    except StopAsyncIteration:  # no task may end in it
        return _NO_MORE


def _in_asyncio() -> bool:
    # A run of trio's may be the guest of a loop; whoever uses trio has imported it.
    trio = sys.modules.get("trio")
    if trio is None:
        return True
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return True
    return False
