//! Reading JSON that several hundred servers write in their own ways: strict about the answer, lenient about the rest.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A field that must not cost the answer: of the wrong type, or null, it counts as absent.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    Ok(if raw == "null" { None } else { serde_json::from_str(raw).ok() })
}

/// The same for a text.
pub(super) fn lenient_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    Ok(if raw.starts_with('"') { string(raw).ok() } else { None })
}

/// The same for a whole number from 0 on.
pub(super) fn lenient_number<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
    // JSON spells such numbers as Rust does.
    Ok(<&RawValue>::deserialize(deserializer)?.get().parse().ok())
}

/// The byte order mark.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// No answer has more choices, and none more tool calls: each takes far more room here than on the wire.
pub(super) const MOST: usize = 1024;

/// A list of at most [`MOST`] items, or null.
pub(super) fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    struct Few<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == MOST {
                    return Err(A::Error::custom(format_args!("a list of more than {MOST}")));
                }
                items.push(item);
            }
            Ok(Some(items))
        }
    }
    deserializer.deserialize_any(Few(PhantomData))
}

/// A JSON string; most are spelled as they are, and need no second reading.
fn string(raw: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inside) if memchr::memchr(b'\\', inside.as_bytes()).is_none() => Ok(Cow::Borrowed(inside)),
        _ => serde_json::from_str(raw).map(Cow::Owned),
    }
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
        Some(b'"') => string(raw.get()).map(|text| Some(text.into_owned())).map_err(serde::de::Error::custom),
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
    #[serde(default, deserialize_with = "lenient_number")]
    pub index: Option<u32>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub function: Option<WireFunction<'a>>,
    #[serde(default, borrow)]
    pub custom: Option<WireFunction<'a>>,
}

/// The function that a tool call names, or the custom tool.
#[derive(Deserialize)]
pub(super) struct WireFunction<'a> {
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub name: Option<Cow<'a, str>>,
    #[serde(default, borrow, alias = "input")]
    pub arguments: Option<&'a RawValue>,
}

impl WireToolCall<'_> {
    /// The name and the arguments' text, from whichever kind of tool it is.
    pub fn into_parts(self) -> Result<(Option<String>, Option<String>, String), serde_json::Error> {
        let Some(function) = self.function.or(self.custom) else {
            return Ok((self.id.map(Cow::into_owned), None, String::new()));
        };
        let arguments = match function.arguments.map(RawValue::get) {
            None | Some("null") => String::new(),
            Some(text) if text.starts_with('"') => string(text)?.into_owned(),
            // Some servers send the arguments as an object; its text is what the others would have sent.
            Some(object) => object.to_owned(),
        };
        Ok((self.id.map(Cow::into_owned), function.name.map(Cow::into_owned), arguments))
    }
}

/// The error object of a reply, unless it is one of the ways to say that there is none.
pub(super) fn real_error(error: Option<&RawValue>) -> Option<&RawValue> {
    error.filter(|error| !matches!(error.get(), "{}" | "\"\"" | "false" | "[]" | "0"))
}

/// Whether an answer ended because its maker failed: OpenRouter's, DeepSeek's, vLLM's and Zhipu's words for it. Such an
/// answer is not whole, however it looks.
pub(super) fn is_failure(finish_reason: &str) -> bool {
    matches!(finish_reason, "error" | "insufficient_system_resource" | "abort" | "network_error")
}

/// The first byte that is neither white space nor part of a byte order mark.
pub(super) fn first_byte(body: &[u8]) -> Option<u8> {
    let body = body.strip_prefix(MARK).unwrap_or(body);
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// The body without a byte order mark, which JSON parsers refuse and some servers send.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(MARK).unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(default, borrow, deserialize_with = "lenient_text")]
        text: Option<Cow<'a, str>>,
        #[serde(default, deserialize_with = "lenient_number")]
        number: Option<u32>,
    }

    fn read(value: &str) -> (Option<String>, Option<u32>) {
        let json = format!(r#"{{"text": {value} , "number":{value}}}"#);
        let fields: Fields<'_> = serde_json::from_str(&json).unwrap();
        (fields.text.map(Cow::into_owned), fields.number)
    }

    proptest! {
        #[test]
        fn a_text_is_read_as_serde_reads_it(text in any::<String>(), number in any::<u32>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(read(&json), (Some(text.clone()), None));
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(read(&format!("\"{escaped}\"")), (Some(text), None));
            prop_assert_eq!(read(&number.to_string()), (None, Some(number)));
        }
    }

    #[test]
    fn what_is_of_another_type_is_absent_and_no_error() {
        for value in ["null", "true", "-1", "1.5", "1e3", "1e999", "4294967296", "[\"x\"]", "{\"a\":1}", r#""\ud800""#] {
            assert_eq!(read(value), (None, None), "{value}");
        }
    }
}
