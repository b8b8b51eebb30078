//! Reading JSON that several hundred servers write in their own ways: strict about the answer, lenient about the rest.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A field that must not cost the answer: of the wrong type, or null, it counts as absent.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// Text that is a string, null, or (some servers) a list of parts of which the text ones count.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Plain(String),
        Parts(Vec<Part>),
    }
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        text: Option<String>,
    }
    let raw = <&RawValue>::deserialize(deserializer)?;
    match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw.get()).map(Some).map_err(serde::de::Error::custom),
        Some(b'n') => Ok(None),
        _ => match serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)? {
            Text::Plain(text) => Ok(Some(text)),
            Text::Parts(parts) => Ok(Some(parts.into_iter().filter_map(|part| part.text).collect())),
        },
    }
}

/// One tool call, whole or a piece of one.
#[derive(Deserialize)]
pub(super) struct WireToolCall<'a> {
    #[serde(default, deserialize_with = "lenient")]
    pub index: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    pub id: Option<String>,
    #[serde(default, borrow)]
    pub function: Option<WireFunction<'a>>,
    #[serde(default, borrow)]
    pub custom: Option<WireFunction<'a>>,
}

/// The function that a tool call names, or the custom tool.
#[derive(Deserialize)]
pub(super) struct WireFunction<'a> {
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    #[serde(default, borrow, alias = "input")]
    pub arguments: Option<&'a RawValue>,
}

impl WireToolCall<'_> {
    /// The name and the arguments' text, from whichever kind of tool it is.
    pub fn into_parts(self) -> Result<(Option<String>, Option<String>, String), serde_json::Error> {
        let Some(function) = self.function.or(self.custom) else {
            return Ok((self.id, None, String::new()));
        };
        let arguments = match function.arguments.map(RawValue::get) {
            None | Some("null") => String::new(),
            Some(text) if text.starts_with('"') => serde_json::from_str::<Cow<str>>(text)?.into_owned(),
            // Some servers send the arguments as an object; its text is what the others would have sent.
            Some(object) => object.to_owned(),
        };
        Ok((self.id, function.name, arguments))
    }
}

/// The error object of a reply, unless it is one of the ways to say that there is none.
pub(super) fn real_error(error: Option<&RawValue>) -> Option<&RawValue> {
    error.filter(|error| !matches!(error.get(), "{}" | "\"\"" | "false" | "[]" | "0"))
}

/// The first byte that is neither white space nor part of a byte order mark.
pub(super) fn first_byte(body: &[u8]) -> Option<u8> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// The body without a byte order mark, which JSON parsers refuse and some servers send.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}
