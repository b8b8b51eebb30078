//! What tokens cost: a table that the user may replace, and an estimate by it.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// Prices of a million tokens, in the table's unit (US dollars, as it comes).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub prompt: f64,
    /// Of the answer.
    pub completion: f64,
    /// Of those of the prompt that the provider had in its cache.
    pub cached: f64,
}

impl Price {
    /// Of a request, in billionths of the unit.
    pub fn nano(&self, prompt: u64, cached: u64, completion: u64) -> u64 {
        let cached = cached.min(prompt);
        let fresh = (prompt - cached) as f64;
        let millionths = fresh * self.prompt + cached as f64 * self.cached + completion as f64 * self.completion;
        // A cast saturates.
        (millionths * 1e3).round() as u64
    }
}

/// List prices of OpenAI's API as published in 2025, in US dollars for a million tokens: prompt, answer, cached prompt.
/// An estimate for orientation: prices change, and contracts differ.
const LISTED: &[(&str, f64, f64, f64)] = &[
    ("gpt-5", 1.25, 10.0, 0.125),
    ("gpt-5-mini", 0.25, 2.0, 0.025),
    ("gpt-5-nano", 0.05, 0.4, 0.005),
    ("gpt-4.1", 2.0, 8.0, 0.5),
    ("gpt-4.1-mini", 0.4, 1.6, 0.1),
    ("gpt-4.1-nano", 0.1, 0.4, 0.025),
    ("gpt-4o", 2.5, 10.0, 1.25),
    ("gpt-4o-mini", 0.15, 0.6, 0.075),
    ("o3", 2.0, 8.0, 0.5),
    ("o4-mini", 1.1, 4.4, 0.275),
    ("gpt-4-turbo", 10.0, 30.0, 10.0),
    ("gpt-4", 30.0, 60.0, 30.0),
    ("gpt-3.5-turbo", 0.5, 1.5, 0.5),
    ("text-embedding-3-small", 0.02, 0.0, 0.02),
    ("text-embedding-3-large", 0.13, 0.0, 0.13),
    ("text-embedding-ada-002", 0.1, 0.0, 0.1),
];

type Table = BTreeMap<String, Price>;

static TABLE: RwLock<Option<Table>> = RwLock::new(None);

fn listed() -> Table {
    LISTED
        .iter()
        .map(|(model, prompt, completion, cached)| {
            ((*model).to_owned(), Price { prompt: *prompt, completion: *completion, cached: *cached })
        })
        .collect()
}

/// Of a model, by its name, or by that of which it is a dated snapshot (`gpt-4o-2024-08-06`, `gpt-4-0613`, `gpt-4:latest`).
/// Where several fit, the longest does.
pub fn price(model: &str) -> Option<Price> {
    let find = |table: &Table| {
        let snapshot_of = |name: &str| {
            let rest = model.strip_prefix(name)?;
            let rest = rest.strip_prefix(['-', '@', ':'])?;
            let is_date = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
            (rest == "latest" || rest == "preview" || is_date).then_some(name.len())
        };
        let exact = table.get(model);
        let near = || table.iter().filter_map(|(name, price)| Some((snapshot_of(name)?, price))).max_by_key(|(length, _)| *length);
        exact.or_else(|| near().map(|(_, price)| price)).copied()
    };
    match &*TABLE.read().unwrap_or_else(PoisonError::into_inner) {
        Some(table) => find(table),
        None => find(&listed()),
    }
}

/// The whole table: a copy.
pub fn prices() -> Vec<(String, Price)> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    table.clone().unwrap_or_else(listed).into_iter().collect()
}

/// Another table in the place of the one there is.
pub fn set_prices(table: impl IntoIterator<Item = (String, Price)>) {
    *TABLE.write().unwrap_or_else(PoisonError::into_inner) = Some(table.into_iter().collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_costs_what_its_model_does_and_another_model_does_not() {
        let of = |model| price(model).map(|price| price.prompt);
        assert_eq!((of("gpt-4o"), of("gpt-4o-2024-08-06"), of("gpt-4o-mini-2024-07-18")), (Some(2.5), Some(2.5), Some(0.15)));
        assert_eq!((of("gpt-4-0613"), of("gpt-4-turbo-preview"), of("gpt-4:latest")), (Some(30.0), Some(10.0), Some(30.0)));
        assert_eq!((of("gpt-4o-audio"), of("gpt-4x"), of("gpt-4-32k"), of("llama3")), (None, None, None, None));
    }

    #[test]
    fn cached_tokens_have_a_price_of_their_own() {
        let price = Price { prompt: 2.5, completion: 10.0, cached: 1.25 };
        assert_eq!(price.nano(1_000_000, 0, 0), 2_500_000_000);
        assert_eq!(price.nano(1_000, 400, 10), 1_500_000 + 500_000 + 100_000);
        assert_eq!(price.nano(5, 9, 0), 6_250, "more cached than there are is all of them");
        assert_eq!(Price { prompt: f64::MAX, ..price }.nano(u64::MAX, 0, 0), u64::MAX);
    }
}
