"""The clients of bench_client.py: each asks the same questions of the same server, as its manual says."""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

PEERS = ["aiohttp", "httpx", "openai", "langchain-core", "langchain-openai", "litellm"]
MODEL, KEY = "gpt-4", "sk-bench"
QUESTION = "What is a circuit breaker?"
ANSWER = "A circuit breaker stops calling what is known to be broken."
CONCURRENCY = 64

BATCH = "seawall Chat.batch"
AINVOKE = "seawall Chat.ainvoke"
MONITORED = "seawall Chat.ainvoke + monitor"
LAYER = "seawall.langchain ChatOpenAI.ainvoke"
AIOHTTP = "aiohttp + json"
HTTPX = "httpx + json"
SDK = "AsyncOpenAI"
LANGCHAIN = "langchain_openai ChatOpenAI.ainvoke"
LANGCHAIN_BATCH = "langchain_openai ChatOpenAI.abatch"
LITELLM = "litellm acompletion"

HIT = "seawall Chat.invoke"
AHIT = "seawall Chat.ainvoke"
LANGCHAIN_HIT = "langchain_openai ChatOpenAI.invoke, InMemoryCache"
# A message of 100 characters.
LONG_QUESTION = f"{QUESTION} {'x' * (99 - len(QUESTION))}"

Ask = Callable[[], Awaitable[str]]
Batch = Callable[[int], list[str]]

# One for all, and open to the end: connections belong to a loop, and langchain_openai shares its clients.
LOOP = asyncio.new_event_loop()
_sessions: list[Any] = []


def close() -> None:
    """Closes what complains when it is not closed."""
    for session in _sessions:
        LOOP.run_until_complete(session.close())
    for task in asyncio.all_tasks(LOOP):  # litellm leaves one that writes logs
        task.cancel()
    LOOP.run_until_complete(asyncio.sleep(0))
    LOOP.close()


