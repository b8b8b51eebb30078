//! Streams: pieces in order, and an error for every way in which a stream can end without an end.

use seawall::llm::client::Request;
use seawall::llm::delta::Delta;
use seawall::llm::error::{ApiError, ErrorKind};
use seawall::llm::stream::{ChatStream, open_stream};
use seawall::policies::class::Class;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::raw_server::{Answer, KEY, RawServer, Then, client, endpoint, gzip_of_zeros, run};

const ROLE: &[u8] = b"data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const A: &[u8] = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"é\"}}]}\n\n".as_bytes();
const B: &[u8] = b"data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}\n\n";
const STOP: &[u8] = b"data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &[u8] = b"data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

fn request() -> Request {
    Request::new("chat/completions", r#"{"model":"gpt-4","stream":true}"#).for_model("gpt-4")
}

async fn open(answer: Answer) -> ChatStream {
    let server = RawServer::start(vec![answer]).await;
    open_stream(&client(), &server.endpoint(), request()).await.unwrap()
}

/// All pieces, and how it ended.
async fn read(answer: Answer) -> (Vec<Delta>, Result<(), ApiError>) {
    let mut stream = open(answer).await;
    let mut deltas = Vec::new();
    loop {
        match stream.next().await {
            Ok(Some(delta)) => deltas.push(delta),
            Ok(None) => {
                assert!(stream.next().await.unwrap().is_none(), "the end stays the end");
                return (deltas, Ok(()));
            }
            Err(error) => {
                assert_eq!(stream.next().await.unwrap_err().message, error.message, "a failure stays a failure");
                assert!(!format!("{error:?}").contains(KEY));
                return (deltas, Err(error));
            }
        }
    }
}

fn text(deltas: &[Delta]) -> String {
    deltas.iter().map(|delta| &*delta.content).collect()
}

async fn failure(answer: Answer) -> (String, ApiError) {
    let shown = format!("{answer:?}");
    let (deltas, end) = read(answer).await;
    let error = end.expect_err(&shown);
    assert_eq!(error.partial.as_deref().unwrap_or_default(), text(&deltas));
    (text(&deltas), error)
}

#[test]
fn a_stream_is_read_to_its_end_however_it_is_cut_into_chunks() {
    run(async {
        let whole = [b": hello\r\n\r\n", ROLE, A, b"data:\n\n", B, STOP, USAGE, DONE].concat();
        let windows = String::from_utf8(whole.clone()).unwrap().replace("\r\n", "\n").replace('\n', "\r\n").into_bytes();
        for (whole, size) in [&whole, &windows].into_iter().flat_map(|whole| [whole.len(), 1, 7, 64].map(|size| (whole, size))) {
            let chunks: Vec<&[u8]> = whole.chunks(size).collect();
            let (deltas, end) = read(Answer::events(&chunks, Then::Keep)).await;
            end.unwrap();
            assert_eq!((text(&deltas), deltas.len()), ("éb".to_owned(), 5));
            assert_eq!(deltas.iter().map(Delta::has_content).collect::<Vec<_>>(), [false, true, true, false, false]);
            assert_eq!(deltas[0].role.as_deref(), Some("assistant"));
            assert_eq!(deltas[3].finish_reason.as_deref(), Some("stop"));
            assert_eq!(deltas[4].usage.as_ref().unwrap().total_tokens, 5);
        }
    });
}

#[test]
fn done_alone_and_a_finish_reason_alone_are_ends() {
    run(async {
        for pieces in [[A, DONE].concat(), [A, STOP].concat(), [A, STOP, USAGE].concat(), [ROLE, DONE].concat(), [STOP, DONE].concat()] {
            for then in [Then::Keep, Then::Close, Then::Reset] {
                let (_, end) = read(Answer::events(&[&pieces], then)).await;
                // The reset may overtake what was sent before it, in which case nothing had arrived.
                assert!(end.is_ok() || then == Then::Reset, "{then:?} {end:?}");
            }
        }
        // The last event lacks its empty line.
        for pieces in [[A, b"data: [DONE]"].concat(), [A, &STOP[..STOP.len() - 2]].concat(), [A, &STOP[..STOP.len() - 1]].concat()] {
            let (deltas, end) = read(Answer::events(&[&pieces], Then::Keep)).await;
            end.unwrap();
            assert_eq!(text(&deltas), "é");
        }
    });
}

#[test]
fn a_stream_that_just_ends_was_cut() {
    run(async {
        for pieces in [&[ROLE][..], &[ROLE, A], &[ROLE, A, B], &[A, &B[..30]], &[A, &STOP[..40]], &[A, USAGE]] {
            let (_, error) = failure(Answer::events(&[&pieces.concat()], Then::Keep)).await;
            assert_eq!((error.kind, error.class(), error.status), (ErrorKind::StreamInterrupted, Class::Malformed, Some(200)), "{error}");
        }
        // Headers are part of an error, and may repeat a key.
        let echo = format!("HTTP/1.1 200 OK\r\nx-echo: {KEY}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hi\n\n");
        assert_eq!(failure(Answer::new(echo, Then::Close)).await.1.kind, ErrorKind::StreamInterrupted);
        // Of two choices only one was finished.
        let other = b"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"}}]}\n\n";
        let (deltas, end) = read(Answer::events(&[A, other, STOP], Then::Keep)).await;
        assert_eq!((deltas.len(), end.unwrap_err().kind), (3, ErrorKind::StreamInterrupted));
    });
}

