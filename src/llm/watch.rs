//! What a call tells of its attempts while they are made, to whoever shows them as they come.

use super::route::{Attempt, Failure, Flight};
use crate::engine::{CallId, Outcome, StageId};
use std::sync::Arc;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Progress {
    /// An attempt begins: which of its target's, from 1 on.
    Begun(Attempt, u32),
    /// The one that began last has ended, with the failure if it failed.
    Ended(Attempt, u32, Option<Failure>),
    /// An open breaker turned the call away: no attempt is made.
    Refused(StageId),
}

/// Whoever is told. Told on the thread that carries the call: it must not wait.
pub trait Watcher: Send + Sync {
    /// Something happened.
    fn see(&self, progress: Progress);
}

/// A watched call. An attempt's end is told once it is known what follows it. Of those that run beside each other one at a time
/// is told of: a later one once it has taken the earlier one's place.
pub struct Watch {
    watcher: Arc<dyn Watcher>,
    /// The one that is told of as under way.
    open: Option<CallId>,
    /// Those beside it that nobody has been told of.
    beside: Vec<CallId>,
    failure: Option<Failure>,
}

impl Watch {
    /// Of a call that has not begun.
    pub fn new(watcher: Arc<dyn Watcher>) -> Watch {
        Watch { watcher, open: None, beside: Vec::new(), failure: None }
    }

    fn found(call: CallId, attempts: &[Attempt]) -> Option<(Attempt, u32)> {
        let at = attempts.iter().rposition(|attempt| attempt.call == call)?;
        let number = attempts[..=at].iter().filter(|attempt| attempt.target == attempts[at].target).count();
        Some((attempts[at].clone(), number as u32))
    }

    /// It begins: beside another one, or by itself.
    pub fn begun(&mut self, call: CallId, is_beside: bool, attempts: &[Attempt]) {
        if is_beside {
            self.beside.push(call);
            return;
        }
        self.ended(attempts);
        self.takes_over(call, attempts);
    }

    fn takes_over(&mut self, call: CallId, attempts: &[Attempt]) {
        if let Some((attempt, number)) = Watch::found(call, attempts) {
            self.open = Some(call);
            self.watcher.see(Progress::Begun(attempt, number));
        }
    }

    /// It came out, so or so, or was given up.
    pub fn came_out(&mut self, call: CallId, ok: bool, attempts: &[Attempt]) {
        let was_beside = self.beside.iter().position(|beside| *beside == call).map(|at| self.beside.remove(at)).is_some();
        let next = match (ok, was_beside) {
            (true, true) => Some(call),
            (false, false) if self.open == Some(call) => (!self.beside.is_empty()).then(|| self.beside.remove(0)),
            _ => None,
        };
        if let Some(next) = next {
            self.ended(attempts);
            self.takes_over(next, attempts);
        }
    }

    /// Whether it is the one that is told of.
    pub fn is_about(&self, call: CallId) -> bool {
        self.open == Some(call)
    }

    /// Why the attempt under way fails; what is known first is nearest to it.
    pub fn failed(&mut self, failure: &Failure) {
        if self.open.is_some() && self.failure.is_none() {
            self.failure = Some(failure.clone());
        }
    }

    /// The one under way is over, if it is not told yet.
    pub fn ended(&mut self, attempts: &[Attempt]) {
        let failure = self.failure.take();
        if let Some(call) = self.open.take()
            && let Some((attempt, number)) = Watch::found(call, attempts)
        {
            self.watcher.see(Progress::Ended(attempt, number, failure));
        }
    }

    /// A breaker let no attempt be made.
    pub fn refused(&mut self, stage: StageId) {
        self.watcher.see(Progress::Refused(stage));
    }
}

impl Flight {
    /// The same, its attempts told to `watcher` as they are made.
    pub fn watched_by(mut self, watcher: Arc<dyn Watcher>) -> Flight {
        self.watch = Some(Watch::new(watcher));
        self
    }

    /// Tells whoever watches.
    pub(super) fn tell(&mut self, what: impl FnOnce(&mut Watch, &[Attempt])) {
        if let Some(watch) = &mut self.watch {
            what(watch, &self.attempts);
        }
    }

    /// Tells how the last attempt ended, if that is still to be told.
    pub fn tell_last(&mut self, outcome: &Outcome) {
        let failure = self.watch.as_ref().and_then(|_| self.failure(outcome));
        self.tell(|watch, attempts| {
            failure.iter().for_each(|failure| watch.failed(failure));
            watch.ended(attempts);
        });
    }
}