class Asked:
    """A client that is asked by 64 tasks at once."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.ask: Ask = LOOP.run_until_complete(_inside(make))

    def __call__(self, count: int) -> list[str]:
        async def worker() -> None:
            for _ in left:
                answers.append(await self.ask())

        async def all_of_them() -> None:
            await asyncio.gather(*(worker() for _ in range(min(CONCURRENCY, count))))

        left, answers = iter(range(count)), []
        LOOP.run_until_complete(all_of_them())
        return answers


async def _inside(make: Callable[[], Any]) -> Any:
    return make()


def _chat(base_url: str, **more: Any) -> Any:
    import seawall
    from seawall.llm import Chat

    breaker = seawall.CircuitBreaker(None, failure_rate=0.5, window=30.0, minimum_calls=20)
    return Chat(MODEL, api_key=KEY, base_url=base_url, max_retries=2, circuit=breaker, **more)


def seawall_batch(base_url: str) -> Batch:
    chat = _chat(base_url)
    return lambda count: [reply.content for reply in chat.batch([QUESTION] * count, max_concurrency=CONCURRENCY)]


def seawall_ainvoke(base_url: str) -> Ask:
    chat = _chat(base_url)

    async def ask() -> str:
        return (await chat.ainvoke(QUESTION)).content

    return ask


def seawall_monitored(base_url: str) -> Ask:
    import seawall

    guarded = seawall.Pipeline(monitor=seawall.Monitor())(_chat(base_url).ainvoke)

    async def ask() -> str:
        return (await guarded(QUESTION)).content

    return ask


def _callbacks() -> dict[str, Any]:
    from langchain_core.callbacks import AsyncCallbackHandler

    class Counts(AsyncCallbackHandler):
        ended = 0

        async def on_llm_end(self, *_: Any, **__: Any) -> None:
            self.ended += 1

    return {"callbacks": [Counts()]}


def _messages(base_url: str, model: Callable[[str], Any]) -> Ask:
    llm, config = model(base_url), _callbacks()

    async def ask() -> str:
        return str((await llm.ainvoke(QUESTION, config)).content)

    return ask


def _seawall_langchain(base_url: str) -> Any:
    import seawall
    from seawall.langchain import ChatOpenAI

    breaker = seawall.CircuitBreaker(None, failure_rate=0.5, window=30.0, minimum_calls=20)
    return ChatOpenAI(model=MODEL, api_key=KEY, base_url=base_url, circuit=breaker)


def _langchain_openai(base_url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, api_key=KEY, base_url=base_url)


def langchain_abatch(base_url: str) -> Batch:
    llm, config = _langchain_openai(base_url), {**_callbacks(), "max_concurrency": CONCURRENCY}

    def run(count: int) -> list[str]:
        return [str(message.content) for message in LOOP.run_until_complete(llm.abatch([QUESTION] * count, config))]

    return run


def _body(*, stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    return {**asked, "stream": True} if stream else asked


HEADERS = {"Authorization": f"Bearer {KEY}"}


def _aiohttp_session() -> Any:
    import aiohttp

    session = aiohttp.ClientSession(headers=HEADERS)
    _sessions.append(session)
    return session


def aiohttp_ask(base_url: str) -> Ask:
    session = _aiohttp_session()
    url = f"{base_url}/chat/completions"

    async def ask() -> str:
        async with session.post(url, json=_body(stream=False)) as response:
            return str((await response.json())["choices"][0]["message"]["content"])

    return ask


def _httpx_client() -> Any:
    import httpx

    # By default it keeps 20 connections of the 64.
    return httpx.AsyncClient(headers=HEADERS, limits=httpx.Limits(max_keepalive_connections=CONCURRENCY), trust_env=False)


def httpx_ask(base_url: str) -> Ask:
    client = _httpx_client()
    url = f"{base_url}/chat/completions"

    async def ask() -> str:
        response = await client.post(url, json=_body(stream=False))
        return str(response.json()["choices"][0]["message"]["content"])

    return ask


def _openai(base_url: str) -> Any:
    import openai

    return openai.AsyncOpenAI(api_key=KEY, base_url=base_url)


def openai_ask(base_url: str) -> Ask:
    client = _openai(base_url)

    async def ask() -> str:
        return str((await client.chat.completions.create(**_body(stream=False))).choices[0].message.content)

    return ask


def _litellm(base_url: str) -> Callable[..., Awaitable[Any]]:
    # Its prices of models would be fetched; those that it brings along do.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    return functools.partial(
        litellm.acompletion, api_key=KEY, api_base=base_url, **{**_body(stream=False), "model": f"openai/{MODEL}"}
    )


def litellm_ask(base_url: str) -> Ask:
    complete = _litellm(base_url)

    async def ask() -> str:
        return str((await complete()).choices[0].message.content)

    return ask


def requests(base_url: str) -> list[tuple[str, Callable[[], Batch]]]:
    """Everybody who answers so many questions at once."""
    batches = [(BATCH, seawall_batch), (LANGCHAIN_BATCH, langchain_abatch)]
    asks = [
        (AINVOKE, seawall_ainvoke),
        (MONITORED, seawall_monitored),
        (LAYER, lambda url: _messages(url, _seawall_langchain)),
        (AIOHTTP, aiohttp_ask),
        (HTTPX, httpx_ask),
        (SDK, openai_ask),
        (LANGCHAIN, lambda url: _messages(url, _langchain_openai)),
        (LITELLM, litellm_ask),
    ]
    return [
        *((name, lambda make=make: make(base_url)) for name, make in batches),
        *((name, lambda make=make: Asked(lambda: make(base_url))) for name, make in asks),
    ]


# --- streams: tokens seen, by so many streams at once

STREAM = "seawall Chat.stream"
ASTREAM = "seawall Chat.astream"
LAYER_STREAM = "seawall.langchain ChatOpenAI.astream"
LANGCHAIN_STREAM = LANGCHAIN.replace("ainvoke", "astream")
LITELLM_STREAM = f"{LITELLM}, stream"
Streams = Callable[[int], int]


def seawall_stream(base_url: str) -> Streams:
    chat = _chat(base_url)
    return lambda count: sum(1 for _ in range(count) for chunk in chat.stream(QUESTION) if chunk.content)


class Streamed:
    """So many streams at once."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.open: Callable[[], AsyncIterator[str]] = LOOP.run_until_complete(_inside(make))

    def __call__(self, count: int) -> int:
        async def one() -> int:
            seen = 0
            async for text in self.open():
                seen += bool(text)
            return seen

        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(one() for _ in range(count))))

        return LOOP.run_until_complete(all_of_them())


