//! What happens in the course of a guarded call, as the log, recorders, hooks and the call's own story are told of it.

use super::flight::{Flight, Interrupt, Kept};
use super::hooks;
use super::log;
use super::policies::circuit_breaker::{CircuitBreaker, is_change};
use super::virtual_time;
use crate::drive::trial;
use crate::engine::{Event, Outcome, Ticket};
use crate::events::{self, Severity};
use crate::stats::Word;
use pyo3::prelude::*;
use std::vec::Drain;

impl Flight {
    /// Tells the log and the hooks what happened. Errors of hooks are logged, never raised; interrupts are passed on.
    pub fn publish(&mut self, py: Python<'_>, happened: Drain<'_, Event>) -> Result<(), Interrupt> {
        // Looked at where they lie: an event is large.
        for event in happened.as_slice() {
            let failure = event.outcome.as_ref().and_then(|outcome| self.failure(py, outcome));
            self.diary.note(event, failure.map_or(Word::NONE, |(_, says)| says.name()));
            if event.name == events::RETRY_SCHEDULED && self.is_unheard() {
                self.will_retry(py, event);
                self.course.waited += event.span;
                continue;
            }
            match event.name {
                events::RETRY_EXHAUSTED => self.exhausted = Some((event.number, event.span, event.reason)),
                events::RETRY_SCHEDULED => self.will_retry(py, event),
                events::FALLBACK_USED => self.course.fell_back = true,
                events::CHAOS_INJECTED => self.course.is_injected = true,
                events::CACHE_MISS | events::RATE_LIMIT_WAITED | events::BULKHEAD_WAITED => self.diary.begins(event.at),
                _ => {}
            }
            match &self.compiled.stage(event.stage).breaker {
                // Told by the breaker itself, however it came about, in order and once.
                Some(breaker) if is_change(event.name) => {
                    CircuitBreaker::tell(breaker.bind(py))?;
                    continue;
                }
                _ => self.log(py, event)?,
            }
            if self.compiled.has_hooks {
                self.call_hooks(py, event)?;
            }
            if event.name == events::RETRY_SCHEDULED {
                // As in tenacity: the wait that is about to begin is not yet one that was waited.
                self.course.waited += event.span;
            }
        }
        Ok(())
    }

    /// Whether nobody is there who would hear of what is said at the level of a retry: neither the log, once it was asked, nor a
    /// recorder or a hook.
    #[inline]
    fn is_unheard(&self) -> bool {
        self.heard == Some(false) && !self.compiled.has_hooks && !trial::is_recorded()
    }

    /// Another attempt follows.
    #[inline]
    fn will_retry(&mut self, py: Python<'_>, event: &Event) {
        self.diary.waits(event.at, event.span);
        // Who was turned away is to wait, and has not been called yet.
        self.course.retries += u32::from(!event.outcome.is_some_and(|outcome| outcome.is_refusal()));
        self.course.last_wait = Some(event.span);
        self.replace(py, event);
    }

    /// Lets the failure go that was the last before this one in the same retry: nobody asks for it any more, and a call
    /// that goes on for long must not keep all of its failures. One that another retry came to is that one's last, too.
    fn replace(&mut self, py: Python<'_>, event: &Event) {
        let Some(Outcome::Error(ticket)) = event.outcome else { return };
        // Most calls pass one retry.
        if let [(stage, last)] = &mut self.scheduled[..]
            && *stage == event.stage
        {
            let earlier = std::mem::replace(last, ticket);
            if earlier != ticket {
                self.let_go(py, earlier);
            }
            return;
        }
        let Some(at) = self.scheduled.iter().position(|(stage, _)| *stage == event.stage) else {
            self.scheduled.push((event.stage, ticket));
            return;
        };
        let (_, earlier) = std::mem::replace(&mut self.scheduled[at], (event.stage, ticket));
        if !self.scheduled.iter().any(|(_, kept)| *kept == earlier) {
            self.let_go(py, earlier);
        }
    }

    #[inline]
    fn let_go(&mut self, py: Python<'_>, failure: Ticket) {
        if let Some(kept @ Kept::Error(_)) = self.values.get_mut(failure.0 as usize)
            && let Kept::Error(error) = std::mem::replace(kept, Kept::Gone)
        {
            error.drop_ref(py);
        }
    }

    #[inline(never)] // once in most calls
    fn log(&mut self, py: Python<'_>, event: &Event) -> PyResult<()> {
        let kind = event.name.kind();
        let heard = match (kind.severity, self.heard) {
            (Severity::Info, Some(heard)) => heard,
            (severity, _) => log::is_heard(py, severity)?,
        };
        if kind.severity == Severity::Info {
            self.heard = Some(heard);
        }
        let recorded = trial::is_recorded();
        if !heard && !recorded {
            return Ok(());
        }
        let error = event.outcome.as_ref().and_then(|o| self.exception(py, o));
        let name = self.place(py, self.compiled.stage(event.stage));
        if log::is_our_own(&name) {
            return log::event(py, event, &name, error.as_ref());
        }
        if recorded {
            virtual_time::record(py, event, &name, error.as_ref())?;
        }
        if heard { log::say(py, event, kind.severity, &name, error.as_ref()) } else { Ok(()) }
    }

    #[inline(never)]
    fn call_hooks(&mut self, py: Python<'_>, event: &Event) -> Result<(), Interrupt> {
        let compiled = self.compiled.clone_ref(py);
        let Some(hooks) = &compiled.stage(event.stage).hooks else { return Ok(()) };
        let mut waiting = Vec::new();
        let called = hooks.told(event, |hook, sleep| {
            let state = || self.retry_state(py, event.number, event.elapsed(), event.outcome.as_ref(), None, sleep);
            if let Some(given) = hooks::call(py, hook, state, self.awaits)? {
                waiting.push((hook.clone_ref(py), given));
            }
            Ok(())
        });
        self.hooks.extend(waiting);
        called
    }
}
