"""Whatever can be called can be guarded, and looks and behaves as it did."""

from __future__ import annotations

import abc
import asyncio
import copy
import functools
import inspect
import pickle
import types
import typing
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from seawall import CircuitBreaker, CircuitBreakerError, Pipeline, Retry, circuit, guard, retry


def everything(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args, kwargs


class Adder:
    """Adds to what it is given."""

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, number: int) -> int:
        return self.base + number

    def method(self, number: int) -> int:
        return self.base + number


class AsyncAdder:
    async def __call__(self, number: int) -> int:
        return 10 + number


ARGUMENTS = [
    ((), {}),
    ((1,), {}),
    (tuple(range(20)), {}),
    ((), {"a": 1, "b": 2}),
    ((1, 2), {"a": 3}),
    ((), dict.fromkeys(("self", "function", "py", "args", "kwargs", "cls", "slf", "name", "kind", "pipeline"), 7)),
    ((), {f"name_{i}": i for i in range(40)}),
    ((), {"ключ": 1, "not an identifier": 2}),
]


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
async def test_arguments_arrive_as_they_were_given(guarding: Any, args: Any, kwargs: Any) -> None:
    async def everything_async(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return args, kwargs

    def everything_in_items(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield args, kwargs

    async def everything_in_async_items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        yield args, kwargs

    expected = (args, kwargs)
    assert guarding(everything)(*args, **kwargs) == expected
    assert await guarding(everything_async)(*args, **kwargs) == expected
    assert list(guarding(everything_in_items)(*args, **kwargs)) == [expected]
    assert [item async for item in guarding(everything_in_async_items)(*args, **kwargs)] == [expected]
    pipeline = guarding(everything).pipeline
    assert pipeline.call(everything, *args, **kwargs) == expected
    assert await pipeline.acall(everything_async, *args, **kwargs) == expected


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (lambda a: a + 1, (1,), 2),
        (functools.partial(everything, 1, b=2), (3,), ((1, 3), {"b": 2})),
        (functools.partial(Adder(1)), (3,), 4),
        (Adder(2), (3,), 5),
        (Adder(2).method, (3,), 5),
        (len, ("abc",), 3),
        (int, ("7",), 7),
        ({"k": "v"}.get, ("k",), "v"),
        (str.upper, ("a",), "A"),
        (max, (1, 5, 3), 5),
        (functools.lru_cache(lambda a: a * 2), (4,), 8),
        (circuit(lambda a: a), (1,), 1),
        (retry(2)(circuit(len)), ("ab",), 2),
        (functools.reduce, (lambda a, b: a + b, [1, 2, 3]), 6),
    ],
)
def test_callables_of_all_kinds(guarding: Any, function: Any, args: Any, expected: Any) -> None:
    guarded = guarding(function)
    assert guarded(*args) == expected
    assert guarded.__wrapped__ is function
    assert isinstance(guarded.__name__, str)
    assert isinstance(guarded.__qualname__, str)
    assert not inspect.iscoroutinefunction(guarded)


def test_a_class_makes_its_instances(guarding: Any) -> None:
    made = guarding(Adder)(base=3)
    assert type(made) is Adder
    assert (made.base, guarding(Adder).__doc__) == (3, "Adds to what it is given.")


def test_what_a_function_raises_is_raised(guarding: Any) -> None:
    error = KeyError("the same object")

    def raises() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(KeyError) as raised:
            guarding(raises)()
        assert raised.value is error
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        guarding(lambda a: a)()


@pytest.mark.parametrize(
    "function",
    [AsyncAdder(), functools.partial(AsyncAdder()), AsyncAdder().__call__, functools.partial(AsyncAdder().__call__)],
    ids=["object", "partial", "bound method", "partial of a bound method"],
)
async def test_coroutine_functions_of_all_kinds(guarding: Any, function: Any) -> None:
    guarded = guarding(function)
    assert inspect.iscoroutinefunction(guarded)
    assert asyncio.iscoroutinefunction(guarded)
    assert await guarded(1) == 11
    assert await guarding(guarded)(2) == 12


async def test_a_generator_marked_as_a_coroutine_is_awaited(guarding: Any) -> None:
    @guarding
    @types.coroutine
    def pauses() -> Any:
        yield
        return "after"

    assert await pauses() == "after"
    assert await guarding(lambda: pauses())() == "after"


async def test_one_that_a_plain_function_gives_is_a_call_until_it_has_been_awaited(hooks: dict[str, Any]) -> None:
    @types.coroutine
    def pauses() -> Any:
        yield
        tries.append(1)
        if len(tries) % 2:
            raise ConnectionError
        return "after"

    tries: list[int] = []
    breaker = CircuitBreaker(9)
    ask = Pipeline(Retry(2, wait=0, **hooks), breaker)(lambda: pauses())
    given = ask()
    assert inspect.isawaitable(given) and not tries
    assert await given == "after"
    assert (len(tries), ask.statistics["attempts"], breaker.failure_count) == (2, 2, 0)
    tries.append(1)
    assert await ask() == "after"
    assert len(tries) == 4


