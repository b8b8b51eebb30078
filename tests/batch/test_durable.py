"""Batches with a journal: what is asked again, what is given back, what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _canary import CANARY

from seawall import CircuitBreaker, errors, journal
from seawall.llm import Chat, Embeddings, Reply
from seawall.simulator import Simulator, faults

Batch = Callable[..., list[Any]]
INPUTS = [f"q{n}" for n in range(50)]


def with_batch(model: Chat, inputs: Any, **options: Any) -> list[Any]:
    return model.batch(inputs, **options)


def with_abatch(model: Chat, inputs: Any, **options: Any) -> list[Any]:
    return asyncio.run(model.abatch(inputs, **options))


def as_completed(model: Chat, inputs: Any, **options: Any) -> list[Any]:
    results = dict(model.batch_as_completed(inputs, **options))
    return [results[at] for at in sorted(results)]


def in_order(model: Chat, inputs: Any, **options: Any) -> list[Any]:
    pairs = list(model.batch_in_order(inputs, **options))
    assert [at for at, _ in pairs] == sorted(at for at, _ in pairs)
    return [result for _, result in pairs]


def with_async(method: str) -> Batch:
    def run(model: Chat, inputs: Any, **options: Any) -> list[Any]:
        async def collected() -> list[Any]:
            pairs = {at: result async for at, result in getattr(model, method)(inputs, **options)}
            return [pairs[at] for at in sorted(pairs)]

        return asyncio.run(collected())

    return run


WAYS = {
    "batch": with_batch,
    "abatch": with_abatch,
    "as completed": as_completed,
    "in order": in_order,
    "async as completed": with_async("abatch_as_completed"),
    "async in order": with_async("abatch_in_order"),
}
every_way = pytest.mark.parametrize("batch", WAYS.values(), ids=WAYS)


def right(results: list[Any], inputs: list[str] = INPUTS) -> bool:
    return all(isinstance(r, Reply) and f" {i} " in r.content for r, i in zip(results, inputs, strict=True))


@every_way
def test_what_is_finished_is_never_asked_again(sim: Simulator, chat, db: str, batch: Batch) -> None:
    first = batch(chat(), INPUTS, journal=db, max_concurrency=7)
    assert right(first) and sim.count() == 50
    again = batch(chat(), INPUTS, journal=db)
    assert right(again) and sim.count() == 50
    # As they were, but for what nobody needs later.
    for one, other in zip(first, again, strict=True):
        assert (one.content, one.usage, one.id, one.model, one.request_id) == (
            other.content,
            other.usage,
            other.id,
            other.model,
            other.request_id,
        )
        assert (one.attempts, one.seconds, one.raw) == (other.attempts, other.seconds, other.raw)
    # More may follow.
    assert right(batch(chat(), [*INPUTS, "more"], journal=db), [*INPUTS, "more"])
    assert sim.count() == 51
    assert right(batch(chat(), INPUTS[:3], journal=db), INPUTS[:3])


@every_way
def test_each_result_belongs_to_its_input_however_late_it_comes(sim: Simulator, chat, db: str, batch: Batch) -> None:
    sim.on("m", faults.latency((0, 0.05)))
    assert right(batch(chat(), INPUTS, journal=db, max_concurrency=20))


@every_way
def test_failures_are_listed_and_asked_for_again_alone(sim: Simulator, chat, db: str, batch: Batch) -> None:
    sim.on("m", faults.content_filter(), times=2, after=10)
    results = batch(chat(), INPUTS, journal=db, max_concurrency=1, return_exceptions=True)
    failed = [at for at, result in enumerate(results) if isinstance(result, Exception)]
    assert failed == [10, 11]
    with journal.open(db) as written:
        assert written.counts == (48, 2)
        assert repr(written) == f"<Journal {db}: 48 answered, 2 failed>"
        told = list(written.failures())
        assert [at for at, _ in told] == failed
        for _, error in told:
            assert type(error) is errors.ContentFilterError
            assert (error.status_code, error.attempts[0].outcome, error.model) == (400, "ContentFilterError", "m")
            assert str(error) == str(results[10])
        assert [at for at, _ in written.results()] == list(range(50))
    given_back = batch(chat(), INPUTS, journal=db, retry_failures=False, return_exceptions=True)
    assert sim.count() == 50
    assert [type(given_back[at]) for at in failed] == [errors.ContentFilterError] * 2
    with pytest.raises(errors.ContentFilterError):
        batch(chat(), INPUTS, journal=db, retry_failures=False)
    assert right(batch(chat(), INPUTS, journal=db))
    assert sim.count() == 52
    with journal.open(db) as written:
        assert written.counts == (50, 0)


def test_without_return_exceptions_the_first_failure_carries_all_results(sim: Simulator, chat, db: str) -> None:
    sim.on("m", faults.status(400), times=1, after=3)
    with pytest.raises(errors.BadRequestError) as raised:
        chat().batch(INPUTS, journal=db, max_concurrency=1)
    assert len(raised.value.results) == 50 and raised.value.results[3] is raised.value
    sim.on("m", faults.status(400), times=2)
    given: list[int] = []
    with pytest.raises(errors.BadRequestError) as raised:
        given.extend(at for at, _ in chat().batch_as_completed(INPUTS))
    assert len(given) == 48
    assert "2 of 50 inputs failed" in raised.value.__notes__[-1]


@every_way
def test_another_question_at_a_place_is_told(sim: Simulator, chat, db: str, batch: Batch) -> None:
    batch(chat(temperature=0), ["a", "b"], journal=db)
    for inputs, options, what in (
        (["a", "c"], {}, r"another question at inputs\[1\]"),
        (["a", "b"], {"temperature": 1}, "was begun with another temperature"),
        (["a", "b"], {"seed": 1}, "was begun with no seed"),
    ):
        with pytest.raises(errors.JournalError, match=what):
            batch(chat(temperature=0), inputs, journal=db, **options)
    with pytest.raises(errors.JournalError, match="a temperature, and now there is none"):
        batch(chat(), ["a", "b"], journal=db)
    with pytest.raises(errors.JournalError, match='the model "m", not "n"'):
        batch(chat("n", temperature=0), ["a", "b"], journal=db)
    assert sim.count() == 2


def test_an_alternative_may_be_added_later(sim: Simulator, chat, db: str) -> None:
    sim.on("m", faults.context_window(), times=1, after=1)
    assert isinstance(
        chat().batch(["a", "b"], journal=db, return_exceptions=True, max_concurrency=1)[1], errors.ContextWindowExceededError
    )
    sim.on("m", faults.context_window())
    model = chat().with_fallbacks([chat("large")])
    results = model.batch(["a", "b"], journal=db)
    assert [reply.alternative for reply in results] == [0, 1]
    assert [reply.asked_model for reply in model.batch(["a", "b"], journal=db)] == ["m", "large"]


@every_way
@pytest.mark.parametrize(
    "fault", [faults.status(503), faults.reset(), faults.status(500), faults.rate_limit(retry_after_ms=100)], ids=lambda f: f.name
)
def test_an_outage_is_waited_for_and_costs_little(sim: Simulator, chat, db: str, batch: Batch, fault) -> None:
    sim.on("m", fault, times=30)
    assert right(batch(chat().with_retry(wait=0.005), INPUTS, journal=db, max_concurrency=10))
    assert sim.count() == 80
    met = [request.fault != "ok" for request in sim.requests]
    # Ten were under way when it began; from then on one at a time looks whether it is over.
    probes = [request.time for request, failed in zip(sim.requests, met, strict=True) if failed][12:]
    # Each waits 5 ms for the one before it; how late each arrives is the machine's.
    assert probes[-1] - probes[0] >= 0.0025 * (len(probes) - 1)


def test_an_open_circuit_and_a_used_up_limit_are_waited_for(sim: Simulator, chat, db: str) -> None:
    circuit = CircuitBreaker(failure_threshold=3, recovery_timeout=0.05)
    sim.on("m", faults.status(500), times=12)
    assert right(chat(circuit=circuit).with_retry(wait=0.001).batch(INPUTS, journal=db, max_concurrency=4))
    assert sim.count() <= 50 + 12


class _Poisoned(http.server.BaseHTTPRequestHandler):
    """Fails where it is asked about poison."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][0]["content"]
        status = 500 if "poison" in asked else 200
        body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": f"so {asked} it is"}}]}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("batch", [with_batch, with_async("abatch_in_order")], ids=["batch", "async in order"])
