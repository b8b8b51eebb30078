"""The sinks that seawall has: logs, webhooks, apprise's services and Sentry; each against the real thing at the other end."""

from __future__ import annotations

import base64
import copy
import gzip
import hashlib
import hmac
import json
import logging
import pickle
import re
import threading

import pytest
import sentry_sdk
import structlog

from seawall import ConfigurationError, Monitor, Rule, _delivery, sinks
from seawall._monitoring import Alert
from seawall.sinks import Apprise, LogSink, Sentry, Webhook

# apprise asks old Pythons for a module that new ones have not.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
SECRET = "T0PSECRET"
ALERT = Alert(
    "raised", "critical", "normal", "critical", {"error_rate": 0.5}, {"error_rate": 0.1}, 10, 3, 1e9, 1e9 + 5, "gpt-4", "it burns"
)


def watch(*given, name="gpt-4"):
    """A monitor that looks for outages and nothing else: each is one alert, and its end another."""
    never = [Rule(metric, float("inf")) for metric in ("error_rate", "retry_rate", "avg_latency")]
    return Monitor(10, name, rules=never, sinks=given)


def fail(monitor):
    for _ in range(5):
        monitor.record(False)


def recover(monitor):
    for _ in range(10):
        monitor.record(True)


def lines(caplog, logger="seawall.sinks"):
    return [record.getMessage() for record in caplog.records if record.name == logger]


@pytest.fixture(autouse=True)
def alone(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    for line in list(_delivery._lines.values()):
        line.forget()
    _delivery._lines.clear()


@pytest.fixture
def ok(raw):
    return raw.answer("{}")


# -- webhooks --------------------------------------------------------------------------------------------------------


def test_a_webhook_gets_each_alert_once_as_json(raw, ok):
    server = raw(ok)
    monitor = watch(
        Webhook(f"http://127.0.0.1:{server.port}/hooks/{SECRET}?token={SECRET}", headers={"Authorization": f"Bearer {SECRET}"})
    )
    fail(monitor)
    recover(monitor)
    assert sinks.flush(30)
    first, second = server.requests
    assert first.first_line == f"POST /hooks/{SECRET}?token={SECRET} HTTP/1.1"
    assert (first.headers["authorization"], first.headers["content-type"]) == (f"Bearer {SECRET}", "application/json")
    assert first.headers["user-agent"].startswith("seawall/") and int(first.headers["webhook-timestamp"]) > 1e9
    assert [json.loads(request.body) for request in server.requests] == [alert._asdict() for alert in monitor.alerts]
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


def test_an_alert_arrives_once_where_the_server_answers_and_again_where_it_fails(raw, ok, seawall_no_waits, caplog):
    busy, fails = raw.answer("", status="503 Busy", headers="retry-after: 1\r\n"), raw.answer("", status="500 Oh")
    server = raw(fails, busy, ok, ok, fails, ok)
    monitor = watch(Webhook(f"http://127.0.0.1:{server.port}/"))
    for _ in range(2):
        fail(monitor)
        recover(monitor)
    assert sinks.flush(30)
    kinds = [json.loads(request.body)["kind"] for request in server.requests]
    assert kinds == ["raised", "raised", "raised", "resolved", "raised", "raised", "resolved"]
    ids = [request.headers["webhook-id"] for request in server.requests]
    assert len(set(ids)) == 4 and len(set(ids[:3])) == 1 and ids[4] == ids[5], "a receiver can tell a delivery that came twice"
    assert lines(caplog) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 302])
def test_a_webhook_that_refuses_an_alert_is_not_asked_again(raw, status, caplog, seawall_no_waits):
    body = json.dumps({"error": {"message": f"no such hook {SECRET}"}})
    server = raw(raw.answer(body, status=f"{status} No", headers=f"location: /{SECRET}\r\n"))
    monitor = watch(Webhook(f"http://127.0.0.1:{server.port}/{SECRET}"))
    fail(monitor)
    assert sinks.flush(30) and len(server.requests) == 1
    (line,) = lines(caplog)
    assert re.fullmatch(
        rf"an alert could not be delivered to Webhook\(127.0.0.1:\d+\) \(\w+ {status}\): that alert is lost", line
    )
    assert SECRET not in caplog.text


