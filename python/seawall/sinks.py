"""Where a monitor's alerts go: `Monitor(sinks=[…])` and `monitor.add_sink(sink, level="warning")`.

A sink is any function of an `Alert`, which may be asynchronous, or one of the classes here. Alerts are delivered from a thread of
seawall's own, in order, each sink by itself. A delivery that fails is tried again; a sink that keeps failing is left alone for a while
and says so once, and what it was to get is kept, at most 100 alerts. No call waits for any of this, or fails by it. Asynchronous
functions run in that thread's own event loop, not in the program's; functions that block run in a thread for each sink.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import math
import os
import string
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from seawall import _delivery, _seawall
from seawall._delivery import DeliveryError
from seawall._keys import Carried, uncarried
from seawall._monitoring import LOG_LEVELS, Alert
from seawall._word import seconds, shown
from seawall.errors import ConfigurationError, ConfigurationTypeError

Sink = Callable[[Alert], Any]


def flush(timeout: float = 5.0) -> bool:
    """Wait until all alerts are delivered.

    Args:
        timeout: the longest time to wait, in seconds or as a timedelta.

    Returns:
        `False` if some were not by then. It is `False` at once in a sink's own asynchronous function, which would wait for itself.
    """
    return _delivery.flush(seconds("timeout", timeout), resting=True)


class LogSink:
    """Alerts as lines of a logger: the message, and what is known of the alert as fields named `alert_…`.

    Warnings are logged as warnings, critical and emergency alerts as errors, the end of an incident as info.

    Args:
        logger: one of `logging` (its name will do), which gets the fields in `extra`; or one of structlog or loguru, which gets
            them as keywords. Default: the logger `seawall.alerts`. The line that each monitor writes to `seawall.monitor` anyway
            has the same fields.
    """

    _is_ours = True

    def __init__(self, logger: Any = "seawall.alerts") -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        if not callable(getattr(self._logger, "warning", None)):
            raise ConfigurationTypeError(f"logger must be a logger or the name of one, not {shown(logger)}")

    def __call__(self, alert: Alert) -> None:
        level = LOG_LEVELS[alert.level]
        fields = alert._fields_for_logs()
        if isinstance(self._logger, (logging.Logger, logging.LoggerAdapter)):
            self._logger.log(level, "%s", alert._line(), extra=fields)
        else:
            say = getattr(self._logger, logging.getLevelName(level).lower())
            say(alert._line(), **fields)

    def __repr__(self) -> str:
        return f"LogSink({getattr(self._logger, 'name', type(self._logger).__name__)})"


class Webhook:
    """Alerts as JSON, posted to an address by the native client.

    A status of 2xx is a delivery. 408, 409, 429, 5xx and a connection that fails are tried again (`Retry-After` is obeyed); any other
    answer means that the address or the document is wrong, and the alert is lost. A delivery that was received but not
    answered comes again: both have the same `webhook-id` header.

    Args:
        url: where to; an http or https URL. It is never shown: only the host is.
        headers: further headers, for credentials; their values are never shown.
        secret: signs each delivery as Standard Webhooks has it (headers `webhook-id`, `webhook-timestamp`, `webhook-signature`): a
            text, or `whsec_` and base64.
        template: what is sent, in place of all of the alert's fields: a function of the alert that gives something for JSON; or
            such a thing itself, whose texts name fields in braces, as in `{"text": "{message}"}`.

    Raises:
        ConfigurationError: for a URL, a header, a secret or a template that cannot be used.
    """

    _is_ours = True

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
        template: Any = None,
    ) -> None:
        if not isinstance(url, str):
            raise ConfigurationTypeError(f"url must be a text, not an object of type {type(url).__name__}")
        if headers is not None and not (
            isinstance(headers, Mapping)
            and all(isinstance(name, str) and isinstance(value, str) for name, value in headers.items())
        ):
            raise ConfigurationTypeError(f'headers must be a dict of texts, like {{"x-team": "search"}}, not {_kinds(headers)}')
        self._made_with = (url, dict(headers or {}), secret, template)
        self._key = None if secret is None else _key(secret)
        self._template = template
        if not callable(template):
            _check_template("template", template)
        self._native = _seawall.Webhook(url, list((headers or {}).items()))

    async def __call__(self, alert: Alert) -> None:
        body = json.dumps(self._document(alert), ensure_ascii=False, allow_nan=False, default=str).encode()
        number = _number(alert)
        sent = str(int(time.time()))
        headers = [("webhook-id", number), ("webhook-timestamp", sent)]
        if self._key is not None:
            signed = hmac.new(self._key, f"{number}.{sent}.".encode() + body, hashlib.sha256).digest()
            headers.append(("webhook-signature", f"v1,{base64.b64encode(signed).decode()}"))
        flying = self._native.start(body, headers)
        try:
            await flying.future
        finally:
            flying.abort()

    def _document(self, alert: Alert) -> Any:
        if self._template is None:
            return _for_json(alert._asdict())
        return self._template(alert) if callable(self._template) else _filled(self._template, alert._asdict())

    def __repr__(self) -> str:
        return f"Webhook({self._native.host})"

    def __reduce__(self) -> tuple[Any, ...]:
        *place, template = self._made_with
        return _webhook, (Carried("this Webhook", tuple(place)), template)


def _webhook(place: Any, template: Any) -> Webhook:
    url, headers, secret = uncarried(place)
    return Webhook(url, headers=headers, secret=secret, template=template)


def _kinds(given: Any) -> str:
    """What it is, past secrets that it may hold."""
    if isinstance(given, Mapping):
        return f"one of {', '.join(sorted({type(value).__name__ for pair in given.items() for value in pair}))}"
    return "an empty one" if given == "" else f"an object of type {type(given).__name__}"


def _key(secret: Any) -> bytes:
    if not isinstance(secret, str) or not secret:
        raise ConfigurationTypeError(f"secret must be a text that is not empty, not {_kinds(secret)}")
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigurationError("secret begins with whsec_, so that base64 must follow, and does not") from None


# Tells the alerts of this process from those of others.
_process = (os.getpid(), os.urandom(8))


def _number(alert: Alert) -> str:
    """The same for each delivery of an alert, and another for each alert."""
    global _process
    if _process[0] != os.getpid():
        _process = (os.getpid(), os.urandom(8))
    return "alert_" + hashlib.sha256(_process[1] + repr(alert).encode()).hexdigest()[:32]


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_template(place: str, template: Any) -> None:
    if isinstance(template, str):
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise ConfigurationError(f"{place} is not well formed: {error}; a brace that is meant is written twice") from None
        for name in names:
            field = name.split(".")[0].split("[")[0]
            if field not in Alert._fields:
                raise ConfigurationError(f"{place} names {{{name}}}: the fields of an alert are {', '.join(Alert._fields)}")
    elif isinstance(template, Mapping):
        for key, item in template.items():
            if not isinstance(key, str):
                raise ConfigurationTypeError(f"{place} must have texts for keys, not {shown(key)}")
            _check_template(f"{place}[{key!r}]", item)
    elif isinstance(template, (list, tuple)):
        for at, item in enumerate(template):
            _check_template(f"{place}[{at}]", item)
    elif template is not None and not isinstance(template, (bool, int, float)):
        raise ConfigurationTypeError(f"{place} must be something for JSON, or a function of the alert, not {shown(template)}")


def _filled(template: Any, fields: dict[str, Any]) -> Any:
    if isinstance(template, str):
        return template.format_map(fields)
    if isinstance(template, Mapping):
        return {key: _filled(item, fields) for key, item in template.items()}
    if isinstance(template, (list, tuple)):
        return [_filled(item, fields) for item in template]
    return template


class Apprise:
    """Alerts through [apprise](https://github.com/caronc/apprise): Slack, Feishu/Lark, DingTalk, WeCom, PagerDuty, e-mail and a
    hundred others. Needs the extra `seawall[alerts]`.

    Args:
        urls: apprise's URLs, such as `"slack://TokenA/TokenB/TokenC"` or `"mailto://user:pass@example.com"`. They are never shown:
            only their kinds are.

    Where one of several addresses fails, the alert goes to that one again, and not to the others.

    Raises:
        ConfigurationError: if there is no URL, or apprise does not know one.
        ImportError: if apprise is not installed.
    """

    _is_ours = True

    def __init__(self, *urls: str) -> None:
        try:
            import apprise
        except ImportError:
            raise ImportError("seawall.sinks.Apprise needs apprise: pip install 'seawall[alerts]'") from None
        if not urls:
            raise ConfigurationError("Apprise needs the URL of at least one service")
        self._urls = urls
        self._services = []
        for at, url in enumerate(urls):
            if not isinstance(url, str):
                raise ConfigurationTypeError(f"urls[{at}] must be a text, not an object of type {type(url).__name__}")
            with _Quiet():
                service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
            if service is None:
                raise ConfigurationError(f"urls[{at}] (not shown: it may hold a secret) is no URL that apprise knows")
            self._services.append(service)
        self._kinds = {level: getattr(apprise.NotifyType, name) for level, name in _APPRISE_KINDS.items()}
        # The alert under way, and the services that have not taken it.
        self._left: tuple[Alert | None, list[Any]] = (None, [])

    def __call__(self, alert: Alert) -> None:
        if self._left[0] is not alert:
            self._left = (alert, list(self._services))
        title = f"{alert.name or 'monitor'}: {alert.level if alert.kind != 'resolved' else 'resolved'}"
        left = self._left[1]
        for service in list(left):
            with _Quiet():
                if service.notify(title=title, body=alert.message, notify_type=self._kinds[alert.level]):
                    left.remove(service)
        if left:
            raise DeliveryError(f"{len(left)} of {len(self._services)} services did not take it")

    def __repr__(self) -> str:
        return f"Apprise({', '.join(str(service.service_name) for service in self._services)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _apprise, (Carried("this Apprise", self._urls),)


def _apprise(urls: Any) -> Apprise:
    return Apprise(*uncarried(urls))


_APPRISE_KINDS = {"normal": "SUCCESS", "warning": "WARNING", "critical": "FAILURE", "emergency": "FAILURE"}


# Those that apprise, and what it sends by, write to.
_TALKATIVE = ("apprise", "urllib3.connectionpool", "urllib3.util.retry")


class _Quiet:
    """What is logged for apprise meanwhile in this thread is dropped: it shows addresses whole, and seawall says what failed."""

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self.keeps)

    def keeps(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread

    def __exit__(self, *raised: object) -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(self.keeps)


class Sentry:
    """Alerts as events of [Sentry](https://docs.sentry.io/platforms/python/), through the client that `sentry_sdk.init(…)` has set up.

    All alerts of an incident are one issue. Warnings are warnings there, critical alerts errors, emergencies fatal; the end of an
    incident is an info. Sentry's own logging integration is told to leave the logger `seawall.monitor` out, since it would tell the
    same. How an event gets to Sentry is its client's business: seawall hears only whether the client took it.

    Raises:
        ImportError: if sentry-sdk is not installed (`pip install 'seawall[alerts]'`).
    """

    _is_ours = True

    def __init__(self) -> None:
        try:
            from sentry_sdk.integrations.logging import ignore_logger
        except ImportError:
            raise ImportError("seawall.sinks.Sentry needs sentry-sdk: pip install 'seawall[alerts]'") from None
        ignore_logger("seawall.monitor")

    def __call__(self, alert: Alert) -> None:
        import sentry_sdk

        client = sentry_sdk.get_client()
        if not client.is_active():
            raise DeliveryError("sentry_sdk.init(…) was not called")
        began = datetime.fromtimestamp(alert.since, timezone.utc).isoformat()
        with sentry_sdk.new_scope() as scope:
            scope.fingerprint = ["seawall", alert.name or "", began]
            scope.set_tag("seawall.monitor", alert.name or "")
            scope.set_tag("seawall.alert", alert.kind)
            scope.set_context("seawall", _for_json(alert._asdict()))
            scope.capture_message(alert._line(), level=_SENTRY_LEVELS[alert.level])

    def __repr__(self) -> str:
        return "Sentry()"


_SENTRY_LEVELS: Any = {"normal": "info", "warning": "warning", "critical": "error", "emergency": "fatal"}

__all__ = ["Apprise", "DeliveryError", "LogSink", "Sentry", "Sink", "Webhook", "flush"]


def __dir__() -> list[str]:
    return sorted(__all__)
