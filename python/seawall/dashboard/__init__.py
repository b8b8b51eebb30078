"""A page that shows how this process's calls go: `seawall.dashboard.serve()`.

The page is served by the native core, on a thread of its own that never waits for the interpreter: it answers while Python
computes. It shows names and numbers, never content and never keys.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from seawall import _seawall
from seawall._served import Served
from seawall._word import shown, whole_number
from seawall.errors import ConfigurationError, ConfigurationTypeError

_logger = logging.getLogger("seawall.dashboard")
_open: set[Dashboard] = set()


class Dashboard(Served):
    """A dashboard that `serve` has begun. As a context manager it is closed at the end of the block.

    It runs until it is closed or the process ends. A forked child has none, and may begin its own.
    """

    @property
    def token(self) -> str | None:
        """What has to be said to see it: once, as `url + "/?token=" + token` in a browser, or as
        `Authorization: Bearer …` with each request. `None` where this machine alone can see it, and need not say any."""
        token: str | None = self._native.token
        return token

    def __repr__(self) -> str:
        how = ", closed" if self.closed else "" if self.token is None else ", with its token"
        return f"<Dashboard {self.url}{how}>"


def _program() -> str:
    """What the process is called: the name of its program, without arguments, which may hold anything."""
    main = sys.modules.get("__main__")
    spec: Any = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in {"", "-c"} else "python"


def serve(
    port: int | None = None, *, host: str = "127.0.0.1", token: str | None = None, title: str | None = None, quiet: bool = False
) -> Dashboard:
    """Serves the dashboard of this process, and says where, on stderr.

    From now on the calls of the process are recorded for it; its breakers are shown as they are.

    Args:
        port: where it listens. Default 8809, or the next one that is free, so that several processes of a machine can each have
            one. 0 is any that is free.
        host: an address of this machine, or its name. On the loopback (the default) whoever is on this machine can see the page.
            Any other, like `"0.0.0.0"`, can be reached from outside, and asks for a token.
        token: has to be said to see the page, at least 16 characters. If none is given, one is made for a host that is not the
            loopback: `Dashboard.token`. It is never logged, and not part of `url` or the repr.
        title: what the process is called on the page; default the name of its program.
        quiet: says nothing on stderr; the logger `seawall.dashboard` has it at INFO in any case.

    Raises:
        ConfigurationError: arguments that cannot be meant.
        OSError: it cannot listen there; the message says why and what to do.
    """
    if port is not None:
        whole_number("port", port, 0, 65_535)
    if not isinstance(host, str):
        raise ConfigurationTypeError(f"host must be a name or an address, not {shown(host)}")
    if not host:
        raise ConfigurationError("host must be a name or an address, not ''; \"0.0.0.0\" is every address of this machine")
    if token is not None and not isinstance(token, str):
        raise ConfigurationTypeError(
            f"token must be a text of at least 16 characters, not an object of type {type(token).__name__}"
        )
    if title is not None and not isinstance(title, str):
        raise ConfigurationTypeError(f"title must be a text, not {shown(title)}")
    if not isinstance(quiet, bool):
        raise ConfigurationTypeError(f"quiet must be True or False, not {shown(quiet)}")
    dashboard = Dashboard(_seawall.Dashboard(host, port, token, _program() if title is None else title), _open)
    where = dashboard.url + ("" if dashboard.token is None else "/?token=…, with what its `token` is")
    _logger.info("dashboard at %s", where)
    if not quiet and sys.stderr is not None:
        sys.stderr.write(f"seawall: dashboard at {where}\n")
    return dashboard


__all__ = ["Dashboard", "serve"]


def __dir__() -> list[str]:
    return sorted(__all__)