def test_a_webhook_with_nobody_there_says_so_without_its_address(raw, caplog, seawall_no_waits, ok):
    server = raw(ok)
    server.close()
    hook = Webhook(f"http://127.0.0.1:{server.port}/{SECRET}")
    fail(watch(hook))
    assert _delivery.flush(30, resting=False)
    (line,) = lines(caplog)
    assert line.endswith("(APIConnectionError): alerts are kept and tried again later") and SECRET not in caplog.text


@pytest.mark.parametrize("secret", ["plain text", "whsec_" + base64.b64encode(b"\x00binary\xff").decode()])
def test_a_secret_signs_as_standard_webhooks_has_it(raw, ok, secret):
    server = raw(ok)
    fail(watch(Webhook(f"http://127.0.0.1:{server.port}/", secret=secret)))
    assert sinks.flush(30)
    (request,) = server.requests
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


@pytest.mark.parametrize(
    ("template", "sent"),
    [
        ({"text": "{message}", "n": 1}, {"text": "ALERT (emergency): total outage, 5 failures in a row", "n": 1}),
        (
            ["{name}: {level}", None, True, {"{kind}": "{{as it is}} {metrics[outage]:.1f}"}],
            ["gpt-4: emergency", None, True, {"{kind}": "{as it is} 5.0"}],
        ),
        (lambda alert: {"is": alert.level}, {"is": "emergency"}),
        ("{incident}", "1"),
    ],
)
def test_a_template_says_what_is_sent(raw, ok, template, sent):
    server = raw(ok)
    fail(watch(Webhook(f"http://127.0.0.1:{server.port}/", template=template)))
    assert sinks.flush(30) and json.loads(server.requests[0].body) == sent


def test_numbers_that_json_does_not_have_are_null(raw, ok):
    server = raw(ok)
    import asyncio

    asyncio.run(Webhook(f"http://127.0.0.1:{server.port}/")(ALERT._replace(limits={"error_rate": float("inf")})))
    assert json.loads(server.requests[0].body)["limits"] == {"error_rate": None}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"url": f"hooks.example.com/{SECRET}"}, "url (not shown: it may hold a secret) is no URL; give it like"),
        ({"url": f"ftp://h/{SECRET}"}, "url (not shown: it may hold a secret) must begin with http:// or https://"),
        ({"url": f"https://u:{SECRET}@h/"}, "url (not shown: it may hold a secret) must not name a user"),
        ({"url": SECRET.encode()}, "url must be a text, not an object of type bytes"),
        ({"headers": [SECRET]}, "headers must be a dict of texts"),
        ({"headers": {"x": 1}}, "headers must be a dict of texts"),
        ({"headers": {"x y": SECRET}}, '"x y" is no name of an HTTP header'),
        ({"headers": {"x": f"{SECRET}\n"}}, 'the value of the header "x" has characters'),
        ({"secret": ""}, "secret must be a text that is not empty"),
        ({"secret": f"whsec_{SECRET}!"}, "secret begins with whsec_, so that base64 must follow"),
        ({"template": {"text": "{mesage}"}}, "template['text'] names {mesage}: the fields of an alert are kind, level"),
        ({"template": ["{message"]}, "template[0] is not well formed"),
        ({"template": {"text": object}}, "template['text'] must be something for JSON, or a function"),
        ({"template": {1: "x"}}, "template must have texts for keys, not 1"),
    ],
)
def test_a_webhook_that_cannot_be_meant_is_refused_without_its_secrets(arguments, says):
    with pytest.raises(ConfigurationError) as refused:
        Webhook(**{"url": "https://example.com/", **arguments})
    assert str(refused.value).startswith(says)
    assert SECRET not in str(refused.value) and SECRET not in repr(refused.value)


# -- logs ------------------------------------------------------------------------------------------------------------


def test_a_log_sink_writes_the_message_and_fields(caplog):
    monitor = watch(LogSink("ops"), LogSink(logging.LoggerAdapter(logging.getLogger("adapted"), {})))
    fail(monitor)
    recover(monitor)
    assert sinks.flush(30)
    for name in ("ops", "seawall.monitor"):
        first, second = [record for record in caplog.records if record.name == name]
        assert (first.levelname, second.levelname) == ("ERROR", "INFO")
        assert first.getMessage() == "[gpt-4] ALERT (emergency): total outage, 5 failures in a row"
        assert (first.alert_kind, first.alert_name, first.alert_metrics, first.alert_incident) == (
            "raised",
            "gpt-4",
            {"outage": 5},
            1,
        )
        assert not hasattr(first, "alert_message")
    assert len(lines(caplog, "adapted")) == 2


