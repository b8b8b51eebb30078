//! JSON that is nearly JSON, as models write it: what they meant, if there is no doubt about it.
//!
//! Nothing is made up: what is left out is prose, fences and comments around values, never a part of one. A text or a number that
//! is cut off stays wrong.

use std::fmt::Write as _;

/// So deep may values lie in one another, as for serde_json.
const DEEPEST: usize = 100;
/// So many places at which a value may begin are tried.
const MOST_BEGINNINGS: usize = 64;

/// The JSON that a text means; `None` if it is none, or may be more than one.
///
/// What is JSON already comes back as it is.
pub fn mended(text: &str) -> Option<String> {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Some(text.to_owned());
    }
    let mut found: Vec<(bool, String)> = Vec::new();
    let (mut at, mut tried) = (0, 0);
    while let Some(next) = text[at..].find(['{', '[']) {
        let begin = at + next;
        tried += 1;
        if tried > MOST_BEGINNINGS {
            return None;
        }
        let mut reader = Reader { text: text.as_bytes(), at: begin, out: String::new(), depth: 0 };
        match reader.value() {
            Some(()) => {
                found.push((text.as_bytes()[begin] == b'{', reader.out));
                at = reader.at;
            }
            None => at = begin + 1,
        }
    }
    let objects = found.iter().filter(|(is_object, _)| *is_object).count();
    // A list beside an object is a footnote; two objects are a doubt.
    let meant = match (objects, found.len()) {
        (1, _) => found.into_iter().find(|(is_object, _)| *is_object),
        (0, 1) => found.pop(),
        _ => None,
    };
    meant.map(|(_, json)| json).filter(|json| serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok())
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    out: String,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// White space and comments; `None` for a comment without an end.
    fn space(&mut self) -> Option<()> {
        loop {
            match self.rest() {
                [b' ' | b'\t' | b'\n' | b'\r', ..] => self.at += 1,
                [b'/', b'/', ..] => self.at = memchr::memchr(b'\n', self.rest()).map_or(self.text.len(), |end| self.at + end),
                [b'/', b'*', ..] => self.at += memchr::memmem::find(self.rest(), b"*/")? + 2,
                _ => return Some(()),
            }
        }
    }

    fn value(&mut self) -> Option<()> {
        self.space()?;
        match self.peek()? {
            b'{' => self.inside(b'}'),
            b'[' => self.inside(b']'),
            quote @ (b'"' | b'\'') => self.string(quote),
            b'-' | b'+' | b'.' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn inside(&mut self, end: u8) -> Option<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.out.push(char::from(self.text[self.at]));
        self.at += 1;
        let mut is_first = true;
        loop {
            self.space()?;
            match self.peek() {
                Some(b',') if !is_first => {
                    self.at += 1;
                    self.space()?;
                    if self.peek() == Some(b',') {
                        return None;
                    }
                    continue;
                }
                Some(byte) if byte == end => {
                    self.at += 1;
                    break;
                }
                // What is over but for its brackets: only they were forgotten.
                None => break,
                Some(_) => {}
            }
            if !is_first {
                self.out.push(',');
            }
            is_first = false;
            if end == b'}' {
                self.key()?;
                self.space()?;
                if self.peek()? != b':' {
                    return None;
                }
                self.at += 1;
                self.out.push(':');
            }
            self.value()?;
        }
        self.out.push(char::from(end));
        self.depth -= 1;
        Some(())
    }

    fn key(&mut self) -> Option<()> {
        match self.peek()? {
            quote @ (b'"' | b'\'') => self.string(quote),
            byte if byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$') => {
                let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_$-".contains(byte)).count();
                self.out.push('"');
                self.out.extend(self.text[self.at..self.at + length].iter().map(|byte| char::from(*byte)));
                self.out.push('"');
                self.at += length;
                Some(())
            }
            _ => None,
        }
    }

    fn string(&mut self, quote: u8) -> Option<()> {
        self.at += 1;
        self.out.push('"');
        loop {
            let plain = self.rest().iter().take_while(|byte| **byte >= 0x20 && !matches!(byte, b'"' | b'\'' | b'\\')).count();
            // Cut at ASCII, it is text still.
            self.out.push_str(std::str::from_utf8(&self.text[self.at..self.at + plain]).ok()?);
            self.at += plain;
            match self.rest() {
                [] => return None,
                [byte, ..] if *byte == quote => {
                    self.at += 1;
                    self.out.push('"');
                    return Some(());
                }
                [b'\\', escaped, ..] => {
                    match escaped {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                            self.out.push('\\');
                            self.out.push(char::from(*escaped));
                        }
                        b'u' => {
                            let digits = self.rest().get(2..6).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                            let code: String = digits.iter().map(|digit| char::from(*digit)).collect();
                            self.out.push_str("\\u");
                            self.out.push_str(&code);
                            self.at += 4;
                        }
                        b'\'' => self.out.push('\''),
                        b'\n' => {}
                        // A backslash that escapes nothing is one.
                        _ => {
                            self.out.push_str("\\\\");
                            self.at += 1;
                            continue;
                        }
                    }
                    self.at += 2;
                }
                [b'\\'] => return None,
                [b'"', ..] => {
                    self.out.push_str("\\\"");
                    self.at += 1;
                }
                [b'\'', ..] => {
                    self.out.push('\'');
                    self.at += 1;
                }
                [control, ..] => {
                    let _ = write!(self.out, "\\u{control:04x}");
                    self.at += 1;
                }
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(byte)).count();
        let text = std::str::from_utf8(&self.text[self.at..self.at + length]).ok()?;
        self.at += length;
        if matches!(text, "-Infinity" | "+Infinity" | "-NaN" | "+NaN") {
            self.out.push_str("null");
            return Some(());
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.strip_prefix('+').unwrap_or(text)),
        };
        let zero = if digits.starts_with('.') { "0" } else { "" };
        let end = if digits.ends_with('.') { "0" } else { "" };
        let number = format!("{sign}{zero}{digits}{end}");
        serde_json::from_str::<&serde_json::value::RawValue>(&number).ok()?;
        self.out.push_str(&number);
        Some(())
    }

    fn word(&mut self) -> Option<()> {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let word = match &self.text[self.at..self.at + length] {
            b"true" | b"True" => "true",
            b"false" | b"False" => "false",
            b"null" | b"None" | b"NaN" | b"Infinity" => "null",
            _ => return None,
        };
        self.at += length;
        self.out.push_str(word);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_models_do_to_json_is_undone() {
        for (text, json) in [
            ("```json\n{\"a\": 1}\n```", r#"{"a":1}"#),
            ("Here you are:\n\n{\"a\": [1, 2,], }\n\nEnjoy!", r#"{"a":[1,2]}"#),
            ("{'a': 'it\\'s', b: True, \"c\": None}", r#"{"a":"it's","b":true,"c":null}"#),
            ("{\"a\": 1, // one\n \"b\": /* two */ 2}", r#"{"a":1,"b":2}"#),
            ("{\"a\": NaN, \"b\": -Infinity, \"c\": .5, \"d\": +1, \"e\": 5.}", r#"{"a":null,"b":null,"c":0.5,"d":1,"e":5.0}"#),
            ("{\"a\": \"line\nbreak\ttab\"}", "{\"a\":\"line\\u000abreak\\u0009tab\"}"),
            ("{\"a\": {\"b\": [1, 2]", r#"{"a":{"b":[1,2]}}"#),
            ("{\"a\": 1 \"b\": 2}", r#"{"a":1,"b":2}"#),
            ("As in [1]: {\"a\": \"\\alpha é\"}", r#"{"a":"\\alpha é"}"#),
            ("Use {name}: [1, 2]", "[1,2]"),
        ] {
            assert_eq!(mended(text).as_deref(), Some(json), "{text}");
        }
    }

    #[test]
    fn what_is_in_doubt_or_cut_off_stays_wrong() {
        for text in [
            "",
            "no",
            "{\"a\": \"cut",
            "{\"a\":",
            "{\"a\"",
            "{\"a\": tru",
            "{\"a\": 1} and {\"a\": 2}",
            "[1] or [2]",
            "{\"a\": 1,,}",
            "{\"a\": 007}",
            "{\"a\": \"\\u12\"}",
        ] {
            assert_eq!(mended(text), None, "{text}");
        }
        assert_eq!(mended(&"[".repeat(100_000)), None);
        assert_eq!(mended(&"{\"a\":".repeat(100_000)), None);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::hash_map(".{0,6}", inner, 0..5).prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn json_is_left_as_it_is(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(mended(&text), Some(text.clone()));
            if value.is_object() || value.is_array() {
                // Behind prose it is read anew, and says the same.
                let again = mended(&format!("So: {text}"));
                let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
                prop_assert_eq!(again.map(|again| read(&again)), Some(read(&text)));
            }
        }

        #[test]
        fn whatever_comes_what_goes_is_json(text in "[\\{\\}\\[\\]\"',:/\\*\\\\ua1e.+\\-\nNé ]{0,60}") {
            if let Some(json) = mended(&text) {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok());
            }
        }
    }
}
