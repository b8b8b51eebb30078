"""Caches in files: there after the process, shared by several, and never a wrong answer or an error, whatever the file is."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _canary import CANARY

from seawall import Cache, guard
from seawall.errors import ConfigurationError
from seawall.llm import Chat, Embeddings
from seawall.simulator import Simulator, faults

FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda chat, _: chat.invoke("why?").content,
    "stream": lambda chat, _: [
        (p.content, p.finish_reason, p.usage, p.id, p.raw) for p in chat.stream("why?", stream_options={"include_usage": True})
    ],
    "embeddings": lambda _, vectors: vectors.invoke(["a", "b"]).vectors,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def told(path: Path, sim: Simulator, use: Callable[[Chat], Any]) -> list[str]:
    """What is said of a file that cannot be used, while calls go on."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cache = Cache(path=path)
        use(Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache))
        cache.flush()
    return [str(each.message) for each in said]


SQL = "import json, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(json.dumps(db.execute(sys.argv[2]).fetchall())); db.commit()"


def sql(path: Path, statement: str) -> Any:
    """Asks another process: two libraries of SQLite in one take each other's locks away."""
    done = subprocess.run(
        [sys.executable, "-c", SQL, str(path), statement], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_outlives_its_cache(sim: Simulator, path: Path, form: str) -> None:
    answers, counts = [], []
    for _ in range(2):
        cache = Cache(path=path)
        place = {"api_key": CANARY, "base_url": sim.base_url, "cache": cache}
        answers.append(FORMS[form](Chat("m", **place), Embeddings("e", **place)))
        assert cache.flush()
        counts.append((sim.count(), cache.stats.hits))
    assert answers[0] == answers[1] and counts == [(1, 0), (1, 1)]


def test_a_reply_is_whole_when_it_comes_from_the_file(sim: Simulator, path: Path) -> None:
    first = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=(cache := Cache(path=path))).invoke("why?", n=2)
    cache.flush()
    again = Chat("m", api_key="another", base_url=sim.base_url, cache=Cache(path=path)).invoke("why?", n=2)
    assert again.cached and not first.cached and sim.count() == 1
    for name in ("content", "choices", "usage", "id", "model", "raw", "headers", "finish_reason", "request_id"):
        assert repr(getattr(first, name)) == repr(getattr(again, name)), name
    assert [step.event for step in again.story] == ["cache.hit"]


def test_all_that_changes_the_answer_counts_in_the_file_too(sim: Simulator, path: Path) -> None:
    cache = Cache(path=path)
    model = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache, seed=1)
    model.invoke("x")
    cache.flush()
    ask: list[Callable[[Cache], Any]] = [
        lambda cache: Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache, seed=2).invoke("x"),
        lambda cache: Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache, seed=1).invoke("y"),
        lambda cache: Chat("n", api_key=CANARY, base_url=sim.base_url, cache=cache, seed=1).invoke("x"),
        lambda cache: Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache, seed=1).invoke("x", extra_query={"v": "1"}),
    ]
    assert not any(each(Cache(path=path)).cached for each in ask)
    assert Chat("m", api_key="k", base_url=sim.base_url, cache=Cache(path=path)).invoke("x", seed=1).cached


def test_time_passes_for_answers_in_the_file(sim: Simulator, path: Path, seawall_clock: Any) -> None:
    def ask(**options: Any) -> Any:
        cache = Cache(60, path=path, **options)
        reply = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache, max_retries=0).invoke("x")
        cache.flush()
        return reply

    first = ask()
    seawall_clock.advance(59)
    assert ask().cached
    seawall_clock.advance(2)
    sim.on("m", faults.status(500), times=1)
    stale = ask(stale_if_error=60)
    assert stale.cached and stale.id == first.id and "cache.stale" in [step.event for step in stale.story]
    assert not ask().cached


def test_it_is_bounded_and_what_was_not_used_for_longest_goes(sim: Simulator, path: Path) -> None:
    def ask(text: str) -> bool:
        cache = Cache(path=path, max_items=3)
        cached: bool = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache).invoke(text).cached
        assert cache.flush()
        return cached

    assert [ask(each) for each in ("a", "b", "c", "a", "d")] == [False, False, False, True, False]
    ((items, counted, total),) = sql(path, "SELECT count(*), (SELECT items FROM size), sum(bytes) FROM answer")
    assert (items, counted) == (3, 3)
    assert [ask("a"), ask("c"), ask("d")] == [True, True, True]
    small = Cache(path=path, max_bytes=total - 1)
    Chat("m", api_key=CANARY, base_url=sim.base_url, cache=small).invoke("e")
    small.flush()
    assert sql(path, "SELECT sum(bytes) < ?1, count(*) FROM answer".replace("?1", str(total))) == [[1, 2]]


