//! Patterns that text is searched for, in time linear in its length, and what of a text that goes on they could still match.

use regex_automata::meta::Regex;
use regex_automata::{Input, MatchKind, PatternID};
use regex_syntax::hir::{Hir, HirKind, Look, Repetition};
use regex_syntax::{Parser, ast};
use std::fmt;

/// A pattern takes up no more than this, compiled.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Looks closer at what a pattern has found; how many bytes of it are meant, if any.
pub type Closer = fn(&str) -> Option<usize>;

/// One pattern, and what stands in for what it matches.
pub struct Pattern {
    /// What it is, for whoever asks which one it was.
    pub label: Box<str>,
    /// As it was written.
    pub text: Box<str>,
    /// What takes the place of what it matches.
    pub replacement: Box<str>,
    /// Whether it is meant after all.
    pub closer: Option<Closer>,
}

/// What is wrong with a pattern that was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Several patterns that are searched for at once.
pub struct Patterns {
    patterns: Vec<Pattern>,
    search: Regex,
    /// Where a match could begin that what follows completes: it matches from there to the end of the text.
    begun: Regex,
}

/// Where a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which one.
    pub pattern: usize,
    /// Its first byte.
    pub start: usize,
    /// What the search found ends here; of that it may be only a part that is meant.
    pub end: usize,
    /// How many bytes from `start` on are meant; none if the closer look says so.
    pub meant: usize,
}

fn parse(text: &str) -> Result<Hir, Wrong> {
    let hir = Parser::new().parse(text).map_err(|error| Wrong(why(&error)))?;
    if hir.properties().minimum_len().unwrap_or(0) == 0 {
        return Err(Wrong("it matches the empty text, which is everywhere: say what there has to be at least".into()));
    }
    Ok(hir)
}

fn why(error: &regex_syntax::Error) -> String {
    const DETECTOR: &str = "give a Detector, a function that looks at the text, for what needs them";
    if let regex_syntax::Error::Parse(error) = error {
        let at = error.span().start.column;
        return match error.kind() {
            ast::ErrorKind::UnsupportedLookAround => {
                format!(
                    "look-around at character {at}: patterns are searched for in linear time, which knows no look-around; \\b and (?m)^ $ work. Else {DETECTOR}"
                )
            }
            ast::ErrorKind::UnsupportedBackreference => {
                format!("a back-reference at character {at}: patterns are searched for in linear time, which knows none; {DETECTOR}")
            }
            kind => format!("{kind} (at character {at})"),
        };
    }
    match error {
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        other => other.to_string(),
    }
}

fn compiled(hirs: &[Hir]) -> Result<Regex, Wrong> {
    let config = Regex::config().match_kind(MatchKind::LeftmostFirst).nfa_size_limit(Some(MOST_BYTES)).hybrid_cache_capacity(MOST_BYTES);
    Regex::builder().configure(config).build_many_from_hir(hirs).map_err(|error| {
        Wrong(match error.size_limit() {
            Some(limit) => format!("it takes up more than {limit} bytes when compiled: use smaller repetitions"),
            None => error.to_string(),
        })
    })
}

/// What matches each beginning of what `hir` matches, the empty one and the whole included.
fn beginnings(hir: &Hir) -> Hir {
    let optional = |sub: Hir| Hir::repetition(Repetition { min: 0, max: Some(1), greedy: true, sub: Box::new(sub) });
    match hir.kind() {
        // What is around a place decides there once there is something behind it; at the end of the text nothing is decided.
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Class(_) => optional(hir.clone()),
        HirKind::Literal(literal) => {
            let text = String::from_utf8_lossy(&literal.0);
            let letters = text.chars().rev().map(|letter| Hir::literal(letter.to_string().into_bytes()));
            letters.fold(Hir::empty(), |rest, letter| optional(Hir::concat(vec![letter, rest])))
        }
        HirKind::Repetition(repetition) => {
            let whole =
                Repetition { min: 0, max: repetition.max.map(|most| most.saturating_sub(1)), greedy: true, sub: repetition.sub.clone() };
            Hir::concat(vec![Hir::repetition(whole), beginnings(&repetition.sub)])
        }
        HirKind::Capture(capture) => beginnings(&capture.sub),
        HirKind::Alternation(branches) => Hir::alternation(branches.iter().map(beginnings).collect()),
        HirKind::Concat(parts) => {
            let (last, before) = match parts.split_last() {
                Some(split) => split,
                None => return Hir::empty(),
            };
            before
                .iter()
                .rev()
                .fold(beginnings(last), |rest, part| Hir::alternation(vec![Hir::concat(vec![part.clone(), rest]), beginnings(part)]))
        }
    }
}

