"""`python -m seawall.check`: all that is wrong with its place, for people and for programs, and nothing that `load` would not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import seawall
from seawall import check

# apprise loads it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

RIGHT = "[models.fast]\nmodel = 'x'\napi_key.env = 'A_KEY'\n[monitors.main]\n[sinks.a]\ntype = 'log'\n[sinks.b]\ntype = 'log'\n"
WRONG = "[monitors.main]\nwindow = 0\nnmae = 'x'\n"
WARNED = "[pipelines.x]\nretry = 3\ncircuit = { failure_threshold = 2 }\n[models.y]\nmodel = 'x'\napi_key = 'sk-in-the-file'\n"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Checks texts, each a file of its own; the exit code, and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_KEY", "sk-x")

    def run(*arguments: str, **texts: str) -> tuple[int, str, str]:
        for name, text in texts.items():
            (tmp_path / f"{name}.toml").write_text(text)
        code = check.main([*arguments, *(f"{name}.toml" for name in texts)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_file_that_is_right_is_said_to_be(run):
    assert run(a=RIGHT) == (0, "a.toml: ok, 1 model, 1 monitor, 2 sinks\n", "")
    assert run(a="") == (0, "a.toml: ok\n", "")


def test_all_that_is_wrong_is_said_of_all_files(run):
    code, out, _ = run(a=WRONG, b=RIGHT, c=WRONG)
    assert code == 1
    assert (
        out.split("b.toml")[0]
        == """\
a.toml:2:10: error: monitors.main.window must be a whole number from 1 to 10000000, not 0
   2 | window = 0
     |          ^

a.toml:3:1: error: monitors.main has no option "nmae"
   3 | nmae = 'x'
     | ^^^^ is "name" meant?

a.toml: 2 errors
"""
    )
    assert out.endswith("c.toml: 2 errors\n")


def test_known_wrong_settings_and_keys_in_the_file_are_warned_of(run):
    code, out, _ = run(a=WARNED)
    assert code == 0 and "sk-in-the-file" not in out
    assert "a.toml:3:11: warning: pipelines.x: failure_threshold=2 is not above the 3 attempts of one call" in out
    assert "a.toml:6:11: warning: models.y.api_key is a secret that stands in the file" in out
    assert out.endswith("a.toml: ok, 2 warnings, 1 model, 1 pipeline\n")
    assert run("--strict", a=WARNED)[0] == 1


def test_a_secret_that_is_not_here_is_no_error_of_the_file(run, monkeypatch):
    monkeypatch.delenv("A_KEY")
    code, out, _ = run(
        a=RIGHT + "[models.other]\nmodel = 'y'\n[models.third]\nmodel = 'z'\napi_key.file = 'nowhere'\ntimeout = 0\n"
    )
    assert code == 1
    assert "warning: models.fast.api_key.env: the environment variable A_KEY is not set here" in out
    assert "warning: models.other has no api_key, and the environment variable OPENAI_API_KEY is not set here" in out
    assert "warning: models.third.api_key.file:" in out
    assert "error: models.third.timeout must be more than zero seconds, not 0" in out
    with pytest.raises(seawall.ConfigurationError):
        seawall.load("a.toml")


def test_an_address_that_is_not_here_is_no_error_either(run, monkeypatch):
    monkeypatch.delenv("A_KEY")
    options = "base_url.env = 'A_URL'\nproxy.env = 'A_URL'\norganization.env = 'A_URL'\ndefault_headers.x.env = 'A_URL'\n"
    code, out, _ = run(
        a=f"[models.x]\nmodel = 'x'\napi_key.env = 'A_KEY'\n{options}[models.y]\nmodel = 'y'\napi_key.env = 'A_KEY'\nfallbacks = ['x']\n"
        "[sinks.x]\nurl.env = 'A_URL'\nsecret.env = 'A_KEY'\nheaders.x.env = 'A_URL'\n[sinks.y]\ntype = 'apprise'\nurls = [{ env = 'A_URL' }]\n"
    )
    assert (code, out.count("warning: ")) == (0, 10)
    assert out.endswith("a.toml: ok, 10 warnings, 2 models, 2 sinks\n")


def test_programs_read_it_as_json(run):
    code, out, _ = run("--json", a=WRONG, b=WARNED)
    found = json.loads(out)
    assert (code, [(each["kind"], each["file"], each["line"], each["column"], each["where"]) for each in found]) == (
        1,
        [
            ("error", "a.toml", 2, 10, "monitors.main.window"),
            ("error", "a.toml", 3, 1, "monitors.main.nmae"),
            ("warning", "b.toml", 3, 11, "pipelines.x.circuit"),
            ("warning", "b.toml", 6, 11, "models.y.api_key"),
        ],
    )
    assert found[1]["hint"] == 'is "name" meant?'
    assert run("--json", a=RIGHT)[1] == "[]\n"


def test_a_file_that_cannot_be_read_is_another_failure(run):
    code, out, err = run("nowhere.toml", a=WRONG)
    assert (code, err) == (2, "nowhere.toml: No such file or directory\n") and "a.toml: 2 errors" in out


def test_it_is_a_command(tmp_path):
    (tmp_path / "a.toml").write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "seawall.check", "a.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "") and done.stdout.endswith("a.toml: 2 errors\n")
