"""What may stand in for an SDK's client: other clients of the same API, functions, answers and texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from seawall import _sdk_answers, _sdk_errors, _sdk_stream
from seawall._guarded import kind
from seawall._sdk_request import Asked, guarded_class, is_async, is_client
from seawall._word import shown
from seawall.errors import ConfigurationTypeError

_MAY_BE = "another client of the same SDK, a function of the request's body, an answer as the SDK gives it, or a text"


def alternative(place: int, given: Any, client: Any) -> Any:
    """An alternative as a `Fallback` around requests of `client` takes it.

    Raises:
        ConfigurationTypeError: for what cannot stand in.
    """
    if isinstance(given, (Client, Function, Answer)):
        return given
    if is_client(given):
        return Client(place, given, client)
    is_runnable = hasattr(given, "ainvoke")  # and a pydantic model, mostly, as answers are
    if isinstance(given, str) or (_sdk_answers.is_model(type(given)) and not is_runnable):
        return Answer(place, given)
    if isinstance(given, type) or not callable(given) or is_runnable:
        raise ConfigurationTypeError(f"fallback {place} must be {_MAY_BE}, not {shown(given)}")
    if kind(given) == "coroutine" and not is_async(client):
        raise ConfigurationTypeError(
            f"fallback {place} is asynchronous and {type(client).__name__} is not: nobody could await it"
        )
    return Function(place, given)


class Client:
    """Sends the same request to another endpoint, or with another key."""

    def __init__(self, place: int, other: Any, client: Any) -> None:
        if _sdk_errors.sdk_of(type(other)) is not _sdk_errors.sdk_of(type(client)) or is_async(other) != is_async(client):
            raise ConfigurationTypeError(
                f"fallback {place} is a {type(other).__name__}, which cannot send what a {type(client).__name__} was asked: "
                "the SDK must be the same, and both synchronous or both asynchronous"
            )
        # One with policies of its own keeps them; any other tries once.
        cls: Any = type(other)
        self.client = other if hasattr(other, "_seawall_guard") else guarded_class(cls).made_of(other, None)
        self._seawall_same_place = (other.base_url, other.api_key) == (client.base_url, client.api_key)

    def __call__(self, asked: Asked) -> Any:
        return self.client.request(asked.cast_to, asked.options_for_another(), *asked.more, **asked.how)

    def __repr__(self) -> str:
        # Of the URL only what says where: a user's name, a password or a key in its query go into no log.
        url = self.client.base_url
        return f"{type(self.client).__name__}({url.scheme}://{url.netloc.decode('ascii')}{url.path})"


class Answer:
    """An answer that is there already: a text, or an object of the SDK's."""

    # By its author: no guardrails look at it.
    _seawall_is_written = True

    def __init__(self, place: int, answer: Any) -> None:
        self._place, self._answer = place, answer

    def __call__(self, asked: Asked) -> Any:
        return fitting(self._place, self._answer, asked)

    def __repr__(self) -> str:
        return f"<answer of type {type(self._answer).__name__}>"


class Function:
    """Called with the request's body as keyword arguments: what the caller gave to `create`."""

    def __init__(self, place: int, function: Callable[..., Any]) -> None:
        self._place, self._function = place, function

    def __call__(self, asked: Asked) -> Any:
        body = asked.options.json_data
        if not isinstance(body, Mapping):
            raise ConfigurationTypeError(f"fallback {self._place} is a function of a body, which {asked} does not have")
        # `create` knows the SDK's parameters and no others.
        extra = getattr(asked.options, "extra_json", None)
        given = self._function(**body, **({"extra_body": extra} if extra else {}))
        if inspect.isawaitable(given):
            return self._later(given, asked)
        return fitting(self._place, given, asked)

    async def _later(self, given: Any, asked: Asked) -> Any:
        found = fitting(self._place, await given, asked)
        return await found if inspect.isawaitable(found) else found

    def __repr__(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))


def fitting(place: int, answer: Any, asked: Asked) -> Any:
    """The answer, if it is one to what was asked; of an asynchronous client perhaps something to await.

    Raises:
        ConfigurationTypeError: it is none: another's in its place would be a silent wrong answer.
    """
    if isinstance(answer, str) and _sdk_answers.is_model(asked.cast_to):
        sent = _sdk_answers.of_text(answer, asked.kind, asked.stream_cls if asked.stream else None)
        if sent is not None:
            return asked.received(*sent)
    elif asked.wants_response:
        pass
    elif asked.stream:
        if _sdk_stream.is_stream(answer):
            return answer
    elif isinstance(asked.kind, type) and isinstance(answer, asked.kind):
        return asked.parsed(answer)
    raise ConfigurationTypeError(f"fallback {place} gave {type(answer).__name__}, which is no answer to {asked}")