#[test]
fn a_connection_that_breaks_in_the_stream_is_a_connection_error() {
    run(async {
        let (given, error) = failure(Answer::events(&[ROLE, A], Then::Close)).await;
        assert_eq!((error.kind, error.class(), &*given), (ErrorKind::Connection, Class::Transient, "é"));
        let server = RawServer::start(vec![Answer::events(&[ROLE, A], Then::Reset)]).await;
        let error = match open_stream(&client(), &server.endpoint(), request()).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                if let Err(error) = stream.next().await {
                    break error;
                }
            },
        };
        assert_eq!((error.kind, error.class()), (ErrorKind::Connection, Class::Transient));
    });
}

#[test]
fn an_error_object_in_the_stream_is_that_error() {
    run(async {
        for (event, kind, class) in [
            ("data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}\n\n", ErrorKind::InternalServer, Class::Transient),
            ("data: {\"error\":{\"message\":\"m\",\"code\":400}}\n\n", ErrorKind::BadRequest, Class::Permanent),
            ("data: {\"error\":{\"message\":\"m\",\"code\":\"rate_limit_exceeded\"}}\n\n", ErrorKind::RateLimit, Class::RateLimited),
            ("event: error\ndata: {\"message\":\"m\",\"code\":503}\n\n", ErrorKind::ServiceUnavailable, Class::Transient),
            ("event: error\ndata: it broke: m\n\n", ErrorKind::Api, Class::Transient),
            (
                "data: {\"choices\":[{\"delta\":{},\"error\":{\"code\":502,\"message\":\"m\"}}]}\n\n",
                ErrorKind::InternalServer,
                Class::Transient,
            ),
        ] {
            for before in [&[][..], &[ROLE], &[ROLE, A]] {
                let pieces = [&before.concat(), event.as_bytes(), DONE].concat();
                let (_, error) = failure(Answer::events(&[&pieces], Then::Keep)).await;
                assert_eq!((error.kind, error.class()), (kind, class), "{event}");
                assert!(error.message.ends_with('m'), "{error}");
            }
        }
    });
}

