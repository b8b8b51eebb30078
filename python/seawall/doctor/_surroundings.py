"""What a program runs in: versions, proxies, certificates, the event loop, and retries of others that multiply ours."""

from __future__ import annotations

import os
import platform
import ssl
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import seawall
from seawall.doctor import Finding, Place
from seawall.doctor._endpoint import proxy_for

# What is told of where it is installed, and which versions the extras of seawall take: least, and first that is too new.
PACKAGES = {
    "langchain-core": ("1.7", "2"),
    "langchain-openai": (None, None),
    "openai": (None, None),
    "anthropic": (None, None),
    "httpx": (None, None),
    "opentelemetry-api": ("1.31", "2"),
    "prometheus-client": ("0.20", None),
    "apprise": ("1.9", None),
    "sentry-sdk": ("2.16", None),
    "numpy": ("1.26", None),
    "tenacity": (None, None),
    "circuitbreaker": (None, None),
    "uvloop": (None, None),
}


class Pair(NamedTuple):
    """Two packages that do not work together: the one below a version, the other from a version on."""

    package: str
    below: str
    other: str
    since: str
    effect: str


BAD_PAIRS = (
    Pair("openai", "1.55.3", "httpx", "0.28", "its clients cannot be made: httpx 0.28 has no argument proxies"),
    Pair("anthropic", "0.40", "httpx", "0.28", "its clients cannot be made: httpx 0.28 has no argument proxies"),
    Pair("langchain-openai", "1", "langchain-core", "1", "it is made for the langchain-core before"),
)
# Clients that try again by themselves, and how often, where nothing is said.
RETRIES = {"openai": 2, "anthropic": 2, "langchain-openai": 2}


def installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def order(version: str) -> tuple[int, ...]:
    """A version's numbers, to be compared."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = "".join(each for each in part if each.isdigit())
        if not part[:1].isdigit():
            break
        numbers.append(int(digits))
    return tuple(numbers)


def versions(found: dict[str, str]) -> Iterator[Finding]:
    own = f"seawall {seawall.__version__}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, on {platform.system()} {platform.machine()}"
    natives = _natives()
    yield Finding("versions", "", "ok", own + (f"; in it {natives}" if natives else ""))
    if found:
        yield Finding("versions", "packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))
    for name, version in found.items():
        least, most = PACKAGES[name]
        if least is not None and order(version) < order(least):
            yield Finding("versions", name, "problem", f"{name} {version} is too old", f"pip install '{name}>={least}'")
        elif most is not None and order(version) >= order(most):
            yield Finding(
                "versions",
                name,
                "warning",
                f"{name} {version} is newer than what seawall was tried with",
                f"pip install '{name}<{most}'",
            )
    for pair in BAD_PAIRS:
        if (
            pair.package in found
            and pair.other in found
            and order(found[pair.package]) < order(pair.below)
            and order(found[pair.other]) >= order(pair.since)
        ):
            text = f"{pair.package} {found[pair.package]} with {pair.other} {found[pair.other]}: {pair.effect}"
            yield Finding("versions", pair.package, "problem", text, f"pip install '{pair.package}>={pair.below}'")


def _natives() -> str:
    """What of other people's the native part holds, as the wheel's bill of materials has it."""
    import json

    try:
        files = metadata.files("seawall") or []
        bill = next((each for each in files if str(each).endswith(".cyclonedx.json")), None)
        components = [] if bill is None else json.loads(Path(str(bill.locate())).read_text(encoding="utf-8"))["components"]
    except (metadata.PackageNotFoundError, OSError, ValueError, KeyError):
        return ""
    there = {each.get("name"): each.get("version") for each in components}
    return ", ".join(f"{name} {there[name]}" for name in ("rustls", "reqwest", "tokio") if name in there)


def network(places: list[Place]) -> Iterator[Finding]:
    """Proxies and certificates."""
    by = {place.base_url: proxy for place in places if (proxy := proxy_for(place)) is not None}
    for base_url, proxy in by.items():
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        where = f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
        yield Finding("proxy", urlsplit(base_url).hostname or "", "ok", f"requests go by {where}", "")
    names = [
        name
        for each in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
        for name in (each, each.lower())
        if os.environ.get(name)
    ]
    if not by:
        yield Finding(
            "proxy",
            "",
            "ok",
            "none is used" + (f"; {', '.join(names)} {'is' if len(names) == 1 else 'are'} set" if names else ""),
        )
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(name)
        if path and not Path(path).exists():
            yield Finding(
                "certificates",
                name,
                "problem",
                f"{name} names {path}, which is not there: no server is trusted",
                f"unset {name}, or name what is there",
            )
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if os.environ.get(name) and not os.environ.get("SSL_CERT_FILE"):
            yield Finding(
                "certificates",
                name,
                "warning",
                f"{name} is set, which seawall's client does not read",
                "say ca_bundle, or set SSL_CERT_FILE too",
            )


def loop(found: dict[str, str]) -> Iterator[Finding]:
    """What runs tasks, and how many connections may be open."""
    import asyncio
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = type(asyncio.get_event_loop_policy())
    text = f"{policy.__module__.partition('.')[0]}'s {policy.__name__}" + (", uvloop is installed" if "uvloop" in found else "")
    yield Finding("event loop", "", "ok", text)
    if "gevent.monkey" in sys.modules or "eventlet.patcher" in sys.modules:
        yield Finding(
            "event loop",
            "",
            "warning",
            "gevent or eventlet has changed Python's sockets and threads",
            "calls of the native client hold its greenlets up: use asyncio or threads",
        )
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < 512:
            yield Finding("open files", "", "warning", f"at most {soft} at a time, and each connection is one", "ulimit -n 4096")


def retries(found: dict[str, str]) -> Iterator[Finding]:
    """Those that others make by themselves, inside of ours."""
    there = [f"{name} ({again})" for name, again in RETRIES.items() if name in found]
    if not there:
        yield Finding("hidden retries", "", "ok", "no client is installed that tries again by itself")
        return
    text = f"these try again by themselves: {', '.join(there)}; around one that was not told otherwise, 3 attempts of ours are 9 requests"
    yield Finding(
        "hidden retries", "", "ok", text, "seawall.resilient(client) switches them off on a copy; for others say max_retries=0"
    )
