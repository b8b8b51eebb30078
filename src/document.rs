//! TOML as values that know where they stand. What a document means is for whoever reads it.

use std::collections::BTreeSet;
use std::num::IntErrorKind;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// So deep may values stand in each other; what is deeper is refused, so that nobody's stack is used up.
const DEEPEST: usize = 32;

/// Line and column, from 1, and how many characters of the line it takes.
pub type Place = (usize, usize, usize);

/// A value and where it stands.
pub struct Item {
    pub place: Place,
    pub value: Value,
}

/// What a document may hold.
pub enum Value {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
    List(Vec<Item>),
    /// Each key with its place.
    Table(Vec<(String, Place, Item)>),
    /// There is something, which could not be read: one of the problems tells of it.
    Unread,
}

/// What is wrong with a text that is no TOML, and where.
pub struct Problem {
    pub place: Place,
    pub message: String,
    /// Whether it is about one value alone, so that all others are what they seem.
    pub confined: bool,
}

/// A text as far as it could be read, and all that was wrong with it, in its order.
pub struct Document {
    pub root: Item,
    pub problems: Vec<Problem>,
}

/// Reads a text.
pub fn parse(text: &str) -> Document {
    let mut reader = Reader { text, lines: lines(text), problems: Vec::new(), broken: BTreeSet::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reader.refused(error);
    }
    let value = reader.table(table.get_ref(), 0);
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| (problem.place.0, problem.place.1));
    problems.dedup_by_key(|problem| problem.place.0);
    Document { root: Item { place: (1, 1, 1), value }, problems }
}

/// Where each line begins.
fn lines(text: &str) -> Vec<usize> {
    [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Reader<'t> {
    text: &'t str,
    lines: Vec<usize>,
    problems: Vec<Problem>,
    /// Where values stand that could not be read.
    broken: BTreeSet<usize>,
}

impl Reader<'_> {
    fn at(&self, span: Range<usize>) -> Place {
        let line = self.lines.partition_point(|begins| *begins <= span.start).max(1);
        let before = self.text.get(self.lines[line - 1]..span.start).unwrap_or("");
        let ends = self.lines.get(line).map_or(self.text.len(), |next| next - 1).min(span.end);
        let within = self.text.get(span.start..ends).unwrap_or("").trim_end();
        (line, before.chars().count() + 1, within.chars().count().max(1))
    }

    fn refused(&mut self, error: &Error) {
        let span = error.span().unwrap_or(0..0);
        let (message, confined) = said(error.message(), self.text.get(span.clone()).unwrap_or(""));
        if confined {
            self.broken.insert(span.start);
        }
        self.problems.push(Problem { place: self.at(span), message, confined });
    }

    fn unread(&mut self, place: Place, message: String) -> Value {
        self.problems.push(Problem { place, message, confined: true });
        Value::Unread
    }

    fn table(&mut self, table: &DeTable, depth: usize) -> Value {
        let read = table.iter().map(|(key, value)| (key.get_ref().to_string(), self.at(key.span()), self.value(value, depth + 1)));
        Value::Table(read.collect())
    }

    fn value(&mut self, value: &Spanned<DeValue>, depth: usize) -> Item {
        let span = value.span();
        let place = self.at(span.clone());
        let is_whole = !matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_));
        let is_broken = is_whole && self.broken.range(span.start..=span.end).next().is_some();
        let value = match value.get_ref() {
            _ if is_broken => Value::Unread,
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(read) => Value::Whole(read),
                Err(error) => {
                    let is_long = matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
                    let why = if is_long { "too large" } else { "no number" };
                    self.unread(place, format!("{} is {why}", shown(number.as_str())))
                }
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(read) => Value::Number(read),
                Err(_) => self.unread(place, format!("{} is no number", shown(number.as_str()))),
            },
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(date) => {
                self.unread(place, format!("{date} is a date, which nothing here is: write a text in quotes, and a time in seconds"))
            }
            DeValue::Array(_) | DeValue::Table(_) if depth >= DEEPEST => {
                self.unread(place, format!("this stands more than {DEEPEST} levels deep"))
            }
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.value(item, depth + 1)).collect()),
            DeValue::Table(table) => self.table(table, depth),
        };
        Item { place, value }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// What the parser's message means to whoever wrote the text, which is never repeated, since it may be a key; and whether it is about
