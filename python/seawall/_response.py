"""What the response behind a foreign exception says: status, codes, headers. Never raises, never imports, never reads a socket."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any


def get(thing: Any, name: str) -> Any:
    """The attribute, or `None`: foreign properties may raise anything (an unread stream, a missing response)."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _status_in(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and 100 <= value <= 599 else None


def status(exc: BaseException, *, code: bool = False) -> int | None:
    """The HTTP status of the exception or of its response. `code`: whether its `code` attribute is a status too."""
    for name in ("status_code", "status", "http_status", "code")[: 4 if code else 3]:
        found = _status_in(get(exc, name))
        if found is not None:
            return found
    response = get(exc, "response")
    if isinstance(response, dict):
        metadata = response.get("ResponseMetadata")
        return _status_in(metadata.get("HTTPStatusCode")) if isinstance(metadata, dict) else None
    found = _status_in(get(response, "status_code"))
    return found if found is not None else _status_in(get(response, "status"))


def body(exc: BaseException) -> Any:
    """The decoded body: as the exception carries it, or from a response whose content has already been read."""
    for name in ("body", "details"):
        found = get(exc, name)
        if found is not None and not callable(found):
            return found
    response = get(exc, "response")
    if isinstance(response, dict):
        return response
    content = get(response, "_content")  # httpx and requests keep what was read there; reading more could block
    if isinstance(content, bytes) and len(content) <= 65536:
        import json  # here: most programs never meet such a body

        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return content.decode("utf-8", "replace")
    return None


def error_object(found: Any) -> dict[str, Any]:
    """The error object inside a body, in the forms in which OpenAI, Anthropic, Google and AWS send it."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        return {}
    for name in ("error", "Error"):
        inner = found.get(name)
        if isinstance(inner, dict):
            return inner
    return found


def codes(exc: BaseException, error: dict[str, Any]) -> Iterator[str]:
    """Every code that the exception and its error object carry, the most telling first."""
    for name in ("code", "error_code"):
        yield from _words(get(exc, name))
    for name in ("innererror", "details"):
        inner = error.get(name)
        if isinstance(inner, list):
            for item in inner:
                yield from _words(item.get("reason") if isinstance(item, dict) else None)
        elif isinstance(inner, dict):
            yield from _words(inner.get("code"))
            yield from _words(inner.get("error_code"))
    for name in ("code", "Code", "type", "status"):
        value = error.get(name)
        yield from _words(str(value) if _status_in(value) is not None else value)
    yield from _words(get(exc, "type"))


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else ()


def text(exc: BaseException, found: Any) -> str:
    """The exception's words and its body's, in lower case, cut to a length that is cheap to search."""
    message = error_object(found).get("message") if isinstance(found, (dict, list)) else found
    try:
        return f"{str(exc)[:4000]}\n{str(message)[:4000]}".lower()
    except Exception:
        return ""


def header(exc: BaseException, *names: str) -> list[str | None]:
    """These headers (lower-case names) of the exception or of its response, from mappings of any kind and case."""
    headers = get(exc, "headers")
    if not headers:
        response = get(exc, "response")
        if isinstance(response, dict):
            metadata = response.get("ResponseMetadata")
            headers = metadata.get("HTTPHeaders") if isinstance(metadata, dict) else None
        else:
            headers = get(response, "headers")
    try:
        items = headers.items() if headers else ()
        lowered = {(k.decode("latin-1") if isinstance(k, bytes) else str(k)).lower(): v for k, v in items}
    except Exception:
        return [None] * len(names)
    return [v.decode("latin-1") if isinstance(v, bytes) else None if v is None else str(v) for v in map(lowered.get, names)]


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    from email.utils import parsedate_to_datetime  # here: it takes ten milliseconds to load, and dates are rare

    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def retry_after(exc: BaseException) -> float | None:
    """Seconds the server asked to wait: `retry-after-ms`, then `retry-after` in seconds or as an HTTP date."""
    millis, after, sent = header(exc, "retry-after-ms", "retry-after", "date")
    wait = _seconds(millis)
    if wait is not None and wait > 0:
        return wait / 1000
    wait = _seconds(after)
    if wait is None:
        until = _date(after)
        if until is None:
            return None
        # Counted from the server's own clock where it says its time, so that a skewed clock here does no harm.
        now = _date(sent)
        wait = until - (time.time() if now is None else now)
    return wait if wait > 0 else None
