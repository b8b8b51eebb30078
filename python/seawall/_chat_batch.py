"""What a chat model is asked; and batches: the methods of `seawall.llm.Chat` and `seawall.llm.Embeddings`."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping, Sequence, Set, Sized
from datetime import timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

from seawall import _batch, _progress, _seawall, errors
from seawall._model import Model, Seconds
from seawall._progress import Progress
from seawall._word import UNSET, shown, whole_number

_ROLES = {"human": "user", "ai": "assistant", **{name: name for name in ("user", "assistant", "system", "developer", "tool")}}


def _is_message(input: Any) -> bool:
    """Whether it is one message as a (role, content) pair."""
    return isinstance(input, tuple) and len(input) == 2 and isinstance(input[0], str) and input[0] in _ROLES


def messages(input: Any, place: str = "input") -> str | list[Any]:
    """A prompt, a message, or a list of messages, as a route takes them: a text is a message of the user's."""
    if type(input) is str:  # what most are
        return input
    if isinstance(input, (str, Mapping)) or _is_message(input):
        return [_message(input, place)]
    if isinstance(input, Sequence) and not isinstance(input, (bytes, bytearray, memoryview)):
        messages = [_message(message, f"{place}[{at}]") for at, message in enumerate(input)]
        if messages:
            return messages
        raise ValueError(f"{place} is an empty list of messages: give at least one")
    raise TypeError(f"{place} must be a text, a message (a dict) or a list of messages, not {_kind(input)}")


def _message(message: Any, place: str) -> Any:
    if isinstance(message, str):
        return {"role": "user", "content": message}
    if isinstance(message, tuple) and len(message) == 2 and isinstance(message[0], str):
        return {"role": _ROLES.get(message[0], message[0]), "content": message[1]}
    if not isinstance(message, Mapping):
        raise TypeError(f"{place} must be a dict, a (role, content) pair or a text, not {_kind(message)}")
    if not isinstance(message.get("role"), str):
        raise ValueError(f"{place} has no role: give a message like {{'role': 'user', 'content': '…'}}")
    return dict(message)


def _kind(value: Any) -> str:
    kind = type(value)
    foreign = kind.__module__.startswith("langchain")
    return f"{kind.__name__} (seawall.langchain.ChatOpenAI takes LangChain's messages)" if foreign else kind.__name__


def listed(inputs: Any) -> list[Any]:
    """The inputs of a batch."""
    # A set has no order, and the answers are told apart by it.
    if isinstance(inputs, (str, bytes, bytearray, Mapping, Set)) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be a list with an input for each answer, not {type(inputs).__name__}")
    return list(inputs)


async def landed(flying: _seawall.Flying) -> Any:
    try:
        return await flying.future
    finally:
        # Whoever is cancelled, by whatever its loop raises, gives the call up.
        flying.abort()


def raise_first(results: list[Any], return_exceptions: bool) -> list[Any]:
    """The results of a batch; without `return_exceptions` the first failure, carrying all results."""
    if not return_exceptions:
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            with contextlib.suppress(AttributeError):  # a foreign exception may take no attributes
                failed.results = results  # type: ignore[attr-defined]
            raise failed
    return results


# How long a batch waits for a service that answers nothing.
_PATIENCE = 3600.0
_R = TypeVar("_R")


class Said(NamedTuple):
    """What is said of a batch beside its inputs."""

    journal: Any = None
    progress: Any = None
    patience: Any = UNSET
    retry_failures: Any = True

    @property
    def is_nothing(self) -> bool:
        """Whether each call has its own retries, and nobody is told."""
        return self == Said()


def _journal(journal: Any) -> str | None:
    if journal is None:
        return None
    if not isinstance(journal, (str, os.PathLike)) or not isinstance(os.fspath(journal), str) or not os.fspath(journal):
        raise errors.ConfigurationTypeError(f"journal must be the path of a file, not {shown(journal)}")
    return os.fspath(journal)


def _patience(patience: Any) -> float | None:
    if patience is None:
        return None
    seconds = patience.total_seconds() if isinstance(patience, timedelta) else patience
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise errors.ConfigurationError(
            f"patience must be a number of seconds above 0, or None for no end, not {shown(patience)}"
        )
    return min(float(seconds), 1e9)


def concurrency(max_concurrency: int | None) -> int:
    if max_concurrency is None:
        return 64
    return min(whole_number("max_concurrency", max_concurrency, 1), 100_000)


