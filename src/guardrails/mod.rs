//! Guardrails: what is looked for in what is asked and in what is answered, and refused, cut out or mended.
//!
//! A [`Rails`] is an ordered list of rules, each of which sees what the one before it has left. Whole texts go through
//! [`Rails::check`]; text that comes in pieces through a [`Filter`], which gives out the same.

mod filter;
pub mod known;
pub mod mend;
pub mod pattern;
mod vault;

pub use filter::Filter;
pub use vault::Vault;

use pattern::Patterns;
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

/// A rule of thumb for English, as the limits of tokens have it.
const BYTES_A_TOKEN: usize = 4;

/// What of a match may be held back while it could still go on, where nothing else is said.
pub const MAX_HELD: usize = 16 * 1024;

/// What a user's own code raised that is no answer: it ends the call.
pub type Interrupt = Arc<dyn Any + Send + Sync>;

/// Where a detector found something, in bytes.
pub struct Found {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// What takes its place.
    pub replacement: String,
}

/// What a detector says of a text.
pub enum Looked {
    /// These parts are cut out: in order, and none over another.
    Cut(Vec<Found>),
    /// It is refused: why, without a word of it.
    Refused(String),
}

/// A user's own detector.
pub trait Detector: Send + Sync {
    /// Looks at a whole text.
    fn look(&self, text: &str) -> Result<Looked, Interrupt>;
}

/// What a shape says of a text.
pub enum Fit {
    /// It fits; what it was read as.
    Fits(Interrupt),
    /// It does not.
    Fails {
        /// Why, without a word of it.
        why: String,
        /// What whoever wrote it is told.
        told: String,
    },
}

/// What a text has to be.
pub trait Shape: Send + Sync {
    /// Reads a whole text.
    fn fit(&self, text: &str) -> Result<Fit, Interrupt>;
}

/// What a rule does.
pub enum Check {
    /// So many characters at most.
    Length(usize),
    /// So many tokens at most, by their bytes.
    Tokens(usize),
    /// None of these may be there.
    Forbid(Arc<Patterns>),
    /// These are replaced.
    Redact {
        /// They.
        patterns: Arc<Patterns>,
        /// Whether each is put back into what is answered.
        restore: bool,
    },
    /// Somebody else looks.
    Ask(Box<dyn Detector>),
    /// It has to be of that shape.
    Shape {
        /// Who knows.
        shape: Box<dyn Shape>,
        /// Whether what is nearly JSON is mended.
        repair: bool,
        /// How often whoever wrote it is asked again.
        reask: u32,
    },
}

/// A rule and what it is called.
pub struct Rule {
    /// In errors and stories.
    pub name: Arc<str>,
    /// What it does.
    pub check: Check,
}

/// A text of a call, and where it stands.
pub struct Text<'a> {
    /// As errors name it: `messages[0]`, `content`.
    pub place: String,
    /// What it says.
    pub text: Cow<'a, str>,
}

/// Why a call may not go on. No word of what was said is in it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which rule.
    pub rule: Arc<str>,
    /// Where.
    pub place: String,
    /// What is wrong.
    pub why: String,
    /// Of a shape: what whoever wrote it may be told, and how often.
    pub again: Option<(String, u32)>,
    /// Whether it is a shape that does not fit.
    pub is_shape: bool,
}

/// Why a check came to no end.
pub enum Stop {
    /// A rule says no.
    Refused(Refusal),
    /// A user's own code was interrupted.
    Interrupted(Interrupt),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

/// What rules have done to texts.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Which rule has replaced how much.
    pub redacted: Vec<(Arc<str>, u32)>,
    /// Which shape was mended.
    pub repaired: Vec<Arc<str>>,
    /// What a shape has read.
    pub parsed: Option<Interrupt>,
    /// What is to be put back into the answer.
    pub vault: Vault,
}

impl Tally {
    /// So much was replaced by that rule.
    pub fn redact(&mut self, rule: &Arc<str>, times: u32) {
        if times == 0 {
            return;
        }
        match self.redacted.iter_mut().find(|(name, _)| name == rule) {
            Some((_, count)) => *count += times,
            None => self.redacted.push((rule.clone(), times)),
        }
    }

    /// How much was replaced, all told.
    pub fn redactions(&self) -> u32 {
        self.redacted.iter().map(|(_, count)| count).sum()
    }

    /// Takes over what another one has counted.
    pub fn add(&mut self, other: Tally) {
        other.redacted.iter().for_each(|(rule, count)| self.redact(rule, *count));
        self.repaired.extend(other.repaired);
        self.parsed = other.parsed.or(self.parsed.take());
        self.vault.add(other.vault);
    }
}

/// Rules in order.
#[derive(Clone, Default)]
pub struct Rails {
    /// They.
    pub rules: Vec<Arc<Rule>>,
    /// How many bytes of a stream may be held back while they could still be the beginning of a match.
    pub max_held: usize,
}

fn refusal(rule: &Rule, place: &str, why: String) -> Refusal {
    Refusal { rule: rule.name.clone(), place: place.to_owned(), why, again: None, is_shape: false }
}

fn too_long(rule: &Rule, place: &str, most: usize, unit: &str) -> Refusal {
    refusal(rule, place, format!("more than {most} {unit}"))
}