def test_an_input_that_breaks_the_server_fails_by_itself_wherever_it_stands(db: str, batch: Batch) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Poisoned) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        model = Chat("m", api_key="k", base_url=f"http://127.0.0.1:{server.server_port}/v1").with_retry(wait=0.001)
        for place in (0, 50):
            inputs = [*INPUTS[:place], "poison", *INPUTS[place:]]
            results = batch(model, inputs, journal=f"{db}.{place}", max_concurrency=4, return_exceptions=True)
            (failure,) = [result for result in results if not isinstance(result, Reply)]
            assert results[place] is failure
            assert (type(failure), len(failure.attempts) >= 3) == (errors.InternalServerError, True)
            with journal.open(f"{db}.{place}") as written:
                assert written.counts == (50, 1)
        server.shutdown()


@every_way
def test_what_no_input_can_help_ends_it_at_once(sim: Simulator, chat, db: str, batch: Batch) -> None:
    sim.on("m", faults.quota(), after=10)
    with pytest.raises(errors.QuotaExceededError) as raised:
        batch(chat(), INPUTS, journal=db, max_concurrency=2, return_exceptions=True)
    assert sim.count() <= 14
    (note,) = raised.value.__notes__
    assert " of 50 inputs are answered and in " in note and "the same call goes on from there" in note
    with journal.open(db) as written:
        assert written.counts.done >= 10 and not written.counts.failed
    sim.clear()
    assert right(batch(chat(), INPUTS, journal=db))


