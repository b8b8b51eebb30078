"""What a native server of this process looks like from Python: the dashboard and the exporter of metrics."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class Served:
    """Something that listens until it is closed or the process ends. As a context manager it is closed at the end of the block."""

    def __init__(self, native: Any, opened: set[Any]) -> None:
        self._native = native
        # Whoever does not keep what `serve` gives has it all the same.
        self._opened = opened
        opened.add(self)

    @property
    def host(self) -> str:
        """The address at which it listens."""
        host: str = self._native.address[0]
        return host

    @property
    def port(self) -> int:
        """The port at which it listens."""
        port: int = self._native.address[1]
        return port

    @property
    def url(self) -> str:
        """Where it is on this machine, without a path and without a token."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  where all are, this one is
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def closed(self) -> bool:
        """Whether it listens no more: it was closed, or is the one of the process that this one was forked from."""
        return not self._native.listens

    def close(self) -> None:
        """Ends it and its connections at once. Nothing happens if it is closed already."""
        self._opened.discard(self)
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, traceback: TracebackType | None = None
    ) -> None:
        self.close()