/// one value.
fn said(message: &str, text: &str) -> (String, bool) {
    let starts = |words: &str| message.starts_with(words);
    if starts("string values must be quoted") || starts("invalid boolean") || starts("invalid float") || starts("invalid integer") {
        let what = match text {
            "True" | "False" | "TRUE" | "FALSE" | "yes" | "no" | "on" | "off" => "true and false are written in small letters",
            "" => "a value is missing here",
            "None" | "null" | "nil" => "TOML has no word for nothing: leave the key out, or write false where a part is to be removed",
            _ => "a text has to stand in quotes, and this is neither a number nor true or false",
        };
        return (what.into(), true);
    }
    if starts("duplicate key") {
        return ("this stands here a second time".into(), true);
    }
    let confined = starts("invalid basic string") || starts("invalid literal string") || starts("missing escaped value");
    (message.trim().replace('\n', ", "), confined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field<'i>(item: &'i Item, name: &str) -> &'i (String, Place, Item) {
        let Value::Table(fields) = &item.value else { panic!("it is a table") };
        fields.iter().find(|(key, ..)| key == name).expect("there is one")
    }

    #[test]
    fn values_know_where_they_stand() {
        let read = parse("seed = 0x10\n\n[[rule]]\n  fault = { name = \"ü\", code = 5.5 }\n");
        assert!(read.problems.is_empty());
        assert!(matches!(field(&read.root, "seed"), (_, (1, 1, 4), Item { place: (1, 8, 4), value: Value::Whole(16) })));
        let Value::List(rules) = &field(&read.root, "rule").2.value else { panic!("it is a list") };
        let fault = field(&rules[0], "fault");
        assert_eq!((rules[0].place, fault.1, fault.2.place), ((3, 1, 8), (4, 3, 5), (4, 11, 26)));
        assert_eq!(field(&fault.2, "code").2.place, (4, 32, 3));
    }

    /// Line, column and whether it is about one value.
    fn found(text: &str) -> Vec<(usize, usize, bool)> {
        parse(text).problems.iter().map(|problem| (problem.place.0, problem.place.1, problem.confined)).collect()
    }

    #[test]
    fn all_that_is_no_toml_is_told_with_its_place() {
        assert_eq!(found("a = 1\nb = \n"), [(2, 5, true)]);
        assert_eq!(found("a = 1\na = 2\n"), [(2, 1, true)]);
        assert_eq!(found("a = 1979-05-27"), [(1, 5, true)]);
        assert_eq!(found("\na = [99999999999999999999]"), [(2, 6, true)]);
        assert_eq!(found("a = 20s\nb = None\nc = \"\\q\"\nd = 1\n"), [(1, 5, true), (2, 5, true), (3, 7, true)]);
        assert_eq!(found("a = [1, 2\nb = 3\n").first(), Some(&(2, 1, false)));
        assert_eq!(found(""), []);
        assert_eq!(found("a = 1\n"), []);
    }

    #[test]
    fn what_is_wrong_with_one_value_leaves_the_others_as_they_are() {
        let read = parse("a = 20s\nb = [tru, 2]\nc = 3\n");
        assert!(matches!(field(&read.root, "a").2.value, Value::Unread));
        let Value::List(items) = &field(&read.root, "b").2.value else { panic!("it is a list") };
        assert!(matches!((&items[0].value, &items[1].value), (Value::Unread, Value::Whole(2))));
        assert!(matches!(field(&read.root, "c").2.value, Value::Whole(3)));
    }

    #[test]
    fn what_stands_too_deep_is_refused() {
        for deep in [format!("a = {}1{}", "[".repeat(40), "]".repeat(40)), format!("{} = 1", vec!["a"; 40].join("."))] {
            assert_eq!(parse(&deep).problems.len(), 1);
        }
        assert!(!parse(&format!("{} = 1", vec!["a"; 100_000].join("."))).problems.is_empty());
        assert!(!parse(&format!("a = {}", "[".repeat(100_000))).problems.is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}=.,\"'#\\\\a0-9_ \\n+:TZeinf\u{fc}\u{1F600}-]{0,80}") {
            for problem in parse(&text).problems {
                prop_assert!(problem.place.0 >= 1 && problem.place.1 >= 1 && problem.place.2 >= 1);
            }
        }
    }
}