def test_patience_has_an_end(sim: Simulator, chat, db: str) -> None:
    sim.on("m", faults.status(503))
    with pytest.raises(errors.ServiceUnavailable) as raised:
        chat().with_retry(wait=0.01).batch(INPUTS, journal=db, patience=0.1)
    assert any("the patience is used up" in note for note in raised.value.__notes__)
    with journal.open(db) as written:
        assert written.counts == (0, 0)


def test_without_a_journal_the_calls_have_their_own_retries_unless_patience_is_asked_for(sim: Simulator, chat) -> None:
    sim.on("m", faults.status(503), times=30)
    results = chat().with_retry(stop_after_attempt=2, wait=0.001).batch(INPUTS[:5], return_exceptions=True)
    assert all(isinstance(result, errors.ServiceUnavailable) for result in results)
    assert sim.count() == 10
    assert right(chat().with_retry(stop_after_attempt=2, wait=0.001).batch(INPUTS, patience=30))
    assert sim.count() == 80


def test_the_key_and_what_echoes_it_are_not_in_the_journal(sim: Simulator, chat, db: str) -> None:
    key = "sk-a-test-key"
    sim.on("m", faults.reply(f"your key is {key}"))
    sim.on("m", faults.status(400, message=f"bad key {key}"), times=1)
    results = chat().batch(["a", "b"], journal=db, max_concurrency=1, return_exceptions=True, extra_headers={"x-api-key": key})
    assert key in results[1].content
    with journal.open(db) as written:
        assert "[redacted]" in list(written.results())[1][1].content
    for path in Path(db).parent.iterdir():
        assert key.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@every_way
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"journal": 5}, "journal must be the path"),
        ({"journal": ""}, "journal must be the path"),
        ({"patience": 0}, "patience must be"),
        ({"patience": "1"}, "patience must be"),
        ({"patience": float("nan")}, "patience must be"),
        ({"progress": "yes"}, "progress must be"),
        ({"retry_failures": "no", "journal": "x.db"}, "retry_failures must be"),
        ({"retry_failures": False}, "give journal="),
        ({"max_concurrency": 0, "journal": "x.db"}, "max_concurrency"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(sim: Simulator, chat, batch: Batch, options, what: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=what):
        batch(chat(), ["a"], **options)
    assert sim.count() == 0
    assert not Path("x.db").exists()


def test_single_calls_say_where_a_journal_is_for(chat, sim: Simulator) -> None:
    with pytest.raises(errors.ConfigurationError, match="batch methods"):
        Embeddings("e", api_key=CANARY, base_url=sim.base_url).invoke(["a"], journal="x.db")
    with pytest.raises(errors.ConfigurationError, match="batch methods"):
        chat().invoke("a", journal="x.db")


@every_way
def test_an_input_that_cannot_be_sent_is_an_error_at_its_place(sim: Simulator, chat, db: str, batch: Batch) -> None:
    results = batch(chat(), ["a", None, "half \ud800", "b"], journal=db, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Reply", "TypeError", "ValueError", "Reply"]
    assert "inputs[1]" in str(results[1])
    with pytest.raises(TypeError, match=r"inputs\[1\]"):
        batch(chat(), ["a", None, "b"], journal=db)


def test_two_at_once_on_one_journal_are_told_apart(sim: Simulator, chat, db: str) -> None:
    running = chat().batch_as_completed(INPUTS, journal=db)
    next(running)
    with pytest.raises(errors.JournalError, match="in use by another batch of this process"):
        chat().batch(INPUTS, journal=db)
    program = f"import seawall.llm\nseawall.llm.Chat('m', api_key='k', base_url={sim.base_url!r}).batch(['a'], journal={db!r})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"is in use by process {os.getpid()}" in ended.stderr
    with journal.open(db) as written:
        assert written.counts.done > 0
    running.close()
    assert right(chat().batch(INPUTS, journal=db))


def test_inputs_are_taken_as_there_is_room_and_forgotten(sim: Simulator, chat) -> None:
    taken = 0

    def inputs() -> Iterator[str]:
        nonlocal taken
        for n in range(500):
            taken += 1
            yield f"q{n}"

    given = 0
    for _ in chat().batch_as_completed(inputs(), max_concurrency=4):
        given += 1
        assert taken <= given + 8
    assert given == 500
    taken = given = 0
    sim.on("m", faults.latency(0.1), times=1)
    for _ in chat().batch_in_order(inputs(), max_concurrency=4):
        given += 1
        assert taken <= given + 32


MEMORY = """
from seawall.llm import Chat
chat = Chat("m", api_key="k", base_url=base_url)
seen = 0
for at, reply in chat.{method}(("%08d " % n + "x" * 6000 for n in range({count})), journal={db!r}, max_concurrency=8):
    seen += 1
assert seen == {count}
# Not getrusage, which counts the memory of whoever started it, too.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is nothing that says how much memory was used")
@pytest.mark.parametrize("method", ["batch_as_completed", "batch_in_order"])
def test_memory_does_not_grow_with_the_inputs(sim: Simulator, tmp_path: Path, method: str) -> None:
    sim.on("m", faults.reply("y" * 6000))

    def peak(count: int) -> int:
        program = f"base_url = {sim.base_url!r}\n" + MEMORY.format(method=method, count=count, db=str(tmp_path / f"{count}.db"))
        return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)

    small = peak(500)
    # Kept, the rest would take 24 MB at the least.
    assert peak(2500) - small < 6_000


async def test_inputs_may_come_from_an_asynchronous_iterator_that_waits_for_results(sim: Simulator, chat) -> None:
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def inputs() -> Any:
        question = "first"
        for _ in range(5):
            yield question
            question = f"and {len(await answers.get())}"

    async for _, reply in chat().abatch_as_completed(inputs()):
        answers.put_nowait(reply.content)
    assert sim.count() == 5


@pytest.mark.parametrize("method", ["abatch_as_completed", "abatch_in_order"])
async def test_cancelled_it_cuts_its_requests_and_keeps_what_was_finished(sim: Simulator, chat, db: str, method: str) -> None:
    sim.on("m", faults.hang(), after=5)

    async def work() -> None:
        async for _ in getattr(chat(), method)(INPUTS, max_concurrency=3, journal=db):
            pass

    task = asyncio.ensure_future(work())
    await asyncio.to_thread(sim.wait_for, 8)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(sim.wait_aborted, 3)
    with journal.open(db) as written:
        assert written.counts == (5, 0)


def test_it_runs_under_trio(sim: Simulator, chat, db: str) -> None:
    import trio

    async def main() -> list[Any]:
        return await chat().abatch(INPUTS, journal=db)

    assert right(trio.run(main))


INTERRUPTED = """
import signal, sys
from seawall.llm import Chat
signal.signal(signal.SIGINT, signal.default_int_handler)
chat = Chat("m", api_key="k", base_url=base_url)
try:
    chat.batch(["q%d" % n for n in range(50)], journal=sys.argv[1], max_concurrency=3)
except KeyboardInterrupt as error:
    print(*error.__notes__, flush=True)
    sys.stdin.read()
"""


def test_ctrl_c_cuts_what_is_under_way_and_says_where_it_goes_on(sim: Simulator, db: str) -> None:
    sim.on("m", faults.hang(), after=5)
    program = [sys.executable, "-c", f"base_url = {sim.base_url!r}\n{INTERRUPTED}", db]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with contextlib.closing(process.stdout), contextlib.closing(process.stdin), contextlib.closing(process.stderr):
        sim.wait_for(8, 60)
        process.send_signal(signal.SIGINT)
        assert (
            process.stdout.readline() == f"seawall: 5 of 50 inputs are answered and in {db}; the same call goes on from there\n"
        )
        # It lives on, and its requests do not.
        sim.wait_aborted(3)
        with journal.open(db) as written:
            assert written.counts == (5, 0)
        process.kill()
        process.wait()


FULL = """
import resource, sys
from seawall.llm import Chat
from seawall import errors
chat = Chat("m", api_key="k", base_url=base_url)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, -1))
try:
    chat.batch(["q%d" % n for n in range(5000)], journal=sys.argv[1], max_concurrency=8)
