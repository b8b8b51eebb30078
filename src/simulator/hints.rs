//! What a question says that a tool's arguments, or an object's fields, may be filled with.

use serde_json::Value;
use std::collections::{HashSet, VecDeque};

/// Words of a tool's name that say nothing of what it is about.
const FILLERS: [&str; 24] = [
    "get", "set", "a", "an", "the", "of", "for", "to", "in", "by", "do", "make", "run", "call", "use", "fetch", "find", "search", "lookup",
    "query", "list", "create", "tool", "function",
];
const OPEN: [char; 9] = ['"', '\'', '`', '“', '‘', '「', '『', '《', '«'];
const CLOSED: [char; 9] = ['"', '\'', '`', '”', '’', '」', '』', '》', '»'];

/// The words of a text, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// `getWeather`, `get_weather` and `get-weather` have the same words.
fn parts_of(name: &str) -> Vec<String> {
    let mut spaced = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c.is_uppercase() && (before.is_lowercase() || before.is_ascii_digit()) {
            spaced.push(' ');
        }
        spaced.push(c);
        before = c;
    }
    words(&spaced).collect()
}

/// Whether a question names a tool: as it is written, or with all words of its name that say what it is about.
pub fn is_named(tool: &str, question: &str) -> bool {
    let lower = question.to_lowercase();
    let name = tool.to_lowercase();
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let as_written = !name.is_empty()
        && lower.match_indices(&name).any(|(at, _)| {
            let (before, after) = (lower[..at].chars().next_back(), lower[at + name.len()..].chars().next());
            !name.is_ascii() || !(before.is_some_and(inside) || after.is_some_and(inside))
        });
    let said: HashSet<String> = words(question).collect();
    let mut about = parts_of(tool).into_iter().filter(|w| !FILLERS.contains(&w.as_str())).peekable();
    as_written || (about.peek().is_some() && about.all(|w| said.contains(&w) || said.contains(&format!("{w}s"))))
}

/// Whether a question asks for a tool without naming one.
pub fn wants_a_tool(question: &str) -> bool {
    let lower = question.to_lowercase();
    ["use", "call"].iter().any(|verb| ["the", "a", "your", "one of the"].iter().any(|of| lower.contains(&format!("{verb} {of} tool"))))
}

/// What stands in quotes.
fn quoted(text: &str) -> VecDeque<String> {
    let mut found = VecDeque::new();
    let mut open: Option<(char, String)> = None;
    let mut before = ' ';
    for c in text.chars() {
        match &mut open {
            Some((end, inside)) if c == *end => {
                if !inside.trim().is_empty() {
                    found.push_back(std::mem::take(inside));
                }
                open = None;
            }
            Some((_, inside)) => inside.push(c),
            // An apostrophe stands inside a word.
            None if !before.is_alphanumeric() || !c.is_ascii() => {
                open = OPEN.iter().position(|o| *o == c).map(|at| (CLOSED[at], String::new()));
            }
            None => {}
        }
        before = c;
    }
    found
}

/// Runs of words with a capital that do not only begin a sentence: `San Francisco`.
fn names(text: &str) -> VecDeque<String> {
    let (mut found, mut run) = (VecDeque::new(), Vec::new());
    let mut begins = true;
    for word in text.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let capital = bare.chars().next().is_some_and(char::is_uppercase) && !matches!(bare, "I" | "JSON");
        if capital && !begins {
            run.push(bare);
        }
        let ends = word.ends_with(|c: char| !c.is_alphanumeric());
        if (!capital || ends) && !run.is_empty() {
            found.push_back(run.join(" "));
            run.clear();
        }
        begins = word.ends_with(['.', '!', '?', ':']);
    }
    if !run.is_empty() {
        found.push_back(run.join(" "));
    }
    found
}

/// Numbers that stand by themselves, like the 3 of `f(3)`.
fn numbers(text: &str) -> VecDeque<f64> {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.split(|c: char| !kept(c)).filter_map(|w| w.trim_end_matches(['.', '-']).parse().ok()).filter(|n: &f64| n.is_finite()).collect()
}

/// The keys that a question about JSON asks for: what stands in quotes, if it speaks of keys or fields.
pub fn keys(question: &str) -> Vec<String> {
    if !words(question).any(|w| matches!(w.as_str(), "key" | "keys" | "field" | "fields")) {
        return Vec::new();
    }
    quoted(question).into_iter().filter(|k| k.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')).collect()
}

/// What a question says, each thing taken once.
#[derive(Default)]
pub struct Hints {
    question: String,
    quoted: VecDeque<String>,
    names: VecDeque<String>,
    numbers: VecDeque<f64>,
}

impl Hints {
    pub fn of(question: &str) -> Hints {
        let (quoted, mut names) = (quoted(question), names(question));
        names.retain(|name| !quoted.contains(name));
        Hints { question: question.to_lowercase(), quoted, names, numbers: numbers(question) }
    }

    /// The next text.
    pub fn text(&mut self) -> Option<String> {
        self.quoted.pop_front().or_else(|| self.names.pop_front())
    }

    /// The next number that fits.
    pub fn number(&mut self, fits: impl Fn(f64) -> bool) -> Option<f64> {
        let at = self.numbers.iter().position(|n| fits(*n))?;
        self.numbers.remove(at)
    }

    /// The first of the values that the question mentions.
    pub fn mentioned<'v>(&self, values: &'v [Value]) -> Option<&'v Value> {
        let said: HashSet<String> = words(&self.question).collect();
        values.iter().find(|v| v.as_str().is_some_and(|text| !text.is_empty() && words(text).all(|w| said.contains(&w))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_named_by_its_name_or_by_what_it_is_about() {
        for (tool, question) in [
            ("get_weather", "What is the weather in Rome?"),
            ("getWeather", "what's the Weather"),
            ("magic_function", "What is the value of magic_function(3)? Use the tool."),
            ("search", "search for cats"),
            ("查天气", "请用查天气看看"),
            ("list_users", "who are the users"),
        ] {
            assert!(is_named(tool, question), "{tool}: {question}");
        }
        for (tool, question) in
            [("get_weather", "hello"), ("add", "What is my address?"), ("book_flight", "a book"), ("get", "getter"), ("", "anything")]
        {
            assert!(!is_named(tool, question), "{tool}: {question}");
        }
        assert!(wants_a_tool("Please use the tool.") && !wants_a_tool("hello"));
    }

    #[test]
    fn what_a_question_says_is_found_in_it() {
        let mut hints = Hints::of("What's the weather in San Francisco, CA for 'Ann B' in 3 days or 4.5? It rains.");
        let texts: Vec<String> = std::iter::from_fn(|| hints.text()).collect();
        assert_eq!(texts, ["Ann B", "San Francisco", "CA"]);
        assert_eq!(hints.number(|n| n.fract() != 0.0), Some(4.5));
        assert_eq!((hints.number(|_| true), hints.number(|_| true)), (Some(3.0), None));
        let units = [Value::from("celsius"), Value::from("fahrenheit")];
        assert_eq!(Hints::of("in Fahrenheit").mentioned(&units), Some(&units[1]));
        assert_eq!(keys("JSON with 'setup' and `punch_line` keys"), ["setup", "punch_line"]);
        assert_eq!(quoted("名为「你好」的“公司”"), ["你好", "公司"]);
        assert!(keys("say 'hi'").is_empty() && names("").is_empty() && numbers("- . 1e999 v2").is_empty());
    }
}
