//! Event streams (`text/event-stream`), decoded from bytes as they come. No I/O.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

/// The longest event held if nothing was said.
pub const DEFAULT_MAX_EVENT: usize = 16 * 1024 * 1024;

/// How much room for the next event's data is kept.
const KEPT: usize = 64 * 1024;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name on its `event:` line, if there was one.
    pub name: Option<String>,
    /// The `data:` lines, joined by line feeds. Bytes, so that what is no UTF-8 is noticed and not replaced.
    pub data: Bytes,
}

/// An event, or a line, was longer than allowed. The decoder gives nothing more after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The limit in bytes.
    pub max: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event of more than {} bytes", self.max)
    }
}

impl std::error::Error for TooLong {}

/// Turns bytes, cut anywhere, into events: CR, LF and CRLF line ends, a byte order mark, comments, data over several lines.
#[derive(Debug)]
pub struct Decoder {
    max: usize,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The data of the event that has not ended yet, with a line feed after each line.
    data: Vec<u8>,
    name: Option<String>,
    after_cr: bool,
    first_line: bool,
    failed: bool,
}

impl Decoder {
    /// A decoder that holds at most so many bytes of one event.
    pub fn new(max_event_bytes: usize) -> Decoder {
        Decoder { max: max_event_bytes, line: Vec::new(), data: Vec::new(), name: None, after_cr: false, first_line: true, failed: false }
    }

    /// Takes the next bytes and adds the events that they complete.
    pub fn push(&mut self, mut bytes: &[u8], events: &mut VecDeque<Event>) -> Result<(), TooLong> {
        if self.failed {
            return Err(TooLong { max: self.max });
        }
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() + self.data.len() > self.max {
                *self = Decoder { failed: true, ..Decoder::new(self.max) };
                return Err(TooLong { max: self.max });
            }
            let Some(end) = end else {
                self.line.extend_from_slice(part);
                break;
            };
            if self.line.is_empty() {
                self.end_line(part, events);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.end_line(&line, events);
                line.clear();
                self.line = line;
            }
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// What was left when the stream ended: an event whose last lines may be missing. The standard drops it; whoever
    /// asks must judge whether it is whole.
    pub fn finish(&mut self) -> Option<Event> {
        let mut events = VecDeque::new();
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_line(&line, &mut events);
        }
        self.end_line(b"", &mut events);
        events.pop_front()
    }

    fn end_line(&mut self, line: &[u8], events: &mut VecDeque<Event>) {
        let line = match std::mem::take(&mut self.first_line) {
            true => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            let name = self.name.take();
            // Without a data line there is no event, whatever its name.
            if self.data.pop().is_some() {
                events.push_back(Event { name, data: Bytes::copy_from_slice(&self.data) });
            }
            self.data.clear();
            self.data.shrink_to(KEPT);
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            // How llama.cpp says that a stream has failed.
            b"error" if value.starts_with(b"{") => {
                self.name = Some("error".to_owned());
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.name = Some(String::from_utf8_lossy(value).into_owned()),
            // Comments (no field name), `id`, `retry` and unknown fields say nothing about an answer.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = (Vec<(Option<String>, String)>, bool, Option<Event>);

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Outcome {
        let mut decoder = Decoder::new(max);
        let mut events = VecDeque::new();
        let failed = chunks.into_iter().any(|chunk| decoder.push(chunk, &mut events).is_err());
        let events = events.into_iter().map(|event| (event.name, String::from_utf8_lossy(&event.data).into_owned())).collect();
        (events, failed, decoder.finish())
    }

    fn data(bytes: &[u8]) -> Vec<String> {
        decode([bytes], 1000).0.into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn each_kind_of_line_end_ends_a_line() {
        for end in ["\n", "\r", "\r\n"] {
            let text = ["data: a", "data: b", "", "data: c", "", ""].join(end);
            assert_eq!(data(text.as_bytes()), ["a\nb", "c"], "{end:?}");
        }
        assert_eq!(data(b"data: a\r\n\ndata: b\n\r\n"), ["a", "b"]);
    }

    #[test]
    fn names_comments_and_odd_fields() {
        let (events, ..) =
            decode([&b"\xef\xbb\xbf: hi\nevent: error\ndata:x\nid: 1\n\nevent: lost\n\ndata\n\ndata:  y\nwhat: ever\n\n"[..]], 1000);
        assert_eq!(events, [(Some("error".into()), "x".into()), (None, String::new()), (None, " y".into())]);
    }

    #[test]
    fn an_error_field_is_an_error_event() {
        let (events, ..) = decode([&b"data: a\n\nerror: {\"code\":500}\n\nerror: no object\n\n"[..]], 1000);
        assert_eq!(events, [(None, "a".into()), (Some("error".into()), "{\"code\":500}".into())]);
    }

    #[test]
    fn what_is_left_at_the_end_is_given_apart() {
        let (events, _, left) = decode([&b"data: a\n\ndata: b\ndata: [DO"[..]], 1000);
        assert_eq!(events.len(), 1);
        assert_eq!(&left.unwrap().data[..], b"b\n[DO");
        assert_eq!(decode([&b"data: a\n\n: x"[..]], 1000).2, None);
    }

    #[test]
    fn an_event_that_is_too_long_is_refused_and_nothing_follows() {
        let mut decoder = Decoder::new(20);
        let mut events = VecDeque::new();
        assert_eq!(decoder.push(b"data: ok\n\ndata: 0123456789\ndata: 0123456789\n\n", &mut events), Err(TooLong { max: 20 }));
        assert_eq!(events.len(), 1);
        assert_eq!(decoder.push(b"data: ok\n\n", &mut events), Err(TooLong { max: 20 }));
        assert_eq!(events.len(), 1);
        assert_eq!(decoder.finish(), None);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"data: ".to_vec()),
            Just(b"data:{\"a\":\"\xc3\xa9\xe5\xad\x97\"}".to_vec()),
            Just(b"event: error".to_vec()),
            Just(b": comment".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n\n".to_vec()),
            Just(b"\xef\xbb\xbf".to_vec()),
            Just(b"[DONE]".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_events_are_the_same(
            bytes in stream(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
            max in prop_oneof![Just(1000usize), 8usize..60],
        ) {
            let whole = decode([&bytes[..]], max);
            prop_assert_eq!(&decode(bytes.chunks(1), max), &whole);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            prop_assert_eq!(&decode(cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]), max), &whole);
        }
    }
}
