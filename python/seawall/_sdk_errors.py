"""Errors about what an SDK received without an error of its own: seawall's by name, and the SDK's for those who catch that."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

from seawall import errors

# What an SDK lets through of a body or an event that it could not read.
UNREADABLE = (json.JSONDecodeError, UnicodeDecodeError)


def sdk_of(kind: type) -> ModuleType | None:
    """The SDK that a class of its own, or a subclass of one, comes from: the module with its `APIError`."""
    for cls in kind.__mro__:
        module = sys.modules.get(cls.__module__.partition(".")[0])
        if isinstance(getattr(module, "APIError", None), type) and module is not sys.modules["seawall"]:
            return module
    return None


@lru_cache(maxsize=64)
def _both(ours: type[errors.APIError], theirs: type[Exception] | None) -> type[errors.APIError]:
    if theirs is None:
        return ours

    def as_ours(error: errors.APIError) -> Any:
        # Who loads it may not have the SDK, and its errors hold the request: it travels as ours.
        plain = ours(str(error))
        plain.__dict__.update({name: value for name, value in vars(error).items() if name != "request"})
        plain.__cause__ = error.__cause__
        return plain.__reduce__()

    return type(ours.__name__, (ours, theirs), {"__module__": ours.__module__, "__doc__": ours.__doc__, "__reduce__": as_ours})


def _made(kind: type[errors.APIError], sdk: ModuleType | None, message: str, response: Any, **details: Any) -> Exception:
    headers = getattr(response, "headers", None)
    if headers is not None:
        details |= {"headers": dict(headers), "request_id": headers.get("x-request-id") or headers.get("request-id")}
    plain = kind(message, **details)
    classes: Any = (kind, sdk.APIError if sdk is not None else None)
    both = _both(*classes)
    # Past the constructors: the two trees' want different arguments.
    error: errors.APIError = both.__new__(both, message)
    error.__dict__.update(vars(plain))
    if both is not kind:
        error.__dict__["request"] = getattr(response, "request", None)
    return error


def malformed(sdk: ModuleType | None, response: Any, message: str, body: object = None) -> Exception:
    """A good status with an answer that cannot be used."""
    return _made(errors.MalformedResponseError, sdk, message, response, body=body)


def interrupted(sdk: ModuleType | None, response: Any, cause: Exception, partial: str) -> Exception:
    """A stream that broke off after content was handed over; to be raised from its cause."""
    return _made(errors.StreamInterruptedError, sdk, f"the stream broke off: {cause}", response, partial=partial)


def failed(sdk: ModuleType | None, response: Any, body: Any) -> Exception:
    """An error object that came with a good status, as the SDK raises those that it looks for."""
    body = body if isinstance(body, dict) else {"message": str(body)}
    inner = body.get("error")
    said = inner if isinstance(inner, dict) else body
    message = str(said.get("message") or said.get("code") or "The server sent an error with a good status.")
    if sdk is None:
        return errors.APIError(message, body=body)
    error: Exception = sdk.APIError(message, getattr(response, "request", None), body=body)
    return error
