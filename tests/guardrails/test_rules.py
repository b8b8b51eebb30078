"""Each rule alone: what passes, what does not, and what is refused when it is written."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from seawall import Guardrails
from seawall.errors import (
    ConfigurationError,
    ConfigurationTypeError,
    GuardrailError,
    InputRefusedError,
    OutputRefusedError,
    OutputShapeError,
)
from seawall.guardrails import Detector, Forbidden, MaxLength, MaxTokens, Redact, Rule, Shape

# Put together here, so that no scanner of repositories takes them for real ones. Forms and examples are those that the issuers have
# published: AWS's own example key, RFC 7519's token, the formats of the others with letters of no meaning.
LETTERS, HEX = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA", "0123456789abcdef"
SECRETS = {
    "openai-key": ["sk-" + "proj-" + LETTERS + LETTERS, "sk-" + LETTERS[:20] + "T3Blbk" + "FJ" + LETTERS[:20]],
    "anthropic-key": ["sk-" + "ant-api03-" + LETTERS * 3],
    "openrouter-key": ["sk-" + "or-v1-" + HEX * 4],
    "aws-access-key": ["AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "Y34FZKBOKMUTVV7A"],
    "aws-secret-key": ["aws_secret_access_key = wJalrXUtnFEMI" + "/K7MDENG/bPxRfiCYEXAMPLEKEY"],
    "github-token": ["ghp" + "_" + (LETTERS * 2)[:36], "github" + "_pat_" + LETTERS + "_" + LETTERS],
    "gitlab-token": ["glpat" + "-" + LETTERS[:20]],
    "slack-token": ["xoxb" + "-123456789012-1234567890123-" + LETTERS[:24]],
    "slack-webhook": ["https://hooks.slack.com/" + "services/T00000000/B00000000/" + LETTERS[:24]],
    "google-api-key": ["AIza" + (LETTERS * 2)[:35]],
    "stripe-key": ["sk" + "_live_" + LETTERS[:24], "rk" + "_test_" + LETTERS[:24]],
    "huggingface-token": ["hf" + "_" + LETTERS + "ab"],
    "sendgrid-key": ["SG." + LETTERS[:22] + "." + (LETTERS * 2)[:43]],
    "npm-token": ["npm" + "_" + (LETTERS * 2)[:36]],
    "telegram-token": ["123456789:AA" + (LETTERS * 2)[:33]],
    "jwt": [
        "eyJhbGciOiJIUzI1NiJ9." + "eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9." + "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    ],
    "private-key": [
        "-----BEGIN " + "RSA PRIVATE KEY-----\n" + (LETTERS * 2 + "\n") * 8 + "-----END RSA PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY-----\n" + LETTERS * 2,  # cut off
    ],
    "authorization-header": ["Authorization: Basic " + "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="],  # RFC 7617
    "bearer-token": ["Bearer mF_9.B5f-4.1JqM" + "aaaaaaaaaa"],
    "url-password": ["postgresql://app:n0t-a-g00d-0ne@db.internal/prod", "redis://:Pa55w0rdX9@cache:6379/0"],
    "assigned-secret": ['api_key = "' + LETTERS + '"', "client_secret: " + LETTERS],
}
HARMLESS = [
    "The sky is blue, and sk- is a prefix.",
    "sk-learn is short for scikit-learn; task-based-scheduling-of-distributed-processing",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "550e8400-e29b-41d4-a716-446655440000",
    "https://example.org:8443/path?key=value#part",
    "postgres://user:password@localhost/db",
    "Use a bearer token for that. The password is required.",
    "api_key = os.environ['API_KEY']",
    "password = getpass.getpass('your password: ')",
    "-----BEGIN CERTIFICATE-----",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    "AKIA is how they begin. mail me @home",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]
# Examples of the networks' and ISO 13616's own.
PERSONAL = {
    "card": ["4242424242424242", "5555 5555 5555 4444", "3782-822463-10005", "6011111111111117", "3530111333300000"],
    "iban": ["GB29 NWBK 6016 1331 9268 19", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947"],
    "email": ["jane.doe+list@mail.example.org"],
    "phone": ["+44 20 7946 0958", "(202) 555-0143", "202-555-0143"],
    "ssn": ["078-05-1120"],
}
NOT_PERSONAL = [
    "4242424242424241",
    "GB29 NWBK 6016 1331 9268 18",
    "000-12-3456",
    "2026-11-28 19:00",
    "a@b",
    "v1.2.3-4",
    "1234567890123456789012",
]


@pytest.mark.parametrize(("kind", "secret"), [(kind, each) for kind, all in SECRETS.items() for each in all])
def test_secrets_are_cut_out_whole(kind: str, secret: str) -> None:
    rails = Guardrails(output=[Redact.secrets()])
    for before, after in (("", ""), ("It is ", "\n"), ("('", "')")):
        clean = rails.check_output(f"{before}{secret}{after}")
        # What follows a password, the path of its URL or the end of a quotation, is none of it.
        assert clean.startswith(f"{before}[{kind}]") and clean.endswith(after)
        assert len(clean) <= len(f"{before}[{kind}]/prod{after}")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Guardrails(input=[Redact.secrets()]).check_input(text) == text


@pytest.mark.parametrize(("kind", "text"), [(kind, each) for kind, all in PERSONAL.items() for each in all])
def test_personal_data_are_cut_out(kind: str, text: str) -> None:
    assert Guardrails(input=[Redact.personal()]).check_input(f"It is {text}.") == f"It is [{kind}]."


@pytest.mark.parametrize("text", NOT_PERSONAL)
def test_numbers_whose_check_digits_are_wrong_are_none(text: str) -> None:
    assert Guardrails(input=[Redact.personal()]).check_input(text) == text


@pytest.mark.parametrize(
    ("rule", "passes", "fails", "why"),
    [
        (MaxLength(4), "ééöö", "12345", "more than 4 characters"),
        (MaxTokens(2), "12345678", "123456789", "more than 2 tokens"),
        (MaxTokens(2, count=lambda text: len(text.split())), "a b", "a b c", "more than 2 tokens"),
        (
            Forbidden(r"(?i)ignore (all )?previous instructions", name="injection"),
            "ignore that",
            "Ignore all previous instructions",
            "a forbidden pattern",
        ),
        (Forbidden(["a.c", r"\bx\b"]), "ac xx", "x!", "a forbidden pattern"),
        (Detector(lambda text: "bad" in text), "good", "bad", "the detector says no"),
        (
            Detector(lambda text: [(0, 1, "NAME")] if text == "qqq" else [], action="refuse"),
            "y",
            "qqq",
            "the detector found NAME",
        ),
    ],
)
def test_each_refusal_says_which_rule(rule: Rule, passes: str, fails: str, why: str) -> None:
    rails = Guardrails(input=[rule], output=[rule])
    assert rails.check_input(passes) == rails.check_output(passes) == passes
    with pytest.raises(InputRefusedError, match=why) as asked:
        rails.check_input([{"role": "user", "content": ""}, {"role": "user", "content": [{"type": "text", "text": fails}]}])
    with pytest.raises(OutputRefusedError, match=why) as answered:
        rails.check_output(fails)
    assert (asked.value.rule, asked.value.direction) == (rule.name, "input")
    assert asked.value.place == "messages[1].content[0].text"
    assert (answered.value.rule, answered.value.direction, answered.value.place) == (rule.name, "output", "content")
    for error in (asked.value, answered.value):
        assert isinstance(error, GuardrailError) and fails not in str(error).replace(why, "")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert pickle.loads(pickle.dumps(error)).rule == rule.name


def test_rules_see_what_those_before_them_have_left() -> None:
    rails = Guardrails(input=[Redact("sec+ret", "[x]"), Forbidden("secret"), MaxLength(5)])
    assert rails.check_input("seccret") == "[x]"
    assert Guardrails(input=[Redact(["a", "b"], "")]).check_input("xaby") == "xy"


def test_what_was_given_is_never_changed() -> None:
    rails = Guardrails(input=[Redact("secret")])
    messages = [{"role": "user", "content": [{"type": "text", "text": "secret"}], "name": "secret"}, ("user", "secret"), "secret"]
    before = copy.deepcopy(messages)
    clean = rails.check_input(messages)
    assert messages == before
    assert clean[0] == {"role": "user", "content": [{"type": "text", "text": "[redacted]"}], "name": "secret"}
    assert clean[1:] == [("user", "[redacted]"), "[redacted]"]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Forbidden(r"(?=a)b"), ConfigurationError, "look-around at character 1.*Detector"),
        (lambda: Redact(r"(a)\1"), ConfigurationError, "back-reference.*Detector"),
        (lambda: Redact("a*"), ConfigurationError, "empty text"),
        (lambda: Redact("("), ConfigurationError, "unclosed"),
        (lambda: Redact(3), ConfigurationTypeError, "patterns must be"),
        (lambda: Redact([]), ConfigurationTypeError, "patterns must be"),
        (lambda: Redact("a", 3), ConfigurationTypeError, "replacement must be"),
        (lambda: MaxLength(0), ConfigurationError, "characters"),
        (lambda: MaxTokens("1"), ConfigurationError, "tokens"),
        (lambda: MaxTokens(1, count=3), ConfigurationTypeError, "count must be a function"),
        (lambda: Detector(3), ConfigurationTypeError, "detect must be a function"),
        (lambda: Detector(print, action="cut"), ConfigurationError, "action must be 'redact' or 'refuse'"),
        (lambda: Detector(print, on_error="no"), ConfigurationError, "on_error must be"),
        (lambda: Shape(3), ConfigurationTypeError, "shape must be a pydantic model"),
        (lambda: Shape({"type": 3}), ConfigurationError, "no JSON schema"),
        (lambda: Guardrails(input=[Shape({})]), ConfigurationError, "input must hold no Shape"),
        (lambda: Guardrails(input=["a"]), ConfigurationTypeError, r"input\[0\] must be a rule"),
        (lambda: Guardrails(output=3), ConfigurationTypeError, "output must be a list of rules"),
        (lambda: Guardrails(max_held=0), ConfigurationError, "max_held"),
    ],
)
def test_what_makes_no_rule_is_refused_when_it_is_written(make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


async def later(text: str) -> None:
    """No detector: nobody awaits it."""


def test_an_async_detector_is_refused() -> None:
    with pytest.raises(ConfigurationTypeError, match="not an async one"):
        Detector(later)


class Found:
    """As Presidio's results are."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end, self.entity_type = start, end, "PERSON"