impl Rails {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some rule is a user's own code.
    pub fn asks(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.check, Check::Ask(_) | Check::Shape { .. }))
    }

    /// Looks at texts that belong together, and changes them as the rules say. Lengths are those of all of them. Shapes are left
    /// to [`Rails::fit`].
    pub fn check(&self, texts: &mut [Text<'_>]) -> Result<Tally, Stop> {
        let mut tally = Tally::default();
        let said = if self.restores() { texts.iter().map(|text| &*text.text).collect::<Vec<_>>().join("\n") } else { String::new() };
        for rule in &self.rules {
            let mut seen = 0;
            for text in texts.iter_mut() {
                let changed = match &rule.check {
                    Check::Length(most) => {
                        seen += text.text.chars().count();
                        if seen > *most {
                            return Err(too_long(rule, &text.place, *most, "characters").into());
                        }
                        None
                    }
                    Check::Tokens(most) => {
                        seen += text.text.len();
                        if seen.div_ceil(BYTES_A_TOKEN) > *most {
                            return Err(too_long(rule, &text.place, *most, "tokens").into());
                        }
                        None
                    }
                    Check::Forbid(patterns) => {
                        if let Some(label) = first(patterns, &text.text) {
                            return Err(refusal(rule, &text.place, forbidden(label)).into());
                        }
                        None
                    }
                    Check::Redact { patterns, restore } => {
                        let vault = restore.then_some((&mut tally.vault, &*said));
                        replaced(patterns, &text.text, vault).map(|(clean, times)| {
                            tally.redact(&rule.name, times);
                            clean
                        })
                    }
                    Check::Ask(detector) => match detector.look(&text.text).map_err(Stop::Interrupted)? {
                        Looked::Refused(why) => return Err(refusal(rule, &text.place, why).into()),
                        Looked::Cut(found) if found.is_empty() => None,
                        Looked::Cut(found) => {
                            tally.redact(&rule.name, found.len() as u32);
                            Some(cut(&text.text, &found))
                        }
                    },
                    Check::Shape { .. } => None,
                };
                if let Some(changed) = changed {
                    text.text = Cow::Owned(changed);
                }
            }
        }
        Ok(tally)
    }

    /// Whether what some rule replaces is put back into what is answered.
    pub fn restores(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.check, Check::Redact { restore: true, .. }))
    }

    /// Looks whether a whole text, with what is in the vault put back, is of the shape that it has to be; what it is instead, mended and
    /// without that, if it had to be. `unfit`: why it cannot be, as is known already.
    pub fn fit(&self, place: &str, text: &str, unfit: Option<&str>, vault: &Vault) -> Result<(Option<String>, Tally), Stop> {
        let restored = vault.restored(text, true);
        self.fits(place, &restored, unfit, vault)
    }

    fn fits(&self, place: &str, text: &str, unfit: Option<&str>, vault: &Vault) -> Result<(Option<String>, Tally), Stop> {
        let (mut tally, mut mended) = (Tally::default(), None);
        for rule in &self.rules {
            let Check::Shape { shape, repair, reask } = &rule.check else { continue };
            if let Some(why) = unfit {
                return Err(Refusal { is_shape: true, ..refusal(rule, place, why.to_owned()) }.into());
            }
            let now: &str = mended.as_deref().unwrap_or(text);
            let (why, told) = match shape.fit(now).map_err(Stop::Interrupted)? {
                Fit::Fits(parsed) => {
                    tally.parsed = Some(parsed);
                    continue;
                }
                Fit::Fails { why, told } => (why, told),
            };
            if *repair
                && let Some(better) = mend::mended(now)
                && let Fit::Fits(parsed) = shape.fit(&better).map_err(Stop::Interrupted)?
            {
                tally.parsed = Some(parsed);
                tally.repaired.push(rule.name.clone());
                mended = Some(better);
                continue;
            }
            return Err(Refusal { again: Some((vault.hidden(told), *reask)), is_shape: true, ..refusal(rule, place, why) }.into());
        }
        Ok((mended.map(|text| vault.hidden(text)), tally))
    }
}

fn forbidden(label: &str) -> String {
    if label.is_empty() { "a forbidden pattern is in it".to_owned() } else { format!("a forbidden pattern is in it ({label})") }
}

/// The first pattern that is there.
fn first<'a>(patterns: &'a Patterns, text: &str) -> Option<&'a str> {
    let mut from = 0;
    while let Some(span) = patterns.find(text, from) {
        if span.meant > 0 {
            return Some(&patterns.each()[span.pattern].label);
        }
        from = span.end;
    }
    None
}

/// The text with all matches replaced, and how many; nothing if there are none. `vault`: where they are kept, and what is asked.
fn replaced(patterns: &Patterns, text: &str, mut vault: Option<(&mut Vault, &str)>) -> Option<(String, u32)> {
    let (mut clean, mut kept, mut from, mut times) = (String::new(), 0, 0, 0);
    while let Some(span) = patterns.find(text, from) {
        from = span.next();
        if span.meant > 0 {
            clean.push_str(&text[kept..span.start]);
            let replacement = &patterns.each()[span.pattern].replacement;
            match &mut vault {
                Some((vault, said)) => clean.push_str(vault.placeholder(replacement, &text[span.start..from], said)),
                None => clean.push_str(replacement),
            }
            (kept, times) = (from, times + 1);
        }
    }
    (times > 0).then(|| (clean + &text[kept..], times))
}

fn cut(text: &str, found: &[Found]) -> String {
    let (mut clean, mut kept) = (String::new(), 0);
    for Found { start, end, replacement } in found {
        clean.push_str(&text[kept..*start]);
        clean.push_str(replacement);
        kept = *end;
    }
    clean + &text[kept..]
}

impl pattern::Span {
    /// Where to go on: behind what was meant, or behind all of it if nothing was.
    fn next(&self) -> usize {
        if self.meant > 0 { self.start + self.meant } else { self.end }
    }
}