#[test]
fn what_cannot_be_read_in_the_stream_is_malformed() {
    run(async {
        for event in [
            &b"data: {\"choices\":[{\n\n"[..],
            b"data: hello\n\n",
            b"data: [1]\n\n",
            b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n",
            b"data: {\"choices\":[{\"delta\":{\"content\":7}}]}\n\n",
        ] {
            let (given, error) = failure(Answer::events(&[&[ROLE, A, event, STOP, DONE].concat()], Then::Keep)).await;
            assert_eq!((error.kind, error.class(), &*given), (ErrorKind::MalformedResponse, Class::Malformed, "é"), "{event:?}");
        }
        // [DONE] after nothing at all is no answer.
        let (_, error) = failure(Answer::events(&[USAGE, DONE], Then::Keep)).await;
        assert_eq!(error.kind, ErrorKind::MalformedResponse);
    });
}

#[test]
fn what_is_no_stream_is_told_by_its_first_byte() {
    run(async {
        let plain = r#"{"id":"c2","model":"m","choices":[{"index":0,"message":{"content":"whole","tool_calls":[
            {"id":"t","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#;
        let (deltas, end) = read(Answer::json(plain)).await;
        end.unwrap();
        assert_eq!((deltas.len(), &*deltas[0].content, deltas[0].finish_reason.as_deref()), (1, "whole", Some("stop")));
        assert_eq!((deltas[0].tool_calls[0].name.as_deref(), deltas[0].usage.as_ref().unwrap().prompt_tokens), (Some("f"), 1));
        let two = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"},
            {"index":1,"message":{"content":"b"},"finish_reason":"length"}],"usage":{"prompt_tokens":1}}"#;
        let (deltas, end) = read(Answer::json(&format!("\u{feff}{two}"))).await;
        end.unwrap();
        let choices: Vec<_> = deltas.iter().map(|d| (d.index, &*d.content, d.finish_reason.as_deref(), d.usage.is_some())).collect();
        assert_eq!(choices, [(0, "a", Some("stop"), false), (1, "b", Some("length"), true)]);

        let two =
            r#"{"choices":[{"index":1,"message":{"content":"b"}},{"index":0,"message":{"content":"a"}}],"usage":{"prompt_tokens":1}}"#;
        let (deltas, end) = read(Answer::json(two)).await;
        end.unwrap();
        let said: Vec<_> = deltas.iter().map(|delta| (delta.index, &*delta.content, delta.place, delta.usage.is_some())).collect();
        assert_eq!(said, [(0, "a", 1, false), (1, "b", 0, true)]);

        // An event stream with a wrong content type is still one.
        let events = String::from_utf8([ROLE, A, DONE].concat()).unwrap();
        let (deltas, end) = read(Answer::json(&events)).await;
        end.unwrap();
        assert_eq!(text(&deltas), "é");

        for (body, kind) in [
            (r#"{"error":{"message":"m","code":429}}"#, ErrorKind::RateLimit),
            ("<html>Sign in</html>", ErrorKind::MalformedResponse),
            (r#"{"choices":[]}"#, ErrorKind::MalformedResponse),
            (r#"{"choices":[{"me"#, ErrorKind::MalformedResponse),
            ("", ErrorKind::MalformedResponse),
            ("hello", ErrorKind::MalformedResponse),
        ] {
            let (_, error) = failure(Answer::json(body)).await;
            assert_eq!(error.kind, kind, "{body} {error}");
            let (_, error) = failure(Answer::events(&[body.as_bytes(), b"\n"], Then::Keep)).await;
            let kind = if body == "hello" { ErrorKind::StreamInterrupted } else { kind };
            assert_eq!(error.kind, kind, "{body} {error}");
        }
        let mut page = Answer::new("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Then::Repeat);
        page.0.push(b"6\r\n<html>\r\n".to_vec());
        assert_eq!(failure(page).await.1.kind, ErrorKind::MalformedResponse);
    });
}

#[test]
fn a_status_fails_the_opening() {
    run(async {
        let server = RawServer::start(vec![Answer::whole("429 X", "retry-after: 2\r\n", "{}")]).await;
        let error = open_stream(&client(), &server.endpoint(), request()).await.unwrap_err();
        assert_eq!((error.kind, error.retry_after), (ErrorKind::RateLimit, Some(std::time::Duration::from_secs(2))));
        let sent = server.requests().remove(0).to_ascii_lowercase();
        assert!(sent.contains("accept: text/event-stream"), "{sent}");
    });
}

#[test]
fn an_endless_stream_is_refused_at_the_limit_and_an_endless_event_too() {
    run(async {
        let mut endless = Answer::events(&[ROLE], Then::Repeat);
        endless.0.push([format!("{:x}\r\n", A.len()).as_bytes(), A, b"\r\n"].concat());
        let server = RawServer::start(vec![endless]).await;
        let limited = Request { max_response_bytes: 10_000, ..request() };
        let mut stream = open_stream(&client(), &server.endpoint(), limited).await.unwrap();
        let error = loop {
            match stream.next().await {
                Ok(delta) => assert!(delta.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, ErrorKind::MalformedResponse);
        assert!(error.message.contains("10000 bytes"), "{error}");
        assert_eq!(error.partial.as_deref(), Some(stream.text()));

        let mut endless = Answer::events(&[ROLE, A, b"data: {"], Then::Repeat);
        endless.0.push([b"100000\r\n", &[b' '; 0x100000][..], b"\r\n"].concat());
        let (given, error) = failure(endless).await;
        assert_eq!((error.kind, &*given), (ErrorKind::MalformedResponse, "é"));
        assert!(error.message.contains("an event of more than"), "{error}");
    });
}

#[test]
fn a_stream_of_more_than_it_can_have_is_refused_and_a_gzip_bomb_too() {
    run(async {
        let many = |event: &dyn Fn(usize) -> String| (0..1100).map(event).collect::<String>();
        let choices = many(&|at| format!("data: {{\"choices\":[{{\"index\":{at},\"delta\":{{}}}}]}}\n\n"));
        let calls = many(&|at| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":{at},\"id\":\"c{at}\",\"function\":{{\"name\":\"f\"}}}}]}}}}]}}\n\n"
            )
        });
        for (events, words) in [(choices, "more than 1024 choices"), (calls, "more than 1024 tool calls")] {
            let (_, error) = failure(Answer::events(&[events.as_bytes()], Then::Keep)).await;
            assert!(error.kind == ErrorKind::MalformedResponse && error.message.contains(words), "{error}");
        }
        let server = RawServer::start(vec![Answer::whole("200 OK", "content-encoding: gzip\r\n", gzip_of_zeros(64 << 20))]).await;
        let limited = Request { max_response_bytes: 1 << 20, ..request() };
        let error = open_stream(&client(), &server.endpoint(), limited).await.unwrap().next().await.unwrap_err();
        assert!(error.message.contains("a stream of more than 1048576 bytes"), "{error}");
    });
}

#[test]
fn a_finished_stream_leaves_its_connection_for_the_next() {
    run(async {
        let server = RawServer::start(vec![Answer::events(&[ROLE, A, STOP, DONE], Then::Keep)]).await;
        let (client, endpoint) = (client(), server.endpoint());
        for _ in 0..12 {
            let mut stream = open_stream(&client, &endpoint, request()).await.unwrap();
            while stream.next().await.unwrap().is_some() {}
        }
        assert!(server.reused().contains(&true), "{:?}", server.reused());
    });
}

#[test]
fn what_comes_after_done_is_waited_for_a_moment() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(&format!("http://{}/v1", listener.local_addr().unwrap()));
        let over = Notify::new();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
            let events = [A, DONE].concat();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            socket.write_all(&[format!("{head}{:x}\r\n", events.len()).as_bytes(), &events, b"\r\n"].concat()).await.unwrap();
            over.notified().await;
            socket.write_all(b"0\r\n\r\n").await.unwrap();
            // The next request, or the end of the connection.
            socket.read(&mut [0; 4096]).await.unwrap_or(0)
        };
        let asking = async {
            let client = client();
            let mut stream = open_stream(&client, &endpoint, request()).await.unwrap();
            assert!(stream.next().await.unwrap().unwrap().has_content());
            // The end is asked for, and [DONE] is read, before the body is over.
            let (end, ()) = tokio::join!(stream.next(), async { over.notify_one() });
            assert!(end.unwrap().is_none());
            // Nobody answers it; the server only looks where it comes in.
            open_stream(&client, &endpoint, request()).await.unwrap_err();
        };
        tokio::select! {
            read = server => assert!(read > 0, "the connection was given up"),
            () = asking => {}
        }
    });
}

