"""Journals of batches, read: what has finished, what failed, and why.

    with seawall.journal.open("run.db") as journal:
        print(journal)                       # <Journal run.db: 9,998 answered, 2 failed>
        for at, error in journal.failures():
            print(at, error)

A journal may be read while a batch writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from seawall import _seawall, errors
from seawall.errors import JournalError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from seawall.llm import EmbeddingsReply, Reply

__all__ = ["Counts", "Journal", "JournalError", "open"]


def __dir__() -> list[str]:
    return sorted(__all__)


# Rows read at a time.
_SOME = 256


class Counts(NamedTuple):
    """How many inputs are finished.

    Attributes:
        done: answered.
        failed: failed for good.
    """

    done: int
    failed: int


class Journal:
    """What a batch has finished. Use `seawall.journal.open`.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
            raise errors.ConfigurationTypeError(f"path must be the path of a journal, not {type(path).__name__}")
        self.path = os.fspath(path)
        self._reader: _seawall.JournalReader | None = _seawall.JournalReader(self.path)

    @property
    def _open(self) -> _seawall.JournalReader:
        if self._reader is None:
            raise JournalError(f"the journal {self.path} was closed: open it again")
        return self._reader

    @property
    def counts(self) -> Counts:
        """How many were answered and how many failed, at this moment."""
        return Counts(*self._open.counts())

    def results(self) -> Iterator[tuple[int, Reply | EmbeddingsReply | Exception]]:
        """Pairs of an input's place and its reply, or the exception in its place, in the order of the inputs."""
        return self._rows(failures=False)

    def failures(self) -> Iterator[tuple[int, Exception]]:
        """Pairs of an input's place and why it failed: exceptions of `seawall.errors`, with status, code and attempts."""
        return self._rows(failures=True)

    def _rows(self, *, failures: bool) -> Iterator[tuple[int, Exception]]:
        start = 0
        while rows := self._open.rows(errors, start, _SOME, failures=failures):
            yield from rows
            start = rows[-1][0] + 1

    def close(self) -> None:
        """Lets the file go."""
        self._reader = None

    def __len__(self) -> int:
        return sum(self.counts)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._reader is None:
            return f"<Journal {self.path}, closed>"
        done, failed = self.counts
        return f"<Journal {self.path}: {done:,} answered, {failed:,} failed>"


def open(path: str | os.PathLike[str]) -> Journal:
    """A batch's journal, to be read.

    Args:
        path: the file that the batch was given as `journal=`.

    Raises:
        JournalError: it is not there, is no journal, is damaged, or was written by a later version.
    """
    return Journal(path)
