//! An answer as it goes over the wire, before anything happens to it.

use serde_json::Value;

/// A piece of a stream.
pub struct Content {
    /// Its events.
    pub text: String,
    /// How many tokens it brings.
    pub tokens: usize,
}

/// A stream, by its parts.
pub struct Stream {
    /// Before any content.
    pub opening: String,
    pub content: Vec<Content>,
    /// With the reason why it ends.
    pub finish: String,
    /// With the usage, if it was asked for.
    pub usage: String,
    /// The mark of its end.
    pub done: String,
    /// An event that says nothing, instead of the opening, content and finish.
    pub none: String,
}

/// A healthy answer.
pub enum Healthy {
    Whole {
        value: Value,
        /// What is empty in an answer that holds nothing.
        list: &'static str,
        /// Its tokens.
        tokens: usize,
    },
    Stream(Stream),
}

impl Healthy {
    /// The tokens of the answer.
    pub fn tokens(&self) -> usize {
        match self {
            Healthy::Whole { tokens, .. } => *tokens,
            Healthy::Stream(stream) => stream.content.iter().map(|c| c.tokens).sum(),
        }
    }

    /// What no model thought about.
    pub fn listed(value: Value) -> Healthy {
        Healthy::Whole { value, list: "data", tokens: 0 }
    }
}
