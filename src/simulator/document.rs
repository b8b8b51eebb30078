//! A script's text as values that know where they stand.

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Line and column, from 1.
pub type Place = (usize, usize);

/// A value and where it stands.
pub struct Item {
    pub place: Place,
    pub value: Value,
}

/// What a script may hold.
pub enum Value {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
    List(Vec<Item>),
    /// Each key with its place.
    Table(Vec<(String, Place, Item)>),
}

/// What is wrong with a text that is no TOML, and where.
pub struct Problem {
    pub place: Place,
    pub message: String,
}

/// Reads a script's text.
pub fn parse(text: &str) -> Result<Item, Problem> {
    let places = Places::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let place = places.at(error.span().unwrap_or(0..0));
        Problem { place, message: error.message().trim().replace('\n', ", ") }
    })?;
    Ok(Item { place: (1, 1), value: read_table(table.get_ref(), &places)? })
}

/// Where each line begins.
struct Places<'t> {
    text: &'t str,
    lines: Vec<usize>,
}

impl Places<'_> {
    fn of(text: &str) -> Places<'_> {
        Places { text, lines: [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect() }
    }

    fn at(&self, span: Range<usize>) -> Place {
        let line = self.lines.partition_point(|begins| *begins <= span.start).max(1);
        let before = self.text.get(self.lines[line - 1]..span.start).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

fn read_table(table: &DeTable, places: &Places) -> Result<Value, Problem> {
    let mut read = Vec::with_capacity(table.len());
    for (key, value) in table {
        read.push((key.get_ref().to_string(), places.at(key.span()), read_value(value, places)?));
    }
    Ok(Value::Table(read))
}

fn read_value(value: &Spanned<DeValue>, places: &Places) -> Result<Item, Problem> {
    let place = places.at(value.span());
    let wrong = |what: String| Problem { place, message: what };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let read = i64::from_str_radix(number.as_str(), number.radix());
            Value::Whole(read.map_err(|_| wrong(format!("{} is too large", number.as_str())))?)
        }
        DeValue::Float(number) => {
            let read = number.as_str().parse().ok();
            Value::Number(read.ok_or_else(|| wrong(format!("{} is no number", number.as_str())))?)
        }
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(date) => return Err(wrong(format!("{date} is a date: times are seconds since the start"))),
        DeValue::Array(items) => Value::List(items.iter().map(|item| read_value(item, places)).collect::<Result<_, _>>()?),
        DeValue::Table(table) => read_table(table, places)?,
    };
    Ok(Item { place, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_know_where_they_stand() {
        let Ok(item) = parse("seed = 0x10\n\n[[rule]]\n  fault = { name = \"ü\", code = 5.5 }\n") else { panic!("it is TOML") };
        let Value::Table(fields) = item.value else { panic!("it is a table") };
        let seed = fields.iter().find(|(name, ..)| name == "seed").expect("there is one");
        assert!(matches!(seed, (_, (1, 1), Item { place: (1, 8), value: Value::Whole(16) })));
        let rules = fields.iter().find(|(name, ..)| name == "rule").expect("there is one");
        let Value::List(rules) = &rules.2.value else { panic!("it is a list") };
        let Value::Table(rule) = &rules[0].value else { panic!("it is a table") };
        assert_eq!((rules[0].place, rule[0].1, rule[0].2.place), ((3, 1), (4, 3), (4, 11)));
        let Value::Table(fault) = &rule[0].2.value else { panic!("it is a table") };
        let code = fault.iter().find(|(name, ..)| name == "code").expect("there is one");
        assert_eq!(code.2.place, (4, 32));
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_place() {
        let place = |text: &str| parse(text).err().map(|problem| problem.place);
        assert_eq!(place("a = 1\nb = \n"), Some((2, 5)));
        assert_eq!(place("a = 1\na = 2\n"), Some((2, 1)));
        assert_eq!(place("a = 1979-05-27"), Some((1, 5)));
        assert_eq!(place("\na = [99999999999999999999]"), Some((2, 6)));
        assert_eq!(place(""), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}=.,\"'#\\\\a0-9_ \\n+:TZeinf\u{fc}\u{1F600}-]{0,80}") {
            let _ = parse(&text);
        }
    }
}
