//! What becomes of a stream that breaks off after content was handed out: an error, a new beginning, or a continuation.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What follows when a stream breaks off after its first content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The call fails.
    #[default]
    Error,
    /// The next attempt begins from nothing, and its first piece says so.
    Restart,
    /// The next attempt is asked to go on from the text so far, and its first piece says so.
    Continue,
}

impl OnInterrupt {
    /// The word's meaning, if it is one of [`WORDS`].
    pub fn named(word: &str) -> Option<OnInterrupt> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
    }
}

/// What users call them.
pub const WORDS: [(&str, OnInterrupt); 3] =
    [("error", OnInterrupt::Error), ("restart", OnInterrupt::Restart), ("continue", OnInterrupt::Continue)];

/// What a piece is to those that were handed out before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// The next one.
    #[default]
    Next,
    /// The first of another attempt, which began from nothing: what came before it is void.
    Restarted,
    /// The first of another attempt, which goes on from what came before it.
    Continued,
}

/// Where a stream stands in its call.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Which attempt it is, from 1 on.
    pub attempt: u32,
    /// What its first piece is to those before it.
    pub mark: Mark,
    /// The text that it goes on from.
    pub text: String,
}

impl Default for Beginning {
    fn default() -> Beginning {
        Beginning { attempt: 1, mark: Mark::Next, text: String::new() }
    }
}

/// Whether a parameter makes answers that are more than one text, so that half of one cannot be gone on from.
pub fn forbids_continuing(name: &str, value: &[u8]) -> Option<&'static str> {
    match name {
        "n" if !matches!(value, b"1" | b"null") => Some("it asked for several choices (n)"),
        "response_format" => {
            let format: Value = serde_json::from_slice(value).unwrap_or_default();
            let is_text = format.is_null() || format.get("type").is_some_and(|kind| kind == "text");
            (!is_text).then_some("it asked for a response_format")
        }
        _ => None,
    }
}

/// The messages with the answer so far at their end, as an assistant's. `None`: they are no list.
pub fn with_answer(messages: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut all: Vec<Box<RawValue>> = serde_json::from_slice(messages).ok()?;
    let mut last = all.last().and_then(|last| serde_json::from_str::<Map<String, Value>>(last.get()).ok()).unwrap_or_default();
    let is_plain = last.get("role").is_some_and(|role| role == "assistant") && last.get("tool_calls").is_none_or(Value::is_null);
    match last.get_mut("content") {
        // What the user had the model begin with is the beginning of the same message.
        Some(Value::String(content)) if is_plain => {
            content.push_str(text);
            all.pop();
        }
        _ => {
            last = Map::new();
            last.insert("role".into(), "assistant".into());
            last.insert("content".into(), text.into());
        }
    }
    all.push(serde_json::value::to_raw_value(&last).ok()?);
    serde_json::to_vec(&all).ok()
}

/// So many characters in common with the beginning are no chance: they repeat it.
const TELLING: usize = 16;

/// A continued answer repeats what it was to go on from, and not all of it: joined, the two would be a wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anew;

/// Listens whether a continued answer repeats the text so far, as some servers do.
#[derive(Debug)]
pub struct Echo {
    said: String,
    /// How many bytes of it have been repeated.
    repeated: usize,
}

impl Echo {
    /// Of an answer that goes on from that text.
    pub fn of(said: String) -> Echo {
        Echo { said, repeated: 0 }
    }

    fn is_telling(&self, bytes: usize) -> bool {
        self.said[..bytes].chars().nth(TELLING - 1).is_some()
    }

