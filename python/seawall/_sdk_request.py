"""Clients of SDKs whose requests go through a pipeline: the one method through which all of their resources ask.

Openai's, anthropic's and the other SDKs made by the same generator (groq's, together's …) are recognised by the names of
their base classes; none is imported.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, get_origin

from seawall import _sdk_answers, _sdk_errors
from seawall._seawall import Fallback, Pipeline, Retry, remaining
from seawall.errors import ConfigurationError

_BASES = ("SyncAPIClient", "AsyncAPIClient")
_RAW = "x-stainless-raw-response"
_RETRY_COUNT = "x-stainless-retry-count"
# What a client must have for its requests to be guarded.
_HOOKS = ("request", "copy", "_process_response")


def is_client(value: Any) -> bool:
    """Whether it is a client of such an SDK."""
    kind = type(value)
    return any(cls.__name__ in _BASES for cls in kind.__mro__) and all(hasattr(kind, name) for name in _HOOKS)


def is_async(client: Any) -> bool:
    """Whether its requests are awaited."""
    return _is_async(type(client))


def _is_async(kind: type) -> bool:
    return any(cls.__name__ == "AsyncAPIClient" for cls in kind.__mro__)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def tighter(timeout: Any, left: float) -> Any:
    """An SDK's timeout, seconds or its configuration class, with no part of it longer than what is left."""
    if timeout is None:
        return left
    if _is_number(timeout):
        return min(timeout, left)
    return type(timeout)(**{part: tighter(getattr(timeout, part), left) for part in ("connect", "read", "write", "pool")})


class _Body:
    """What a request sends, and whether it can be sent again."""

    def __init__(self, options: Any) -> None:
        self._places: list[tuple[Any, int]] = []
        parts = [getattr(options, "content", None), *_contents(getattr(options, "files", None))]
        self.can_repeat = all(self._is_fixed(part) for part in parts)

    def _is_fixed(self, part: Any) -> bool:
        if part is None or isinstance(part, (bytes, bytearray, str)):
            return True
        if not hasattr(part, "read"):
            return type(part) in (list, tuple) or isinstance(part, Mapping) or hasattr(part, "__fspath__")
        try:
            if not part.seekable():
                return False
            self._places.append((part, part.tell()))
        except Exception:  # a foreign file may do anything
            return False
        return True

    def rewind(self) -> None:
        for part, place in self._places:
            part.seek(place)


def _contents(files: Any) -> Iterator[Any]:
    for entry in files.items() if isinstance(files, Mapping) else files or ():
        file = entry[1]
        yield file[1] if isinstance(file, tuple) and len(file) > 1 else file