impl Patterns {
    /// Makes them ready. The error says which pattern is wrong, by its place, and why.
    pub fn new(patterns: Vec<Pattern>) -> Result<Patterns, (usize, Wrong)> {
        let mut hirs = Vec::with_capacity(patterns.len());
        for (at, pattern) in patterns.iter().enumerate() {
            hirs.push(parse(&pattern.text).map_err(|wrong| (at, wrong))?);
        }
        let last = hirs.len().saturating_sub(1);
        let search = compiled(&hirs).map_err(|wrong| (last, wrong))?;
        let begun = Hir::concat(vec![Hir::alternation(hirs.iter().map(beginnings).collect()), Hir::look(Look::End)]);
        let begun = compiled(&[begun]).map_err(|wrong| (last, wrong))?;
        Ok(Patterns { patterns, search, begun })
    }

    /// They, in order.
    pub fn each(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The first match from `from` on; what stands before that is looked at for what is around a match.
    pub fn find(&self, text: &str, from: usize) -> Option<Span> {
        let found = self.search.search(&Input::new(text).range(from..))?;
        let (pattern, start, end) = (PatternID::as_usize(&found.pattern()), found.start(), found.end());
        let meant = match self.patterns[pattern].closer {
            None => end - start,
            Some(closer) => closer(&text[start..end]).unwrap_or(0),
        };
        Some(Span { pattern, start, end, meant })
    }

    /// The first place from `from` on where a match could begin that only what follows this text decides; its end if there is none.
    pub fn open(&self, text: &str, from: usize) -> usize {
        self.begun.search(&Input::new(text).range(from..)).map_or(text.len(), |found| found.start())
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.patterns.iter().map(|pattern| &pattern.label)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Patterns, (usize, Wrong)> {
        let pattern = |text: &&str| Pattern { label: "x".into(), text: (*text).into(), replacement: "[x]".into(), closer: None };
        Patterns::new(texts.iter().map(pattern).collect())
    }

    #[test]
    fn what_only_other_engines_know_is_refused_with_a_way_out() {
        for (text, word) in [
            (r"(?=a)b", "look-around at character 1"),
            (r"(a)\1", "back-reference at character 4"),
            ("a*", "empty text"),
            ("(", "unclosed"),
            (r"(?:[a-z]{1000}){1000}", "smaller repetitions"),
        ] {
            let (at, wrong) = of(&["x", text]).map(drop).unwrap_err();
            assert!(at == 1 && wrong.0.contains(word), "{text}: {wrong}");
        }
    }

    #[test]
    fn what_could_still_be_a_match_is_open() {
        let found = |pattern: &str, text: &str| of(&[pattern]).unwrap().open(text, 0);
        assert_eq!(found("secret", "a se"), 2);
        assert_eq!(found("secret", "a sea"), 5);
        assert_eq!(found("secret", "a secret"), 2);
        assert_eq!(found(r"\d{3}-\d{2}", "no 123-4"), 3);
        assert_eq!(found(r"\d{3}-\d{2}", "no 1234"), 4);
        assert_eq!(found(r"sk-\w{4,}", "x sk-abcdefgh"), 2);
        assert_eq!(found(r"(?i)ignore (?:all )?previous", "please IGNORE al"), 7);
        assert_eq!(found(r"\bfoo\b", "a foo"), 2);
        assert_eq!(found(r"\bfoo\b", "afoo"), 4);
        assert_eq!(found("é+x", "aéé"), 1);
        assert_eq!(found("(ab|cd){2}e", "zabcd"), 1);
    }
}
