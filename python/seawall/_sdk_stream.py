"""The streams of SDKs behind a pipeline: read piece by piece, judged at their end, and to the caller what they were."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, NoReturn

from seawall import _sdk_errors
from seawall._guarded import several
from seawall._screen import AScreened, Screened, Screens
from seawall._sdk_events import Watch
from seawall.errors import OutputRefusedError, StreamInterruptedError

# Events held back before the first content. A server that sends only frames for so long has begun for all we know.
HELD_BACK = 64


def is_stream(value: Any) -> bool:
    """Whether it is a stream object of an SDK; `Desk`s are made for what the native side takes for one."""
    kind = type(value)
    readable = hasattr(kind, "__next__") or hasattr(kind, "__anext__")
    return readable and hasattr(kind, "close") and hasattr(value, "response")


class _Decoder:
    """The SDK's decoder of events, overheard: `[DONE]` never reaches the stream's reader."""

    def __init__(self, decoder: Any, watch: Watch) -> None:
        self._decoder, self._watch = decoder, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def _heard(self, event: Any) -> Any:
        if event.data.startswith("[DONE]"):
            self._watch.said_done = True
        return event

    def iter_bytes(self, pieces: Iterator[bytes]) -> Iterator[Any]:
        return map(self._heard, self._decoder.iter_bytes(pieces))

    def aiter_bytes(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        return _Heard(self._decoder.aiter_bytes(pieces), self._heard)


class _Heard:
    def __init__(self, events: Any, heard: Any) -> None:
        self._events, self._heard = events, heard

    def __aiter__(self) -> _Heard:
        return self

    async def __anext__(self) -> Any:
        return self._heard(await self._events.__anext__())


class _Reading:
    """One attempt's stream as it is read: what comes before the first content is held back, and what guardrails hold back."""

    __slots__ = ("_begun", "_given", "_held", "_over", "_raw", "_screens", "_watch")

    def __init__(self, raw: Any, rails: tuple[Any, ...]) -> None:
        self._raw = raw
        self._watch = Watch()
        self._screens = Screens(rails, is_call=True) if rails else None
        # Of what is handed over.
        self._given = Watch() if rails else self._watch
        self._held: deque[Any] = deque()
        self._begun = self._over = False

    def _listen(self) -> None:
        decoder = getattr(self._raw, "_decoder", None)
        if decoder is not None and not isinstance(self._raw, _Front):
            self._raw._decoder = _Decoder(decoder, self._watch)

    def _takes(self, event: Any) -> bool:
        """Takes an event in. Whether the stream has begun for its reader."""
        error = self._watch.see(event)
        if error is not None:
            raise _sdk_errors.failed(_sdk_errors.sdk_of(type(self._raw)), self._raw.response, error)
        self._hands_over([event] if self._screens is None else self._screens.push(event))
        return self._begun and bool(self._held)

    def _hands_over(self, events: list[Any]) -> None:
        for event in events if self._screens is not None else ():
            self._given.see(event)
        self._held.extend(events)
        self._begun = self._begun or self._given.has_content or len(self._held) >= HELD_BACK

    def _ends(self) -> None:
        self._over = self._begun = True
        # One that is guarded itself has been judged.
        if not self._watch.is_whole and not isinstance(self._raw, _Front):
            raise self._malformed("the stream ended before its answer did")
        if self._screens is not None:
            self._hands_over(self._screens.end())

    def _malformed(self, message: str) -> Exception:
        return _sdk_errors.malformed(_sdk_errors.sdk_of(type(self._raw)), self._raw.response, message)

    @property
    def text(self) -> str:
        return self._given.text

    def _seawall_times(self, rails: Any) -> int:
        return 0 if self._screens is None else self._screens.times(rails)


class Pieces(_Reading):
    """The events of a stream, for the generator driver."""

    def __init__(self, raw: Any, rails: tuple[Any, ...]) -> None:
        super().__init__(raw, rails)
        self._listen()

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> Any:
        if not self._held and not self._over:
            try:
                self._read()
            except _sdk_errors.UNREADABLE as error:
                self.close()
                raise self._malformed(f"the stream holds what is no JSON: {error}") from error
            except Exception:
                self.close()
                raise
        if self._held:
            return self._held.popleft()
        raise StopIteration

    def _read(self) -> None:
        while True:
            try:
                event = next(self._raw)
            except StopIteration:
                return self._ends()
            if self._takes(event):
                return None

    def close(self) -> None:
        self._over = True
        self._raw.close()


class AsyncPieces(_Reading):
    """As `Pieces`; what an attempt has given may have to be awaited, and may be no stream (an alternative's list)."""

    __slots__ = ("_desk", "_others")

    def __init__(self, desk: Desk, given: Any, rails: tuple[Any, ...]) -> None:
        super().__init__(given, rails)
        self._desk, self._others = desk, _NOT_YET

    def __aiter__(self) -> AsyncPieces:
        return self

    async def __anext__(self) -> Any:
        if self._others is _NOT_YET:
            await self._open()
        if self._others is not None:
            return await self._others.__anext__()
        if not self._held and not self._over:
            try:
                await self._read()
            except _sdk_errors.UNREADABLE as error:
                await self.aclose()
                raise self._malformed(f"the stream holds what is no JSON: {error}") from error
            except Exception:
                await self.aclose()
                raise
        if self._held:
            return self._held.popleft()
        raise StopAsyncIteration

    async def _open(self) -> None:
        if inspect.isawaitable(self._raw):
            self._raw = await self._raw
        if is_stream(self._raw) and hasattr(self._raw, "__anext__"):
            self._others = None
            self._listen()
            self._desk.reads(self._raw, self)
        else:
            self._others = self._raw if hasattr(self._raw, "__anext__") else several(self._raw)
            if self._screens is not None:
                self._others = AScreened(self._screens, self._others)

    async def _read(self) -> None:
        while True:
            try:
                event = await self._raw.__anext__()
            except StopAsyncIteration:
                return self._ends()
            if self._takes(event):
                return None

    async def aclose(self) -> None:
        self._over = True
        if self._others is _NOT_YET and inspect.iscoroutine(self._raw):
            self._raw.close()
        elif self._others is None or is_stream(self._raw):
            await self._raw.close()
        elif hasattr(self._others, "aclose"):
            await self._others.aclose()


