"""FastAPI and pytest take guarded functions for what they are."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from seawall import circuit, retry


def application(guarding: Any) -> tuple[FastAPI, list[str]]:
    app, story = FastAPI(), []

    @guarding
    def plain(q: int) -> int:
        return q * 2

    @guarding
    async def coroutine() -> str:
        return "awaited"

    @guarding
    def resource() -> Iterator[str]:
        story.append("opened")
        yield "resource"
        story.append("closed")

    @guarding
    async def async_resource() -> AsyncIterator[str]:
        story.append("async opened")
        yield "async resource"
        story.append("async closed")

    class Callable:
        async def __call__(self, q: int) -> int:
            return q + 1

    callable_object = guarding(Callable())

    @app.get("/sync")
    @guarding
    def sync_endpoint(q: int, doubled: Annotated[int, Depends(plain)]) -> dict[str, int]:
        return {"q": q, "doubled": doubled}

    @app.get("/async")
    @guarding
    async def async_endpoint(
        q: int,
        awaited: Annotated[str, Depends(coroutine)],
        sync_opened: Annotated[str, Depends(resource)],
        async_opened: Annotated[str, Depends(async_resource)],
        more: Annotated[int, Depends(callable_object)],
    ) -> dict[str, Any]:
        story.append("served")
        return {"q": q, "parts": [awaited, sync_opened, async_opened, more]}

    return app, story


def test_endpoints_and_dependencies_of_fastapi(guarding: Any) -> None:
    app, story = application(guarding)
    with TestClient(app) as client:
        assert client.get("/sync", params={"q": "4"}).json() == {"q": 4, "doubled": 8}
        assert client.get("/sync").status_code == 422
        answer = client.get("/async", params={"q": 1}).json()
    assert answer == {"q": 1, "parts": ["awaited", "resource", "async resource", 2]}
    assert story[:3] == ["opened", "async opened", "served"]
    assert sorted(story[3:]) == ["async closed", "closed"]


@pytest.fixture
@circuit
def plain_fixture() -> str:
    return "plain"


@pytest.fixture
@retry(2)
def yield_fixture(plain_fixture: str) -> Iterator[list[str]]:
    opened = [plain_fixture]
    yield opened
    opened.append("closed")


@pytest.fixture
@circuit
async def async_fixture() -> str:
    return "async"


@pytest.fixture
@circuit
async def async_yield_fixture(async_fixture: str) -> AsyncIterator[list[str]]:
    yield [async_fixture]


def test_fixtures(plain_fixture: str, yield_fixture: list[str]) -> None:
    assert (plain_fixture, yield_fixture) == ("plain", ["plain"])


async def test_async_fixtures(async_fixture: str, async_yield_fixture: list[str]) -> None:
    assert (async_fixture, async_yield_fixture) == ("async", ["async"])


@circuit
def test_a_guarded_test_is_collected(plain_fixture: str) -> None:
    assert plain_fixture == "plain"


@retry(2)
async def test_a_guarded_asynchronous_test_is_collected(async_fixture: str) -> None:
    assert async_fixture == "async"