def test_what_is_forgotten_is_so_in_the_file(sim: Simulator, path: Path) -> None:
    cache = Cache(path=path)
    model = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache)
    for text in ("a", "b", "c"):
        model.invoke(text)
    assert cache.forget("a") == 1
    cached = [Chat("m", api_key="k", base_url=sim.base_url, cache=Cache(path=path)).invoke(text).cached for text in ("a", "b")]
    assert cached == [False, True]
    cache.clear()
    assert not Chat("m", api_key="k", base_url=sim.base_url, cache=Cache(path=path)).invoke("c").cached


def test_it_is_its_owners_alone_and_holds_no_key(path: Path, raw: Any) -> None:
    body = '{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
    echo = body.replace('"x"', f'"your key is {CANARY}"')
    server = raw(raw.answer(body, headers=f"x-echo: {CANARY}\r\n"), raw.answer(echo))
    cache = Cache(path=path)
    chat = Chat("m", api_key=CANARY, base_url=f"{server.base_url}?token={CANARY}", cache=cache)
    chat.invoke("x")
    assert CANARY in chat.invoke("y").content  # what a server says is the caller's to see, and nobody's to keep
    cache.flush()
    written = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert CANARY.encode() not in written and b'"is":"chat"' in written
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in path.parent.iterdir())


# --- files that cannot be used


