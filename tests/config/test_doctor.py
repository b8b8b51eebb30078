"""`python -m seawall.doctor`: each thing that keeps calls from working is named with what to do, nothing is sent but what it says, and no
key is shown."""

from __future__ import annotations

import email.utils
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from seawall._model import Hidden
from seawall.configuration import _document
from seawall.doctor import Place, __main__, _key, _surroundings
from seawall.simulator import Simulator, faults

KEY = "sk-0123456789-the-right-one"


@pytest.fixture
def sim():
    with Simulator(models=["gpt-4o", "text-embedding-3-small"], api_keys=[KEY]) as simulator:
        yield simulator


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs it; the exit code, and lines by what they are about: the state, the text and the advice."""
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def found(code: int, out: str, err: str) -> tuple[int, dict[str, tuple[str, str]]]:
        assert KEY not in out + err and "0123456789" not in out + err
        if code == 2:
            return code, {"": ("", err)}
        each = json.loads(out)
        return code, {f"{one['part']} {one['what']}".strip(): (one["state"], f"{one['text']} | {one['advice']}") for one in each}

    def run(*arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
        return found(__main__.main(["--json", *arguments]), *capsys.readouterr())

    def alone(*arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
        """In a process of its own: the client reads proxies and authorities once."""
        done = subprocess.run(
            [sys.executable, "-m", "seawall.doctor", "--json", *arguments], capture_output=True, text=True, check=False
        )
        return found(done.returncode, done.stdout, done.stderr)

    run.alone = alone  # type: ignore[attr-defined]
    return run


def test_what_works_is_ok(run, sim):
    code, found = run("--base-url", sim.base_url, "--model", "gpt-4o")
    # How long something took, and how many files may be open, is this machine's affair.
    sure = {
        "key 127.0.0.1",
        "endpoint HTTP",
        "endpoint models",
        "model gpt-4o",
        "versions",
        "proxy",
        "event loop",
        "hidden retries",
    }
    assert code == 0 and set(found) >= sure | {"endpoint name", "latency", "clock"}
    assert {found[name][0] for name in sure} == {"ok"}
    assert found["endpoint models"][1].startswith("the key is taken, and 2 models offered")


def test_nothing_is_sent_but_what_it_says(sim, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert __main__.main(["--base-url", sim.base_url]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert (
        said
        == f"seawall doctor: it asks {sim.base_url} for the list of models, 5 times without a key and once with it, which costs nothing; no model is called"
    )
    assert [(each.path, "authorization" in each.headers) for each in sim.requests] == [("/v1/models", False)] * 5 + [
        ("/v1/models", True)
    ]
    sim.forget()
    assert __main__.main(["--base-url", sim.base_url, "--model", "gpt-4o", "--call"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("which costs nothing; and each model for one token")
    *listed, called = sim.requests
    assert len(listed) == 6 and (called.path, called.body["max_tokens"]) == ("/v1/chat/completions", 1)


def test_a_key_that_is_refused_and_one_that_is_not_there(run, sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789-another")
    code, found = run("--base-url", sim.base_url)
    assert (code, found["endpoint models"]) == (
        1,
        ("problem", "401: the key is refused | check which key that is, and that it was not withdrawn"),
    )
    monkeypatch.delenv("OPENAI_API_KEY")
    code, found = run("--base-url", sim.base_url)
    assert (code, found["key 127.0.0.1"][0], found["endpoint models"]) == (
        1,
        "problem",
        ("warning", "not asked, for want of a key | "),
    )


def test_a_model_that_is_not_offered_is_told_with_one_that_is(run, sim):
    code, found = run("--base-url", sim.base_url, "--model", "gpt-4")
    assert code == 0 and found["model gpt-4"][1].startswith('gpt-4 is not in the service\'s list: is "gpt-4o" meant?')
    code, found = run("--base-url", sim.base_url, "--model", "gpt-4", "--call")
    assert (code, found["model gpt-4"][1].split(" | ")[0]) == (1, "404: there is no such model")


@pytest.mark.parametrize(
    ("base_url", "what", "text"),
    [
        ("http://127.0.0.1:9/v1", "endpoint connection", "nothing listens at 127.0.0.1:9"),
        (f"http://{'a' * 64}.example/v1", "endpoint name", "is not known here"),
        ("http://127.0.0.1:9/v1/chat/completions", "endpoint address", "it ends in /completions, which is added to it"),
    ],
)
def test_a_service_that_is_not_there(run, base_url, what, text):
    code, found = run("--base-url", base_url)
    assert code == 1 and found[what][0] == "problem" and text in found[what][1] and not found[what][1].endswith("| ")
    assert "endpoint models" not in found


def test_a_service_that_does_not_answer_or_speaks_otherwise(run, raw, sim):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, found = run("--base-url", f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "--timeout", "0.05")
    assert code == 1 and any("does not answer in time" in text for _, text in found.values())
    _, found = run("--base-url", raw(b"220 ftp.example.com\r\n").base_url)
    assert "answers with something that is no HTTP" in found["endpoint HTTP"][1]
    _, found = run("--base-url", sim.base_url.replace("http:", "https:"))
    assert "speaks no TLS that we know" in found["endpoint TLS"][1]


@pytest.mark.parametrize(
    ("off", "state", "text"),
    [
        (0, "ok", r"within two seconds of the server's|\d+ s ahead"),
        (-60.5, "warning", r"(5\d|6\d) s ahead of the server's"),
        (7200.5, "problem", r"7[12]\d\d s behind the server's"),
    ],
)
def test_a_clock_that_is_wrong(run, raw, off, state, text):
    date = email.utils.formatdate(time.time() + off, usegmt=True)
    _, found = run("--base-url", raw(raw.answer('{"data": []}', headers=f"date: {date}\r\n")).base_url)
    assert found["clock"][0] == state and re.match(text, found["clock"][1])


def test_a_server_without_a_clock(run, raw):
    _, found = run("--base-url", raw(raw.answer('{"data": []}')).base_url)
    assert found["clock"] == ("warning", "the server says no time, so ours cannot be compared | ")


def test_certificates(run, raw, tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    date = email.utils.formatdate(usegmt=True)
    server = raw(raw.answer('{"data": [{"id": "gpt-4o"}]}', headers=f"date: {date}\r\n"), tls=context)
    code, found = run.alone("--base-url", server.base_url)
    assert (
        code == 1
        and "certificate" in found["endpoint TLS"][1]
        and "name it by ca_bundle or SSL_CERT_FILE" in found["endpoint TLS"][1]
    )
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    code, found = run.alone("--base-url", server.base_url)
    assert code == 0 and re.match(r"TLSv1\.\d, a certificate for 127.0.0.1, valid for \d+ days", found["endpoint TLS"][1])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    assert run.alone("--base-url", server.base_url)[1]["certificates SSL_CERT_FILE"][0] == "problem"


def test_a_proxy_is_named_without_its_password(run, sim, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:0123456789@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    code, found = run.alone("--base-url", sim.base_url)
    assert (code, found["proxy 127.0.0.1"]) == (1, ("ok", "requests go by http://127.0.0.1:9 | "))
    assert found["endpoint models"][0] == "problem" and sim.count() == 0
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    code, found = run.alone("--base-url", sim.base_url)
    assert (code, found["proxy"][1]) == (0, "none is used; HTTP_PROXY, NO_PROXY are set | ")


def test_all_that_a_file_describes_is_looked_at(run, sim, tmp_path, monkeypatch):
    path = tmp_path / "seawall.toml"
    path.write_text(
        f"[defaults.models]\nbase_url = '{sim.base_url}'\napi_key.env = 'A_KEY'\n[models.fast]\nmodel = 'gpt-4o'\n"
        "[models.vectors]\ntype = 'embeddings'\nmodel = 'text-embedding-3-small'\n[models.other]\nmodel = 'gpt-4'\napi_key.env = 'ANOTHER'\n"
        "[pipelines.x]\nretry = 3\ncircuit.failure_threshold = 2\n"
    )
    monkeypatch.setenv("A_KEY", KEY)
    code, found = run("--config", str(path), "--call")
    assert code == 1  # for there is no other key
    assert found["key 127.0.0.1"] == (
        "problem",
        "there is none in the environment variable ANOTHER | put it there, where this runs",
    )
    assert all(found[f"model {name}"][1].startswith("it answers, with one token") for name in ("fast", "vectors"))
    assert found["file line 14"][1].startswith("pipelines.x: failure_threshold=2")
    sim.forget()
    code, found = run("--config", str(path), "--model", "fast")
    assert (code, sim.count()) == (0, 6)
    assert run("--config", str(path), "--model", "slow") == (
        2,
        {"": ("", f"{path} describes no model 'slow'; there are fast, vectors, other\n")},
    )


def test_a_model_is_called_once_and_none_in_its_place(run, sim, tmp_path, monkeypatch):
    path = tmp_path / "seawall.toml"
    model = f"base_url = '{sim.base_url}'\napi_key.env = 'OPENAI_API_KEY'\n"
    path.write_text(
        f"[models.fast]\nmodel = 'gpt-4o'\n{model}fallbacks = ['other']\nmonitor = 'main'\nretry = {{ attempts = 3, wait = 0 }}\n"
        f"[models.other]\nmodel = 'gpt-4o'\n{model}params = {{ user = 'other' }}\n[monitors.main]\n"
    )
    sim.on("gpt-4o", faults.status(503), path="/v1/chat/completions")
    code, found = run("--config", str(path), "--model", "fast", "--call")
    assert (code, found["model fast"][0]) == (0, "warning") and found["model fast"][1].startswith("the service says 503")
    assert [each.path for each in sim.requests].count("/v1/chat/completions") == 1


def test_a_file_that_is_wrong_is_not_begun_with(run, tmp_path):
    path = tmp_path / "seawall.toml"
    path.write_text("[models.x]\nmodle = 'x'\n")
    code, found = run("--config", str(path))
    assert code == 2 and 'is "model" meant?' in found[""][1]
    assert run("--config", str(tmp_path / "nowhere"))[0] == 2
    assert run("--base-url", "nonsense")[0] == 2


@pytest.mark.parametrize("arguments", [["--call"], ["--config", "x", "--base-url", "y"], ["--timeout", "0"]])
def test_what_cannot_be_meant_is_refused(arguments):
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("key", "host", "state", "words"),
    [
        ("sk-proj-0123456789abcdefghij", "api.openai.com", "ok", "its shape is that of a key"),
        ("  sk-proj-0123456789abcdefghij", "api.openai.com", "problem", "white space"),
        ("sk-proj-0123456789abcdefghi\u2013", "api.openai.com", "problem", "characters that no key has"),
        ('"sk-proj-0123456789abcdefghij"', "api.openai.com", "problem", "quotes around it"),
        ("Bearer sk-proj-0123456789abcdefghij", "api.openai.com", "problem", '"Bearer"'),
        ("sk-proj-0123456789 abcdefghij", "api.openai.com", "problem", "space within"),
        ("your-api-key-goes-here-please", "api.openai.com", "problem", "placeholder"),
        ("${OPENAI_API_KEY}", "api.openai.com", "problem", "placeholder"),
        ("sk-ant-0123456789abcdefghij", "api.openai.com", "problem", "one of Anthropic, and api.openai.com is not theirs"),
        ("sk-proj-0123456789abcdefghij", "api.groq.com", "problem", "one of OpenAI"),
        ("org-0123456789abcdefghijkl", "api.openai.com", "warning", "does not begin as OpenAI's"),
        ("sk-01234", "api.example.com", "warning", "very short"),
        ("anything", "localhost", "ok", "shape"),
        ("0123456789abcdefghijklmno", "gateway.example.com", "ok", "shape"),
    ],
)
def test_shapes_of_keys(key, host, state, words):
    (found,) = _key.looked_at(Place(f"https://{host}/v1", Hidden(key), "the file x"))
    assert found.state == state and words in found.text and found.text.startswith("from the file x")
    assert key.strip() not in str(found) and "abcdefghij" not in str(found)


def test_versions_that_do_not_go_together_are_named():
    def said(**found: str) -> list[tuple[str, str]]:
        told = {name.replace("_", "-"): version for name, version in found.items()}
        return [(each.state, each.text) for each in _surroundings.versions(told) if each.state != "ok"]

    assert said(openai="1.50.0", httpx="0.28.1") == [
        ("problem", "openai 1.50.0 with httpx 0.28.1: its clients cannot be made: httpx 0.28 has no argument proxies")
    ]
    assert said(openai="1.55.3", httpx="0.28.1") == said(openai="1.50.0", httpx="0.27.2") == []
    assert said(langchain_core="0.3.9") == [("problem", "langchain-core 0.3.9 is too old")]
    assert said(langchain_core="2.0.0rc1") == [("warning", "langchain-core 2.0.0rc1 is newer than what seawall was tried with")]
    assert _surroundings.order("1.10.0rc1") > _surroundings.order("1.9")


def test_the_versions_are_those_that_the_extras_ask_for():
    _, root = _document.read(Path(__file__).parents[2] / "pyproject.toml")
    project = _document.plain(root)["project"]
    asked = [
        re.match(r"([\w-]+)>=([\d.]+)(?:,<(\d+))?$", each)
        for name, extra in project["optional-dependencies"].items()
        if name != "all"
        for each in extra
    ]
    for found in asked:
        if found[1] in _surroundings.PACKAGES:
            assert _surroundings.PACKAGES[found[1]] == (found[2], found[3]), found[1]
    assert sum(found[1] in _surroundings.PACKAGES for found in asked) >= 5


def test_it_is_a_command_for_people(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789-another")
    done = subprocess.run(
        [sys.executable, "-m", "seawall.doctor", "--base-url", sim.base_url], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert (
        "  problem  models: 401: the key is refused\n           → check which key that is, and that it was not withdrawn\n"
        in done.stdout
    )
    assert done.stdout.endswith("\n1 problem\n") and "0123456789" not in done.stdout
