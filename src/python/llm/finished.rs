//! How a call of a route came out, before Python sees it.

use crate::drive::clock;
use crate::drive::tokio::Drive;
use crate::engine::{Instant, Outcome, Target};
use crate::guardrails::Tally;
use crate::llm::error::{ApiError, ErrorKind, Raised};
use crate::llm::route::{Answer, Attempt, Failure, Flight};
use crate::policies::class::Class;
use crate::telemetry::Note;
use std::time::Duration;

/// How a call of a route came out, before Python sees it.
pub struct Finished {
    pub(super) result: Result<Answer, Failure>,
    pub(super) others: Vec<Failure>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) notes: Vec<Note>,
    /// What guardrails have done to what was asked.
    pub(super) screened: Tally,
    /// Which alternative gave the answer that a cache had.
    pub(super) found: Option<Target>,
    pub(super) begun: Instant,
    pub(super) took: Duration,
    pub(super) exhausted: Option<(u32, Duration, &'static str)>,
    /// What the user's code raised that is no outcome: the caller gets that.
    pub(super) interrupt: Option<Raised>,
}

impl Finished {
    /// A call carried as far as it went.
    pub fn carried(carried: std::thread::Result<Result<Finished, Raised>>, begun: Instant) -> Finished {
        match carried {
            Ok(Ok(finished)) => finished,
            Ok(Err(interrupt)) => Finished { interrupt: Some(interrupt), ..Finished::panicked(begun) },
            Err(_) => Finished::panicked(begun),
        }
    }

    /// Collects what there is to say at the end.
    pub fn of(drive: &mut Drive<Flight>, outcome: &Outcome) -> Finished {
        let attached: Vec<Outcome> = drive.execution().attached().to_vec();
        let flight = &mut drive.host;
        let mut others: Vec<Failure> = attached.iter().filter_map(|o| flight.failure(o)).collect();
        let result = flight.take(outcome).map_err(|failure| flight.told(failure, &mut others));
        let notes = flight.over(outcome, result.as_ref().err());
        Finished {
            result,
            others,
            attempts: std::mem::take(&mut flight.attempts),
            notes,
            screened: flight.asked_screened(),
            found: flight.found,
            begun: flight.begun,
            took: clock::now().since(flight.begun),
            exhausted: flight.exhausted,
            interrupt: None,
        }
    }

    /// A call whose answer was in the cache.
    pub(super) fn at_hand(answer: Answer, by: Target, note: Note, begun: Instant) -> Finished {
        Finished {
            result: Ok(answer),
            others: Vec::new(),
            attempts: Vec::new(),
            notes: vec![note],
            screened: Tally::default(),
            found: Some(by),
            begun,
            took: clock::now().since(begun),
            exhausted: None,
            interrupt: None,
        }
    }

    /// A call that ran into a mistake of ours.
    pub fn panicked(begun: Instant) -> Finished {
        let message = "seawall itself failed in this call; what it printed on the standard error stream belongs in a bug report";
        Finished {
            result: Err(Failure::Api(ApiError::new(ErrorKind::Api, message).with_class(Class::Permanent))),
            others: Vec::new(),
            attempts: Vec::new(),
            notes: Vec::new(),
            screened: Tally::default(),
            found: None,
            begun,
            took: clock::now().since(begun),
            exhausted: None,
            interrupt: None,
        }
    }

    /// Whether it is a whole reply.
    pub fn is_reply(&self) -> bool {
        matches!(self.result, Ok(Answer::Chat(_)))
    }
}
