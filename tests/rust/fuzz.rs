//! What servers send, broken in every way: no input makes a reader panic, hang or hold much more than the input itself, and
//! a stream says the same however its bytes were cut. `make fuzz` runs many; this test runs some, always the same.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use seawall::llm::client::RawReply;
use seawall::llm::delta::Delta;
use seawall::llm::stream::ChatStream;
use seawall::llm::{chat, classify, embeddings, models};

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // At a thread's end there is nothing left to count.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const STREAMS: [&str; 12] = [
    "data: {\"id\":\"c\",\"model\":\"m\",\"created\":1,\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé字\"},\"logprobs\":{\"content\":[{\"token\":\"H\",\"logprob\":-0.1}]}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\ndata: [DONE]\n\n",
    "\u{feff}: OPENROUTER PROCESSING\r\n\r\ndata: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\",\"content\":null}}]}\r\n\r\nevent: ping\r\ndata:\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\\u00e9\\ud83d\\ude00\"},\"finish_reason\":\"stop\"}]}\r\n\r\n",
    "data:{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\rdata:\r\rdata: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{1}\"}},{\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":{\"x\":1}}}]},\"finish_reason\":\"tool_calls\"}]}\r\rdata: [DONE]\r\r",
    "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0,\"content_filter_results\":{}}]}\n\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}},{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"refusal\":\"no\"},\"finish_reason\":\"stop\"},{\"index\":0,\"finish_reason\":\"content_filter\"}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\nevent: error\ndata: {\"error\":{\"message\":\"m\",\"code\":429}}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":503}}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"y\"}]},\"finish_reason\":\"error\"}]}\n\n",
    "{\"id\":\"c\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"whole\",\"tool_calls\":[{\"id\":\"t\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}",
    "{\"error\":{\"message\":\"Rate limit\",\"type\":\"requests\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}",
    "<html><head><title>502 Bad Gateway</title></head></html>",
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\ndata: \n\nid: 1\nretry: 5\n\ndata: [DONE]",
    "[{\"error\":{\"code\":429,\"message\":\"Resource exhausted\",\"status\":\"RESOURCE_EXHAUSTED\"}}]",
];

const BODIES: [&str; 10] = [
    "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hé字\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":2}},\"service_tier\":\"default\",\"system_fingerprint\":\"fp\"}",
    "{\"choices\":[{\"index\":1,\"message\":{\"content\":\"b\"}},{\"index\":0,\"message\":{\"content\":null,\"reasoning_content\":\"hm\",\"tool_calls\":[{\"id\":\"t\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}},{\"function\":{\"name\":\"g\",\"arguments\":{\"y\":2}}},{\"id\":\"u\",\"type\":\"custom\",\"custom\":{\"name\":\"h\",\"input\":\"z\"}}]}}]}",
    "{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"text\":\"b\"}]},\"finish_reason\":\"error\",\"error\":{\"code\":502,\"message\":\"m\"}}],\"error\":null}",
    "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":1,\"embedding\":[0.1,-2e-3,3]},{\"object\":\"embedding\",\"index\":0,\"embedding\":\"AACAPwAAAEAAAEBA\"}],\"model\":\"m\",\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}",
    "{\"data\":[{\"embedding\":[1,2]},{\"embedding\":[3,4]}]}",
    "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"x\"},{\"id\":\"n\"}]}",
    "[{\"id\":\"a\"}]",
    "{\"error\":{\"message\":\"You exceeded your current quota\",\"type\":\"insufficient_quota\",\"param\":null,\"code\":\"insufficient_quota\"}}",
    "{\"detail\":[{\"loc\":[\"body\",\"messages\"],\"msg\":\"field required\",\"type\":\"value_error.missing\"}]}",
    "{\"error\":{\"code\":400,\"message\":\"maximum context length is 8192 tokens\",\"innererror\":{\"content_filter_result\":{\"hate\":{\"filtered\":true}}}}}",
];

const TOKENS: [&str; 44] = [
    "null",
    "true",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "-1",
    "1e999",
    "1e-999",
    "0.1",
    "\"\"",
    "18446744073709551616",
    "4294967295",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "\r\r",
    "data: ",
    "data:",
    "data",
    "event: error\n",
    ": x\n",
    "[DONE]",
    "data: [DONE]\n\n",
    "\u{feff}",
    "\u{fffd}",
    "字",
    " ",
    "\t",
    "\"choices\":",
    "\"error\":",
    "\"index\":",
    "\"finish_reason\":\"stop\"",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Always the same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(80) + 1)
    }
}

fn mutated(chance: &mut Chance, corpus: &[&str]) -> Vec<u8> {
    if chance.below(30) == 0 {
        let length = chance.below(300);
        return (0..length).map(|_| chance.next() as u8).collect();
    }
    let mut bytes = chance.of(corpus).as_bytes().to_vec();
    for _ in 0..chance.below(7) {
        let range = chance.range(bytes.len());
        let at = range.start;
        match chance.below(12) {
            0 if !bytes.is_empty() => {
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= 1 << chance.below(8);
            }
            1 => drop(bytes.drain(range)),
            2 => bytes.truncate(at),
            3 => {
                let copy = bytes[range].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = chance.of(corpus).as_bytes();
                let piece = chance.range(other.len());
                bytes.splice(range, other[piece].iter().copied());
            }
            5 => {
                let random: Vec<u8> = (0..chance.below(8)).map(|_| chance.next() as u8).collect();
                bytes.splice(at..at, random);
            }
            6 => {
                let other = chance.of(corpus).as_bytes();
                bytes.extend_from_slice(other);
            }
            7 if chance.below(20) == 0 => {
                let copy = bytes[range].repeat(chance.below(400));
                bytes.splice(at..at, copy);
            }
            8 => {
                let end = [&b"\n"[..], b"\r", b"\r\n"][chance.below(3)];
                bytes = bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(end);
            }
            _ => {
                let token = chance.of(&TOKENS).as_bytes();
                let gone = if chance.below(2) == 0 { at..at } else { range };
                bytes.splice(gone, token.iter().copied());
            }
        }
    }
    bytes
}

