"""Guardrails of answers that come in items: texts, and the pieces that clients and models give. What is given out is what the whole
would have become."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from seawall import _texts
from seawall._pieces import Key, read
from seawall._seawall import Guardrails
from seawall._word import shown
from seawall.errors import ConfigurationTypeError, OutputRefusedError, OutputShapeError, StreamInterruptedError

if TYPE_CHECKING:
    from types import TracebackType

    from seawall._seawall import Filter


class _Open:
    """A text that is not over yet."""

    __slots__ = ("filter", "given", "raw", "template")

    def __init__(self, filter: Filter) -> None:
        self.filter = filter
        self.raw: list[str] = []
        self.given: list[str] = []
        # What gives an item with a further piece of it.
        self.template: Callable[[str], Any] = str


class Screen:
    """One set of rules, and one answer that comes in items.

    Attributes:
        rails: the rules.
        times: how much they have cut out.
    """

    def __init__(self, rails: Guardrails, *, is_call: bool) -> None:
        self.rails = rails
        self.times = 0
        self._is_call = is_call
        self._open: dict[Key, _Open] = {}
        self._said: dict[Any, list[str]] = {}
        self._fits = any(type(rule).__name__ == "Shape" for rule in rails.output)
        self._known: dict[str, str] = {}
        self._totals: dict[Key, str] = {}
        self._handed = ""

    @property
    def text(self) -> str:
        """What was given out of the answer's text, of the first if there are several."""
        return "".join(next(iter(self._said.values()), ()))

    def push(self, item: Any) -> list[Any]:
        """The items that may be given out once this one has come."""
        try:
            given = self._push(item)
        except OutputRefusedError as error:
            raise self._refusal(error) from error.__cause__
        self._handed = self.text
        return given

    def end(self) -> list[Any]:
        """There are no more; the rest of what may be given out."""
        try:
            rest = [item for key in list(self._open) for item in self._ends(key)]
            self._fit(list(self._said))
            return rest
        except OutputRefusedError as error:
            raise self._refusal(error) from error.__cause__

    def whole(self, value: Any) -> Any:
        """A value beside the items, as the rules leave it: what a generator returns. No shape is held against it."""
        texts = _texts.Texts()
        make = texts.read(value, "content" if isinstance(value, str) else "")
        clean = [self._clean(place, text) for place, text in texts.found]
        return value if clean == [text for _, text in texts.found] else make(iter(clean))

    def _refusal(self, error: OutputRefusedError) -> OutputRefusedError:
        error.partial = self._handed or None
        if self._is_call:
            error._seawall_screen = self.rails  # type: ignore[attr-defined]
        return error

    def _clean(self, place: str, text: str) -> str:
        if text not in self._known:
            (clean,), redacted, _ = self.rails._check("output", [(place, text)])
            self.times += sum(count for _, count in redacted)
            self._known[text] = clean
        return self._known[text]

    def _push(self, item: Any) -> list[Any]:
        if item is None or isinstance(item, (bool, int, float)):
            return [item]
        found = read(item)
        if found is None:
            raise ConfigurationTypeError(
                f"guardrails find no text in an item of a stream ({shown(item)}): they look at texts and at the pieces of clients, "
                "messages and models"
            )
        changed: dict[_texts.Path, Any] = {}
        for piece in found.pieces:
            if not piece.text:
                continue
            clean = self._goes_on(piece.key, piece.text)
            self._open[piece.key].template = functools.partial(found.with_only, item, piece.path)
            if clean != piece.text:
                changed[piece.path] = clean
        before: list[Any] = []
        for key in [key for key in self._open if found.is_end_of(key)]:
            path = next((piece.path for piece in found.pieces if piece.key == key and piece.text), None)
            if path is None:
                before += self._ends(key)
            elif rest := self._rest(key):
                changed[path] = changed.get(path, _texts.at(item, path)) + rest
        for key, path in found.totals:
            changed[path] = self._totals[key] if key in self._totals else self._clean(str(path[-1]), _texts.at(item, path))
        for path in found.wholes:
            held = _texts.at(item, path)
            if (clean := self.whole(held)) is not held:
                changed[path] = clean
        self._fit([group for group in self._said if found.is_over(group)])
        given = item
        if changed:
            is_bare = found.is_bare and not any(changed.get(piece.path, piece.text) for piece in found.pieces)
            given = None if is_bare else found.changed(item, changed)
        return before if given is None else [*before, given]

    def _goes_on(self, key: Key, text: str) -> str:
        known = self._open.get(key)
        if known is None:
            known = self._open[key] = _Open(self.rails._filter(key.place))
        clean = known.filter.push(text)
        known.raw.append(text)
        self._gives(key, known, clean)
        return clean

    def _gives(self, key: Key, known: _Open, text: str) -> None:
        known.given.append(text)
        if key.is_main:
            self._said.setdefault(key.group, []).append(text)

    def _rest(self, key: Key) -> str:
        """What was held back of a text that is over."""
        known = self._open.pop(key)
        rest = known.filter.end()
        self.times += known.filter.redacted()
        self._gives(key, known, rest)
        whole = self._totals[key] = "".join(known.given)
        self._known["".join(known.raw)] = whole
        return rest

    def _ends(self, key: Key) -> list[Any]:
        template = self._open[key].template
        rest = self._rest(key)
        return [template(rest)] if rest else []

    def _fit(self, groups: Iterable[Any]) -> None:
        """Holds what was said against its shape. What was given out cannot be mended any more."""
        for group in groups if self._fits else ():
            text = "".join(self._said.get(group, ()))
            if not text:
                continue
            mended, _, _, refused = self.rails._fit("content", text, 2**32 - 1, [])
            if refused is not None:
                raise refused[0]
            if mended is not None:
                rule = next(rule.name for rule in self.rails.output if type(rule).__name__ == "Shape")
                raise OutputShapeError(
                    f'the answer was refused by the guardrail "{rule}" (content): it is nearly JSON, and what was streamed cannot be '
                    "mended",
                    rule=rule,
                    place="content",
                    is_retryable=False,
                )
            self._said[group] = [text]


