//! Keys: held so that they are wiped when dropped, and shown nowhere.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use secrecy::zeroize::Zeroize;
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
pub(super) struct Secrets(Vec<ApiKey>);

impl Secrets {
    /// Adds a value; one too short to be a secret is left out.
    pub(super) fn add(&mut self, secret: ApiKey) {
        if secret.expose().len() >= SHORTEST_SCRUBBED {
            self.0.push(secret);
        }
    }

    /// The text with every secret replaced.
    pub(super) fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if text.contains(secret.expose()) {
                text = Cow::Owned(text.replace(secret.expose(), SHOWN));
            }
        }
        text
    }
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
}