    /// The next text. `None`: it may still be repeating, and nothing of it is new; else what is new, and no more is to be
    /// listened to.
    pub fn hear(&mut self, text: &str) -> Result<Option<String>, Anew> {
        let rest = &self.said[self.repeated..];
        let same: usize = rest.chars().zip(text.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        let repeated = self.repeated + same;
        if same == rest.len() {
            // All of it. A short text may be gone on from with the same words again: nobody can tell.
            return if self.is_telling(repeated) { Ok(Some(text[same..].to_owned())) } else { Err(Anew) };
        }
        if same == text.len() {
            self.repeated = repeated;
            return Ok(None);
        }
        if self.is_telling(repeated) { Err(Anew) } else { Ok(Some(format!("{}{text}", &self.said[..self.repeated]))) }
    }

    /// What was kept back and is new after all, as nothing follows.
    pub fn end(&self) -> Result<String, Anew> {
        if self.is_telling(self.repeated) { Err(Anew) } else { Ok(self.said[..self.repeated].to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(said: &str, pieces: &[&str]) -> Result<String, Anew> {
        let mut echo = Some(Echo::of(said.to_owned()));
        let mut whole = said.to_owned();
        for piece in pieces {
            match &mut echo {
                None => whole.push_str(piece),
                Some(listening) => {
                    if let Some(new) = listening.hear(piece)? {
                        whole.push_str(&new);
                        echo = None;
                    }
                }
            }
        }
        echo.map_or(Ok(String::new()), |echo| echo.end()).map(|kept| whole + &kept)
    }

    #[test]
    fn an_exact_repetition_is_dropped_and_another_is_no_continuation() {
        let said = "The answer to that is plain: é";
        for (pieces, whole) in [
            (&[" yes", "."][..], Ok("The answer to that is plain: é yes.")),
            (&["The answer to", " that is plain: ", "é", " yes."], Ok("The answer to that is plain: é yes.")),
            (&["The answer to that is plain: é yes."], Ok("The answer to that is plain: é yes.")),
            (&["The answer to that is plain: é"], Ok("The answer to that is plain: é")),
            (&["The", "n yes."], Ok("The answer to that is plain: éThen yes.")),
            (&["The"], Ok("The answer to that is plain: éThe")),
            (&[], Ok("The answer to that is plain: é")),
            (&["The answer to that", " is no."], Err(Anew)),
            (&["The answer to that"], Err(Anew)),
        ] {
            assert_eq!(joined(said, pieces).as_deref(), whole.as_ref().copied(), "{pieces:?}");
        }
        assert_eq!(joined("ha", &["ha", " ha"]), Err(Anew), "again, or once more?");
        assert_eq!(joined("ha", &["h", "o"]).as_deref(), Ok("haho"));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_into_pieces_it_is_joined_alike(
            said in "[ab]{1,24}",
            text in "[ab]{0,40}",
            repeats in any::<bool>(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let text = if repeats { format!("{said}{text}") } else { text };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).filter(|piece| !piece.is_empty()).collect();
            let whole = if text.is_empty() { joined(&said, &[]) } else { joined(&said, &[&text]) };
            prop_assert_eq!(joined(&said, &pieces), whole.clone());
            if let Ok(whole) = whole {
                let dropped = text.starts_with(&said);
                prop_assert_eq!(whole, if dropped { text } else { format!("{said}{text}") });
            }
        }
    }

    #[test]
    fn the_text_so_far_is_an_assistants_message_at_the_end() {
        let with = |messages: &str| with_answer(messages.as_bytes(), "a \"b\"").map(|json| String::from_utf8(json).unwrap());
        let user = r#"{"role":"user","content":"x","odd":1.50}"#;
        assert_eq!(with(&format!("[{user}]")).unwrap(), format!(r#"[{user},{{"role":"assistant","content":"a \"b\""}}]"#));
        let begun = with(&format!(r#"[{user},{{"role":"assistant","content":"Well: ","prefix":true}}]"#)).unwrap();
        let begun: Value = serde_json::from_str(&begun).unwrap();
        assert_eq!(begun.as_array().map(Vec::len), Some(2));
        assert_eq!((&begun[1]["content"], &begun[1]["prefix"]), (&"Well: a \"b\"".into(), &true.into()));
        let called = with(r#"[{"role":"assistant","content":"","tool_calls":[{"id":"t"}]}]"#).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&called).unwrap().as_array().map(Vec::len), Some(2));
        assert_eq!(with("\"x\""), None);
    }

    #[test]
    fn answers_of_more_than_one_text_are_not_gone_on_from() {
        for (name, value, fits) in [
            ("n", "1", true),
            ("n", "2", false),
            ("response_format", "null", true),
            ("response_format", r#"{"type":"text"}"#, true),
            ("response_format", r#"{"type":"json_object"}"#, false),
            ("temperature", "2", true),
        ] {
            assert_eq!(forbids_continuing(name, value.as_bytes()).is_none(), fits, "{name} {value}");
        }
    }
}