def seawall_astream(base_url: str) -> Any:
    chat = _chat(base_url)

    async def run() -> AsyncIterator[str]:
        async for chunk in chat.astream(QUESTION):
            yield chunk.content

    return run


def _message_stream(base_url: str, model: Callable[[str], Any]) -> Any:
    llm, config = model(base_url), _callbacks()

    async def run() -> AsyncIterator[str]:
        async for chunk in llm.astream(QUESTION, config):
            yield chunk.content

    return run


def _content(line: bytes | str) -> str:
    data = line[5:].strip()
    if data in (b"[DONE]", "[DONE]"):
        return ""
    return json.loads(data)["choices"][0]["delta"].get("content", "")


def aiohttp_stream(base_url: str) -> Any:
    session = _aiohttp_session()
    url = f"{base_url}/chat/completions"

    async def run() -> AsyncIterator[str]:
        async with session.post(url, json=_body(stream=True)) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    yield _content(line)

    return run


def httpx_stream(base_url: str) -> Any:
    client = _httpx_client()
    url = f"{base_url}/chat/completions"

    async def run() -> AsyncIterator[str]:
        async with client.stream("POST", url, json=_body(stream=True)) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    yield _content(line)

    return run


def openai_stream(base_url: str) -> Any:
    client = _openai(base_url)

    async def run() -> AsyncIterator[str]:
        async for chunk in await client.chat.completions.create(**_body(stream=True)):
            yield chunk.choices[0].delta.content or ""

    return run


def litellm_stream(base_url: str) -> Any:
    complete = _litellm(base_url)

    async def run() -> AsyncIterator[str]:
        async for chunk in await complete(stream=True):
            yield chunk.choices[0].delta.content or ""

    return run


def streams(base_url: str) -> list[tuple[str, Callable[[], Streams]]]:
    """Everybody who reads streams."""
    opened = [
        (ASTREAM, seawall_astream),
        (LAYER_STREAM, lambda url: _message_stream(url, _seawall_langchain)),
        (AIOHTTP, aiohttp_stream),
        (HTTPX, httpx_stream),
        (SDK, openai_stream),
        (LANGCHAIN_STREAM, lambda url: _message_stream(url, _langchain_openai)),
        (LITELLM_STREAM, litellm_stream),
    ]
    return [
        (STREAM, lambda: seawall_stream(base_url)),
        *((name, lambda make=make: Streamed(lambda: make(base_url))) for name, make in opened),
    ]


def cached(base_url: str) -> list[tuple[str, Callable[[], Any]]]:
    """Those that have a cache, which has the answer: it is asked for once, here."""
    import seawall
    from seawall.llm import Chat

    chat = Chat(MODEL, api_key=KEY, base_url=base_url, cache=seawall.Cache(ttl=3600))
    assert chat.invoke(LONG_QUESTION).content == ANSWER
    assert chat.invoke(LONG_QUESTION).cached

    def langchain() -> Any:
        from langchain_core.caches import InMemoryCache
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(model=MODEL, api_key=KEY, base_url=base_url, cache=InMemoryCache())
        assert model.invoke(LONG_QUESTION).content == ANSWER
        return model.invoke

    return [(HIT, lambda: chat.invoke), (AHIT, lambda: chat.ainvoke), (LANGCHAIN_HIT, langchain)]