#[test]
fn a_server_that_stays_open_after_the_end_holds_nothing_up() {
    run(async {
        let (deltas, end) = read(Answer::events(&[ROLE, A, DONE], Then::Hang)).await;
        end.unwrap();
        assert_eq!(text(&deltas), "é");

        let mut stream = open(Answer::events(&[A, STOP], Then::Hang)).await;
        assert!(stream.next().await.unwrap().unwrap().has_content() && !stream.finished());
        assert!(stream.next().await.unwrap().is_some() && stream.finished());
    });
}

#[test]
fn a_stream_may_be_silent_for_so_long_and_no_longer() {
    const KEEPALIVE: &[u8] = b": still here\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"}}]}\n\n";
    async fn bounded(pieces: &[&[u8]], then: Then) -> (String, Result<(), ApiError>) {
        let mut stream = open(Answer::events(pieces, then)).await;
        stream.bound_silence(Some(Duration::from_millis(500)));
        let mut text = String::new();
        loop {
            match stream.next().await {
                Ok(Some(delta)) => text.push_str(&delta.content),
                Ok(None) => return (text, Ok(())),
                Err(error) => return (text, Err(error)),
            }
        }
    }
    run(async {
        for (pieces, then) in [(&[ROLE, A][..], Then::Hang), (&[ROLE, A, KEEPALIVE], Then::Repeat)] {
            let (text, end) = bounded(pieces, then).await;
            let error = end.unwrap_err();
            assert_eq!((&*text, error.kind, error.class()), ("é", ErrorKind::Timeout, Class::Transient));
            assert!(error.message.ends_with("for 0.5 s (idle_timeout)"), "{error}");
        }
        // The answer was over: that the server says no more makes no difference.
        let (text, end) = bounded(&[ROLE, A, B, STOP], Then::Hang).await;
        end.unwrap();
        assert_eq!(text, "éb");
        bounded(&[ROLE, A, B, STOP, DONE], Then::Keep).await.1.unwrap();
    });
}