def test_a_structlog_logger_gets_fields_as_it_likes_them():
    with structlog.testing.capture_logs() as logs:
        monitor = watch(LogSink(structlog.get_logger().bind(team="on call")))
        fail(monitor)
        recover(monitor)
        assert sinks.flush(30)
    assert [(entry["event"], entry["log_level"], entry["alert_kind"], entry["team"]) for entry in logs] == [
        ("[gpt-4] ALERT (emergency): total outage, 5 failures in a row", "error", "raised", "on call"),
        ("[gpt-4] ALERT resolved: calls succeed again", "info", "resolved", "on call"),
    ]


def test_structlogs_formatter_shows_the_fields_of_the_standard_loggers_lines():
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    written = []

    class Handler(logging.Handler):
        def emit(self, record):
            written.append(json.loads(self.format(record)))

    handler = Handler()
    handler.setFormatter(formatter)
    logger = logging.getLogger("seawall.monitor")
    logger.addHandler(handler)
    try:
        fail(watch())
    finally:
        logger.removeHandler(handler)
    assert written[0]["alert_metrics"] == {"outage": 5} and written[0]["event"].startswith("[gpt-4] ALERT")


def test_what_is_no_logger_is_refused():
    with pytest.raises(ConfigurationError, match="logger must be a logger or the name of one, not 7"):
        LogSink(7)


# -- apprise ---------------------------------------------------------------------------------------------------------


def test_apprise_delivers_to_its_services(raw, ok):
    server = raw(ok)
    monitor = watch(Apprise(f"json://user:{SECRET}@localhost:{server.port}/{SECRET}/"))
    fail(monitor)
    recover(monitor)
    assert sinks.flush(30)
    sent = [json.loads(request.body) for request in server.requests]
    assert [(each["title"], each["message"], each["type"]) for each in sent] == [
        ("gpt-4: emergency", "ALERT (emergency): total outage, 5 failures in a row", "failure"),
        ("gpt-4: resolved", "ALERT resolved: calls succeed again", "success"),
    ]
    assert server.requests[0].first_line.startswith(f"POST /{SECRET}")


def test_an_alert_goes_again_to_the_service_that_failed_and_to_no_other(raw, ok, seawall_no_waits, caplog):
    well, shaky = raw(ok), raw(raw.answer("", status="500 Oh"), raw.answer("", status="500 Oh"), ok)
    monitor = watch(Apprise(f"json://localhost:{well.port}/{SECRET}", f"json://localhost:{shaky.port}/{SECRET}"))
    fail(monitor)
    recover(monitor)
    assert sinks.flush(30)
    kinds = [[json.loads(request.body)["type"] for request in server.requests] for server in (well, shaky)]
    assert kinds == [["failure", "success"], ["failure", "failure", "failure", "success"]]
    assert lines(caplog) == [] and SECRET not in caplog.text


def test_services_that_are_down_say_so_once(raw, seawall_no_waits, caplog, ok):
    server = raw(ok)
    server.close()
    monitor = watch(Apprise(f"json://localhost:{server.port}/{SECRET}"))
    for _ in range(3):
        fail(monitor)
        recover(monitor)
    assert _delivery.flush(30, resting=False)
    assert lines(caplog) == [
        "an alert could not be delivered to Apprise(JSON) (1 of 1 services did not take it): alerts are kept and tried again later"
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        ([], "Apprise needs the URL of at least one service"),
        (["json://localhost", f"nonsense://{SECRET}"], "urls[1] (not shown: it may hold a secret) is no URL that apprise knows"),
        ([f"slack://{SECRET}"], "urls[0] (not shown"),
        ([7], "urls[0] must be a text, not an object of type int"),
    ],
)
def test_an_apprise_url_that_is_none_is_refused_unseen(urls, says, caplog):
    with pytest.raises(ConfigurationError) as refused:
        Apprise(*urls)
    assert str(refused.value).startswith(says)
    assert SECRET not in caplog.text + str(refused.value) + repr(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "slack://TokenA1234/TokenB5678/TokenC90123456789012/#ops",
        "feishu://token123",
        "lark://token123",
        "dingtalk://token1234567890",
        "wecombot://botkey12345678901",
        "pagerduty://integrationkey@apikey1234",
        "mailto://user:pass@example.com",
    ],
)
def test_apprise_knows_the_services_that_the_page_names(url):
    shown = repr(Apprise(url))
    assert re.fullmatch(r"Apprise\([\w /.()-]+\)", shown) and "oken" not in shown