class Screens:
    """Several sets of rules, innermost first."""

    def __init__(self, rails: Iterable[Guardrails], *, is_call: bool) -> None:
        self._each = [Screen(one, is_call=is_call) for one in rails]

    @property
    def text(self) -> str:
        return self._each[-1].text

    def push(self, item: Any) -> list[Any]:
        items = [item]
        for screen in self._each:
            items = [given for each in items for given in screen.push(each)]
        return items

    def end(self) -> list[Any]:
        items: list[Any] = []
        for screen in self._each:
            items = [given for each in items for given in screen.push(each)] + screen.end()
        return items

    def whole(self, value: Any) -> Any:
        for screen in self._each:
            value = screen.whole(value)
        return value

    @property
    def changes(self) -> bool:
        """Whether there is any."""
        return bool(self._each)

    def times(self, rails: Guardrails) -> int:
        return sum(screen.times for screen in self._each if screen.rails is rails)


class _Restoring(Screens):
    """What puts back what was taken out of a question, which is known once the first item has come."""

    def __init__(self, held: list[tuple[str, str]]) -> None:
        self._held = held

    @functools.cached_property
    def _each(self) -> list[Screen]:  # type: ignore[override]
        return [Screen(Guardrails._restoring(self._held), is_call=False)] if self._held else []


class Screened:
    """The items of an iterator as guardrails leave them. What is sent and thrown reaches the iterator when it is asked next."""

    def __init__(self, screens: Screens, items: Any) -> None:
        self._screens = screens
        self._items = items
        self._run = _run(screens, items)
        self._is_begun = False

    def __iter__(self) -> Screened:
        return self

    def __next__(self) -> Any:
        self._is_begun = True
        return next(self._run)

    def send(self, value: Any) -> Any:
        return self._run.send(value)

    def throw(self, *thrown: Any) -> Any:
        return self._run.throw(*thrown)

    def close(self) -> None:
        self._run.close()
        if not self._is_begun:
            _close(self._items)

    def __enter__(self) -> Screened:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _seawall_times(self, rails: Guardrails) -> int:
        return self._screens.times(rails)


def _close(items: Any) -> None:
    if (close := getattr(items, "close", None)) is not None:
        close()