async def test_a_plain_function_that_gives_something_to_run(guarding: Any) -> None:
    async def coroutine() -> str:
        return "value"

    def items() -> Iterator[int]:
        yield 1

    async def async_items() -> AsyncIterator[int]:
        yield 1

    assert await guarding(lambda: coroutine())() == "value"
    assert list(guarding(lambda: items())()) == [1]
    assert [item async for item in guarding(lambda: async_items())()] == [1]
    # What is guarded inside has still to be run as well.
    assert await guarding(lambda: circuit(coroutine)())() == "value"
    assert list(guarding(lambda: circuit(items)())()) == [1]
    assert [item async for item in guarding(lambda: circuit(async_items)())()] == [1]
    # Iterators and awaitables that are none of these are values like any other.
    stream = iter([1, 2])
    assert guarding(lambda: stream)() is stream
    future = asyncio.get_running_loop().create_future()
    assert guarding(lambda: future)() is future


async def test_what_a_guarded_function_inside_gives_is_judged_when_it_ends() -> None:
    async def fails() -> None:
        raise ConnectionError

    def items_fail() -> Iterator[int]:
        yield 1
        raise ConnectionError

    async def async_items_fail() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    for function in (fails, items_fail, async_items_fail):
        breaker = CircuitBreaker(1, 1000)
        given = breaker(lambda function=function: retry(1)(function)())()
        assert breaker.state == "closed"
        with pytest.raises(ConnectionError):
            if function is fails:
                await given
            elif function is items_fail:
                list(given)
            else:
                async for _ in given:
                    pass
        assert breaker.state == "open", function


def in_a_class(decorate: Any) -> type:
    class Client:
        count = 4

        @decorate
        def plain(self, a: int) -> tuple[Any, int]:
            return self, a

        @decorate
        async def coroutine(self, a: int) -> tuple[Any, int]:
            return self, a

        @decorate
        def items(self, a: int) -> Iterator[Any]:
            yield self, a

        @decorate
        async def async_items(self, a: int) -> AsyncIterator[Any]:
            yield self, a

        @classmethod
        @decorate
        def class_outside(cls, a: int) -> tuple[Any, int]:
            return cls, a

        @decorate
        @classmethod
        def class_inside(cls, a: int) -> tuple[Any, int]:
            return cls, a

        @staticmethod
        @decorate
        def static_outside(a: int) -> int:
            return a

        @decorate
        @staticmethod
        def static_inside(a: int) -> int:
            return a

        @decorate
        @staticmethod
        async def static_coroutine(a: int) -> int:
            return a

        @property
        @decorate
        def property_outside(self) -> Any:
            return self, "outside"

        @decorate
        @property
        def property_inside(self) -> Any:
            """Docs of it."""
            return self, "inside"

        @property_inside.setter
        def property_inside(self, value: Any) -> None:
            self.given = value

        @decorate
        @functools.cached_property
        def cached(self) -> list[Any]:
            return [self]

    return Client


async def test_methods_of_all_kinds(guarding: Any) -> None:
    client_class = in_a_class(guarding)
    client = client_class()
    assert client.plain(1) == (client, 1)
    assert client_class.plain(client, a=2) == (client, 2)
    assert await client.coroutine(1) == (client, 1)
    assert list(client.items(1)) == [(client, 1)]
    assert [item async for item in client.async_items(1)] == [(client, 1)]
    for owner in (client, client_class):
        assert owner.class_outside(1) == (client_class, 1)
        assert owner.class_inside(1) == (client_class, 1)
        assert owner.static_outside(1) == 1
        assert owner.static_inside(1) == 1
        assert await owner.static_coroutine(1) == 1
    assert client.property_outside == (client, "outside")
    assert client.property_inside == (client, "inside")
    client.property_inside = 5
    assert client.given == 5
    assert client_class.property_inside.__doc__ == "Docs of it."
    assert client.cached is client.cached
    assert inspect.ismethod(client.plain)
    assert inspect.iscoroutinefunction(client.coroutine)
    assert str(inspect.signature(client.plain)) == "(a: 'int') -> 'tuple[Any, int]'"


@pytest.mark.parametrize("bare", [circuit, retry, guard])
def test_bare_decorators_take_what_stands_in_a_class_body(bare: Any) -> None:
    client = in_a_class(bare)()
    assert client.class_inside(1) == (type(client), 1)
    assert client.static_inside(1) == 1
    assert client.property_inside == (client, "inside")


def test_what_is_guarded_inside_a_descriptor_is_guarded() -> None:
    class Client:
        @circuit(1, 1000)
        @classmethod
        def fails(cls) -> None:
            raise ConnectionError

        @circuit(1, 1000)
        @property
        def broken(self) -> None:
            raise ConnectionError

    for attempt in (Client.fails, lambda: Client().broken):
        with pytest.raises(ConnectionError):
            attempt()
        with pytest.raises(CircuitBreakerError):
            attempt()


@pytest.mark.parametrize("thing", [5, "text", None, object()])
def test_what_cannot_be_called_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="a pipeline guards a function, not"):
        Pipeline()(thing)


