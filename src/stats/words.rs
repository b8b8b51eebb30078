//! Names that records carry as numbers: each is kept once, for the life of the process.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};

/// So many different names are kept; whatever comes after is [`OTHER`]. A program that makes up names must not eat the memory.
const MOST: usize = 16_384;
/// The name of what is one too many.
pub const OTHER: &str = "other";
/// Of a longer name so many bytes are kept.
const LONGEST: usize = 200;

/// Values by number and numbers by value.
struct Table<T: 'static> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T: Copy + Eq + Hash> Table<T> {
    fn number(&mut self, value: T, beyond: u32) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        if self.values.len() >= MOST {
            return beyond;
        }
        let number = self.values.len() as u32;
        self.values.push(value);
        self.numbers.insert(value, number);
        number
    }
}

static WORDS: RwLock<Option<Table<&'static str>>> = RwLock::new(None);
static SOURCES: RwLock<Option<Table<[Word; 3]>>> = RwLock::new(None);

/// A name as a number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(u32);

impl Word {
    /// No name: an empty text.
    pub const NONE: Word = Word(0);
    const BEYOND: u32 = 1;

    /// The word of a text; empty is [`Word::NONE`].
    pub fn of(text: &str) -> Word {
        if text.is_empty() {
            return Word::NONE;
        }
        let end = (0..=LONGEST.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let text = &text[..end];
        if let Some(table) = &*WORDS.read().unwrap_or_else(PoisonError::into_inner)
            && let Some(number) = table.numbers.get(text)
        {
            return Word(*number);
        }
        let mut words = WORDS.write().unwrap_or_else(PoisonError::into_inner);
        let table = words.get_or_insert_with(|| Table { numbers: HashMap::from([("", 0), (OTHER, 1)]), values: vec!["", OTHER] });
        match table.numbers.get(text) {
            Some(number) => Word(*number),
            None if table.values.len() >= MOST => Word(Word::BEYOND),
            None => Word(table.number(Box::leak(Box::from(text)), Word::BEYOND)),
        }
    }

    /// Its number, for who keeps it with something else in one word.
    #[cfg(feature = "python")]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The word of that [`Word::number`].
    #[cfg(feature = "python")]
    pub(crate) fn numbered(number: u32) -> Word {
        Word(number)
    }

    /// Its text.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            0 => "",
            1 => OTHER,
            number => WORDS
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .and_then(|table| table.values.get(number as usize).copied())
                .unwrap_or(OTHER),
        }
    }

    /// Whether it is a name at all.
    pub fn is_some(self) -> bool {
        self != Word::NONE
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Where a call belongs: pipeline, model and endpoint, as a number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u32);

impl Source {
    /// Nowhere in particular.
    pub const NONE: Source = Source(0);
    const BEYOND: u32 = 1;

    /// The source of these names; empty where there is none.
    pub fn of(pipeline: &str, model: &str, endpoint: &str) -> Source {
        let names = [Word::of(pipeline), Word::of(model), Word::of(endpoint)];
        if names == [Word::NONE; 3] {
            return Source::NONE;
        }
        let mut sources = SOURCES.write().unwrap_or_else(PoisonError::into_inner);
        let others = [Word(Word::BEYOND); 3];
        let table = sources.get_or_insert_with(|| Table {
            numbers: HashMap::from([([Word::NONE; 3], 0), (others, 1)]),
            values: vec![[Word::NONE; 3], others],
        });
        Source(table.number(names, Source::BEYOND))
    }

    fn names(self) -> [Word; 3] {
        let sources = SOURCES.read().unwrap_or_else(PoisonError::into_inner);
        sources.as_ref().and_then(|table| table.values.get(self.0 as usize).copied()).unwrap_or_default()
    }

    /// The name of the pipeline.
    pub fn pipeline(self) -> Word {
        self.names()[0]
    }

    /// The model that was asked.
    pub fn model(self) -> Word {
        self.names()[1]
    }

    /// The place of the API.
    pub fn endpoint(self) -> Word {
        self.names()[2]
    }

    /// Its number, from 0 on without gaps.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_number_and_its_text_again() {
        let (one, again, other) = (Word::of("gpt-4"), Word::of("gpt-4"), Word::of("gpt-5"));
        assert!(one == again && one != other && one.is_some());
        assert_eq!((one.as_str(), other.as_str(), Word::of("").as_str()), ("gpt-4", "gpt-5", ""));
        assert_eq!(Word::of(&"字".repeat(100)).as_str(), "字".repeat(66), "cut between characters");
        let place = Source::of("main", "gpt-4", "api.test");
        assert_eq!(place, Source::of("main", "gpt-4", "api.test"));
        assert_eq!((place.pipeline().as_str(), place.model(), place.endpoint().as_str()), ("main", one, "api.test"));
        assert_ne!(place, Source::of("main", "gpt-5", "api.test"));
        assert_eq!((Source::of("", "", ""), Source::NONE.model()), (Source::NONE, Word::NONE));
    }
}
