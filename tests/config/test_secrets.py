"""No key is ever shown: whatever is wrong beside it, and however it was written."""

from __future__ import annotations

import traceback
import warnings

import pytest

import seawall
from seawall.errors import ConfigurationError

# apprise loads it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

KEY = "gGhHiI0123456789wWxX"  # looks like no service's
WRONG = [
    "[models.x]\nmodel = 1\napi_key = '{key}'\n",
    "[models.x]\nmodel = 'x'\napi_key = {key}\n",
    "[models.x]\nmodel = 'x'\napi_key = '{key}\n",
    "[models.x]\nmodel = 'x'\napi_key = ['{key}']\n",
    "[models.x]\nmodel = 'x'\napi_key = {{ key = '{key}' }}\n",
    "[models.x]\nmodel = 'x'\napi_key : '{key}'\n",
    "[models.x]\nmodel = 'x'\nbearer = '{key}'\n",
    "[models.x]\nmodel = 'x'\nopenai-api-key = \"{key}\"\n",
    "[models.x]\nx = {{ model = 'x', timeout = 'x', api_key = '{key}', wrong = 1 }}\n",
    "[models]\nx = {{ model = 'x', timeout = 'x', api_key = '{key}', wrong = 1 }}\n",
    "[models.x]\nmodel = 'x'\nsk-{key} = 1\n",
    "[models.x]\nmodel = 'x'\nbase_url = 'https://user:{key}@example.com/v1'\n",
    "[models.x]\nmodel = 'x'\nbase_url = 'ftp://example.com/v1?key={key}'\n",
    "[models.x]\nmodel = 'x'\nproxy = 'foo://user:{key}@example.com'\n",
    "[models.x]\nmodel = 'x'\nproxy = 7\ndefault_headers = {{ Authorization = ['Bearer {key}'] }}\n",
    "[models.x]\nmodel = 'x'\ndefault_headers = {{ 'a b' = '{key}' }}\n",
    "[models.x]\nmodel = 'x'\ndefault_query = {{ code = ['{key}'] }}\n",
    "[models.x]\nmodel = '''\napi_key =\n{key}\n\\u\n''' x\n",
    "[sinks.x]\nurl = 'ftp://hooks.example.com/{key}'\n",
    "[sinks.x]\nurl = 'https://hooks.example.com/{key}' nonsense\n",
    "[sinks.x]\nurl = 'https://hooks.example.com/x'\nsecret = 'whsec_{key}!'\n",
    "[sinks.x]\ntype = 'apprise'\nurls = [\n  'nothing://{key}',\n]\n",
    "[sinks.x]\ntype = 'apprise'\nurls = [\n  'slack://{key}' 'x',\n]\n",
    "[sinks.x]\ntype = 'apprise'\nurls = '{key}'\n",
]


@pytest.mark.parametrize("text", WRONG)
def test_no_key_is_shown_of_a_file_that_is_wrong(text, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-env-{KEY}")
    (tmp_path / "s.toml").write_text(text.format(key=KEY))
    with warnings.catch_warnings(record=True) as warned, pytest.raises(ConfigurationError) as refused:
        warnings.simplefilter("always")
        seawall.load(tmp_path / "s.toml")
    error = refused.value
    shown = [str(error), repr(error.problems), *(str(each.message) for each in warned), caplog.text]
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown += ["".join(whole.format())]
    for each in shown:
        assert KEY[:8] not in each and KEY[-8:] not in each


def test_no_key_is_shown_of_one_that_is_right(tmp_path, monkeypatch):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "s.toml").write_text("[models.x]\nmodel = 'x'\napi_key = { file = 'key' }\n")
    config = seawall.load(tmp_path / "s.toml")
    assert KEY not in repr(config) + repr(config.models) + repr(config.models["x"]) + repr(vars(config))


def test_a_file_s_key_is_in_no_message_about_that_file(tmp_path):
    (tmp_path / "key").write_bytes(KEY.encode() + b"\xff")
    (tmp_path / "s.toml").write_text("[models.x]\nmodel = 'x'\napi_key = { file = 'key' }\n")
    with pytest.raises(ConfigurationError, match="cannot be read: it is no text in UTF-8") as refused:
        seawall.load(tmp_path / "s.toml")
    assert KEY not in "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