except errors.JournalError as error:
    print(error)
    print(len(error.unsaved), all(" q%d " % at in reply.content for at, reply in error.unsaved.items()))
"""


def test_a_disk_that_is_full_loses_no_answer(sim: Simulator, chat, db: str) -> None:
    program = [sys.executable, "-c", f"base_url = {sim.base_url!r}\n{FULL}", db]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    said, unsaved = ended.stdout.splitlines()
    assert said.startswith(f"the journal {db} cannot be")
    count, are_right = unsaved.split()
    assert int(count) >= 1 and are_right == "True"
    with journal.open(db) as written:
        saved = written.counts.done
    assert 0 < saved < 5000
    assert sim.count() - saved <= 8
    before = sim.count()
    assert right(chat().batch([f"q{n}" for n in range(5000)], journal=db), [f"q{n}" for n in range(5000)])
    assert sim.count() - before == 5000 - saved


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads, which is what is tried here
def test_a_forked_child_leaves_its_parents_batch_alone(sim: Simulator, chat, db: str) -> None:
    running = chat().batch_as_completed(INPUTS, journal=db, max_concurrency=2)
    next(running)
    child = os.fork()
    if not child:
        code = 1
        try:
            list(running)
        except RuntimeError as error:
            code = 0 if "goes on in the parent" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(running)) == 49
    assert right(chat().batch(INPUTS, journal=db)) and sim.count() == 50