def _run(screens: Screens, items: Any) -> Any:
    ready: deque[Any] = deque()
    step: Callable[[], Any] = functools.partial(next, items)
    is_over, returned = False, None
    try:
        while True:
            while ready:
                try:
                    sent = yield ready.popleft()
                except GeneratorExit:
                    raise
                except BaseException as error:
                    if is_over or not hasattr(items, "throw"):
                        raise
                    step = functools.partial(items.throw, error)
                    break
                if sent is not None and not is_over:
                    step = functools.partial(items.send, sent)
            if is_over:
                return returned
            try:
                item = step()
            except StopIteration as end:
                is_over = True
                ready.extend(screens.end())
                returned = screens.whole(end.value)
                continue
            except StreamInterruptedError as error:
                error.partial = screens.text if screens.changes else error.partial
                raise
            step = functools.partial(next, items)
            ready.extend(screens.push(item))
    finally:
        if not is_over:
            _close(items)


class AScreened:
    """The same of an asynchronous iterator."""

    def __init__(self, screens: Screens, items: Any) -> None:
        self._screens = screens
        self._items = items
        self._run = _arun(screens, items)
        self._is_begun = False

    def __aiter__(self) -> AScreened:
        return self

    def __anext__(self) -> Any:
        self._is_begun = True
        return self._run.__anext__()

    def asend(self, value: Any) -> Any:
        return self._run.asend(value)

    def athrow(self, *thrown: Any) -> Any:
        return self._run.athrow(*thrown)

    async def aclose(self) -> None:
        await self._run.aclose()
        if not self._is_begun:
            await _aclose(self._items)

    async def __aenter__(self) -> AScreened:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _seawall_times(self, rails: Guardrails) -> int:
        return self._screens.times(rails)


async def _aclose(items: Any) -> None:
    if (close := getattr(items, "aclose", None)) is not None:
        await close()


# `_run` once more: an `await` cannot be left out where there is nothing to wait for. What is decided is in `Screens`, for both.
async def _arun(screens: Screens, items: Any) -> Any:
    ready: deque[Any] = deque()
    step: Callable[[], Any] = items.__anext__
    is_over = False
    try:
        while True:
            while ready:
                try:
                    sent = yield ready.popleft()
                except GeneratorExit:
                    raise
                except BaseException as error:
                    if is_over or not hasattr(items, "athrow"):
                        raise
                    step = functools.partial(items.athrow, error)
                    break
                if sent is not None and not is_over:
                    step = functools.partial(items.asend, sent)
            if is_over:
                return
            try:
                item = await step()
            except StopAsyncIteration:
                is_over = True
                ready.extend(screens.end())
                continue
            except StreamInterruptedError as error:
                error.partial = screens.text if screens.changes else error.partial
                raise
            step = items.__anext__
            ready.extend(screens.push(item))
    finally:
        if not is_over:
            await _aclose(items)


def screened(rails: Iterable[Guardrails], items: Any) -> Screened:
    """The items of a guarded call: a refusal is the business of the guardrails' place in its pipeline."""
    return Screened(Screens(rails, is_call=True), items)


def ascreened(rails: Iterable[Guardrails], items: Any) -> AScreened:
    """The same of an asynchronous iterator."""
    return AScreened(Screens(rails, is_call=True), items)


def restoring(held: list[tuple[str, str]], items: Any, is_async: bool) -> Any:
    """What hands out the items of a guarded call, with what will be in `held` put back into them."""
    return AScreened(_Restoring(held), items) if is_async else Screened(_Restoring(held), items)


def stream(rails: Guardrails, pieces: Iterable[Any]) -> Iterator[Any]:
    """`Guardrails.stream`."""
    if isinstance(pieces, str) or not hasattr(pieces, "__iter__"):
        raise ConfigurationTypeError(f"guardrails.stream takes the texts of an iterator, not {shown(pieces)}")
    return Screened(Screens([rails], is_call=False), iter(pieces))


def astream(rails: Guardrails, pieces: Any) -> AsyncIterator[Any]:
    """`Guardrails.astream`."""
    if not hasattr(pieces, "__aiter__"):
        raise ConfigurationTypeError(f"guardrails.astream takes the texts of an asynchronous iterator, not {shown(pieces)}")
    return AScreened(Screens([rails], is_call=False), pieces.__aiter__())
