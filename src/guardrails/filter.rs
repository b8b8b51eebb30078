//! Text that comes in pieces: what is given out is what the whole would have become, and nothing is given out that a rule could
//! still say something about.

use super::{BYTES_A_TOKEN, Check, Rails, Refusal, Rule, Stop, Tally, Text, forbidden, refusal, too_long};
use std::borrow::Cow;
use std::sync::Arc;

/// What a rule remembers of the text so far.
enum Memory {
    /// How much there was.
    Seen(usize),
    /// What has to be known of a search: one character that was given out, and what is held back.
    Held { text: String, from: usize },
    /// All of it, for whoever is asked at the end.
    Whole(String),
    /// Nothing: shapes are looked at outside.
    Nothing,
}

struct Stage {
    rule: Arc<Rule>,
    memory: Memory,
}

/// The rules for one text that comes in pieces.
pub struct Filter {
    stages: Vec<Stage>,
    place: String,
    max_held: usize,
    /// What the rules have done so far.
    pub tally: Tally,
}

impl Rails {
    /// For a text that comes in pieces.
    pub fn filter(&self, place: String) -> Filter {
        let memory = |rule: &Rule| match rule.check {
            Check::Length(_) | Check::Tokens(_) => Memory::Seen(0),
            Check::Forbid(_) | Check::Redact { .. } => Memory::Held { text: String::new(), from: 0 },
            Check::Ask(_) => Memory::Whole(String::new()),
            Check::Shape { .. } => Memory::Nothing,
        };
        let stages = self.rules.iter().map(|rule| Stage { rule: rule.clone(), memory: memory(rule) }).collect();
        Filter { stages, place, max_held: self.max_held, tally: Tally::default() }
    }
}

impl Filter {
    /// The next piece; what may be given out now.
    pub fn push(&mut self, piece: &str) -> Result<String, Refusal> {
        let mut text = piece.to_owned();
        for stage in &mut self.stages {
            text = stage.push(text, false, &self.place, self.max_held, &mut self.tally)?;
        }
        Ok(text)
    }

    /// There is no more; the rest of what may be given out. Asks detectors.
    pub fn end(&mut self) -> Result<String, Stop> {
        let mut rest = String::new();
        for stage in &mut self.stages {
            rest = match (&mut stage.memory, &stage.rule.check) {
                (Memory::Whole(text), Check::Ask(_)) => {
                    text.push_str(&rest);
                    let alone = Rails { rules: vec![stage.rule.clone()], max_held: 0 };
                    let mut texts = [Text { place: self.place.clone(), text: Cow::Owned(std::mem::take(text)) }];
                    self.tally.add(alone.check(&mut texts)?);
                    let [text] = texts;
                    text.text.into_owned()
                }
                _ => stage.push(rest, true, &self.place, self.max_held, &mut self.tally)?,
            };
        }
        Ok(rest)
    }

    /// Whether somebody has to be asked at the end.
    pub fn asks(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage.memory, Memory::Whole(_)))
    }
}