# -- Sentry ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sentry(raw, ok):
    server = raw(ok)
    sentry_sdk.init(dsn=f"http://{SECRET}@127.0.0.1:{server.port}/1", traces_sample_rate=0)
    yield server
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def events(server):
    sentry_sdk.flush(30)
    found = []
    for request in server.requests:
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        for line in body.splitlines():
            item = json.loads(line) if line.startswith(b"{") else {}
            if "event_id" in item and "message" in item or "logentry" in item:
                found.append(item)
    return found


def test_sentry_gets_an_event_for_each_alert_and_an_issue_for_each_incident(sentry):
    monitor = watch(Sentry())
    for _ in range(2):
        fail(monitor)
        recover(monitor)
    assert sinks.flush(30)
    found = events(sentry)
    assert [(event["level"], event["tags"]["seawall.alert"]) for event in found] == [
        ("fatal", "raised"),
        ("info", "resolved"),
    ] * 2
    assert found[0]["message"] == "[gpt-4] ALERT (emergency): total outage, 5 failures in a row"
    assert found[0]["contexts"]["seawall"]["calls"] == 5
    prints = [tuple(event["fingerprint"]) for event in found]
    assert prints[0] == prints[1] != prints[2] == prints[3]


def test_without_sentrys_client_the_sink_says_so_once(caplog, seawall_no_waits):
    fail(watch(Sentry()))
    assert _delivery.flush(30, resting=False)
    assert lines(caplog) == [
        "an alert could not be delivered to Sentry() (sentry_sdk.init(…) was not called): alerts are kept and tried again later"
    ]


# -- secrets and copies ----------------------------------------------------------------------------------------------


def made():
    hook = Webhook(
        f"https://hooks.example.com/{SECRET}?t={SECRET}", headers={"x-key": SECRET}, secret=SECRET, template={"text": "{message}"}
    )
    return [hook, Apprise(f"json://user:{SECRET}@localhost/{SECRET}"), LogSink("ops"), Sentry()]


def test_no_sink_shows_its_secrets_and_copies_do_what_it_does():
    shown = ["Webhook(hooks.example.com)", "Apprise(JSON)", "LogSink(ops)", "Sentry()"]
    for sink, name in zip(made(), shown, strict=True):
        twins = [sink, copy.copy(sink), copy.deepcopy(sink)] + ([] if name == "Sentry()" else [pickle.loads(pickle.dumps(sink))])
        for twin in twins:
            assert repr(twin) == str(twin) == f"{twin}" == name == _delivery.label(twin)
    monitor = watch(*made())
    assert SECRET not in repr(monitor.sinks) + repr(monitor)
    assert SECRET not in repr(pickle.loads(pickle.dumps(monitor)).sinks)


def test_no_failure_of_any_sink_writes_a_secret_anywhere(raw, ok, caplog, capfd, seawall_no_waits):
    raw_server = raw(raw.answer(f"secret {SECRET}", status="500 " + SECRET, headers=f"x-secret: {SECRET}\r\n"))
    given = [
        Webhook(f"http://127.0.0.1:{raw_server.port}/{SECRET}", headers={"authorization": SECRET}, secret=SECRET),
        Webhook(f"http://127.0.0.1:{raw_server.port}/{SECRET}", template=lambda alert: {SECRET: object.missing}),
        Webhook(f"http://localhost:1/{SECRET}"),
        Webhook(f"http://no.invalid/{SECRET}"),
        Apprise(f"json://u:{SECRET}@localhost:{raw_server.port}/{SECRET}", f"jsons://localhost:1/{SECRET}"),
    ]

    @given.append
    def function(alert):
        raise RuntimeError(SECRET)

    @given.append
    async def asynchronous(alert):
        raise ConnectionError(SECRET)

    monitor = watch(*given)
    for _ in range(3):
        fail(monitor)
        recover(monitor)
    assert _delivery.flush(60, resting=False)
    assert len(lines(caplog)) == len(given)
    from seawall import circuits

    everything = [
        caplog.text,
        *capfd.readouterr(),
        *(str(vars(record)) for record in caplog.records if record.name.startswith("seawall")),
    ]
    everything += [repr(breaker) + breaker.explain() for breaker in circuits if (breaker.name or "").startswith("seawall.sinks")]
    everything += [repr(thread) for thread in threading.enumerate()]
    assert [text for text in everything if SECRET in text] == []
