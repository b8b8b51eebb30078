//! Keys: held so that they are wiped when dropped, and shown nowhere.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reqwest::header::HeaderValue;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretString};

use super::error::{ApiError, ErrorKind};

const SHOWN: &str = "[redacted]";

/// Shorter values ("EMPTY", "test", "none") are no secrets; cutting them out would only garble texts.
const SHORTEST_SCRUBBED: usize = 8;

/// An API key. Clones share one copy, which is wiped when the last of them goes.
#[derive(Clone)]
pub struct ApiKey(Arc<SecretString>);

impl ApiKey {
    /// A key from what the user gave, without the white space around it (a newline from a file, most often).
    ///
    /// An empty key, or one with characters that no header can carry, is a configuration error.
    pub fn new(mut key: String) -> Result<ApiKey, ApiError> {
        let trimmed = key.trim();
        if trimmed.is_empty() {
            return Err(missing());
        }
        if let Some(at) = trimmed.bytes().position(|byte| !(0x21..=0x7e).contains(&byte)) {
            let message = format!(
                "the API key has a character at position {at} that no HTTP header can carry (white space or not ASCII); was it copied whole, and nothing else?"
            );
            key.zeroize();
            return Err(ApiError::new(ErrorKind::Configuration, message));
        }
        let held = SecretString::from(trimmed);
        key.zeroize();
        Ok(ApiKey(Arc::new(held)))
    }

