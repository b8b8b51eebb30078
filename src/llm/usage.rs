//! Tokens used, as the server counts them.

use serde::Deserialize;

use super::wire::{lenient, lenient_number};

/// Tokens of one request. A count that the server left out is 0; a total it left out is the sum of the other two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the input.
    pub prompt_tokens: u64,
    /// Tokens of the output, reasoning included.
    pub completion_tokens: u64,
    /// Both together.
    pub total_tokens: u64,
    /// Tokens of the input that came from the provider's cache, if it says.
    pub cached_tokens: Option<u64>,
    /// Tokens of the output that were reasoning, if it says.
    pub reasoning_tokens: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    #[serde(default, deserialize_with = "lenient_number")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_number")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient_number")]
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    prompt_tokens_details: Option<InputDetails>,
    #[serde(default, deserialize_with = "lenient")]
    completion_tokens_details: Option<OutputDetails>,
    /// DeepSeek's name for cached tokens.
    #[serde(default, deserialize_with = "lenient_number")]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default, deserialize_with = "lenient_number")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "lenient_number")]
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// The counts, unless the object held none.
    pub fn into_usage(self) -> Option<Usage> {
        self.prompt_tokens.or(self.completion_tokens).or(self.total_tokens)?;
        let prompt_tokens = self.prompt_tokens.unwrap_or(0);
        let completion_tokens = self.completion_tokens.unwrap_or(0);
        Some(Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: self.total_tokens.unwrap_or_else(|| prompt_tokens.saturating_add(completion_tokens)),
            cached_tokens: self.prompt_tokens_details.and_then(|details| details.cached_tokens).or(self.prompt_cache_hit_tokens),
            reasoning_tokens: self.completion_tokens_details.and_then(|details| details.reasoning_tokens),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Usage> {
        serde_json::from_str::<WireUsage>(json).unwrap().into_usage()
    }

    #[test]
    fn details_are_found_where_servers_put_them() {
        let usage = read(
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},
                "completion_tokens_details":{"reasoning_tokens":2},"cost":0.1}"#,
        );
        let expected =
            Usage { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15, cached_tokens: Some(4), reasoning_tokens: Some(2) };
        assert_eq!(usage, Some(expected));
        assert_eq!(read(r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":3}"#).unwrap().cached_tokens, Some(3));
    }

    #[test]
    fn what_is_missing_or_odd_is_no_error() {
        assert_eq!(read(r#"{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}"#).unwrap().total_tokens, 3);
        assert_eq!(read(r#"{"prompt_tokens":1,"total_tokens":"many"}"#).unwrap().total_tokens, 1);
        assert_eq!(read("{}"), None);
    }
}