class Asked:
    """One call of the client: what its attempts send."""

    _seawall_is_request = True

    def __init__(self, client: Any, cast_to: Any, options: Any, more: tuple[Any, ...], how: dict[str, Any]) -> None:
        self.client, self.cast_to, self.more, self.how = client, cast_to, more, how
        self.options = copy.copy(options)
        if _is_number(self.options.max_retries) and self.options.max_retries != 0:
            raise ConfigurationError(_no_retries(self.options.max_retries))
        if getattr(self.options, "idempotency_key", None) is None and str(self.options.method).lower() != "get":
            self.options.idempotency_key = client._idempotency_key()
        self.body = _Body(self.options)
        self._sent = 0

    def __str__(self) -> str:
        return f"{str(self.options.method).upper()} {self.options.url}{' as a stream' if self.stream else ''}"

    @property
    def stream(self) -> bool:
        return bool(self.how.get("stream"))

    @property
    def stream_cls(self) -> Any:
        return self.how.get("stream_cls")

    @property
    def kind(self) -> Any:
        """The class of the answer."""
        return get_origin(self.cast_to) or self.cast_to

    @property
    def headers(self) -> dict[str, Any]:
        headers = self.options.headers
        return {str(name): value for name, value in headers.items()} if isinstance(headers, Mapping) else {}

    @property
    def wants_response(self) -> bool:
        """Whether the caller asked for the HTTP response around the answer."""
        return any(name.lower() == _RAW for name in self.headers)

    @property
    def reads_itself(self) -> bool:
        """Whether the caller reads the body of the answer by itself."""
        raw = next((value for name, value in self.headers.items() if name.lower() == _RAW), None)
        return raw is not None and (self.stream or raw == "stream")

    @property
    def transport(self) -> Any:
        """The package that carries the client's requests."""
        return _transport(self.client)

    def with_bodies(self, bodies: Mapping[str, Any], *, anew: bool = False) -> Asked:
        """The same with other bodies; `anew`: as a request of its own to the server, and not the first one once more."""
        made = copy.copy(self)
        made.options = copy.copy(self.options)
        for part, body in bodies.items():
            setattr(made.options, part, body)
        if anew and getattr(made.options, "idempotency_key", None) is not None:
            made.options.idempotency_key = self.client._idempotency_key()
        return made

    def parsed(self, answer: Any) -> Any:
        """An alternative's answer, as the SDK would have parsed it (`.parse()` and its like)."""
        parser = self.options.post_parser
        return parser(answer) if callable(parser) else answer

    def received(self, content_type: str, body: bytes) -> Any:
        """What the SDK makes of a body as if the server had sent it."""
        transport = self.transport
        headers = {name: value for name, value in self.headers.items() if isinstance(value, str)}  # not what is left out
        request = transport.Request(self.options.method, self.client._prepare_url(str(self.options.url)), headers=headers)
        response = transport.Response(200, headers={"content-type": content_type}, content=body, request=request)
        more = {name: value for name, value in self.how.items() if name == "stream_cls"}
        return self.client._process_response(
            cast_to=self.cast_to,
            options=copy.copy(self.options),
            response=response,
            stream=self.stream,
            **{"stream_cls": None, **more},
        )

    def _within(self, options: Any) -> Any:
        left = remaining()
        if left is not None:
            timeout = options.timeout
            known = timeout is None or _is_number(timeout) or hasattr(timeout, "connect")
            # Zero is refused by some transports; the machine sees that nothing is left.
            options.timeout = tighter(timeout if known else self.client.timeout, max(left, 0.001))
        return options

    def options_for_another(self) -> Any:
        """The options as another client is asked with them: limits of time are between it and the calls around it."""
        self.body.rewind()
        return copy.copy(self.options)

    def next_options(self) -> Any:
        """The options of the next attempt."""
        options = copy.copy(self.options)
        options.max_retries = 0
        if self._sent:
            self.body.rewind()
            if not any(name.lower() == _RETRY_COUNT for name in self.headers):
                options.headers = {**self.headers, _RETRY_COUNT: str(self._sent)}
        self._sent += 1
        return self._within(options)

    def new_credentials(self, error: Exception) -> bool:
        """Whether a refused token of the SDK's own cache was thrown away, so that the request is worth sending once more.

        The SDK does this where it retries, and its retries are off.
        """
        if getattr(error, "status_code", None) != 401 or getattr(self.client, "_token_cache", None) is None:
            return False
        return self.body.can_repeat and bool(self.client._should_retry(error.response))  # type: ignore[attr-defined]


def _transport(client: Any) -> Any:
    """The package that carries a client's requests: httpx or its successor."""
    for cls in type(client._client).__mro__:
        module = sys.modules.get(cls.__module__.partition(".")[0])
        if hasattr(module, "Response") and hasattr(module, "Request"):
            return module
    raise ConfigurationError(f"the transport of {type(client).__name__} is not known")


def _no_retries(given: Any) -> str:
    return (
        f"max_retries must be 0 on a guarded client, not {given}: the SDK would retry inside each attempt of the pipeline. "
        f"Say seawall.resilient(client, retry={given + 1}), the number of all attempts"
    )


class Guard:
    """A pipeline around a client's requests, shared by the client's copies."""

    def __init__(self, pipeline: Pipeline, name: str, is_async: bool) -> None:
        self.pipeline = pipeline
        self._name, self._is_async = name, is_async
        self.run = self._around(pipeline)
        self._once: Callable[[Asked], Any] | None = None

    def _around(self, pipeline: Pipeline) -> Callable[[Asked], Any]:
        def request(asked: Asked) -> Any:
            try:
                return asked.client._seawall_send(asked)
            except Exception as error:
                if not asked.new_credentials(error):
                    raise
            return asked.client._seawall_send(asked)

        async def arequest(asked: Asked) -> Any:
            try:
                return await asked.client._seawall_send(asked)
            except Exception as error:
                if not asked.new_credentials(error):
                    raise
            return await asked.client._seawall_send(asked)

        function: Any = arequest if self._is_async else request
        function.__qualname__ = self._name
        guarded: Callable[[Asked], Any] = pipeline(function)
        return guarded

    def __call__(self, asked: Asked) -> Any:
        if asked.body.can_repeat:
            return self.run(asked)
        if self._once is None:
            # A body that is gone once it was sent: a second request would send less, and might be answered.
            policies = [each for each in self.pipeline.policies if not isinstance(each, (Retry, Fallback))]
            self._once = self._around(Pipeline(*policies, name=self.pipeline.name, monitor=self.pipeline.monitor))
        return self._once(asked)


