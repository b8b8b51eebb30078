//! One attempt that is answered whole: what is sent, and what every kind of answer becomes.

use std::time::Duration;

use seawall::llm::chat::{ChatReply, parse_reply};
use seawall::llm::client::{Client, ClientOptions, ProxyChoice, Request};
use seawall::llm::endpoint::{Endpoint, EndpointOptions};
use seawall::llm::error::{ApiError, ErrorKind, MAX_BODY};
use seawall::llm::secret::ApiKey;
use seawall::policies::class::Class;

use crate::raw_server::{Answer, KEY, RawServer, Then, client, endpoint, gzip_of_zeros, run};

const HELLO: &str = r#"{"id":"c1","model":"gpt-4-0613","created":7,"choices":[{"index":0,
    "message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

fn request() -> Request {
    Request::new("chat/completions", r#"{"model":"gpt-4"}"#).for_model("gpt-4")
}

async fn ask(server: &RawServer) -> Result<ChatReply, ApiError> {
    client().send_json(&server.endpoint(), request()).await.and_then(parse_reply)
}

async fn failure(answer: Answer) -> ApiError {
    let server = RawServer::start(vec![answer]).await;
    let error = ask(&server).await.unwrap_err();
    assert_eq!(server.requests().len(), 1, "one attempt is one request: {error}");
    assert!(!format!("{error} {error:?}").contains(KEY), "{error:?}");
    error
}

#[test]
fn a_request_carries_what_it_should_and_its_reply_is_read() {
    run(async {
        let server = RawServer::start(vec![Answer::whole("200 OK", "x-request-id: req_9\r\n", HELLO)]).await;
        let endpoint = Endpoint::new(EndpointOptions {
            base_url: format!("{}?v=1", server.base_url()),
            api_key: Some(ApiKey::new(KEY.into()).unwrap()),
            organization: Some("org-1".into()),
            headers: vec![("x-team".into(), "blue".into()), ("x-mode".into(), "a".into())],
            ..Default::default()
        });
        let mut request = request();
        request.headers.insert("x-mode", "b".parse().unwrap());
        request.query.push(("q".into(), "2".into()));
        let reply = client().send_json(&endpoint.unwrap(), request).await.and_then(parse_reply).unwrap();

        assert_eq!(
            (&*reply.first.content, reply.first.finish_reason.as_deref(), reply.model.as_deref()),
            ("Hello", Some("stop"), Some("gpt-4-0613"))
        );
        assert_eq!((reply.usage.unwrap().total_tokens, reply.request_id.as_deref()), (4, Some("req_9")));
        assert_eq!((&reply.raw[..], reply.others.len()), (HELLO.as_bytes(), 0));
        let sent = server.requests().remove(0).to_ascii_lowercase();
        assert!(sent.starts_with("post /v1/chat/completions?v=1&q=2 http/1.1\r\n"), "{sent}");
        assert!(sent.ends_with("\r\n\r\n{\"model\":\"gpt-4\"}"), "{sent}");
        for line in [
            &format!("authorization: bearer {KEY}"),
            "content-type: application/json",
            "accept: application/json",
            concat!("user-agent: seawall/", env!("CARGO_PKG_VERSION")),
            "openai-organization: org-1",
            "x-team: blue",
            "x-mode: b",
        ] {
            assert_eq!(sent.lines().filter(|sent| sent == &line).count(), 1, "{line} in {sent}");
        }
    });
}

#[test]
fn a_status_is_an_error_with_everything_the_server_said() {
    run(async {
        let body = r#"{"error":{"message":"Slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
        let headers = "retry-after: 3\r\nretry-after-ms: 2500\r\nx-should-retry: true\r\nx-request-id: req_1\r\n";
        let error = failure(Answer::whole("429 Too Many Requests", headers, body)).await;
        assert_eq!((error.kind, error.class(), error.status), (ErrorKind::RateLimit, Class::RateLimited, Some(429)));
        assert_eq!((&*error.message, error.body.as_deref()), ("Error code: 429 - Slow down", Some(body)));
        assert_eq!((error.code.as_deref(), error.error_type.as_deref()), (Some("rate_limit_exceeded"), Some("requests")));
        assert_eq!((error.request_id.as_deref(), error.retry_after), (Some("req_1"), Some(Duration::from_millis(2500))));
        assert_eq!(error.should_retry, Some(true));
    });
}

#[test]
fn a_server_that_repeats_the_key_does_not_bring_it_into_the_error() {
    run(async {
        let body = format!(r#"{{"error":{{"message":"Incorrect API key: {KEY}","code":"{KEY}"}}}}"#);
        let error = failure(Answer::whole("401 Unauthorized", &format!("x-echo: {KEY}\r\n"), body)).await;
        assert_eq!(error.message, "Error code: 401 - Incorrect API key: [redacted] (check the API key given or OPENAI_API_KEY)");
        let error = failure(Answer::whole("200 OK", "", format!("<p>{KEY}"))).await;
        assert!(error.message.contains("[redacted]"), "{error}");
        let mut request = request();
        request.headers.insert("authorization", "Bearer another-secret".parse().unwrap());
        let server = RawServer::start(vec![Answer::whole("400 Bad Request", "", "another-secret")]).await;
        let error = client().send_json(&server.endpoint(), request.clone()).await.unwrap_err();
        assert!(!format!("{error:?} {request:?}").contains("another-secret"), "{error:?}");
        assert!(server.requests()[0].contains("another-secret") && !server.requests()[0].contains(KEY));
        let error = failure(Answer::whole("200 OK", "", format!(r#"{{"error":"{KEY}"}}"#))).await;
        assert!(error.message.contains("[redacted]"), "{error}");
    });
}

#[test]
fn an_unknown_model_or_path_names_both() {
    run(async {
        let answer = || Answer::whole("404 Not Found", "", r#"{"error":{"message":"no such model","code":"model_not_found"}}"#);
        let error = failure(answer()).await;
        assert_eq!((error.kind, error.class()), (ErrorKind::NotFound, Class::NotFound));
        assert!(error.message.contains("\"gpt-4\"") && error.message.contains("/v1/chat/completions"), "{error}");

        let server = RawServer::start(vec![answer()]).await;
        let doubled = endpoint(&format!("{}/chat/completions", server.base_url()));
        let error = client().send_json(&doubled, request()).await.unwrap_err();
        assert!(error.message.contains("leave \"chat/completions\" out of base_url"), "{error}");
    });
}

#[test]
fn an_error_keeps_its_status_whatever_becomes_of_its_body() {
    run(async {
        let cut = Answer::new("HTTP/1.1 503 X\r\ncontent-length: 100\r\n\r\nbusy", Then::Close);
        assert_eq!(failure(cut).await.message, "Error code: 503 - busy");

        let mut endless = Answer::new("HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n", Then::Repeat);
        endless.0.push([b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat());
        let error = failure(endless).await;
        assert_eq!((error.status, error.body.as_ref().map(String::len)), (Some(500), Some(MAX_BODY)));

        let server = RawServer::start(vec![Answer::new("HTTP/1.1 401 X\r\ncontent-length: 100\r\n\r\nwho?", Then::Hang)]).await;
        let options = ClientOptions { proxy: ProxyChoice::Off, error_body_timeout: Duration::from_millis(1), ..Default::default() };
        let error = Client::new(options).unwrap().send_json(&server.endpoint(), request()).await.unwrap_err();
        assert_eq!((error.status, error.kind), (Some(401), ErrorKind::Authentication));
    });
}

#[test]
fn a_success_that_is_no_answer_says_what_it_is() {
    run(async {
        for (body, words) in [
            ("<html><title>Sign in</title></html>", "an HTML page"),
            ("", "an empty body"),
            (" \n", "an empty body"),
            (r#"{"id":"c1","choi"#, "broken or unexpected JSON"),
            ("[]", "no JSON object"),
            ("\"Hello\"", "no JSON object"),
            ("Hello", "no JSON object: Hello"),
            ("{}", "no choices"),
            (r#"{"choices":[]}"#, "no choices"),
            (r#"{"choices":null}"#, "no choices"),
            (r#"{"choices":[{"index":0,"finish_reason":"stop"}]}"#, "without a message"),
            (r#"{"choices":[{"message":{"content":7}}]}"#, "unexpected JSON"),
            (r#"{"choices":[{"message":{"tool_calls":[{"id":"t"}]}}]}"#, "names no tool"),
            (r#"{"choices":[{"message":{"content":"a"}},{"finish_reason":"stop"}]}"#, "without a message"),
            (&format!(r#"{{"choices":[{}{{}}]}}"#, "{},".repeat(1024)), "a list of more than 1024"),
            (&format!(r#"{{"choices":[{{"message":{{"tool_calls":[{}{{}}]}}}}]}}"#, "{},".repeat(1024)), "a list of more than 1024"),
        ] {
            let error = failure(Answer::json(body)).await;
            assert_eq!((error.kind, error.class(), error.status), (ErrorKind::MalformedResponse, Class::Malformed, Some(200)), "{body}");
            assert!(error.message.contains(words) && error.message.contains("/v1/chat/completions"), "{error}");
        }
    });
}

#[test]
fn an_error_object_in_a_success_is_that_error() {
    run(async {
        for (body, kind, class) in [
            (r#"{"error":{"message":"m","code":400}}"#, ErrorKind::BadRequest, Class::Permanent),
            (r#"{"error":{"message":"m","code":"insufficient_quota"}}"#, ErrorKind::QuotaExceeded, Class::Quota),
            (r#"{"error":{"message":"m"},"choices":[]}"#, ErrorKind::Api, Class::Transient),
            (r#"{"choices":[{"error":{"code":502,"message":"m"},"finish_reason":"error"}]}"#, ErrorKind::InternalServer, Class::Transient),
            (r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#, ErrorKind::Api, Class::Transient),
            (
                r#"{"choices":[{"message":{"content":"a"}},{"error":{"code":502,"message":"m"}}]}"#,
                ErrorKind::InternalServer,
                Class::Transient,
            ),
        ] {
            let error = failure(Answer::json(body)).await;
            assert_eq!((error.kind, error.class()), (kind, class), "{body}");
            assert_eq!(error.body.as_deref(), Some(body));
        }
    });
}

#[test]
fn odd_but_sound_replies_are_read() {
    run(async {
        for (body, content) in [
            (r#"{"choices":[{"message":{"content":null}}],"usage":null,"error":null,"x":[1]}"#, ""),
            ("\u{feff}\n{\"choices\":[{\"message\":{\"content\":\"\\u00e9\\n\"}}]}", "é\n"),
            (r#"{"choices":[{"message":{"content":"a"},"error":{}}],"error":""}"#, "a"),
            (r#"{"id":7,"created":1.5,"model":null,"choices":[{"index":"0","message":{"content":"a","annotations":[]}}]}"#, "a"),
            (r#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"x"},{"type":"text","text":"b"}]}}]}"#, "ab"),
            (r#"{"choices":[{"index":1,"message":{"content":"b"}},{"index":0,"message":{"content":"a"}}]}"#, "a"),
        ] {
            let server = RawServer::start(vec![Answer::json(body)]).await;
            assert_eq!(ask(&server).await.unwrap().first.content, content, "{body}");
        }
        let tools = r#"{"choices":[{"message":{"content":null,"reasoning_content":"hm","tool_calls":[
            {"id":"t1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},
            {"type":"function","function":{"name":"g","arguments":{"y":2}}},
            {"id":"t3","type":"custom","custom":{"name":"h","input":"z"}}]}}]}"#;
        let reply = ask(&RawServer::start(vec![Answer::json(tools)]).await).await.unwrap();
        let calls: Vec<_> = reply.first.tool_calls.iter().map(|call| (call.id.as_deref(), &*call.name, &*call.arguments)).collect();
        assert_eq!(calls, [(Some("t1"), "f", r#"{"x":1}"#), (None, "g", r#"{"y":2}"#), (Some("t3"), "h", "z")]);
        assert_eq!(reply.first.reasoning.as_deref(), Some("hm"));
    });
}

#[test]
fn all_choices_are_there_in_the_order_of_their_indexes() {
    run(async {
        let message = |text: &str| format!(r#""message":{{"content":"{text}"}}"#);
        for (indexes, texts, places) in [
            (["\"index\":2,", "\"index\":0,", "\"index\":1,"], ["b", "c", "a"], [1, 2, 0]),
            (["\"index\":0,"; 3], ["a", "b", "c"], [0, 1, 2]),
            ([""; 3], ["a", "b", "c"], [0, 1, 2]),
        ] {
            let choices: Vec<_> =
                indexes.iter().zip(["a", "b", "c"]).map(|(index, text)| format!("{{{index}{}}}", message(text))).collect();
            let body = format!(r#"{{"choices":[{}]}}"#, choices.join(","));
            let reply = ask(&RawServer::start(vec![Answer::json(&body)]).await).await.unwrap();
            let read: Vec<_> = reply.choices().map(|choice| (choice.index, &*choice.content, choice.place)).collect();
            assert_eq!(read, [(0, texts[0], places[0]), (1, texts[1], places[1]), (2, texts[2], places[2])], "{body}");
        }
    });
}

#[test]
fn a_connection_that_breaks_is_transient_and_says_where() {
    run(async {
        for (answer, words) in [
            (Answer::new("", Then::Close), "before it answered"),
            (Answer::new("", Then::Reset), "before it answered"),
            (Answer::new("HTTP/1.1 200 OK\r\ncontent-le", Then::Close), "before it answered"),
            (Answer::new("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\"", Then::Close), "in the middle of the reply"),
            (
                Answer::new("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"id\"\r\n", Then::Close),
                "in the middle of the reply",
            ),
            (Answer::new("SSH-2.0-server\r\n", Then::Close), "no HTTP"),
        ] {
            let error = failure(answer.clone()).await;
            assert_eq!((error.kind, error.class()), (ErrorKind::Connection, Class::Transient), "{answer:?} {error}");
            assert!(error.message.contains(words) && error.message.contains("127.0.0.1:"), "{error}");
        }
    });
}

#[test]
fn a_reset_in_the_middle_of_the_reply_is_transient() {
    run(async {
        // Whether the reset overtakes the head is the kernel's business; the error is a connection error either way.
        let error = failure(Answer::new("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\"", Then::Reset)).await;
        assert_eq!((error.kind, error.class()), (ErrorKind::Connection, Class::Transient));
    });
}

#[test]
fn a_port_where_nothing_listens_is_named() {
    run(async {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = client().send_json(&endpoint(&format!("http://{free}/v1?key=hidden")), request()).await.unwrap_err();
        assert_eq!((error.kind, error.class()), (ErrorKind::Connection, Class::Transient));
        assert!(error.message.contains(&free.to_string()) && error.message.contains("check base_url"), "{error}");
        assert!(!error.message.contains("hidden"), "{error}");
    });
}

#[test]
fn https_to_a_port_that_speaks_http_says_so() {
    run(async {
        // TLS's first bytes look like no end of a request; the server must answer without one.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await.unwrap();
        });
        let error = client().send_json(&endpoint(&format!("https://{address}/v1")), request()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Connection);
        assert!(error.message.contains("try http://"), "{error}");
    });
}

#[test]
fn a_reply_over_the_limit_is_refused_without_being_read_to_its_end() {
    run(async {
        let announced = Answer::new("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{", Then::Hang);
        let mut endless = Answer::new("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Then::Repeat);
        endless.0.push(b"4\r\n    \r\n".to_vec());
        for answer in [announced, endless] {
            let server = RawServer::start(vec![answer]).await;
            let limited = Request { max_response_bytes: 1000, ..request() };
            let error = client().send_json(&server.endpoint(), limited).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::MalformedResponse);
            assert!(error.message.contains("more than 1000 bytes"), "{error}");
        }
        let exact = RawServer::start(vec![Answer::json(HELLO)]).await;
        let limited = Request { max_response_bytes: HELLO.len(), ..request() };
        assert_eq!(client().send_json(&exact.endpoint(), limited).await.unwrap().body, HELLO);
    });
}

#[test]
fn a_gzip_bomb_is_refused_without_being_held() {
    run(async {
        let header = "content-encoding: gzip\r\n";
        let bomb = gzip_of_zeros(64 << 20);
        assert!(bomb.len() < 500_000);
        let server = RawServer::start(vec![Answer::whole("200 OK", header, &bomb)]).await;
        let limited = Request { max_response_bytes: 1 << 20, ..request() };
        let error = client().send_json(&server.endpoint(), limited).await.unwrap_err();
        assert!(error.message.contains("more than 1048576 bytes"), "{error}");
        let error = failure(Answer::whole("500 Internal Server Error", header, &bomb)).await;
        assert_eq!((error.status, error.body.as_ref().map(String::len)), (Some(500), Some(MAX_BODY)));
    });
}

#[test]
fn compressed_replies_are_read_and_broken_ones_are_malformed() {
    // gzip of {"choices":[{"message":{"content":"Hello"}}]}
    const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x4a\xce\xc8\xcf\x4c\x4e\x2d\x56\xb2\x8a\xae\x56\xca\x4d\x2d\x2e\x4e\x4c\x4f\x55\xb2\xaa\x56\x4a\xce\xcf\x2b\x49\xcd\x2b\x51\xb2\x52\xf2\x48\xcd\xc9\xc9\x57\xaa\xad\x8d\xad\x05\x00\x52\x76\xb4\xaf\x2d\x00\x00\x00";
    run(async {
        let header = "content-encoding: gzip\r\n";
        let server = RawServer::start(vec![Answer::whole("200 OK", header, GZIP)]).await;
        assert_eq!(ask(&server).await.unwrap().first.content, "Hello");
        let mut broken = GZIP.to_vec();
        broken[15] ^= 0xff;
        for body in [&broken[..], b"{\"choices\":[]}"] {
            let error = failure(Answer::whole("200 OK", header, body)).await;
            assert_eq!((error.kind, error.class()), (ErrorKind::MalformedResponse, Class::Malformed), "{error}");
        }
        let half = failure(Answer::whole("200 OK", header, &GZIP[..20])).await;
        assert_eq!(half.class(), Class::Transient, "{half}");
    });
}

#[test]
fn a_redirect_takes_the_request_along_only_within_its_origin() {
    run(async {
        let moved = |status: &str, to: &str| Answer::whole(status, &format!("location: {to}\r\n"), "");
        let server = RawServer::start(vec![moved("307 Temporary Redirect", "/v2/chat"), Answer::json(HELLO)]).await;
        assert_eq!(ask(&server).await.unwrap().first.content, "Hello");
        let second = server.requests().remove(1);
        assert!(second.starts_with("POST /v2/chat ") && second.contains(KEY) && second.ends_with("}"), "{second}");

        let elsewhere = RawServer::start(vec![Answer::json(HELLO)]).await;
        let to = format!("{}/moved?token=hidden", elsewhere.base_url());
        let error = failure(moved("308 Permanent Redirect", &to)).await;
        assert_eq!((error.kind, error.class(), error.status), (ErrorKind::Status, Class::Permanent, Some(308)));
        assert!(error.message.contains("/v1/moved: set base_url") && !error.message.contains("hidden"), "{error}");
        assert!(elsewhere.requests().is_empty());
        // 302 would turn the POST into a GET, which no model answers.
        assert_eq!(failure(moved("302 Found", "/v2/chat")).await.status, Some(302));
    });
}

#[test]
fn a_connection_serves_the_next_request_after_answers_and_errors_alike() {
    run(async {
        let kinds = [Answer::json(HELLO), Answer::whole("500 Internal Server Error", "", "{}"), Answer::json("{}")];
        let server = RawServer::start(std::iter::repeat_n(kinds, 12).flatten().collect()).await;
        let (client, endpoint) = (client(), server.endpoint());
        for _ in 0..36 {
            let _ = client.send_json(&endpoint, request()).await;
        }
        let reused = server.reused();
        for kind in 0..3 {
            let after: Vec<_> = reused.iter().skip(kind).step_by(3).collect();
            assert!(after.contains(&&true), "after answers of kind {kind}: {after:?}");
        }
    });
}