class Batches(Model, Generic[_R]):
    """The batch methods of a model."""

    _kind: str

    def _contents(self, input: Any, place: str) -> list[Any]:
        """What is sent for an input, request by request.

        Raises:
            TypeError, ValueError: it cannot be sent.
        """
        raise NotImplementedError  # each kind of model has its own

    def _joined(self, results: list[Any]) -> Any:
        """One result of those of an input that takes several requests."""
        raise NotImplementedError  # of a model whose inputs take one each it is not asked

    def _flat(self, inputs: Any, lenient: bool) -> tuple[list[int], list[Any]]:
        """How many requests each input takes, and all of them in one row; one that cannot be sent is raised, or with `lenient` its own
        exception."""
        counts, flat = [], []
        for at, input in enumerate(listed(inputs)):
            try:
                contents = self._contents(input, f"inputs[{at}]")
            except (TypeError, ValueError) as error:
                if not lenient:
                    raise
                contents = [error]
            counts.append(len(contents))
            flat += contents
        return counts, flat

    def _together(self, counts: list[int], results: list[Any]) -> list[Any]:
        """The results of one request each as those of the inputs, which took so many requests each."""
        if len(counts) == len(results):
            return results
        rest = iter(results)
        return [next(rest) if count == 1 else self._joined([next(rest) for _ in range(count)]) for count in counts]

    @overload
    def batch(
        self,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = ...,
        retry_failures: bool = True,
        **params: Any,
    ) -> list[_R]: ...
    @overload
    def batch(
        self,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = ...,
        retry_failures: bool = True,
        **params: Any,
    ) -> list[_R | Exception]: ...
    def batch(
        self,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **params: Any,
    ) -> Any:
        """Asks for each input, at most `max_concurrency` (64) at a time. Result i belongs to input i.

        Args:
            inputs: what `invoke` takes: of `Chat` texts, messages or lists of messages, of `Embeddings` texts or lists of texts.
            max_concurrency: calls under way at a time.
            return_exceptions: put failures in their places in place of raising the first.
            journal: a file in which each result is before it is reported. The same call, begun again however it ended, asks
                only for what is not in it.
            progress: `True` shows it on stderr (rich, tqdm or lines), `"rich"`, `"tqdm"` or `"lines"` in that way; or a function of
                (done, total, failed).
            patience: seconds for which nothing may be answered (3600 with a journal). Meanwhile, in an outage, under a rate limit
                or an open circuit, the batch rests as a whole and one call looks whether it is over; then it ends. `None`: no end.
                Without a journal and where nothing is said, each call has its own retries and no more.
            retry_failures: ask again for what failed in an earlier run; else the journal's failures are given back.

        Raises:
            APIError: the first failure, unless `return_exceptions`; its `.results` holds every finished answer.
            JournalError: the journal cannot be used, or is of another batch.
        """
        said = Said(journal, progress, patience, retry_failures)
        if said.is_nothing:
            route, params, extras = self._asked(params)
            (counts, flat), limit = self._flat(inputs, return_exceptions), concurrency(max_concurrency)
            results = route.batch(self._kind, flat, params, extras.value, concurrency=limit, lenient=return_exceptions)
            return raise_first(self._together(counts, results), return_exceptions)
        job, results = self._listed_job(inputs, max_concurrency, return_exceptions, said, params)
        _batch.each(_batch.results(job), results.__setitem__)
        return raise_first(results, return_exceptions)

    async def abatch(
        self,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **params: Any,
    ) -> list[Any]:
        """As `batch`, for an event loop."""
        said = Said(journal, progress, patience, retry_failures)
        if said.is_nothing:
            route, params, extras = self._asked(params)
            (counts, flat), limit = self._flat(inputs, return_exceptions), concurrency(max_concurrency)
            flying = route.start_batch(self._kind, flat, params, extras.value, concurrency=limit, lenient=return_exceptions)
            return raise_first(self._together(counts, await landed(flying)), return_exceptions)
        job, results = self._listed_job(inputs, max_concurrency, return_exceptions, said, params)
        await _batch.aeach(_batch.aresults(job), results.__setitem__)
        return raise_first(results, return_exceptions)

    def batch_as_completed(
        self,
        inputs: Iterable[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **params: Any,
    ) -> Generator[tuple[int, Any], None, None]:
        """Pairs of an input's place and its reply, as they come. Arguments as for `batch`.

        Inputs are taken from any iterable as there is room for them, and nothing is kept once it was given out: a million of them take
        no more memory than a thousand.

        Raises:
            APIError: the first failure, unless `return_exceptions`, after all answers have been given out.
        """
        said = Said(journal, progress, patience, retry_failures)
        return _batch.results(self._job(inputs, max_concurrency, return_exceptions, said, params))

    def batch_in_order(
        self,
        inputs: Iterable[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **params: Any,
    ) -> Generator[tuple[int, Any], None, None]:
        """As `batch_as_completed`, in the order of the inputs. While one is slow, those behind it go on until eight times as many as
        may be under way wait for it."""
        said = Said(journal, progress, patience, retry_failures)
        return _batch.results(self._job(inputs, max_concurrency, return_exceptions, said, params, in_order=True))

    def abatch_as_completed(
        self,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **params: Any,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """As `batch_as_completed`, for an event loop. The inputs may come from an asynchronous iterable too."""
        said = Said(journal, progress, patience, retry_failures)
        return _batch.aresults(self._job(inputs, max_concurrency, return_exceptions, said, params, takes_async=True))

    def abatch_in_order(
        self,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        patience: Seconds | None = UNSET,
        retry_failures: bool = True,
        **params: Any,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """As `batch_in_order`, for an event loop. The inputs may come from an asynchronous iterable too."""
        said = Said(journal, progress, patience, retry_failures)
        job = self._job(inputs, max_concurrency, return_exceptions, said, params, in_order=True, takes_async=True)
        return _batch.aresults(job)

    def _listed_job(
        self, inputs: Any, max_concurrency: int | None, return_exceptions: bool, said: Said, params: dict[str, Any]
    ) -> tuple[_batch.Job, list[Any]]:
        """The job of a batch whose inputs are all there: what cannot be sent is refused before anything is."""
        every = listed(inputs)
        if not return_exceptions:
            for at, input in enumerate(every):
                self._contents(input, f"inputs[{at}]")
        # Failures are results here, so that whoever ends the batch has them all.
        job = self._job(every, max_concurrency, True, said, params)
        return job, [None] * len(every)

    def _job(
        self,
        inputs: Any,
        max_concurrency: int | None,
        return_exceptions: bool,
        said: Said,
        params: dict[str, Any],
        *,
        in_order: bool = False,
        takes_async: bool = False,
    ) -> _batch.Job:
        journal, progress, patience, retry_failures = said
        if isinstance(inputs, (str, bytes, bytearray, Mapping, Set)) or not isinstance(
            inputs, (Iterable, AsyncIterable) if takes_async else Iterable
        ):
            raise TypeError(f"inputs must be an iterable with an input for each answer, not {type(inputs).__name__}")
        if not isinstance(retry_failures, bool):
            raise errors.ConfigurationTypeError(f"retry_failures must be True or False, not {shown(retry_failures)}")
        if not isinstance(return_exceptions, bool):
            raise errors.ConfigurationTypeError(f"return_exceptions must be True or False, not {shown(return_exceptions)}")
        path, limit = _journal(journal), concurrency(max_concurrency)
        if not retry_failures and path is None:
            raise errors.ConfigurationError("retry_failures is about the failures in a journal: give journal=, too")
        is_patient = path is not None or patience is not UNSET
        seconds = _PATIENCE if patience is UNSET else _patience(patience)
        own = dict(params)
        route, sent, extras = self._asked(params)
        if is_patient:
            route = self._patient_route(seconds, own)

        def run() -> _seawall.Run:
            return _seawall.Run(
                route,
                self._kind,
                sent,
                extras.value,
                concurrency=limit,
                journal=path,
                retry_failures=retry_failures,
                patient=is_patient,
            )

        def contents(input: Any, at: int) -> list[_batch.Content] | Exception:
            if isinstance(input, _batch.Question):
                return input.content if isinstance(input.content, Exception) else [(input.content, input.params)]
            try:
                return [(content, None) for content in self._contents(input, f"inputs[{at}]")]
            except (TypeError, ValueError) as error:
                return error

        return _batch.Job(
            run=run,
            contents=contents,
            joined=self._joined,
            inputs=inputs,
            window=(8 if in_order else 2) * limit,
            in_order=in_order,
            return_exceptions=return_exceptions,
            journal=path,
            progress=_progress.checked(progress),
            total=len(inputs) if isinstance(inputs, Sized) else None,
        )
