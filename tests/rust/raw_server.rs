//! A server of raw bytes: what it sends, and how it ends a connection, is up to the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seawall::llm::client::{Client, ClientOptions, ProxyChoice};
use seawall::llm::endpoint::{Endpoint, EndpointOptions};
use seawall::llm::secret::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const KEY: &str = "sk-0123456789-secret";

/// What follows the bytes of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    /// The next request of the same connection is read.
    Keep,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing, for as long as the client stays.
    Hang,
    /// The last piece again and again, for as long as the client stays.
    Repeat,
}

/// The pieces of an answer, each written by itself.
#[derive(Clone, Debug)]
pub struct Answer(pub Vec<Vec<u8>>, pub Then);

impl Answer {
    pub fn new(bytes: impl Into<Vec<u8>>, then: Then) -> Answer {
        Answer(vec![bytes.into()], then)
    }

    /// A whole answer with a length, after which the connection stays.
    pub fn whole(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        Answer::new(bytes, Then::Keep)
    }

    pub fn json(body: &str) -> Answer {
        Answer::whole("200 OK", "content-type: application/json\r\n", body)
    }

    /// An event stream in chunks, one for each piece. `Keep` sends the last chunk that says the body is over.
    pub fn events(pieces: &[&[u8]], then: Then) -> Answer {
        let mut all = vec![b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()];
        all.extend(pieces.iter().map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()));
        if then == Then::Keep {
            all.push(b"0\r\n\r\n".to_vec());
        }
        Answer(all, then)
    }
}

/// Every request that arrived: which connection it came on, and its text.
pub type Log = Arc<Mutex<Vec<(usize, String)>>>;

pub struct RawServer {
    pub address: SocketAddr,
    pub log: Log,
}

impl RawServer {
    /// Request n, of whatever connection, gets answer n; the last answer is used for all after it.
    pub async fn start(answers: Vec<Answer>) -> RawServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let seen = log.clone();
        tokio::spawn(async move {
            let answers = Arc::new(answers);
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, connection, answers.clone(), seen.clone()));
            }
        });
        RawServer { address, log }
    }

    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    /// For each request but the first, whether it came on the connection of the one before.
    pub fn reused(&self) -> Vec<bool> {
        self.log.lock().unwrap().windows(2).map(|pair| pair[0].0 == pair[1].0).collect()
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn endpoint(&self) -> Endpoint {
        endpoint(&self.base_url())
    }
}

async fn serve(mut stream: TcpStream, connection: usize, answers: Arc<Vec<Answer>>, log: Log) {
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push((connection, request));
            log.len() - 1
        };
        let Answer(pieces, then) = &answers[number.min(answers.len() - 1)];
        for piece in pieces {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        match then {
            Then::Keep => continue,
            Then::Close => return,
            Then::Reset => {
                // Closing with no time to linger sends RST in the place of FIN.
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Then::Hang => {
                while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
                return;
            }
            Then::Repeat => {
                while stream.write_all(pieces.last().unwrap()).await.is_ok() {}
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if bytes.len() >= head + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// So many zero bytes in gzip's form, which is a thousandth as long. Made by hand: no compressor is at hand here.
pub fn gzip_of_zeros(length: usize) -> Vec<u8> {
    // One block of fixed codes: a literal zero, then matches of 258 at a distance of 1. Bits go in from the lowest.
    let (mut bits, mut bytes) = ((0u64, 0u32), b"\x1f\x8b\x08\0\0\0\0\0\x02\x03".to_vec());
    let mut put = |value: u64, count: u32| {
        bits.0 |= value << bits.1;
        bits.1 += count;
        while bits.1 >= 8 {
            bytes.push(bits.0 as u8);
            bits = (bits.0 >> 8, bits.1 - 8);
        }
    };
    put(0b011, 3);
    // 0 is code 0x30 of 8 bits, 285 (a length of 258) code 0xc5 of 8, and distance 1 is 0 of 5: codes go highest bit first.
    put(u64::from(0x30u8.reverse_bits()), 8);
    for _ in 0..(length - 1) / 258 {
        put(u64::from(0xc5u8.reverse_bits()), 8);
        put(0, 5);
    }
    put(0, 7);
    put(0, 7);
    // Nobody gets to the check sum.
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

pub fn endpoint(base_url: &str) -> Endpoint {
    let api_key = Some(ApiKey::new(KEY.into()).unwrap());
    Endpoint::new(EndpointOptions { base_url: base_url.into(), api_key, ..Default::default() }).unwrap()
}

/// A client that no proxy of the machine gets in the way of, and that gives nothing up by itself.
pub fn client() -> Client {
    let patient = Duration::from_secs(3600);
    Client::new(ClientOptions { proxy: ProxyChoice::Off, error_body_timeout: patient, ..Default::default() }).unwrap()
}

/// Runs a test in one thread, where a connection is free again before another one could be made; the time is only
/// there against hangs.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs") });
}
