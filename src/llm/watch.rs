//! What a call tells of its attempts while they are made, to whoever shows them as they come.

use super::route::{Attempt, Failure, Flight};
use crate::engine::{Outcome, StageId};
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

/// A watched call. An attempt's end is told once it is known what follows it.
pub struct Watch {
    watcher: Arc<dyn Watcher>,
    open: bool,
    failure: Option<Failure>,
}

impl Watch {
    /// Of a call that has not begun.
    pub fn new(watcher: Arc<dyn Watcher>) -> Watch {
        Watch { watcher, open: false, failure: None }
    }

    fn last(attempts: &[Attempt]) -> Option<(Attempt, u32)> {
        let last = attempts.last()?;
        let number = attempts.iter().filter(|attempt| attempt.target == last.target).count();
        Some((last.clone(), number as u32))
    }

    /// The last of them begins.
    pub fn begun(&mut self, attempts: &[Attempt]) {
        if let Some((attempt, number)) = Watch::last(attempts) {
            self.open = true;
            self.watcher.see(Progress::Begun(attempt, number));
        }
    }

    /// Why the attempt under way fails; what is known first is nearest to it.
    pub fn failed(&mut self, failure: &Failure) {
        if self.open && self.failure.is_none() {
            self.failure = Some(failure.clone());
        }
    }

    /// The last of them is over, if it is not told yet.
    pub fn ended(&mut self, attempts: &[Attempt]) {
        let failure = self.failure.take();
        if std::mem::take(&mut self.open)
            && let Some((attempt, number)) = Watch::last(attempts)
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
