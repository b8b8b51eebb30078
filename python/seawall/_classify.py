"""What kind of failure an exception is, and what follows for retry and fallback.

One table decides (`_known_errors.CLASSES`); exceptions of other packages are recognised by name, status and code, without
importing those packages. `register_classifier` puts a function of the user's before or after it.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from seawall import _response, _seawall
from seawall._known_errors import (
    AWS_CODES,
    CLASSES,
    CODES,
    GRPC_CODES,
    KNOWN,
    LIMIT_TEXTS,
    NARROW,
    REFUSAL_TEXTS,
    Known,
    of_status,
)
from seawall._word import called, shown
from seawall.errors import CircuitBreakerError, ConfigurationError, ConfigurationTypeError, OutputRefusedError, Rejected

Classifier = Callable[[BaseException], "str | None"]
_C = TypeVar("_C", bound=Classifier)

_log = logging.getLogger("seawall")
_changing = threading.Lock()
_first: tuple[Classifier, ...] = ()
_last: tuple[Classifier, ...] = ()

# A plain OSError with one of these is a network that could not be reached; any other is the user's own (a file, a pipe).
_NETWORK_ERRNO = frozenset(
    number
    for number in (
        getattr(errno, name, None)
        for name in ("ENETUNREACH", "ENETDOWN", "ENETRESET", "EHOSTUNREACH", "EHOSTDOWN", "ENOTCONN", "EADDRNOTAVAIL")
    )
    if number is not None
)
_UNKNOWN = Known(None, "status")
# What was found out about each type met. Bounded: botocore makes exception classes at run time.
_seen: dict[type[BaseException], Known] = {}


def classify(exc: BaseException) -> str:
    """The failure class of an exception.

    Args:
        exc: any exception; nothing is imported, read from a socket or changed to look at it.

    Returns:
        One of `transient`, `rate_limited`, `quota`, `permanent`, `auth`, `not_found`, `context_window`,
        `content_filter`, `malformed`, `unknown`.

    Raises:
        ConfigurationError: if a registered classifier returns anything else than one of these names or `None`, or `exc` is no
            exception.
    """
    if not isinstance(exc, BaseException):
        raise ConfigurationTypeError(f"classify looks at an exception that was raised, not at {shown(exc)}")
    if _first:
        found = _ask(_first, exc)
        if found is not None:
            return found
    try:
        failure = _look(exc)
    except Exception:  # an exception whose attributes raise is no reason to lose that exception
        failure = "unknown"
    if _last and failure == "unknown":
        return _ask(_last, exc) or failure
    return failure


# Whatever `_response` and `_look` read of an exception; a type without these says all there is to say.
_TELLING = (
    "body", "code", "details", "error_code", "exceptions", "headers", "http_status", "is_retryable", "response", "status",
    "status_code", "type",
)  # fmt: skip


def bare(kind: type[BaseException]) -> str | None:
    """The failure class of every exception of that type that has no attributes of its own, if the type alone decides."""
    known = _known(kind)
    if issubclass(kind, Rejected) or known.look not in ("", "status") or (known.look == "status" and known is not _UNKNOWN):
        return None
    if any(hasattr(kind, name) for name in _TELLING) or "__getattr__" in dir(kind):
        return None
    return known.failure or "unknown"


def is_control_flow(kind: type[BaseException]) -> bool:
    """Whether exceptions of that type are on their way to somebody further out, and no outcome of the call that they pass."""
    return _known(kind).look == "control"


def transient(exc: BaseException) -> bool:
    """Whether trying again after the exception `exc` may help: true for `transient`, `rate_limited` and `malformed` failures."""
    return CLASSES[classify(exc)].retry is True


def retry_after(exc: BaseException) -> float | None:
    """Seconds that the server, or the policy that refused the call, asked to wait: for a `Retry-After` of your own.

    Args:
        exc: any exception, of whatever client.

    Returns:
        What an open circuit or a limit says, or the headers of the exception or of its response: `retry-after-ms`, then
        `retry-after` as seconds or as an HTTP date. `None` where there is none, or where it is malformed, infinite, zero or in
        the past.
    """
    if issubclass(type(exc), Rejected):
        wait: float | None = _response.get(exc, "retry_after")
        return wait if wait is not None and 0 < wait < float("inf") else None
    return _response.retry_after(exc)


def should_retry_header(exc: BaseException) -> bool | None:
    """What the server said in `x-should-retry`: true, false, or `None` if it did not say."""
    value = _response.header(exc, "x-should-retry")[0]
    return {"true": True, "false": False}.get(value.strip().lower()) if value else None


def row_of_class(kind: type[BaseException]) -> str | None:
    """The failure class that an exception *type* alone means, `None` for broad ones (`Exception`, `APIError`, `OSError` …)."""
    known = _known(kind)
    if known.failure is not None or known.look == "grpc":
        return known.failure
    for name in ("status_code", "code")[: 2 if known.look == "code" else 1]:
        status = _response.get(kind, name)
        if isinstance(status, int) and 400 <= status <= 599:
            return of_status(status)
    return None


def wants_retry(exc: BaseException, listed: tuple[type[BaseException], ...] | None = None) -> bool:
    """Whether Retry tries again after this exception.

    Args:
        exc: what the attempt raised.
        listed: the exception types that the user listed; `None` for the default, `seawall.transient`.

    An error of a class that is not retried stays so when a broad type was listed (`Exception`, `APIError`); it is retried only
    if a matching type that was listed is itself of such a class (`AuthenticationError`). The server's `x-should-retry`
    decides over both.
    """
    matching = None if listed is None else [kind for kind in listed if issubclass(type(exc), kind)]
    if matching == []:
        return False
    if issubclass(type(exc), CircuitBreakerError):
        # An open circuit somewhere inside is final, unless its refusals were listed as such.
        return matching is not None and any(issubclass(kind, Rejected) for kind in matching)
    if issubclass(type(exc), OutputRefusedError) and "is_retryable" in vars(
        exc
    ):  # as its shape says, which knows how often it asked
        return bool(vars(exc)["is_retryable"])
    said = should_retry_header(exc)
    if said is not None:
        return said
    failure = classify(exc)
    retry = CLASSES[failure].retry
    if retry is True or matching is None:
        return retry is True
    if retry is None:
        return _response.get(exc, "is_retryable") is not False or type(exc) in matching
    return _named(matching)


def wants_fallback(
    exc: BaseException, listed: tuple[type[BaseException], ...] | None = None
) -> bool | Literal["other_credentials"]:
    """Whether Fallback tries an alternative after this exception.

    Args:
        exc: what the primary raised.
        listed: the exception types to handle; `None` for all.

    Returns:
        True for any alternative, False for none, ``"other_credentials"`` for only those with other credentials or another
        endpoint. Listing a type that is itself of a class without fallback (`BadRequestError`) asks for one.
    """
    matching = None if listed is None else [kind for kind in listed if issubclass(type(exc), kind)]
    if matching == []:
        return False
    fallback = CLASSES[classify(exc)].fallback
    return True if fallback is True or (matching is not None and _named(matching)) else fallback


def counts_for_breaker(exc: BaseException) -> bool:
    """Whether the breakers of guards and models count this exception: it tells of a broken callee, not of a wrong request."""
    return CLASSES[classify(exc)].breaker


def names_no_retry(kind: type[BaseException]) -> bool:
    """Whether a type is itself of a class that is not retried: listing it asks for retries by name."""
    return _named([kind])


def register_classifier(fn: _C, *, first: bool = True) -> _C:
    """Let a function of yours say what kind of failure an exception is. Usable as a decorator.

    Args:
        fn: called with each exception that a policy judges; returns a class's name, or `None` if it does not know it. It
            may be called from any thread. An error that it raises is logged and counts as `None`.
        first: asked before seawall's own table; with `False`, only for what that table calls `unknown`.

    Returns:
        `fn`, for `unregister_classifier`.

    Raises:
        ConfigurationError: if `fn` is no function of an exception.
    """
    global _first, _last
    if isinstance(fn, type):
        raise ConfigurationTypeError(f"register_classifier: fn must be a function of the exception, not the class {fn.__name__}")
    called("register_classifier: fn", fn)
    if not isinstance(first, bool):
        raise ConfigurationTypeError(f"register_classifier: first must be True or False, not {shown(first)}")
    with _changing:
        if first:
            _first = (fn, *_first)
        else:
            _last = (*_last, fn)
        _seawall.ask_always(True)
    return fn


def unregister_classifier(fn: Classifier) -> None:
    """Take back `register_classifier(fn)`.

    Raises:
        ConfigurationError: if `fn` is not registered.
    """
    global _first, _last
    with _changing:
        if fn not in _first and fn not in _last:
            raise ConfigurationError(f"unregister_classifier: {shown(fn)} is not registered")
        _first = tuple(other for other in _first if other != fn)
        _last = tuple(other for other in _last if other != fn)
        _seawall.ask_always(bool(_first or _last))


def _ask(classifiers: tuple[Classifier, ...], exc: BaseException) -> str | None:
    for fn in classifiers:
        try:
            found = fn(exc)
        except Exception:
            _log.exception("seawall: classifier %r failed on a %s; it was passed over", fn, type(exc).__name__)
            continue
        if found is None:
            continue
        if not isinstance(found, str) or found not in CLASSES:
            raise ConfigurationError(
                f"classifier {fn!r} returned {found!r} for a {type(exc).__name__}; it may return None or one of {', '.join(CLASSES)}"
            ) from exc
        return found
    return None


def _named(matching: list[type[BaseException]]) -> bool:
    rows = (row_of_class(kind) for kind in matching)
    return any(row is not None and CLASSES[row].retry is False for row in rows)


def _known(kind: type[BaseException]) -> Known:
    known = _seen.get(kind)
    if known is None:
        if len(_seen) >= 1024:
            _seen.clear()
        known = _seen[kind] = _by_name(kind)
    return known


def _by_name(kind: type[BaseException]) -> Known:
    best, at = _UNKNOWN, kind
    for cls in kind.__mro__:
        module = cls.__module__
        hit = KNOWN.get((module.partition(".")[0], cls.__name__)) if isinstance(module, str) else None
        if hit is None:
            continue
        if hit.failure in NARROW and (best.failure is None or not issubclass(at, cls)):
            return hit
        # A broad class gives way to one beside it (APIError to ModelTimeoutError), never to its own base.
        if best is _UNKNOWN or (best.failure is None and hit.failure is not None and not issubclass(at, cls)):
            best, at = hit, cls
    return best


def _look(exc: BaseException) -> str:
    known = _known(type(exc))
    failure, look = known
    if look in ("", "control"):
        return failure or "unknown"
    if look == "errno":
        return "transient" if _response.get(exc, "errno") in _NETWORK_ERRNO else "unknown"
    if look == "certificate":
        return "permanent" if _certificate(exc) else failure or "transient"
    if look == "http":
        status = _response.status(exc)
        return of_status(status) if status is not None and status >= 400 else failure or "unknown"
    if look == "group":
        return _group(_response.get(exc, "exceptions") or ())
    if look == "grpc":
        code = _response.get(exc, "code")
        return GRPC_CODES.get(str(_response.get(code() if callable(code) else code, "name")), "unknown")
    return _answered(exc, known)


def _answered(exc: BaseException, known: Known) -> str:
    """The failure class of an error that a server sent: by its code where that says more than its status."""
    body = _response.body(exc)
    error = _response.error_object(body)
    codes = list(_response.codes(exc, error))
    if known.look == "aws":
        for code in codes:
            if code in AWS_CODES:
                return AWS_CODES[code]
    status = _response.status(exc, code=known.look == "code")
    if status is None or status < 400:
        # An error object inside a stream that began with 200 has its status, if any, as a code.
        status = next((int(code) for code in codes if code.isdecimal() and 400 <= int(code[:4]) <= 599), None)
    meant = [CODES[code.lower()] for code in codes if code.lower() in CODES]
    narrow = next((failure for failure in meant if failure in NARROW), None)
    if narrow is not None:
        return narrow
    if status is None:
        if meant:
            return meant[0]
        if known.look == "model":
            return "transient" if _response.get(exc, "is_retryable") is True else "unknown"
        # An API's own error with a body but nothing in it that we know: the server failed on the way.
        broad_answer = known is not _UNKNOWN and known.failure is None and bool(body)
        return known.failure or ("transient" if broad_answer else "unknown")
    if status in (400, 413, 422):
        said = next((failure for failure in meant if failure in ("auth", "not_found")), None)
        return said or _by_text(exc, body, REFUSAL_TEXTS) or "permanent"
    if status == 429:
        return _by_text(exc, body, LIMIT_TEXTS) or "rate_limited"
    return of_status(status)


def _by_text(exc: BaseException, body: Any, texts: tuple[tuple[str, str], ...]) -> str | None:
    text = _response.text(exc, body)
    return next((failure for words, failure in texts if words in text), None)


def _certificate(exc: BaseException) -> bool:
    """Whether a certificate that was not accepted is behind a connection error; another try would meet the same one.

    It is a cause, or only in the text: requests and urllib repeat the text of what they wrap.
    """
    todo: list[Any] = [exc]
    seen: set[int] = set()
    while todo and len(seen) < 16:
        inner = todo.pop()
        if not isinstance(inner, BaseException) or id(inner) in seen:
            continue
        seen.add(id(inner))
        if any(cls.__name__ == "SSLCertVerificationError" for cls in type(inner).__mro__):
            return True
        words = str(inner)
        if "CERTIFICATE_VERIFY_FAILED" in words or "invalid peer certificate" in words:
            return True
        todo += (inner.__cause__, inner.__context__)
    return False


def _group(leaves: tuple[BaseException, ...]) -> str:
    """A group is as bad as its worst member: one that is not retried, else one that is unknown, else the first."""
    found = [classify(leaf) for leaf in leaves]
    for verdict in (False, None):
        worst = next((failure for failure in found if CLASSES[failure].retry is verdict), None)
        if worst is not None:
            return worst
    return found[0] if found else "unknown"