    /// The key itself, to be handed on and not kept.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// `Bearer …`, marked so that no debug output shows it.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        let mut text = format!("Bearer {}", self.expose());
        let value = HeaderValue::from_str(&text);
        text.zeroize();
        let mut value = value.ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// No key was given and none is needed less than one.
pub(super) fn missing() -> ApiError {
    ApiError::new(ErrorKind::Configuration, "no API key: pass api_key=… or set OPENAI_API_KEY")
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({SHOWN})")
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

/// Everything that must not come back out in an error, even when the server repeats it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Arc<Vec<ApiKey>>);

impl Secrets {
    /// Adds a value; one too short to be a secret is left out.
    pub(super) fn add(&mut self, secret: ApiKey) {
        if secret.expose().len() >= SHORTEST_SCRUBBED {
            Arc::make_mut(&mut self.0).push(secret);
        }
    }

    /// The text with every secret replaced, also where JSON, HTML or a URL spells its characters another way.
    pub(super) fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &*self.0 {
            let secret = secret.expose();
            if text.contains(secret) {
                text = Cow::Owned(text.replace(secret, SHOWN));
            }
            for encoded in in_base64(secret.as_bytes()) {
                if text.contains(&*encoded) {
                    text = Cow::Owned(text.replace(&*encoded, SHOWN));
                }
            }
            // Nobody spells letters, digits and these any other way.
            if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && let Some(clean) = without_spellings(&text, secret.as_bytes())
            {
                text = Cow::Owned(clean);
            }
        }
        text
    }
}

/// What base64 makes of the secret wherever it begins in what is encoded (`user:secret`, most often), without the characters that
/// what is around it has a part in.
fn in_base64(secret: &[u8]) -> impl Iterator<Item = Zeroizing<String>> {
    let forms = [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].into_iter().flat_map(|alphabet| (0..3).map(move |before| (alphabet, before)));
    forms.map(|(alphabet, before)| {
        let mut bytes = Zeroizing::new(vec![0; before]);
        bytes.extend_from_slice(secret);
        let mut encoded = Zeroizing::new(alphabet.encode(&*bytes));
        encoded.truncate(bytes.len() * 8 / 6);
        encoded.drain(..(before * 8).div_ceil(6));
        encoded
    })
}

/// The text without the secret in any spelling; `None` if it is not in there.
fn without_spellings(text: &str, secret: &[u8]) -> Option<String> {
    let bytes = text.as_bytes();
    let mut clean = String::new();
    let (mut kept, mut at) = (0, 0);
    while at < bytes.len() {
        match end_of_spelling(bytes, at, secret) {
            Some(end) => {
                clean.push_str(&text[kept..at]);
                clean.push_str(SHOWN);
                (kept, at) = (end, end);
            }
            None => at += 1,
        }
    }
    (kept > 0).then(|| clean + &text[kept..])
}

/// Where the secret, spelled from `start` on, ends at the latest.
fn end_of_spelling(text: &[u8], start: usize, secret: &[u8]) -> Option<usize> {
    // For each place in the secret, where in the text that may be.
    let mut ends: Vec<Vec<usize>> = Vec::new();
    let mut place = 0;
    while place < secret.len() {
        let mut here = if place == 0 { vec![start] } else { std::mem::take(ends.get_mut(place)?) };
        here.sort_unstable();
        here.dedup();
        for end in here {
            let rest = &text[end..];
            for (byte, length) in [Some((secret[place], 1)), read_as_json(&secret[place..])].into_iter().flatten() {
                for spelled in spellings(rest, byte) {
                    let next = place + length;
                    ends.resize_with(ends.len().max(next + 1), Vec::new);
                    ends[next].push(end + spelled);
                }
            }
        }
        place += 1;
    }
    ends.get(secret.len())?.iter().copied().max()
}

/// What a server that puts a secret into its JSON as it is has made of the beginning of the rest of it, and of how much of that.
fn read_as_json(secret: &[u8]) -> Option<(u8, usize)> {
    let [b'\\', kind, rest @ ..] = secret else { return None };
    let byte = match kind {
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'f' => 12,
        b'r' => b'\r',
        b'\\' | b'/' | b'"' => *kind,
        b'u' => {
            let code = std::str::from_utf8(rest.get(..4)?).ok()?;
            return u8::from_str_radix(code, 16).ok().filter(u8::is_ascii).map(|byte| (byte, 6));
        }
        _ => return None,
    };
    Some((byte, 2))
}

/// How long the spellings of a printable ASCII character are, with which the text begins.
fn spellings(text: &[u8], byte: u8) -> impl Iterator<Item = usize> {
    let named: &[&str] = match byte {
        b'&' => &["&amp;"],
        b'<' => &["&lt;"],
        b'>' => &["&gt;"],
        b'"' => &["&quot;"],
        b'\'' => &["&apos;"],
        _ => &[],
    };
    let coded = match text.first() {
        Some(b'\\' | b'%' | b'&') => {
            vec![format!("%{byte:02x}"), format!("&#x{byte:x};"), format!("&#{byte};"), format!("&#0{byte};")]
        }
        _ => Vec::new(),
    };
    let begins = |code: &str| text.get(..code.len()).is_some_and(|start| start.eq_ignore_ascii_case(code.as_bytes())).then_some(code.len());
    let plain = (text.first() == Some(&byte)).then_some(1);
    // JSON in JSON doubles them each time.
    let slashes = text.iter().take_while(|&&byte| byte == b'\\').count();
    let code = || format!("u{byte:04x}");
    let escaped = (slashes > 0 && text.get(slashes) == Some(&byte)).then_some(slashes + 1);
    let by_number = (slashes > 0 && text.get(slashes..slashes + 5).is_some_and(|end| end.eq_ignore_ascii_case(code().as_bytes())))
        .then_some(slashes + 5);
    let only_slashes = (byte == b'\\' && slashes > 1).then_some(slashes);
    let found: Vec<usize> = plain
        .into_iter()
        .chain(escaped)
        .chain(by_number)
        .chain(only_slashes)
        .chain(named.iter().filter_map(|n| begins(n)))
        .chain(coded.iter().filter_map(|c| begins(c)))
        .collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_itself_nowhere() {
        let key = ApiKey::new("sk-very-secret".into()).unwrap();
        let shown = format!("{key} {key:?} {:?} {:?}", key.bearer(), Some(&key));
        assert!(!shown.contains("secret-"), "{shown}");
        assert!(!shown.contains("very"), "{shown}");
        assert_eq!(key.expose(), "sk-very-secret");
    }

    #[test]
    fn white_space_around_a_key_is_dropped_and_inside_it_refused() {
        assert_eq!(ApiKey::new(" sk-1\n".into()).unwrap().expose(), "sk-1");
        for bad in ["sk 123-abc", "sk-ключ", "a\nb"] {
            let error = ApiKey::new(bad.into()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Configuration);
            assert!(!error.message.contains(bad), "{error}");
        }
    }

    #[test]
    fn an_empty_key_is_a_missing_key() {
        assert!(ApiKey::new(" \n".into()).unwrap_err().message.contains("OPENAI_API_KEY"));
    }

    #[test]
    fn secrets_are_cut_out_wherever_they_are_repeated() {
        let mut secrets = Secrets::default();
        secrets.add(ApiKey::new("sk-very-secret".into()).unwrap());
        secrets.add(ApiKey::new("test".into()).unwrap());
        assert_eq!(secrets.scrub("key sk-very-secret, again sk-very-secret!"), "key [redacted], again [redacted]!");
        assert_eq!(secrets.scrub("a test"), "a test");
    }

    #[test]
    fn a_secret_is_found_in_base64_wherever_it_begins() {
        for key in ["sk-very-secret", "sk-very-secret?>~~", "sk-very-secret-1"] {
            let mut secrets = Secrets::default();
            secrets.add(ApiKey::new(key.into()).unwrap());
            for around in ["", "u:", "us:", "user:", "Bearer "] {
                for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let encoded = alphabet.encode(format!("{around}{key}{around}"));
                    let clean = secrets.scrub(&encoded).into_owned();
                    assert!(clean.contains(SHOWN), "{encoded}");
                    // Two characters at most are left of what the secret has a part in, on either side.
                    assert!(clean.len() - SHOWN.len() <= 2 * (around.len().div_ceil(3) * 4 + 2), "{clean}");
                }
            }
        }
    }

