//! The other end of bench_client.py: answers at once from bytes made beforehand, on one thread and the loopback only.
//!
//! `POST /t2000/e16/v1/…` with `"stream":true` streams 2,000 tokens, 16 events a write; anything else gets one short reply.
//! It ends when its standard input does, and after ten minutes at the latest.
//!
//! `loopback load PORT CONNECTIONS MILLISECONDS` is the least that a client can be, for the server's own ceiling: it sends the
//! same bytes over so many connections, counts the bytes of the replies, and prints how many replies came.

use std::io::{Error, Read, Write};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LONGEST: Duration = Duration::from_secs(600);
/// Before and after a token.
const EVENT: [&str; 2] = [
    concat!(
        r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4","#,
        r#""choices":[{"index":0,"delta":{"content":""#,
    ),
    concat!(r#""},"logprobs":null,"finish_reason":null}]}"#, "\n\n"),
];
/// In turns: a client may take the same one a hundred times for a model that is stuck.
const TOKENS: [&str; 2] = [" token", " piece"];
const LAST: &str = concat!(
    r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4","#,
    r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#,
    "\n\ndata: [DONE]\n\n"
);
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A reply of 0.5 KB, head included.
fn reply() -> Vec<u8> {
    let body = concat!(
        r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"gpt-4","choices":[{"index":0,"#,
        r#""message":{"role":"assistant","content":"A circuit breaker stops calling what is known to be broken.","refusal":null},"#,
        r#""logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":12,"total_tokens":24},"#,
        r#""system_fingerprint":"fp_bench"}"#
    );
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-bench\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// The number after a letter in a part of the path.
fn number(path: &str, letter: char, otherwise: usize) -> usize {
    path.split('/').find_map(|part| part.strip_prefix(letter)?.parse().ok()).unwrap_or(otherwise)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Where the head ends and how long the body is, once the head is there.
fn measured(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some((end, length.unwrap_or(0)))
}

async fn stream(socket: &mut TcpStream, path: &str) -> std::io::Result<()> {
    let (tokens, events) = (number(path, 't', 100), number(path, 'e', 1).max(1));
    socket.write_all(HEAD.as_bytes()).await?;
    let text = |from: usize, count: usize| -> String { (from..from + count).flat_map(|at| [EVENT[0], TOKENS[at % 2], EVENT[1]]).collect() };
    let several = [chunk(&text(0, events)), chunk(&text(events, events))];
    for turn in 0..tokens / events {
        socket.write_all(&several[turn % 2]).await?;
    }
    if tokens % events > 0 {
        socket.write_all(&chunk(&text(tokens - tokens % events, tokens % events))).await?;
    }
    socket.write_all(&chunk(LAST)).await?;
    socket.write_all(b"0\r\n\r\n").await
}

async fn serve(mut socket: TcpStream, whole: &[u8]) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(4096);
    loop {
        let (end, length) = loop {
            if let Some((end, length)) = measured(&bytes).filter(|(end, length)| bytes.len() >= end + length) {
                break (end, length);
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let body = &bytes[end..end + length];
        let streams = [&b"\"stream\":true"[..], b"\"stream\": true"].iter().any(|asked| find(body, asked).is_some());
        if streams {
            let line = String::from_utf8_lossy(&bytes[..end]).lines().next().unwrap_or_default().to_owned();
            stream(&mut socket, line.split(' ').nth(1).unwrap_or_default()).await?;
        } else {
            socket.write_all(whole).await?;
        }
        bytes.drain(..end + length);
    }
}

async fn one_after_the_other(port: u16, until: Instant, length: usize) -> std::io::Result<u64> {
    let body = r#"{"model":"gpt-4","messages":[{"role":"user","content":"What is a circuit breaker?"}]}"#;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-bench\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let mut replies = 0;
    let mut bytes = vec![0; length];
    while Instant::now() < until {
        socket.write_all(request.as_bytes()).await?;
        socket.read_exact(&mut bytes).await?;
        replies += 1;
    }
    Ok(replies)
}

async fn load(port: u16, connections: usize, span: Duration) -> std::io::Result<()> {
    let (until, length) = (Instant::now() + span, reply().len());
    let mut tasks: Vec<_> = (0..connections).map(|_| tokio::spawn(one_after_the_other(port, until, length))).collect();
    let mut replies = 0;
    for task in tasks.drain(..) {
        replies += task.await??;
    }
    writeln!(std::io::stdout(), "{replies}")
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.first().is_some_and(|what| what == "load") {
        let number =
            |at: usize| given.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or(Error::other("load PORT CONNECTIONS MILLISECONDS"));
        let port = u16::try_from(number(1)?).map_err(Error::other)?;
        return runtime.block_on(load(port, number(2)? as usize, Duration::from_millis(number(3)?)));
    }
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
        let (over, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // Whoever started this has gone.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = over.send(());
        });
        let whole: &'static [u8] = reply().leak();
        let accept = async {
            loop {
                let (socket, _) = listener.accept().await?;
                // A client that goes away is no error here.
                tokio::spawn(async move { serve(socket, whole).await.ok() });
            }
        };
        tokio::select! {
            failed = accept => failed,
            _ = ended => Ok(()),
            () = tokio::time::sleep(LONGEST) => Ok(()),
        }
    })
}
