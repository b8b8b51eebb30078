"""Whether a service can be reached, how long each step takes, and whether it takes the key: first by sockets of Python's, without the
key, then once by seawall's own client, with it."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from statistics import median
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from seawall import errors
from seawall.configuration._document import Report
from seawall.doctor import Finding, Place, State

# So many connections are made, one after the other.
CONNECTIONS = 5
_AGENT = {"user-agent": "seawall-doctor", "accept": "application/json", "connection": "close"}


def proxy_for(place: Place) -> str | None:
    """The proxy that requests go through, by the model's argument or by the environment."""
    if place.proxy is False:
        return None
    if isinstance(place.proxy, str):
        return place.proxy
    url = urlsplit(place.base_url)
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return None if found is None or proxy_bypass(url.hostname or "") else found


def looked_at(place: Place, timeout: float, *, call: bool) -> Iterator[Finding]:
    url = urlsplit(place.base_url)
    yield from _address(url, place.base_url)
    if not url.hostname:
        return
    can_ask = True
    if proxy_for(place) is None:
        found = list(_reached(url, place, timeout))
        yield from found
        can_ask = all(each.state != "problem" or each.part == "clock" for each in found)
    else:
        yield Finding(
            "endpoint", "way", "ok", "by a proxy, which does the rest: name, connection and TLS are not looked at one by one"
        )
    if not can_ask:
        return
    if place.key.value:
        yield from _asked(place, timeout, call=call)
    else:
        yield Finding("endpoint", "models", "warning", "not asked, for want of a key")


def _address(url: SplitResult, base_url: str) -> Iterator[Finding]:
    def found(state: State, text: str, advice: str = "") -> Finding:
        return Finding("endpoint", "address", state, text, advice)

    host = url.hostname
    if url.scheme not in ("http", "https") or not host:
        yield found("problem", "it is no http or https URL", 'give it like "https://api.openai.com/v1"')
    elif url.scheme == "http" and not _is_near(host):
        yield found(
            "warning", f"requests go to {host} without TLS: whoever is between sees the key", "use https, if the service has it"
        )
    elif (path := url.path.rstrip("/")).endswith(("/chat/completions", "/completions", "/embeddings", "/models")):
        yield found("problem", f"it ends in {path[path.rindex('/') :]}, which is added to it", "give the address up to /v1")
    elif host == "api.openai.com" and path != "/v1":
        yield found("problem", f"its path is {path or '/'}, and OpenAI's is /v1", "give https://api.openai.com/v1")