BAD: dict[str, list[str]] = {
    "no database": [],
    "later": [f"PRAGMA application_id = {0x53574C43}", "PRAGMA user_version = 99", "CREATE TABLE answer (x)"],
    "another's": ["CREATE TABLE mine (x)"],
    "other tables": [f"PRAGMA application_id = {0x53574C43}", "PRAGMA user_version = 1", "CREATE TABLE answer (x)"],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_none_holds_nothing_is_told_once_and_left_alone(
    sim: Simulator, path: Path, kind: str, caplog: Any
) -> None:
    for statement in BAD[kind]:
        sql(path, statement)
    if not BAD[kind]:
        path.write_bytes(b"a text, and no database at all" * 100)
    before = path.read_bytes()
    said = told(path, sim, lambda chat: [chat.invoke(text) for text in ("a", "b", "a")])
    assert len(said) == 1 and str(path) in said[0]
    assert sum("cache" in record.message and record.levelname == "WARNING" for record in caplog.records) == 1
    assert path.read_bytes() == before
    assert sim.count() == 2


def test_a_file_that_others_hold_is_a_miss_and_told_once(sim: Simulator, path: Path) -> None:
    told(path, sim, lambda chat: chat.invoke("a"))
    hold = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA locking_mode = EXCLUSIVE'); "
    hold += "db.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        said = told(path, sim, lambda chat: [chat.invoke(text).content for text in ("b", "c", "b")])
        holder.communicate()
    assert len(said) == 1 and "held by another" in said[0]
    assert sim.count() == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_still_gives_answers(sim: Simulator, path: Path) -> None:
    told(path, sim, lambda chat: chat.invoke("a"))
    path.chmod(0o400)
    said = told(path, sim, lambda chat: chat.invoke("b"))
    assert len(said) == 1 and "memory only" in said[0]


def test_a_full_disk_is_told_once_and_answers_are_in_memory(sim: Simulator, path: Path) -> None:
    told(path, sim, lambda chat: chat.invoke("a"))
    # As full as a disk: the database says so itself.
    sql(path, "CREATE TRIGGER full BEFORE INSERT ON answer BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END")
    said = told(path, sim, lambda chat: [chat.invoke(text) for text in ("b", "c", "b")])
    assert len(said) == 1 and "memory only" in said[0]
    assert sim.count() == 3


@pytest.mark.parametrize("place", ["value", "sum", "stored"])
def test_an_answer_that_is_damaged_is_left_out(sim: Simulator, path: Path, place: str) -> None:
    told(path, sim, lambda chat: chat.invoke("a"))
    change = {"value": "CAST(replace(value, 'model', 'medal') AS BLOB)", "sum": "zeroblob(32)", "stored": "stored + 1"}[place]
    sql(path, f"UPDATE answer SET {place} = {change}")
    said = told(path, sim, lambda chat: chat.invoke("a"))
    assert len(said) == 1 and "damaged" in said[0] and sim.count() == 2
    assert told(path, sim, lambda chat: chat.invoke("a")) == [] and sim.count() == 2


def test_bytes_turned_over_anywhere_give_no_wrong_answer(sim: Simulator, path: Path) -> None:
    texts = [f"question {each}" for each in range(12)]
    right: dict[str, str] = {}
    cache = Cache(path=path)
    chat = Chat("m", api_key=CANARY, base_url=sim.base_url, cache=cache)
    right = {text: chat.invoke(text).content for text in texts}
    cache.flush()
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole, chance = path.read_bytes(), random.Random(1)
    for each in path.parent.iterdir():
        each.unlink()
    for turn in range(30):
        bad = bytearray(whole)
        for _ in range(40):
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        broken = path.with_name(f"{turn}.db")
        broken.write_bytes(bad)
        told(broken, sim, lambda chat: [chat.invoke(text).content == right[text] or pytest.fail(text) for text in texts])


@pytest.mark.parametrize(
    ("given", "words"),
    [(5, "must be the path"), ("/nowhere/at/all.db", "in no directory"), ("/tmp", "is a directory")],  # noqa: S108
)
def test_what_can_be_no_file_is_refused_when_it_is_written(given: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Cache(path=given)


# --- several processes

PROGRAM = """
import sys
from seawall import Cache
from seawall.llm import Chat
path, base_url, first, last = sys.argv[1:]
chat = Chat("m", api_key="k", base_url=base_url, cache=Cache(path=path))
cached = [chat.invoke(f"question {each}").cached for each in range(int(first), int(last))]
print(sum(cached), flush=True)
"""


def started(path: Path, sim: Simulator, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(path), sim.base_url, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_share_a_file_at_the_same_time_and_after_one_another(sim: Simulator, path: Path) -> None:
    both = [started(path, sim, 0, 40), started(path, sim, 40, 80)]
    assert [each.communicate(timeout=120) for each in both] == [("0\n", ""), ("0\n", "")]
    assert started(path, sim, 0, 80).communicate(timeout=120) == ("80\n", "")
    assert sim.count() == 80


def test_one_that_is_killed_while_it_writes_leaves_right_answers(sim: Simulator, path: Path) -> None:
    for turn in range(3):
        process = started(path, sim, turn * 1_000, turn * 1_000 + 900)
        sim.wait_for(sim.count() + 25 + 30 * turn, timeout=60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    cache = Cache(path=path)
    chat, plain = (Chat("m", api_key=CANARY, base_url=sim.base_url, cache=each) for each in (cache, None))
    asked = [chat.invoke(f"question {turn * 1_000 + each}") for turn in range(3) for each in range(20)]
    assert any(reply.cached for reply in asked)
    for reply, at in zip(asked, (turn * 1_000 + each for turn in range(3) for each in range(20)), strict=True):
        assert reply.content == plain.invoke(f"question {at}").content
    assert cache.flush()


def test_a_forked_child_opens_the_file_for_itself(sim: Simulator, path: Path, program: Any, forking: str) -> None:
    process = program(
        forking + f"from seawall import Cache\nfrom seawall.llm import Chat\n"
        f"chat = Chat('m', api_key='k', base_url=base_url, cache=Cache(path={str(path)!r}))\n"
        "assert not chat.invoke('parent').cached\n"
        "def work():\n"
        "    assert chat.invoke('parent').cached and not chat.invoke('child').cached\n"
        "    chat.cache.flush()\n"
        "assert forked(work) == 0\n"
        "chat.cache.flush()\n"
        f"fresh = Chat('m', api_key='k', base_url=base_url, cache=Cache(path={str(path)!r}))\n"
        "print(fresh.invoke('child').cached, fresh.invoke('parent').cached)\n"
    )
    out, err = process.communicate(timeout=90)
    assert out == "True True\n", err


# --- functions


def test_what_a_function_returns_is_kept_if_json_can_say_it(path: Path, program: Any) -> None:
    module = path.with_name("mine.py")
    module.write_text(
        "from seawall import Cache, guard\n"
        f"cache = Cache(path={str(path)!r})\n"
        "calls = []\n"
        "@guard(cache=cache)\n"
        "def plain(x, *, y=1):\n    calls.append(x)\n    return {'x': x, 'y': [y, 1.0, None, True, '\\u00e9\\ud800']}\n"
        "@guard(cache=cache)\n"
        "def other(x):\n    calls.append(x)\n    return (x,)\n"
        "@guard(cache=cache)\n"
        "def items(x):\n    calls.append(x)\n    yield x\n    yield 2\n"
        "@guard(cache=cache)\n"
        "async def later(x):\n    calls.append(x)\n    return [x]\n"
    )
    text = (
        f"import sys; sys.path.insert(0, {str(path.parent)!r})\nimport asyncio, mine\n"
        "print(mine.plain('a', y=2), mine.other('a'), list(mine.items(1)), asyncio.run(mine.later(5)))\n"
        "mine.plain(object())\n"
        "print(len(mine.calls))\n"
    )
    said = [program(text).communicate(timeout=60) for _ in range(2)]
    assert not said[0][1] and not said[1][1], said
    first, second = (out.splitlines() for out, _ in said)
    assert first[0] == second[0]
    # A tuple would come back as a list, and an object is nobody else's: those two are asked for again.
    assert (first[1], second[1]) == ("5", "2")
    # Of another length: Python takes a file that is as long, and written in the same second, for the one that it has compiled.
    module.write_text(module.read_text().replace("[y, 1.0", "[y, 22.0"))
    assert "22.0" in program(text).communicate(timeout=60)[0]  # another function now


def test_a_function_that_means_something_only_here_is_kept_in_memory_alone(path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        cache = Cache(path=path)

        @guard(cache=cache)
        def closes_over(x: int) -> int:
            calls.append(x)
            return x

        assert closes_over(1) == closes_over(1) == 1
        cache.flush()
    assert calls == [1, 1]