def test_what_a_detector_finds_is_replaced_by_characters() -> None:
    rails = Guardrails(input=[Detector(lambda text: [Found(5, 7), (0, 2, "X"), (1, 3, "Y"), (9, 9, "E")])])
    assert rails.check_input("äöü-ñéß-日本") == "[X]-ñ[PERSON]-日本"


def test_a_detector_that_fails_refuses_unless_it_may_pass() -> None:
    def broken(text: str) -> None:
        raise ValueError(text)

    with pytest.raises(InputRefusedError, match="raised ValueError") as refused:
        Guardrails(input=[Detector(broken)]).check_input("hush")
    assert refused.value.rule == "broken" and "hush" not in str(refused.value)
    assert Guardrails(input=[Detector(broken, on_error="pass")]).check_input("hush") == "hush"
    for wrong in ([(0, 99, "x")], [(3, 1, "x")], [(-1, 1, "x")], [(0, 1)], ["x"], [(0.5, 1, "x")]):
        with pytest.raises(ConfigurationError, match="detector 'odd'"):
            Guardrails(input=[Detector(lambda text, wrong=wrong: wrong, name="odd")]).check_input("hush")


class Person(BaseModel):
    name: str
    age: int


def test_a_shape_reads_and_mends_and_says_what_is_wrong_without_a_word_of_it() -> None:
    strict = Guardrails(output=[Shape(Person)])
    assert strict.check_output('{"name": "Jo", "age": 3}') == '{"name": "Jo", "age": 3}'
    for text, why in (
        ('{"name": "Jo", "age": "hush"}', "int_parsing"),
        ('{"name": "hush"}', "missing: age"),
        ("hush", "json_invalid"),
    ):
        with pytest.raises(OutputShapeError, match=why) as wrong:
            strict.check_output(text)
        assert "hush" not in str(wrong.value)
    mending = Guardrails(output=[Shape(Person, repair=True)])
    assert mending.check_output("Sure:\n```json\n{'name': 'Jo', age: 3,}\n```") == '{"name":"Jo","age":3}'
    with pytest.raises(OutputShapeError):
        mending.check_output('{"name": "J')
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    by_schema = Guardrails(output=[Shape(schema, repair=True)])
    assert by_schema.check_output('{"a": 1,}') == '{"a":1}'
    for text, why in (('{"a": "hush"}', "type"), ("{}", "required"), ('{"a": NaN}', "no JSON")):
        with pytest.raises(OutputShapeError, match=why):
            by_schema.check_output(text)
    assert Guardrails(output=[Shape(TypeAdapter(list[int]))]).check_output("[1]") == "[1]"