def test_overriding_and_super(guarding: Any) -> None:
    class Base:
        @guarding
        def ask(self, a: int) -> str:
            return f"base {a}"

    class Derived(Base):
        def ask(self, a: int) -> str:
            return f"derived {super().ask(a)}"

    class Guarded(Derived):
        ask = guarding(Derived.ask)

    assert Derived().ask(1) == "derived base 1"
    assert Guarded().ask(2) == "derived base 2"


def test_slots_abstract_methods_and_dataclasses(guarding: Any) -> None:
    class Narrow:
        __slots__ = ("value",)

        def __init__(self, value: int) -> None:
            self.value = value

        @guarding
        def get(self) -> int:
            return self.value

    assert Narrow(3).get() == 3

    class Abstract(abc.ABC):
        @guarding
        @abc.abstractmethod
        def inside(self) -> int: ...

        @abc.abstractmethod
        @guarding
        def outside(self) -> int: ...

    assert Abstract.__abstractmethods__ == {"inside", "outside"}
    with pytest.raises(TypeError, match="abstract"):
        Abstract()

    @dataclass(frozen=True)
    class Point:
        x: int

        @guarding
        def doubled(self) -> int:
            return self.x * 2

    assert Point(2).doubled() == 4

    class Held:
        """A callable in an instance is not bound."""

    held = Held()
    held.function = guarding(lambda a: a)
    assert held.function(1) == 1


def test_it_looks_like_the_function(guarding: Any) -> None:
    def plain(a: int, /, b: str = "x", *more: bytes, c: float, **others: bool) -> list[int]:
        """What it does."""
        return [a]

    plain.mark = "kept"
    guarded = guarding(plain)
    assert inspect.signature(guarded) == inspect.signature(plain)
    assert typing.get_type_hints(guarded) == typing.get_type_hints(plain)
    for part in (
        "__name__",
        "__qualname__",
        "__module__",
        "__doc__",
        "__annotations__",
        "__defaults__",
        "__kwdefaults__",
        "mark",
    ):
        assert getattr(guarded, part) == getattr(plain, part), part
    assert inspect.unwrap(guarded) is plain
    assert inspect.getsource(guarded) == inspect.getsource(plain)
    assert inspect.getdoc(guarded) == "What it does."
    assert callable(guarded)
    assert "plain" in repr(guarded)

    @functools.wraps(guarded)
    def around(*args: Any, **kwargs: Any) -> Any:
        return guarded(*args, **kwargs)

    assert inspect.signature(around) == inspect.signature(plain)


MODULE_LEVEL = circuit(everything)


@pytest.mark.parametrize("function", [len, functools.partial(everything, 1), Adder(1), Adder(1).method, int])
def test_the_signature_is_that_of_the_callable(guarding: Any, function: Any) -> None:
    # Some builtins have none that can be told, in some versions of Python.
    def shown(callee: Any) -> inspect.Signature | None:
        try:
            return inspect.signature(callee)
        except ValueError:
            return None

    assert shown(guarding(function)) == shown(function)


def test_kinds_are_told_apart(guarding: Any) -> None:
    async def coroutine() -> None: ...

    def items() -> Iterator[int]:
        yield 1

    async def async_items() -> AsyncIterator[int]:
        yield 1

    tells = (inspect.iscoroutinefunction, asyncio.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for function in (everything, coroutine, items, async_items):
        for wrapped in (guarding(function), guarding(functools.partial(function)), guarding(guarding(function))):
            assert [tell(wrapped) for tell in tells] == [tell(function) for tell in tells], function


def test_it_is_copied_hashed_and_referred_to_as_functions_are(guarding: Any) -> None:
    guarded = guarding(everything)
    assert copy.copy(guarded) is guarded
    assert copy.deepcopy([guarded])[0] is guarded
    assert len({guarded, guarding(everything)}) == 2
    assert guarded != guarding(everything)
    reference = weakref.ref(guarded)
    assert reference() is guarded
    del guarded
    assert reference() is None


def test_it_is_pickled_by_its_name() -> None:
    module = types.ModuleType("a_module_of_a_user")
    exec("from seawall import circuit\n@circuit\ndef ask(): return 'answer'\n", module.__dict__)
    import sys

    sys.modules[module.__name__] = module
    try:
        assert pickle.loads(pickle.dumps(module.ask)) is module.ask
        assert copy.deepcopy(module.ask) is module.ask
    finally:
        del sys.modules[module.__name__]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(circuit(lambda: 1))


def test_single_dispatch_and_caches_around_it(guarding: Any) -> None:
    @functools.singledispatch
    @guarding
    def kind(value: object) -> str:
        return "object"

    @kind.register
    @guarding
    def _(value: int) -> str:
        return "int"

    assert (kind(1), kind("a")) == ("int", "object")
    cached = functools.lru_cache(guarding(lambda a: [a]))
    assert cached(1) is cached(1)


async def test_what_is_left_waiting_is_told_by_its_name() -> None:
    @circuit
    async def waits() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    assert "waits" in repr(task)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["waits"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