_NOT_YET: Any = object()


class Desk:
    """Where one guarded call's streams are read, one attempt's after the other. The native driver asks it.

    Attributes:
        rails: the guardrails that its pieces have to pass.
        raw: the stream that is read, or was last.
        delivered: something of it was handed over.
    """

    def __init__(self, first: Any, rails: tuple[Any, ...] = ()) -> None:
        self.rails = rails
        self._kind: Any = type(first)
        self._is_async = hasattr(self._kind, "__anext__")
        self.raw = first
        self.delivered = False
        self._reading: _Reading | None = None

    def reads(self, raw: Any, reading: _Reading) -> None:
        self.raw, self._reading = raw, reading

    def open(self, given: Any, is_looked_at: bool = True) -> Any:
        """The pieces of what an attempt has given: a stream, or what an alternative gave in its place.

        Args:
            is_looked_at: whether guardrails look at them.
        """
        rails = self.rails if is_looked_at else ()
        if self._is_async:
            return AsyncPieces(self, given, rails)
        if is_stream(given):
            pieces = Pieces(given, rails)
            self.reads(given, pieces)
            return pieces
        if not hasattr(given, "__next__"):
            given = iter(given if isinstance(given, (list, tuple)) else (given,))
        return Screened(Screens(rails, is_call=True), given) if rails else given

    def wrap(self, pieces: Any) -> Any:
        """The guarded pieces as a stream of the first one's class."""
        # A stream that is guarded already has such a class.
        cls = (
            self._kind if issubclass(self._kind, _Front) else _guarded(self._kind, _AsyncGuarded if self._is_async else _Guarded)
        )
        stream = cls.__new__(cls)
        stream.__dict__.update(_seawall_desk=self, _seawall_pieces=pieces)
        return stream

    def fail(self, error: Exception) -> NoReturn:
        """Raises what the reader is told of a failure: after content was handed over, that the stream broke off."""
        if not self.delivered or isinstance(error, (StreamInterruptedError, OutputRefusedError)):
            raise error
        text = "" if self._reading is None else self._reading.text
        raise _sdk_errors.interrupted(_sdk_errors.sdk_of(type(self.raw)), self.raw.response, error, text) from error


@lru_cache(maxsize=64)
def _guarded(kind: type, front: type) -> Any:
    return type(kind.__name__, (front, kind), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})


class _Front:
    """Before the SDK's class: what iterates goes through the pipeline, all else is the current attempt's stream's."""

    _seawall_desk: Desk
    _seawall_pieces: Any

    def __getattr__(self, name: str) -> Any:
        desk = self.__dict__.get("_seawall_desk")
        if desk is None:
            raise AttributeError(name)
        return getattr(desk.raw, name)


class _Guarded(_Front):
    @property
    def response(self) -> Any:
        """The HTTP response of the current attempt."""
        return _Response(self)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        desk = self._seawall_desk
        try:
            piece = next(self._seawall_pieces)
        except StopIteration:
            raise
        except Exception as error:
            desk.fail(error)
        desk.delivered = True
        return piece

    def close(self) -> None:
        """Ends the request. Neutral: closing early says nothing of the server."""
        try:
            self._seawall_pieces.close()
        except ValueError:  # another thread is reading: as plain streams do, the response is closed under it
            self._seawall_desk.raw.close()


class _AsyncGuarded(_Front):
    @property
    def response(self) -> Any:
        """The HTTP response of the current attempt."""
        return _AsyncResponse(self)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        desk = self._seawall_desk
        try:
            piece = await self._seawall_pieces.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:
            desk.fail(error)
        desk.delivered = True
        return piece

    async def close(self) -> None:
        """Ends the request. Neutral: closing early says nothing of the server."""
        try:
            await self._seawall_pieces.aclose()
        except RuntimeError:  # another task is reading: as plain streams do, the response is closed under it
            await self._seawall_desk.raw.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self.close()


class _AnyResponse:
    """The response of a guarded stream, whichever attempt's that is. To close it is to close the stream: the SDKs'
    helpers close what they read by its response."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def __class__(self) -> Any:
        return type(self._stream._seawall_desk.raw.response)

    @__class__.setter
    def __class__(self, _: Any) -> None:
        raise TypeError("the class of a response is its own")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream._seawall_desk.raw.response, name)

    def __repr__(self) -> str:
        return repr(self._stream._seawall_desk.raw.response)


class _Response(_AnyResponse):
    def close(self) -> None:
        self._stream.close()


class _AsyncResponse(_AnyResponse):
    async def aclose(self) -> None:
        await self._stream.close()