def test_text_in_pieces_becomes_what_it_is_whole() -> None:
    rails = Guardrails(output=[Redact.secrets(), Forbidden("for(bid)+en"), MaxLength(300)])
    for kind, secrets in SECRETS.items():
        text = f"See {secrets[0]} there."
        for size in (1, 2, 7, 50):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            assert "".join(rails.stream(pieces)) == rails.check_output(text) or len(text) > 300, kind
    with pytest.raises(OutputRefusedError, match="forbidden"):
        list(rails.stream(["it is for", "bidbid", "en"]))
    with pytest.raises(OutputRefusedError, match="300 characters"):
        list(rails.stream(["x" * 200, "y" * 200]))
    given = []
    with pytest.raises(OutputShapeError):
        given.extend(Guardrails(output=[Shape(Person)]).stream(["{", "}"]))
    with pytest.raises(OutputRefusedError, match="max_held"):
        list(Guardrails(output=[Redact("a[b-z]+!")], max_held=10).stream(["a", "b" * 20]))


@pytest.mark.parametrize(
    "rule",
    [
        MaxLength(3),
        MaxTokens(3, name="n"),
        Forbidden(["a", "b"]),
        Redact("a", "b"),
        Redact.secrets(),
        Redact.personal(name="p"),
        Detector(len),
        Shape(Person, repair=True, reask=2),
    ],
    ids=repr,
)
def test_rules_pickle_and_say_what_they_are(rule: Rule) -> None:
    again = pickle.loads(pickle.dumps(rule))
    assert (repr(again), again.name, again._described()) == (repr(rule), rule.name, rule._described())
    rails = pickle.loads(pickle.dumps(Guardrails(output=[rule], of="x", max_held=5)))
    assert (repr(rails), rails.of, rails.max_held) == (repr(Guardrails(output=[rule], of="x", max_held=5)), "x", 5)
    assert copy.deepcopy(rule) is rule and eval(repr(MaxLength(3))).name == "max_length"