def _is_near(host: str) -> bool:
    """Whether it is this machine, or in a network of one's own."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host


def _reached(url: SplitResult, place: Place, timeout: float) -> Iterator[Finding]:
    """By name, connection, TLS and HTTP, as far as it goes."""
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)

    def failed(what: str, text: str, advice: str) -> Finding:
        return Finding("endpoint", what, "problem", text, advice)

    began = time.perf_counter()
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield failed("name", f"{host} is not known here ({_cause(error)})", "check base_url, and the DNS of this machine")
        return
    took = time.perf_counter() - began
    names = list(dict.fromkeys(str(address[0]) for *_, address in addresses))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    slow = took > 1
    known = host if names == [host] else f"{host} is {shown}"
    yield Finding(
        "endpoint",
        "name",
        "warning" if slow else "ok",
        f"{known} ({_ms(took)})",
        "the DNS of this machine is slow" if slow else "",
        {"seconds": took},
    )

    context = _context(place) if url.scheme == "https" else None
    times: dict[str, list[float]] = {"connect": [], "tls": [], "first byte": []}
    clocks: list[float] = []
    for number in range(CONNECTIONS):
        step = "connection"
        try:
            began = time.perf_counter()
            with socket.create_connection((host, port), timeout) as plain:
                times["connect"].append(time.perf_counter() - began)
                step, began = "TLS", time.perf_counter()
                with context.wrap_socket(plain, server_hostname=host) if context else plain as wire:
                    if isinstance(wire, ssl.SSLSocket):
                        times["tls"].append(time.perf_counter() - began)
                        if number == 0:
                            yield _certificate(wire, host)
                    step = "HTTP"
                    sent, took, answer = _answered(url, wire)
                    times["first byte"].append(took)
                    clocks += _skew(answer, sent, took)
        except (OSError, http.client.HTTPException, ValueError) as error:
            yield failed(step, *_reason(step, error, f"{host}:{port}"))
            return
        if number == 0:
            yield Finding("endpoint", "HTTP", "ok", f"it answers, with {answer.status} to a request without a key")
    yield _latency(times)
    yield _clock(clocks)


def _context(place: Place) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if place.ca_bundle is None else str(place.ca_bundle))


def _answered(url: SplitResult, wire: socket.socket) -> tuple[float, float, http.client.HTTPResponse]:
    """When a request went off, how long its first byte took, and the answer."""
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    connection.sock = wire
    path = url.path.rstrip("/") + "/models"
    sent, began = time.time(), time.perf_counter()
    connection.request("GET", path, headers={**_AGENT, "host": url.netloc.rpartition("@")[2]})
    answer = connection.getresponse()
    return sent, time.perf_counter() - began, answer


def _skew(answer: http.client.HTTPResponse, sent: float, took: float) -> list[float]:
    """By how many seconds our clock is ahead of the server's."""
    said = answer.getheader("date")
    try:
        date = email.utils.parsedate_to_datetime(said or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return []
    return [sent + took / 2 - date - 0.5]  # it says whole seconds


def _certificate(wire: ssl.SSLSocket, host: str) -> Finding:
    ends: Any = (wire.getpeercert() or {}).get("notAfter")
    left = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400 if isinstance(ends, str) else None
    until = "" if left is None else f", valid for {left:.0f} days"
    text = f"{wire.version()}, a certificate for {host}{until}"
    if left is not None and left < 7:
        return Finding("endpoint", "TLS", "warning", text, "it ends soon: whoever runs the service has to renew it")
    return Finding("endpoint", "TLS", "ok", text)


def _reason(step: str, error: Exception, at: str) -> tuple[str, str]:
    """What failed, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "not trusted"
        return (
            f"the certificate of {at} is refused: {why}",
            "if it is your own authority's, name it by ca_bundle or SSL_CERT_FILE; else check the name, and this machine's clock",
        )
    if isinstance(error, ssl.SSLError):
        return f"{at} speaks no TLS that we know ({_cause(error)})", "check whether the address is https, and its port"
    if isinstance(error, TimeoutError):
        return f"{at} does not answer in time", "a firewall may drop what is sent there; --timeout waits longer"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {at}", "check the address and its port, and whether the service runs"
    if step == "HTTP":
        return f"{at} answers with something that is no HTTP ({_cause(error)})", "check the scheme and the port of the address"
    return f"{at} cannot be reached ({_cause(error)})", "check the network of this machine"


def _cause(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or getattr(error, "reason", None)
    return str(text) if text else type(error).__name__


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _latency(times: dict[str, list[float]]) -> Finding:
    medians = {step: median(taken) for step, taken in times.items() if taken}
    whole = [sum(each) for each in zip(*(taken for taken in times.values() if taken), strict=True)]
    parts = ", ".join(f"{step} {_ms(took)}" for step, took in medians.items())
    text = f"{parts} (medians of {len(whole)}; the longest took {_ms(max(whole))} in all)"
    if medians["first byte"] > 2 or medians["connect"] > 0.5:
        return Finding(
            "latency", "", "warning", text, "it is far away or busy: choose a nearer region, or longer timeouts", medians
        )
    return Finding("latency", "", "ok", text, "", medians)


def _clock(ahead: list[float]) -> Finding:
    if not ahead:
        return Finding("clock", "", "warning", "the server says no time, so ours cannot be compared", "")
    skew = median(ahead)
    text = (
        "within two seconds of the server's"
        if abs(skew) <= 2
        else f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's"
    )
    if abs(skew) > 30:
        advice = "set this machine's clock: certificates, signatures and Retry-After dates are read by it"
        return Finding("clock", "", "problem" if abs(skew) > 300 else "warning", text, advice, {"seconds": skew})
    return Finding("clock", "", "ok", text, "", {"seconds": skew})


def _asked(place: Place, timeout: float, *, call: bool) -> Iterator[Finding]:
    """What the service says to seawall's own client, with the key."""
    offered: list[str] | None = None
    first = next((model for _, model in place.models.values() if model is not None), None)
    if first is None:
        return
    try:
        offered = [
            each["id"] for each in first._route_of([first._bare.with_retry(None).with_timeout(timeout)]).call("models", None)
        ]
    except errors.APIError as error:
        yield _refusal("models", error)
    else:
        yield Finding(
            "endpoint",
            "models",
            "ok",
            f"the key is taken, and {len(offered)} model{'' if len(offered) == 1 else 's'} offered",
            "",
            {"models": len(offered)},
        )
    for name, (model, made) in place.models.items():
        if name and offered is not None:
            yield _offer(name, model, offered)
        if name and call and made is not None:
            yield _called(name, made, place)


def _refusal(what: str, error: errors.APIError) -> Finding:
    status = error.status_code
    said = f"the service says {status}" if status else str(error).splitlines()[0]
    if status == 401:
        return Finding(
            "endpoint", what, "problem", "401: the key is refused", "check which key that is, and that it was not withdrawn"
        )
    if status == 403:
        return Finding(
            "endpoint",
            what,
            "problem",
            "403: the key may not do this",
            "check its project, its rights, and whether the service is offered here",
        )
    if status == 404 and what == "models":
        return Finding(
            "endpoint",
            what,
            "warning",
            "404: the service does not list its models, or base_url is wrong",
            "--call asks a model itself",
        )
    if status == 404:
        return Finding("endpoint", what, "problem", "404: there is no such model", "check its name, and what the key may use")
    if isinstance(error, errors.QuotaExceededError):
        return Finding("endpoint", what, "problem", f"{status}: the account has nothing left", "top it up, or raise its limit")
    if status == 429:
        return Finding("endpoint", what, "warning", "429: too many requests right now", "try again in a minute")
    if status is not None and status >= 500:
        return Finding(
            "endpoint", what, "warning", f"{said}: it is in trouble at the moment", "look at the service's status page"
        )
    return Finding("endpoint", what, "problem", said)


def _offer(name: str, model: str, offered: list[str]) -> Finding:
    # Ollama adds a tag to the names.
    if model in offered or f"{model}:latest" in offered:
        return Finding("model", name, "ok", f"{model} is offered")
    hint = Report("").meant(model, offered)
    return Finding(
        "model",
        name,
        "warning",
        f"{model} is not in the service's list" + (f": {hint}" if hint else ""),
        "check its name; some services do not list all they have",
    )


def _called(name: str, model: Any, place: Place) -> Finding:
    from seawall.llm import Embeddings

    alone = model._but(_others=(), _retry=None, monitor=None)
    began = time.perf_counter()
    try:
        if isinstance(model, Embeddings):
            alone.invoke("x")
        else:
            limit = "max_completion_tokens" if "api.openai.com" in place.base_url else "max_tokens"
            alone.invoke("x", **{limit: 1})
    except (errors.SeawallError, ValueError) as error:
        if isinstance(error, errors.APIError):
            return _refusal("call", error)._replace(part="model", what=name)
        return Finding("model", name, "problem", str(error).splitlines()[0])
    took = time.perf_counter() - began
    return Finding("model", name, "ok", f"it answers, with one token, in {_ms(took)}", "", {"seconds": took})
