//! What was taken out of a question and goes back into its answer: under which placeholder, in one call alone.

use super::pattern::{Pattern, Patterns};
use super::{Check, MAX_HELD, Rails, Rule, Text};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Values, each with what stands in for it where others see it.
#[derive(Clone, Default)]
pub struct Vault {
    held: Vec<Held>,
}

#[derive(Clone)]
struct Held {
    base: String,
    placeholder: String,
    value: String,
}

// No value is ever shown.
impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.held.iter().map(|held| &held.placeholder)).finish()
    }
}

/// What placeholders are called, by what stands in for a value else: `EMAIL` of `[email]`.
fn base(replacement: &str) -> String {
    let name = replacement.trim_matches(|letter: char| !letter.is_alphanumeric()).to_uppercase();
    let name: String = name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '_' }).collect();
    if name.is_empty() { "REDACTED".to_owned() } else { name }
}

/// A value as it stands within a JSON text.
fn in_json(value: &str) -> String {
    let written = serde_json::to_string(value).unwrap_or_default();
    written.get(1..written.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

impl Vault {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What stands in for a value: equal ones have equal placeholders. `said`: all that is asked, in which such words may stand already.
    pub fn placeholder(&mut self, replacement: &str, value: &str, said: &str) -> &str {
        let base = base(replacement);
        let at = match self.held.iter().position(|held| held.base == base && held.value == value) {
            Some(at) => at,
            None => {
                let known = self.held.iter().filter(|held| held.base == base).count();
                let word = |number: usize| format!("[{base}_{number}]");
                let is_taken = |word: &str| said.contains(word) || self.held.iter().any(|held| held.placeholder == word);
                let mut number = known + 1;
                while is_taken(&word(number)) {
                    number += 1;
                }
                let placeholder = word(number);
                self.held.push(Held { base, placeholder, value: value.to_owned() });
                self.held.len() - 1
            }
        };
        &self.held[at].placeholder
    }

    /// Takes over what is in another one.
    pub fn add(&mut self, other: Vault) {
        self.held.extend(other.held);
    }

    /// What is in it, as (placeholder, value).
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().map(|held| (&*held.placeholder, &*held.value))
    }

    /// One in which these are.
    pub fn of(pairs: Vec<(String, String)>) -> Vault {
        let held = pairs.into_iter().map(|(placeholder, value)| Held { base: String::new(), placeholder, value });
        Vault { held: held.collect() }
    }

    /// Rules that put the values into a text again; `is_json`: into one that is JSON.
    pub fn rails(&self, is_json: bool) -> Rails {
        let pattern = |held: &Held| Pattern {
            label: "".into(),
            text: regex_syntax::escape(&held.placeholder).into(),
            replacement: if is_json { in_json(&held.value).into() } else { held.value.as_str().into() },
            closer: None,
        };
        // Placeholders are short and there are few: what matches them compiles.
        let patterns = Patterns::new(self.held.iter().map(pattern).collect()).ok().filter(|_| !self.is_empty());
        let rule =
            |patterns| Arc::new(Rule { name: "restore".into(), check: Check::Redact { patterns: Arc::new(patterns), restore: false } });
        Rails { rules: patterns.map(rule).into_iter().collect(), max_held: MAX_HELD }
    }

    /// A text with the values in it again; `is_json`: one that is JSON.
    pub fn restored<'a>(&self, text: &'a str, is_json: bool) -> Cow<'a, str> {
        if self.is_empty() || !text.contains('[') {
            return Cow::Borrowed(text);
        }
        let mut texts = [Text { place: String::new(), text: Cow::Borrowed(text) }];
        // Replacing refuses nothing.
        let _ = self.rails(is_json).check(&mut texts);
        let [text] = texts;
        text.text
    }

    /// A text in which the values are placeholders again.
    pub fn hidden(&self, text: String) -> String {
        let mut held: Vec<&Held> = self.held.iter().collect();
        // One may be a part of another.
        held.sort_by_key(|held| std::cmp::Reverse(held.value.len()));
        held.iter().fold(text, |text, held| text.replace(&held.value, &held.placeholder).replace(&in_json(&held.value), &held.placeholder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_placeholders_that_nobody_has_said() {
        let mut vault = Vault::default();
        assert_eq!(vault.placeholder("[email]", "a@b.c", "no [EMAIL_1] yet"), "[EMAIL_2]");
        assert_eq!(vault.placeholder("[email]", "d@e.f", ""), "[EMAIL_3]");
        assert_eq!(vault.placeholder("[email]", "a@b.c", ""), "[EMAIL_2]");
        assert_eq!(vault.placeholder("[openai-key]", "a@b.c", ""), "[OPENAI_KEY_1]");
        assert_eq!(vault.placeholder("***", "x", ""), "[REDACTED_1]");
        assert_eq!(format!("{vault:?}"), r#"["[EMAIL_2]", "[EMAIL_3]", "[OPENAI_KEY_1]", "[REDACTED_1]"]"#, "no value is shown");
        // Those of another vault are as taken.
        let mut other = Vault::of(vec![("[EMAIL_1]".to_owned(), "x".to_owned()), ("[EMAIL_2]".to_owned(), "y".to_owned())]);
        assert_eq!(other.placeholder("[email]", "x", ""), "[EMAIL_3]");
        assert!(!other.is_empty() && Vault::default().is_empty());
    }

    #[test]
    fn values_come_back_as_they_stand_in_a_text_and_in_json() {
        let mut vault = Vault::default();
        vault.placeholder("[name]", "\"Jo\"", "");
        vault.placeholder("[name]", "Jo", "");
        assert_eq!(vault.restored("[NAME_1] [NAME_2] [NAME_3]", false), "\"Jo\" Jo [NAME_3]");
        assert_eq!(vault.restored("{\"a\": \"[NAME_1]\"}", true), "{\"a\": \"\\\"Jo\\\"\"}");
        assert_eq!(vault.hidden("\\\"Jo\\\" \"Jo\" Jo".to_owned()), "[NAME_1] [NAME_1] [NAME_2]");
    }
}
