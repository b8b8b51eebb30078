//! How the stages of a route judge a failed attempt.

use super::error::{ApiError, ErrorKind};
use crate::drive::clock;
use crate::engine::{Verdict, WaitHint};
use crate::policies::class::{Class, FallbackRule};
use crate::policies::patience::whose;
use crate::policies::rate_limit::{RateLimit, Said, said};
use std::sync::Arc;
use std::time::Duration;

/// Which errors a rule is about: a bit for each `ErrorKind`.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Matched by a listed class.
    pub matched: u32,
    /// Matched by a listed class that is itself of a row that is not retried: asked for by name.
    pub named: u32,
}

/// How a stage judges.
pub enum Rule {
    /// It does not.
    None,
    /// Retry: `None` is what the table of classes says.
    Retry(Option<Kinds>),
    /// The patience of a batch: the same, and whose failure it is.
    Patience(Option<Kinds>),
    /// The breakers of models count what the table says.
    Breaker,
    /// Hedge: what no retry mends fails alike in each of the requests.
    Hedge,
    /// Fallback: the kinds it handles (`None`: all), and the alternatives that lie elsewhere.
    Fallback(Option<Kinds>, u64),
    /// A limit: what was used, what the server says is left, and whether it has had enough.
    Limit(Arc<RateLimit>),
    /// What guardrails have done with an answer.
    Guardrails,
}

impl Kinds {
    /// A kind as a bit.
    pub fn bit(kind: ErrorKind) -> u32 {
        1 << (kind as u32)
    }

    /// Whether a listed class matches the error, and whether one names it.
    fn of(self, error: &ApiError) -> (bool, bool) {
        let bits = error.kinds().fold(0, |bits, kind| bits | Kinds::bit(kind));
        (self.matched & bits != 0, self.named & bits != 0)
    }
}

/// Tells a limit what a failure says is left of it.
fn tell(limit: &RateLimit, header: impl Fn(&str) -> Option<String>) {
    let (requests, tokens) = said(header);
    if [requests, tokens] != [Said::default(); 2] {
        limit.learn(requests, tokens, clock::now());
    }
}

/// What a failure says to a limit: what is left of it, and whether the server has had enough.
pub(super) fn told(limit: &RateLimit, error: &ApiError) -> Verdict {
    tell(limit, |name| error.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()));
    match error.class() {
        Class::RateLimited => {
            let wait = error.retry_after.map_or(WaitHint::None, WaitHint::RetryAfter);
            Verdict::Failure { wait, branches: u64::MAX }
        }
        _ => Verdict::Ignore,
    }
}

/// Whether an error is retried under a rule; the server's `x-should-retry` decides where it is sent.
fn retries(error: &ApiError, listed: Option<Kinds>) -> bool {
    let (matched, named) = listed.map_or((true, false), |listed| listed.of(error));
    if !matched {
        return false;
    }
    if let Some(said) = error.should_retry {
        return said;
    }
    match error.class().row().retry {
        Some(true) => true,
        Some(false) => named,
        None => listed.is_some(),
    }
}

/// Whose failure it is: a gateway that finds nobody behind it, and a connection that breaks, tell nothing of the request.
fn whose_failure(error: &ApiError) -> u64 {
    match (error.class(), error.kind, error.status) {
        (Class::RateLimited, ..) => whose::LIMIT,
        (_, ErrorKind::Connection | ErrorKind::ServiceUnavailable, _) | (_, _, Some(502 | 504)) => whose::CALLEE,
        _ => whose::CALL,
    }
}

impl Rule {
    /// What a failed attempt is to the stage, by the table of classes.
    pub(super) fn verdict(&self, error: &ApiError) -> Verdict {
        match self {
            // Nobody is spared by a wait.
            Rule::Retry(listed) if error.again.is_some() && retries(error, *listed) => {
                Verdict::Failure { wait: WaitHint::Exactly(Duration::ZERO), branches: u64::MAX }
            }
            Rule::Retry(listed) if retries(error, *listed) => {
                let wait = error.retry_after.map_or(WaitHint::None, WaitHint::RetryAfter);
                Verdict::Failure { wait, branches: u64::MAX }
            }
            Rule::Patience(listed) if retries(error, *listed) => {
                let wait = error.retry_after.map_or(WaitHint::None, WaitHint::RetryAfter);
                Verdict::Failure { wait, branches: whose_failure(error) }
            }
            Rule::Retry(_) | Rule::Patience(_) => Verdict::Final,
            // The server has answered; what of it is refused here says nothing of it.
            Rule::Breaker if error.is_refusal() => Verdict::Success,
            Rule::Breaker if error.class().row().breaker => Verdict::FAILURE,
            Rule::Hedge if error.class().row().retry == Some(false) => Verdict::Final,
            Rule::Hedge => Verdict::FAILURE,
            Rule::Guardrails if error.is_refusal() => Verdict::Final,
            Rule::Breaker | Rule::Guardrails | Rule::Limit(_) | Rule::None => Verdict::Ignore,
            Rule::Fallback(Some(kinds), _) if !kinds.of(error).0 => Verdict::Final,
            Rule::Fallback(kinds, elsewhere) => match error.class().row().fallback {
                FallbackRule::Always => Verdict::FAILURE,
                _ if kinds.is_some_and(|k| k.of(error).1) => Verdict::FAILURE,
                FallbackRule::OtherCredentials => Verdict::Failure { wait: WaitHint::None, branches: *elsewhere },
                FallbackRule::Never => Verdict::Final,
            },
        }
    }
}
