//! What an answer tells a limit of tokens.

use super::{Answer, Flight};
use crate::drive::clock;
use crate::engine::{Count, Ticket, Verdict};
use crate::llm::usage::Usage;
use crate::policies::rate_limit::{RateLimit, Said, said};
use reqwest::header::HeaderMap;

impl Flight {
    /// What an answer has used, and what the server says in it is left; the limit hears what the limits are.
    pub(super) fn counted(&self, limit: &RateLimit, ticket: Ticket) -> Verdict {
        let left = |headers: &HeaderMap| {
            let (requests, tokens) = said(|name| headers.get(name)?.to_str().ok().map(str::to_owned));
            let of = |said: Said| Said { remaining: None, ..said };
            if requests.limit.or(tokens.limit).is_some() {
                limit.learn(of(requests), of(tokens), clock::now());
            }
            [requests, tokens].map(|said| said.remaining.map(|left| left as u32))
        };
        let total = |usage: &Usage| usage.total_tokens;
        let (used, left) = match self.kept.get(ticket.0 as usize) {
            Some(Ok(Answer::Chat(reply))) => (reply.usage.as_ref().map(total), left(reply.head())),
            Some(Ok(Answer::Embeddings(reply))) => (reply.usage.as_ref().map(total), [None; 2]),
            Some(Ok(Answer::Streamed)) => self.ended.as_ref().map_or((None, [None; 2]), |(used, headers)| (*used, left(headers))),
            _ => (None, [None; 2]),
        };
        Verdict::Counted(Count { used, left })
    }
}