    #[test]
    fn a_secret_is_found_where_it_was_read_as_json() {
        let mut secrets = Secrets::default();
        secrets.add(ApiKey::new(r#"k\r0\n\t\b\f\\1\/2\"3\u00414\u5"#.into()).unwrap());
        let read = "k\r0\n\t\u{8}\u{c}\\1/2\"3A4\\u5";
        for spelled in [read.to_owned(), read.replace('"', "&quot;"), read.replace("\n", r"\n").replace('A', r"\u0041")] {
            assert_eq!(secrets.scrub(&format!("wrong {spelled}.")), format!("wrong {SHOWN}."), "{spelled:?}");
        }
        assert_eq!(secrets.scrub("k\r0\n\t, and no more"), "k\r0\n\t, and no more");
    }

    #[test]
    fn a_secret_is_found_however_its_characters_are_spelled() {
        let mut secrets = Secrets::default();
        secrets.add(ApiKey::new(r#"k/"\&<>'%+secret"#.into()).unwrap());
        for spelled in [
            r#"k/"\&<>'%+secret"#,
            r#"k/\"\\&<>'%+secret"#,
            r#"k\/\"\\\u0026\u003C\u003e\u0027%+secret"#,
            r#"k/&quot;\&amp;&lt;&gt;&#39;%+secret"#,
            r#"k/&#34;\&amp;&lt;&gt;&#x27;%+secret"#,
            "k%2F%22%5c%26%3C%3E%27%25%2Bsecret",
            r#"k\\/\"\\\u0026<>\\u0027%+secret"#,
        ] {
            assert_eq!(secrets.scrub(&format!("é{spelled}, {spelled}.")), "é[redacted], [redacted].", "{spelled}");
        }
        assert_eq!(secrets.scrub("k/&quot; and no more %"), "k/&quot; and no more %");
    }
}