impl Stage {
    fn push(&mut self, piece: String, is_last: bool, place: &str, max_held: usize, tally: &mut Tally) -> Result<String, Refusal> {
        let rule = &*self.rule;
        match (&mut self.memory, &rule.check) {
            (Memory::Seen(seen), Check::Length(most)) => {
                *seen += piece.chars().count();
                if *seen > *most { Err(too_long(rule, place, *most, "characters")) } else { Ok(piece) }
            }
            (Memory::Seen(seen), Check::Tokens(most)) => {
                *seen += piece.len();
                if seen.div_ceil(BYTES_A_TOKEN) > *most { Err(too_long(rule, place, *most, "tokens")) } else { Ok(piece) }
            }
            (Memory::Whole(whole), _) => {
                whole.push_str(&piece);
                Ok(String::new())
            }
            (Memory::Held { text, from }, Check::Forbid(patterns) | Check::Redact { patterns, .. }) => {
                text.push_str(&piece);
                let mut out = String::new();
                let (mut at, mut given) = (*from, *from);
                let mut open = None;
                let settled = loop {
                    let open = match open {
                        Some(known) if known >= at => known,
                        _ if is_last => text.len(),
                        _ => *open.insert(patterns.open(text, at)),
                    };
                    let span = match patterns.find(text, at) {
                        // A match that begins where nothing is open any more is what it will be.
                        Some(span) if is_last || span.start < open => span,
                        _ => break open,
                    };
                    at = span.next();
                    if span.meant == 0 {
                        continue;
                    }
                    let found = &patterns.each()[span.pattern];
                    if matches!(rule.check, Check::Forbid(_)) {
                        return Err(refusal(rule, place, forbidden(&found.label)));
                    }
                    out.push_str(&text[given..span.start]);
                    out.push_str(&found.replacement);
                    tally.redact(&rule.name, 1);
                    given = at;
                };
                out.push_str(&text[given..settled]);
                if text.len() - settled > max_held {
                    let why = format!("more than {max_held} bytes of a stream that could all be one match (max_held is the limit)");
                    return Err(refusal(rule, place, why));
                }
                // What comes next is looked at beside the last character before it.
                let context = text[..settled].chars().next_back().map_or(0, char::len_utf8);
                text.drain(..settled - context);
                *from = context;
                Ok(out)
            }
            _ => Ok(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::{Pattern, Patterns};
    use super::super::{MAX_HELD, known};
    use super::*;
    use proptest::prelude::*;
    use std::sync::OnceLock;

    fn rule(name: &str, check: Check) -> Arc<Rule> {
        Arc::new(Rule { name: name.into(), check })
    }

    fn make(texts: &[&str]) -> Arc<Patterns> {
        let pattern = |text: &&str| Pattern { label: "".into(), text: (*text).into(), replacement: "[x]".into(), closer: None };
        Arc::new(Patterns::new(texts.iter().map(pattern).collect()).unwrap())
    }

    fn whole(rails: &Rails, text: &str) -> Result<String, String> {
        let mut texts = [Text { place: "p".into(), text: text.into() }];
        match rails.check(&mut texts) {
            Ok(_) => Ok(texts[0].text.to_string()),
            Err(Stop::Refused(refusal)) => Err(refusal.rule.to_string()),
            Err(Stop::Interrupted(_)) => Err("!".into()),
        }
    }

    fn in_pieces(rails: &Rails, pieces: &[&str]) -> Result<String, String> {
        let mut filter = rails.filter("p".into());
        let mut out = String::new();
        for piece in pieces {
            out.push_str(&filter.push(piece).map_err(|refusal| refusal.rule.to_string())?);
        }
        match filter.end() {
            Ok(rest) => Ok(out + &rest),
            Err(Stop::Refused(refusal)) => Err(refusal.rule.to_string()),
            Err(Stop::Interrupted(_)) => Err("!".into()),
        }
    }

    #[test]
    fn nothing_is_held_back_of_what_no_rule_could_mean() {
        let rails = Rails {
            rules: vec![rule("ssn", Check::Redact { patterns: make(&[r"\b\d{3}-\d{2}-\d{4}\b"]), restore: false })],
            max_held: MAX_HELD,
        };
        let mut filter = rails.filter("p".into());
        assert_eq!(filter.push("Hello, it is ").unwrap(), "Hello, it is ");
        assert_eq!(filter.push("123-45").unwrap(), "");
        assert_eq!(filter.push("-6789").unwrap(), "");
        assert_eq!(filter.push(", he said 1").unwrap(), "[x], he said ");
        assert!(matches!(filter.end().as_deref(), Ok("1")));
    }

    #[test]
    fn what_is_endlessly_open_is_refused() {
        let rails = Rails { rules: vec![rule("long", Check::Redact { patterns: make(&[r"a[a-z]+!"]), restore: false })], max_held: 100 };
        assert_eq!(in_pieces(&rails, &["a", &"b".repeat(50)]).unwrap().len(), 51);
        assert_eq!(in_pieces(&rails, &["a", &"b".repeat(99)]).unwrap().len(), 100, "so much may be held");
        assert_eq!(in_pieces(&rails, &["a", &"b".repeat(100)]).unwrap_err(), "long");
    }

    fn all() -> Rails {
        let pattern = |text: &str, with: &str| Pattern { label: "".into(), text: text.into(), replacement: with.into(), closer: None };
        let redacted = vec![pattern("ab+", "<1>"), pattern(r"\bca\b", "<2>"), pattern("b{2,3}c|é.", ""), pattern("(?m)^d|a$", "x")];
        Rails {
            rules: vec![
                rule("first", Check::Redact { patterns: Arc::new(Patterns::new(redacted).unwrap()), restore: false }),
                rule("second", Check::Redact { patterns: make(&["<1>x", "cc+a"]), restore: false }),
                rule("forbidden", Check::Forbid(make(&[r"ddd\b", "aaaaa"]))),
                rule("length", Check::Length(60)),
            ],
            max_held: MAX_HELD,
        }
    }

    fn cut<'a>(text: &'a str, cuts: &[prop::sample::Index]) -> Vec<&'a str> {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| places[cut.index(places.len())]).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn in_pieces_it_is_what_it_is_whole(text in "[abcdéx \n]{0,70}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            static RAILS: OnceLock<Rails> = OnceLock::new();
            let rails = RAILS.get_or_init(all);
            prop_assert_eq!(in_pieces(rails, &cut(&text, &cuts)), whole(rails, &text));
        }

        #[test]
        fn so_it_is_for_what_is_known(
            parts in prop::collection::vec(prop::sample::select(vec![
                "sk-", "sk-ant-", "AKIA", "ghp_", "ABCDEFGHIJKLMNOP", "abcdefghijklmnopqrstuvwxyz0123456789", " ", "\n", "://user:", "pass9word", "@host",
                "4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32", "jane@", "example.org", "+44 20 7946 0958", "é", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "eyJhbGciOiJI", ".", "=", "password",
            ]), 0..10),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            static RULES: OnceLock<[Arc<Rule>; 2]> = OnceLock::new();
            let rules = RULES.get_or_init(|| [rule("secrets", Check::Redact { patterns: known::secrets(), restore: false }), rule("personal", Check::Redact { patterns: known::personal(), restore: false })]);
            let rails = Rails { rules: rules.to_vec(), max_held: MAX_HELD };
            let text = parts.concat();
            prop_assert_eq!(in_pieces(&rails, &cut(&text, &cuts)), whole(&rails, &text));
        }
    }
}