#[test]
fn asking_can_be_given_up_and_taken_up_again() {
    run(async {
        let pieces: Vec<u8> = [ROLE, A, B, STOP, DONE].concat();
        let chunks: Vec<&[u8]> = pieces.chunks(3).collect();
        let mut stream = open(Answer::events(&chunks, Then::Keep)).await;
        let mut given = String::new();
        loop {
            // Every other time the question is dropped unless it is answered at once.
            let next = tokio::select! {
                biased;
                next = stream.next() => next,
                () = tokio::task::yield_now() => continue,
            };
            match next.unwrap() {
                Some(delta) => given.push_str(&delta.content),
                None => break,
            }
        }
        assert_eq!(given, "éb");
        assert_eq!(stream.text(), "éb");
    });
}

#[test]
fn an_attempt_can_move_between_threads() {
    fn moves<T: Send + 'static>(future: T) -> T {
        future
    }
    run(async {
        let server = RawServer::start(vec![Answer::events(&[A, DONE], Then::Keep), Answer::json("{}")]).await;
        let (client, endpoint) = (client(), server.endpoint());
        let attempt = moves(async move {
            let mut stream = open_stream(&client, &endpoint, request()).await.unwrap();
            while stream.next().await.unwrap().is_some() {}
            client.send_json(&endpoint, request()).await.unwrap();
            stream.text().to_owned()
        });
        assert_eq!(attempt.await, "é");
    });
}
