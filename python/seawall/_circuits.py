"""The breakers of this process, by name, weakly held."""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from seawall._seawall import CircuitBreaker
from seawall._word import shown
from seawall.errors import ConfigurationTypeError

_B = TypeVar("_B", bound=CircuitBreaker)

# By object, in the order in which they came. Single operations on a dict only: each is atomic, and a lock could meet
# the garbage collector, which takes dead breakers out, in its own thread.
_known: dict[int, weakref.ref[CircuitBreaker]] = {}

# The innermost `with breaker:` of this context.
entered: contextvars.ContextVar[Any] = contextvars.ContextVar("seawall_entered", default=None)


def register(breaker: CircuitBreaker) -> None:
    """Adds a breaker: one that has a name when it is made, or else when it first guards something."""
    key = id(breaker)
    known = _known.get(key)
    if known is not None and known() is breaker:
        return

    def gone(ref: weakref.ref[CircuitBreaker]) -> None:
        # Another breaker may live at that address by now.
        if _known.get(key) is ref:
            _known.pop(key, None)

    _known[key] = weakref.ref(breaker, gone)
    breaker._known()


def living() -> list[CircuitBreaker]:
    """All of them, the oldest first."""
    return [breaker for ref in list(_known.values()) if (breaker := ref()) is not None]


def restored(cls: type[_B], identity: int, arguments: dict[str, Any], attributes: dict[str, Any]) -> _B:
    """What an unpickled breaker is: the one that was pickled, or the newest of its name, or else a new one."""
    there = [breaker for breaker in living() if type(breaker) is cls]
    for breaker in there:
        if breaker._identity == identity:
            return breaker
    name = arguments.get("name")
    for breaker in reversed(there):
        if name is not None and breaker.name == name:
            return breaker
    made = cls(**arguments)
    made.__dict__.update(attributes)
    return made


class Circuits:
    """The breakers of this process that have a name or guard something: `seawall.circuits`.

    Breakers are held weakly: one that nobody uses any more is gone from here. Two breakers of one name are two breakers:
    iteration and `all` give both, `circuits["name"]` and `get` the newer one.
    """

    def __iter__(self) -> Iterator[CircuitBreaker]:
        return iter(living())

    def __len__(self) -> int:
        return len(living())

    def __contains__(self, breaker: object) -> bool:
        return any(known is breaker or known.name == breaker for known in living())

    def __getitem__(self, name: str) -> CircuitBreaker:
        breaker = self.get(name)
        if breaker is None:
            known = ", ".join(repr(name) for name in self.names()) or "none at all"
            raise KeyError(f"there is no circuit {name!r}; there are {known}")
        return breaker

    def get(self, name: str) -> CircuitBreaker | None:
        """The newest breaker of that name, `None` if there is none."""
        return next((breaker for breaker in reversed(living()) if breaker.name == name), None)

    def all(self, name: str) -> list[CircuitBreaker]:
        """All breakers of that name, the oldest first."""
        return [breaker for breaker in living() if breaker.name == name]

    def names(self) -> list[str]:
        """The names, each once, in the order in which they came."""
        return list(dict.fromkeys(breaker.name for breaker in living() if breaker.name is not None))

    def open(self) -> list[CircuitBreaker]:
        """The breakers that turn calls away: open, half open or forced open."""
        return [breaker for breaker in living() if breaker.state in {"open", "half_open", "forced_open"}]

    def closed(self) -> list[CircuitBreaker]:
        """The breakers that are closed."""
        return [breaker for breaker in living() if breaker.closed]

    def reset_all(self) -> None:
        """Closes all of them and forgets their counts."""
        for breaker in living():
            breaker.reset()

    def __repr__(self) -> str:
        lines = [f"  {breaker!r}" for breaker in living()]
        return "\n".join([f"<circuits: {len(lines)}>", *lines])

    def _repr_html_(self) -> str:
        from seawall._pictures import circuits  # what few programs show

        return circuits(self)


circuits = Circuits()


class CircuitBreakerMonitor:
    """The same breakers, as the `circuitbreaker` package names the queries."""

    @classmethod
    def register(cls, circuit_breaker: CircuitBreaker) -> None:
        """Adds a breaker that has no name and guards nothing yet."""
        if not isinstance(circuit_breaker, CircuitBreaker):
            raise ConfigurationTypeError(f"circuit_breaker must be a CircuitBreaker, not {shown(circuit_breaker)}")
        register(circuit_breaker)

    @classmethod
    def all_closed(cls) -> bool:
        """Whether no breaker is open or half open."""
        return not list(cls.get_open())

    @classmethod
    def get_circuits(cls) -> Iterable[CircuitBreaker]:
        """All breakers."""
        return living()

    @classmethod
    def get(cls, name: str) -> CircuitBreaker | None:
        """The newest breaker of that name, if there is one."""
        return circuits.get(name)

    @classmethod
    def get_open(cls) -> Iterator[CircuitBreaker]:
        """The breakers that are open, half open or forced open."""
        return iter(circuits.open())

    @classmethod
    def get_closed(cls) -> Iterator[CircuitBreaker]:
        """The closed ones."""
        return iter(circuits.closed())