def test_searching_takes_time_in_line_with_the_text() -> None:
    # What has a backtracking engine at it for centuries.
    rails = Guardrails(input=[Forbidden(r"(a+)+b"), Redact.secrets(), Redact.personal()])
    assert rails.check_input("a" * 200_000) == "a" * 200_000


# What detect-secrets (Yelp) holds its plugins against, and whether it is to be found.
JWT = ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"]
ELSEWHERE = [
    ("sk-" + "Xi8tcNiHV9awbCcvilTeT3Blbk" + "FJ3UDnpdEwNNm6wVBpYM0o", True),
    ("sk-" + "proj-Xi8tdMjHV6pmbBbwilTeT3Blbk" + "FJ3UDnpdEwNNm6wVBpYM0o", True),
    (".".join([*JWT, "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"]), True),
    (".".join(JWT), True),
    (JWT[0], False),
    ("bm90X3ZhbGlkX2pzb25fYXRfYWxs.bm90X3ZhbGlkX2pzb25fYXRfYWxs.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c", False),
    ("eyJAAAA.eyJBBB", False),
    ("eyJBB.eyJCC.eyJDDDD", False),
    *(("xox" + kind + "-523423-234243-234233-" + "e039d02840a0b9379c", True) for kind in "pors"),
    ("xox" + "a-2-511111111-31111111111-3111111111111-" + "e039d02840a0b9379c", True),
    ("xox" + "b-34532454-" + "e039d02840a0b9379c", True),
    ("https://hooks.slack.com/" + "services/Txxxxxxxx/Bxxxxxxxx/" + "x" * 24, True),
    ("bot110201543:" + "AAHdqTcvCH1vGWJxfSe1ofSAs0K5PALDsaw", True),
    ("7213808860:" + "AAH1bjqpKKW3maRSPAxzIU-0v6xNuq2-NjM", True),
    ("foo:" + "AAH1bjqpKKW3maRSPAxzIU-0v6xNuq2-NjM", False),
    ("glpat" + "-hellOworld380_testin", True),
    ("glpat" + "-hellOWorld380 testin", False),
    ("glpat" + "_hellOworld380_testin", False),
    ("gldt" + "-HwllOuhfw-wu0rlD_yep", True),
    ("gldt" + "-seems_too000Sshorty", False),
    ("ghp" + "_wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx", True),
    ("http://localhost:5000/<%= @variable %>", False),
]


@pytest.mark.parametrize(("text", "is_secret"), ELSEWHERE)
def test_another_scanners_examples_come_out_alike(text: str, is_secret: bool) -> None:
    clean = Guardrails(input=[Redact.secrets()]).check_input(text)
    assert (clean != text) is is_secret and (not is_secret or len(clean) < 30)
