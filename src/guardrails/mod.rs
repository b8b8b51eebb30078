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

#[cfg(test)]
mod tests {
    use super::pattern::Pattern;
    use super::*;

    fn patterns(texts: &[(&str, &str)]) -> Arc<Patterns> {
        let pattern = |(text, label): &(&str, &str)| Pattern {
            label: (*label).into(),
            text: (*text).into(),
            replacement: "[x]".into(),
            closer: None,
        };
        Arc::new(Patterns::new(texts.iter().map(pattern).collect()).unwrap())
    }

    fn rails(checks: Vec<Check>) -> Rails {
        let rule = |(at, check)| Arc::new(Rule { name: format!("rule {at}").into(), check });
        Rails { rules: checks.into_iter().enumerate().map(rule).collect(), max_held: MAX_HELD }
    }

    /// What becomes of texts, and what was done to them; or which rule refused which of them, and why.
    fn checked(rails: &Rails, texts: &[&str]) -> Result<(Vec<String>, Tally), (String, String, String)> {
        let text = |(at, text): (usize, &&'static str)| Text { place: format!("[{at}]"), text: Cow::Borrowed(*text) };
        let texts: Vec<&'static str> = texts.iter().map(|text| &*text.to_string().leak()).collect();
        let mut texts: Vec<Text> = texts.iter().enumerate().map(text).collect();
        match rails.check(&mut texts) {
            Ok(tally) => Ok((texts.into_iter().map(|text| text.text.into_owned()).collect(), tally)),
            Err(Stop::Refused(refusal)) => Err((refusal.rule.to_string(), refusal.place, refusal.why)),
            Err(Stop::Interrupted(_)) => Err((String::new(), String::new(), "interrupted".to_owned())),
        }
    }

    /// The same of one text that comes letter by letter.
    fn by_letters(rails: &Rails, text: &str) -> Result<String, String> {
        let mut filter = rails.filter("content".to_owned());
        let mut out = String::new();
        for letter in text.chars() {
            out += &filter.push(letter.encode_utf8(&mut [0; 4])).map_err(|refusal| refusal.why)?;
        }
        match filter.end() {
            Ok(rest) => Ok(out + &rest),
            Err(Stop::Refused(refusal)) => Err(refusal.why),
            Err(Stop::Interrupted(_)) => Err("interrupted".to_owned()),
        }
    }

    fn refused<T>(rule: &str, place: &str, why: &str) -> Result<T, (String, String, String)> {
        Err((rule.to_owned(), place.to_owned(), why.to_owned()))
    }

    #[test]
    fn a_limit_is_of_all_texts_together_and_holds_to_the_last_letter() {
        let (letters, tokens) = (rails(vec![Check::Length(5)]), rails(vec![Check::Tokens(2)]));
        assert!(checked(&letters, &["éé", "ééé"]).is_ok());
        assert_eq!(checked(&letters, &["éé", "éééé"]).map(drop), refused("rule 0", "[1]", "more than 5 characters"));
        // A token is four bytes, or what is begun of them.
        assert!(checked(&tokens, &["abcd", "abcd"]).is_ok());
        assert_eq!(checked(&tokens, &["abcd", "abcde"]).map(drop), refused("rule 0", "[1]", "more than 2 tokens"));
        for (rails, most, why) in [(&letters, 5, "more than 5 characters"), (&tokens, 8, "more than 2 tokens")] {
            assert_eq!(by_letters(rails, &"a".repeat(most)), Ok("a".repeat(most)));
            assert_eq!(by_letters(rails, &"a".repeat(most + 1)), Err(why.to_owned()));
        }
    }

    #[test]
    fn what_is_forbidden_is_named_by_its_label_if_it_has_one() {
        let rails = rails(vec![Check::Forbid(patterns(&[("a{3}", ""), ("b{3}", "bees")]))]);
        assert!(checked(&rails, &["aa bb"]).is_ok());
        assert_eq!(checked(&rails, &["x", "yaaa"]).map(drop), refused("rule 0", "[1]", "a forbidden pattern is in it"));
        assert_eq!(checked(&rails, &["bbb aaa"]).map(drop), refused("rule 0", "[0]", "a forbidden pattern is in it (bees)"));
        // What a closer look says is none does not hide what comes behind it.
        let closer: pattern::Closer = |found| (found != "no").then_some(found.len());
        let pattern = Pattern { label: "".into(), text: "[a-z]+".into(), replacement: "".into(), closer: Some(closer) };
        let rails = super::Rails {
            rules: vec![Arc::new(Rule { name: "r".into(), check: Check::Forbid(Arc::new(Patterns::new(vec![pattern]).unwrap())) })],
            max_held: MAX_HELD,
        };
        assert!(checked(&rails, &["no no"]).is_ok() && checked(&rails, &["no no yes"]).is_err());
    }

    #[test]
    fn what_is_replaced_is_counted_for_each_rule() {
        let redact = |text| Check::Redact { patterns: patterns(&[(text, "")]), restore: false };
        let rails = rails(vec![redact("a"), redact("b"), redact("c")]);
        let (texts, mut tally) = checked(&rails, &["abc-a", "bab"]).unwrap();
        assert_eq!(texts, ["[x][x][x]-[x]", "[x][x][x]"]);
        let counts = |tally: &Tally| tally.redacted.iter().map(|(name, count)| (name.to_string(), *count)).collect::<Vec<_>>();
        let named = |counts: [u32; 3]| (0..3).map(|at| format!("rule {at}")).zip(counts).collect::<Vec<_>>();
        assert_eq!((counts(&tally), tally.redactions()), (named([3, 3, 1]), 7));
        tally.add(checked(&rails, &["c"]).unwrap().1);
        tally.redact(&"nothing".into(), 0);
        assert_eq!((counts(&tally), tally.redactions()), (named([3, 3, 2]), 8));
    }

    #[test]
    fn a_text_in_which_nothing_is_found_is_the_same_and_no_copy() {
        let redact = Check::Redact { patterns: patterns(&[("a", "")]), restore: true };
        let rails = rails(vec![redact, Check::Ask(Box::new(Digits)), Check::Length(9)]);
        let mut texts = [Text { place: String::new(), text: Cow::Borrowed("nothing") }];
        assert!(rails.check(&mut texts).is_ok_and(|tally| tally.redacted.is_empty()));
        assert!(matches!(texts[0].text, Cow::Borrowed("nothing")));
    }

    #[test]
    fn of_what_is_found_only_what_is_meant_is_replaced() {
        let rails = rails(vec![Check::Redact { patterns: known::personal(), restore: false }]);
        let text = "GB82 WEST 1234 5698 7654 32 IS MINE, NOT 123-00-6789 OR 123-45-6789";
        let clean = "[iban] IS MINE, NOT 123-00-6789 OR [ssn]";
        assert_eq!(checked(&rails, &[text]).unwrap().0, [clean]);
        assert_eq!(by_letters(&rails, text).as_deref(), Ok(clean));
    }

    #[test]
    fn what_is_to_come_back_is_kept_in_one_vault_however_often_it_is_said() {
        let restoring = rails(vec![Check::Redact { patterns: patterns(&[("a+", "")]), restore: true }]);
        let (texts, tally) = checked(&restoring, &["-a-aa-", "a [X_1] bc"]).unwrap();
        assert_eq!(texts, ["-[X_2]-[X_3]-", "[X_2] [X_1] bc"]);
        let mut all = Tally::default();
        assert!(all.vault.is_empty());
        all.add(tally);
        assert_eq!(all.vault.pairs().collect::<Vec<_>>(), [("[X_2]", "a"), ("[X_3]", "aa")]);
        assert!(restoring.restores() && !restoring.is_empty() && !restoring.asks());
        let plain = rails(vec![Check::Redact { patterns: patterns(&[("a+", "")]), restore: false }]);
        assert!(!plain.restores() && Rails::default().is_empty());
        assert!(checked(&plain, &["a"]).unwrap().1.vault.is_empty());
    }

    /// Cuts out digits, refuses "no", and is interrupted by "stop".
    struct Digits;

    impl Detector for Digits {
        fn look(&self, text: &str) -> Result<Looked, Interrupt> {
            match text {
                "no" => Ok(Looked::Refused("it says no".to_owned())),
                "stop" => Err(Arc::new(())),
                _ => Ok(Looked::Cut(
                    text.match_indices(|letter: char| letter.is_ascii_digit())
                        .map(|(start, digit)| Found { start, end: start + 1, replacement: format!("<{digit}>") })
                        .collect(),
                )),
            }
        }
    }

    #[test]
    fn a_detector_sees_the_whole_and_is_asked_once_it_is_there() {
        let rails = rails(vec![Check::Ask(Box::new(Digits)), Check::Length(12)]);
        assert!(rails.asks() && !rails.restores());
        let (texts, tally) = checked(&rails, &["a1b23", "c"]).unwrap();
        assert_eq!((texts, tally.redactions()), (vec!["a<1>b<2><3>".to_owned(), "c".to_owned()], 3));
        assert_eq!(checked(&rails, &["a", "no"]).map(drop), refused("rule 0", "[1]", "it says no"));
        assert_eq!(checked(&rails, &["stop"]).map(drop), refused("", "", "interrupted"));
        let mut filter = rails.filter("content".to_owned());
        assert!(filter.asks());
        assert_eq!((filter.push("a1").unwrap(), filter.push("b").unwrap()), (String::new(), String::new()));
        assert!(matches!(filter.end().as_deref(), Ok("a<1>b")));
        assert_eq!(filter.tally.redactions(), 1);
        assert_eq!(by_letters(&rails, "no"), Err("it says no".to_owned()));
        assert_eq!(by_letters(&rails, "stop"), Err("interrupted".to_owned()));
        // What follows sees what the detector has left.
        assert_eq!(by_letters(&rails, "1234"), Ok("<1><2><3><4>".to_owned()));
        assert_eq!(by_letters(&rails, "12345"), Err("more than 12 characters".to_owned()));
        assert!(!super::Rails::default().filter(String::new()).asks());
    }

    /// JSON that has this in it; it was read as its own text.
    struct Json(&'static str);

    impl Shape for Json {
        fn fit(&self, text: &str) -> Result<Fit, Interrupt> {
            if text == "stop" {
                return Err(Arc::new(()));
            }
            let fits = serde_json::from_str::<serde_json::Value>(text).is_ok() && text.contains(self.0);
            Ok(match fits {
                true => Fit::Fits(Arc::new(text.to_owned())),
                false => Fit::Fails { why: "it does not fit".to_owned(), told: format!("no {} in {text}", self.0) },
            })
        }
    }

    fn shape(word: &'static str, repair: bool) -> Check {
        Check::Shape { shape: Box::new(Json(word)), repair, reask: 2 }
    }

    fn fitted(rails: &Rails, text: &str, vault: &Vault) -> Result<(Option<String>, String, usize), Refusal> {
        match rails.fit("content", text, None, vault) {
            Ok((mended, tally)) => {
                let parsed = tally.parsed.and_then(|parsed| parsed.downcast::<String>().ok()).expect("it was read");
                Ok((mended, parsed.to_string(), tally.repaired.len()))
            }
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Interrupted(_)) => panic!("nobody interrupts"),
        }
    }

    #[test]
    fn a_shape_reads_what_it_was_meant_for_and_mends_what_it_may() {
        let (strict, mends) = (rails(vec![shape("a", false)]), rails(vec![shape("a", true), shape("1", true)]));
        assert!(strict.asks() && !strict.restores());
        let none = Vault::default();
        assert_eq!(fitted(&strict, r#"{"a":1}"#, &none).unwrap(), (None, r#"{"a":1}"#.to_owned(), 0));
        // Each shape sees what the one before it has mended.
        assert_eq!(fitted(&mends, "{'a': 1}", &none).unwrap(), (Some(r#"{"a":1}"#.to_owned()), r#"{"a":1}"#.to_owned(), 1));
        for (rails, text) in [(&strict, "{'a': 1}"), (&mends, "{'b': 1}"), (&mends, "{'a': ")] {
            let refusal = fitted(rails, text, &none).unwrap_err();
            assert_eq!((&*refusal.rule, &*refusal.place, &*refusal.why), ("rule 0", "content", "it does not fit"));
            assert_eq!(refusal.again, Some((format!("no a in {text}"), 2)));
            assert!(refusal.is_shape);
        }
        assert!(matches!(strict.fit("content", "stop", None, &none), Err(Stop::Interrupted(_))));
        let Err(Stop::Refused(refusal)) = strict.fit("content", r#"{"a":1}"#, Some("cut off"), &none) else { panic!("it is unfit") };
        assert!(refusal.why == "cut off" && refusal.is_shape && refusal.again.is_none());
        // What is no shape has nothing to say of it, and a shape nothing of a text on its way.
        assert!(matches!(rails(vec![Check::Length(0)]).fit("content", "x", Some("cut off"), &none), Ok((None, _))));
        assert_eq!(by_letters(&strict, "no"), Ok("no".to_owned()));
        assert!(checked(&strict, &["no"]).is_ok());
    }

    #[test]
    fn a_shape_sees_what_is_put_back_and_nobody_else_does() {
        let vault = Vault::of(vec![("[X_1]".to_owned(), "say \"a\"".to_owned())]);
        let rails = rails(vec![shape("say", true)]);
        let mended = (Some(r#"{"b":"[X_1]"}"#.to_owned()), r#"{"b":"say \"a\""}"#.to_owned(), 1);
        assert_eq!(fitted(&rails, "{'b': '[X_1]'}", &vault).unwrap(), mended);
        let refusal = fitted(&rails, "[X_1", &vault).unwrap_err();
        assert_eq!(refusal.again, Some(("no say in [X_1".to_owned(), 2)));
        let refusal = fitted(&rails, "[X_1] x", &vault).unwrap_err();
        assert_eq!(refusal.again, Some(("no say in [X_1] x".to_owned(), 2)));
    }
}
