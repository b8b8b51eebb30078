"""Where keys come from, and how what holds one is pickled without it."""

from __future__ import annotations

import os
import re
import stat
import warnings
from typing import Any

from seawall.errors import ConfigurationError

_CREDENTIAL = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
# Where container platforms put secrets: whoever gets in there is the program itself, and all may read them.
_MOUNTED = ("/run/secrets/", "/var/run/secrets/")
# What was pickled here without its secret, by what stands in its place.
_here: dict[str, Any] = {}


def is_credential(name: str) -> bool:
    """Whether a header, a query parameter or an option of that name holds what nobody else may see."""
    return _CREDENTIAL.search(name) is not None


class Told:
    """The path of a file of which somebody else tells what is wrong with it."""

    __slots__ = ("_path",)

    def __init__(self, path: Any) -> None:
        self._path = path

    def __fspath__(self) -> str:
        path: str = os.fspath(self._path)
        return path


def open_to_all(path: Any) -> str | None:
    """What is wrong with a key's file that everybody on this machine may read."""
    from pathlib import Path  # few keys are in files

    place = Path(path).absolute()
    if os.name != "posix" or any(str(where).startswith(_MOUNTED) for where in (place, place.resolve())):
        return None
    try:
        mode = place.stat().st_mode
    except OSError:
        return None  # whoever reads it says so
    return f"{place} may be read by every user of this machine: chmod 600 it" if mode & stat.S_IROTH else None


def look_at(path: Any) -> None:
    """Warns of a key's file that everybody on this machine may read."""
    wrong = None if isinstance(path, Told) else open_to_all(path)
    if wrong is not None:
        # Past here and the constructor, at whoever makes the model.
        warnings.warn(f"the api_key file {wrong}", stacklevel=3)


def waited_for(awaitable: Any) -> Any:
    """What an `async def` that gives a key comes to. It runs in an event loop of seawall's own, since no loop of the caller's may be
    running; this thread waits."""
    import asyncio  # few have such a function
    from concurrent.futures import Future

    from seawall import _worker

    answer: Future[Any] = Future()

    async def run() -> None:
        try:
            key = await awaitable
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(key)

    tasks = []  # a loop holds its tasks but weakly
    _worker.soon(lambda: tasks.append(asyncio.ensure_future(run())))
    return answer.result()


class Carried:
    """Stands for a secret in what is pickled: it is found again in this process, and by nobody in another."""

    __slots__ = ("_secret", "_what")

    def __init__(self, what: str, secret: Any) -> None:
        self._what, self._secret = what, secret

    def __repr__(self) -> str:
        return f"<{self._what}>"

    def __reduce__(self) -> tuple[Any, ...]:
        for mark, known in _here.items():
            if type(known) is type(self._secret) and known == self._secret:
                return found, (mark, self._what)
        mark = os.urandom(16).hex()
        _here[mark] = self._secret
        return found, (mark, self._what)


def uncarried(value: Any) -> Any:
    """The secret itself, in a copy that was made without a pickle."""
    return value._secret if isinstance(value, Carried) else value


def found(mark: str, what: str) -> Any:
    """What `Carried` stands for.

    Raises:
        ConfigurationError: it was pickled in another process.
    """
    if mark in _here:
        return _here[mark]
    raise ConfigurationError(
        f"{what} was pickled without its secret, which was given as a text: no pickle holds one. Make it where it is used; a model "
        "also pickles whole if its key is in the environment (OPENAI_API_KEY), in a file (api_key=pathlib.Path(…)) or given by a function"
    )


__all__ = ["Carried", "Told", "found", "is_credential", "look_at", "open_to_all", "uncarried", "waited_for"]