fn reply(body: Vec<u8>, chance: &mut Chance) -> RawReply {
    let mut headers = HeaderMap::new();
    if chance.below(2) == 0 {
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    }
    RawReply::new(200, headers, body)
}

/// All that a stream says, and how it ends.
async fn read(head: &RawReply, chunks: Vec<Bytes>, max: usize) -> (Vec<Delta>, Result<(), String>) {
    let chunks = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let body = hyper::Response::new(reqwest::Body::wrap_stream(chunks));
    let mut stream = ChatStream::new(head.clone(), body.into(), max);
    let mut deltas: Vec<Delta> = Vec::new();
    let end = loop {
        match stream.next().await {
            Ok(Some(delta)) => deltas.push(delta),
            Ok(None) => break Ok(()),
            Err(error) => {
                let again = stream.next().await.unwrap_err();
                assert_eq!((again.kind, &again.message), (error.kind, &error.message), "an error stays");
                break Err(format!("{:?} {} {:?} {:?}", error.kind, error.message, error.status, error.partial));
            }
        }
    };
    let said: String = deltas.iter().filter(|delta| delta.index == 0).map(|delta| &*delta.content).collect();
    assert_eq!(stream.text(), said);
    (deltas, end)
}

fn cut(bytes: &[u8], chance: &mut Chance) -> Vec<Bytes> {
    let whole = Bytes::copy_from_slice(bytes);
    let longest = [1, 3, 17, 200][chance.below(4)];
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < whole.len() {
        let end = whole.len().min(at + 1 + chance.below(longest));
        chunks.push(whole.slice(at..end));
        at = end;
    }
    chunks
}

/// One input, made from its number.
fn try_one(number: u64, seed: u64, runtime: &tokio::runtime::Runtime) -> usize {
    let mut chance = Chance(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    match chance.below(10) {
        0..5 => {
            let bytes = mutated(&mut chance, &STREAMS);
            let head = reply(Vec::new(), &mut chance);
            let max = if chance.below(4) == 0 { 1 + chance.below(bytes.len() + 10) } else { 1 << 20 };
            let chunks = cut(&bytes, &mut chance);
            runtime.block_on(async {
                let whole = read(&head, vec![Bytes::copy_from_slice(&bytes)], max).await;
                let pieces = read(&head, chunks, max).await;
                assert_eq!(pieces, whole, "cut another way, it says another thing");
            });
            bytes.len()
        }
        kind => {
            let bytes = mutated(&mut chance, &BODIES);
            let length = bytes.len();
            let raw = reply(bytes, &mut chance);
            match kind {
                5 | 6 => {
                    let body = raw.body.clone();
                    if let Ok(reply) = chat::parse_reply(raw) {
                        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
                        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                        // What nests too deeply, or says a key twice, is another matter.
                        if let Some(choices) =
                            value["choices"].as_array().filter(|_| body.windows(9).filter(|w| w == b"\"choices\"").count() == 1)
                        {
                            assert_eq!(reply.choices().count(), choices.len());
                        }
                        assert!(reply.choices().zip(reply.choices().skip(1)).all(|(one, next)| one.index < next.index));
                    }
                }
                7 => {
                    let inputs = 1 + chance.below(3);
                    if let Ok(reply) = embeddings::parse_reply(raw, inputs, None) {
                        assert_eq!(reply.vectors.len(), inputs);
                        let length = reply.vectors[0].len();
                        assert!(length > 0 && reply.vectors.iter().all(|v| v.len() == length && v.iter().all(|x| x.is_finite())));
                    }
                }
                8 => drop(models::parse_reply(raw)),
                _ => {
                    let status = [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529, 600][chance.below(14)];
                    let mut headers = HeaderMap::new();
                    let noise = chance.range(raw.body.len());
                    if let Ok(value) = HeaderValue::from_bytes(&raw.body[noise]) {
                        headers.insert("retry-after", value);
                    }
                    let error = classify::from_status(status, &headers, &raw.body);
                    assert_eq!(error.status, Some(status));
                }
            }
            length
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn nothing_a_server_sends_panics_hangs_or_fills_the_memory() {
    let (count, seed) = (number("FUZZ_COUNT", 20_000), number("FUZZ_SEED", 1));
    // FUZZ_ONLY names the one input of a failure.
    let only = std::env::var("FUZZ_ONLY").ok().and_then(|text| text.parse::<u64>().ok());
    let threads = if count < 1_000_000 || only.is_some() { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) as u64 };
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let numbers = only.map_or(0..count, |only| only..only + 1);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (next, numbers) = (&next, numbers.clone());
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                for number in numbers.skip(thread as usize).step_by(threads as usize) {
                    let began = Instant::now();
                    let held = HELD.get();
                    PEAK.set(held);
                    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_one(number, seed, &runtime)));
                    let length = tried.unwrap_or_else(|_| panic!("input FUZZ_ONLY={number} FUZZ_SEED={seed}"));
                    let peak = (PEAK.get() - held) as usize;
                    assert!(peak < (4 << 20) + 200 * length, "{peak} bytes for FUZZ_ONLY={number} of {length} bytes");
                    assert!(began.elapsed() < Duration::from_secs(10), "FUZZ_ONLY={number} took {:?}", began.elapsed());
                    next.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let mut told = String::new();
    let _ = write!(told, "{} inputs in {:.0} s", next.into_inner(), begun.elapsed().as_secs_f64());
    eprintln!("{told}");
}