class _Guarded:
    """What a guarded client has in place of its class's own. Copied into a subclass that adds nothing else, for only such
    a class may an object of the SDK's be given in place of its own.
    """

    _seawall_guard: Guard | None
    _seawall_plain: ClassVar[Any]

    @classmethod
    def made_of(cls, client: Any, guard: Guard | None, **options: Any) -> Any:
        """A copy of a client, made as the client's own class makes one, whose requests are guarded."""
        made = cls._seawall_plain.copy(client, max_retries=0, **options)
        made.__class__ = cls
        made._seawall_guard = guard
        return made

    def copy(self, *, max_retries: Any = 0, **options: Any) -> Any:
        """A copy with other options, guarded by the same pipeline.

        Raises:
            ConfigurationError: for `max_retries` other than 0: retries are the pipeline's.
        """
        if _is_number(max_retries) and max_retries != 0:
            raise ConfigurationError(_no_retries(max_retries))
        # Some SDKs look at the class itself, and a subclass is not it.
        plain = object.__new__(self._seawall_plain)
        plain.__dict__.update(vars(self))
        return self.made_of(plain, self._seawall_guard, **options)

    with_options = copy

    @property
    def pipeline(self) -> Pipeline | None:
        """The policies around each request."""
        return None if self._seawall_guard is None else self._seawall_guard.pipeline

    def _seawall_checks(self, options: Any, cast_to: Any, response: Any, stream: bool) -> None:
        """Has the answer looked at before the SDK's own parsers see it."""
        if getattr(response, "status_code", 200) >= 400:
            return  # on its way through a middleware: the SDK makes an error of it
        parser, sdk = options.post_parser, _sdk_errors.sdk_of(type(self))

        def checked(answer: Any) -> Any:
            if not stream:
                _sdk_answers.check(answer, options, cast_to, response, sdk)
            return parser(answer) if callable(parser) else answer

        options.post_parser = checked

    def _seawall_unreadable(self, error: Exception, response: Any) -> Exception:
        return _sdk_errors.malformed(_sdk_errors.sdk_of(type(self)), response, f"the answer is no JSON: {error}")


def _is_read(result: Any, response: Any, stream: bool) -> bool:
    """Whether it is a response around an answer that has been received as a whole."""
    is_answer = not stream and getattr(response, "status_code", 200) < 400
    return is_answer and hasattr(result, "http_response") and getattr(response, "is_closed", False) and hasattr(result, "parse")


class _SyncGuarded(_Guarded):
    def request(self, cast_to: Any, options: Any, *more: Any, **how: Any) -> Any:
        asked = Asked(self, cast_to, options, more, how)
        return self._seawall_send(asked) if self._seawall_guard is None else self._seawall_guard(asked)

    def _seawall_send(self, asked: Asked) -> Any:
        return self._seawall_plain.request(self, asked.cast_to, asked.next_options(), *asked.more, **asked.how)

    def _process_response(self, *, cast_to: Any, options: Any, response: Any, stream: bool, **more: Any) -> Any:
        self._seawall_checks(options, cast_to, response, stream)
        try:
            result = self._seawall_plain._process_response(
                self, cast_to=cast_to, options=options, response=response, stream=stream, **more
            )
            if _is_read(result, response, stream):
                result.parse()
        except _sdk_errors.UNREADABLE as error:
            raise self._seawall_unreadable(error, response) from error
        return result


class _AsyncGuarded(_Guarded):
    async def request(self, cast_to: Any, options: Any, *more: Any, **how: Any) -> Any:
        asked = Asked(self, cast_to, options, more, how)
        return await (self._seawall_send(asked) if self._seawall_guard is None else self._seawall_guard(asked))

    async def _seawall_send(self, asked: Asked) -> Any:
        return await self._seawall_plain.request(self, asked.cast_to, asked.next_options(), *asked.more, **asked.how)

    async def _process_response(self, *, cast_to: Any, options: Any, response: Any, stream: bool, **more: Any) -> Any:
        self._seawall_checks(options, cast_to, response, stream)
        try:
            result = await self._seawall_plain._process_response(
                self, cast_to=cast_to, options=options, response=response, stream=stream, **more
            )
            if _is_read(result, response, stream):
                parsed = result.parse()
                if inspect.isawaitable(parsed):
                    await parsed
        except _sdk_errors.UNREADABLE as error:
            raise self._seawall_unreadable(error, response) from error
        return result


@lru_cache(maxsize=64)
def guarded_class(kind: type) -> Any:
    """The subclass of a client's class whose instances are guarded."""
    front = _AsyncGuarded if _is_async(kind) else _SyncGuarded
    names = {name: value for cls in (_Guarded, front) for name, value in vars(cls).items() if not name.startswith("__")}
    names |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__, "_seawall_plain": kind}
    return type(kind.__name__, (kind,), names)
