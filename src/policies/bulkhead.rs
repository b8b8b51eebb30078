//! Bulkhead: so many calls at a time, and a bounded queue of those that wait (Nygard, *Release It!*, 2nd ed., chapter 5).

use crate::engine::sync::{Mutex, MutexGuard};
use crate::engine::{Cx, Flow, Input, Instant, Lane, Layer, Outcome, Policy, Refusal, Rejection, Signal};
use crate::events;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How many may be inside, and how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Calls under way at a time.
    pub max_concurrency: usize,
    /// Calls that wait; more are turned away at once.
    pub max_queue: usize,
    /// The longest wait; `None`: as long as the call's deadline allows.
    pub max_wait: Option<Duration>,
}

/// The right to be inside. It says nothing any more once the bulkhead was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit(u64);

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// What became of a call that wants in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is inside.
    In(Permit),
    /// It waits: the signal that it left is given when there is a permit for it.
    Queued(Place),
    /// There is no room, not even to wait.
    Full,
}

#[derive(Debug, Default)]
struct State {
    active: usize,
    /// Of the permits that count.
    era: u64,
    next: u64,
    /// Those that wait, first come first.
    queue: VecDeque<(Place, Arc<Signal>)>,
    /// Those that have been given a permit and have not taken it yet: they count as inside.
    called: Vec<Place>,
}

/// Shared by all pipelines in which it stands. A permit goes from hand to hand: nobody overtakes who waits.
#[derive(Debug)]
pub struct Bulkhead {
    config: Config,
    state: Mutex<State>,
}

impl State {
    /// A permit is free: the first of the queue has it now.
    fn pass_on(&mut self) -> Option<Arc<Signal>> {
        match self.queue.pop_front() {
            Some((place, signal)) => {
                self.called.push(place);
                Some(signal)
            }
            None => {
                self.active = self.active.saturating_sub(1);
                None
            }
        }
    }

    fn take_called(&mut self, place: Place) -> Option<Permit> {
        let at = self.called.iter().position(|called| *called == place)?;
        self.called.swap_remove(at);
        Some(Permit(self.era))
    }
}

impl Bulkhead {
    /// An empty one.
    pub fn new(config: Config) -> Bulkhead {
        Bulkhead { config, state: Mutex::new(State::default()) }
    }

    /// How many may be inside, and how many may wait.
    pub fn config(&self) -> Config {
        self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit, if one is free.
    pub fn try_enter(&self) -> Option<Permit> {
        let mut state = self.state();
        (state.active < self.config.max_concurrency).then(|| {
            state.active += 1;
            Permit(state.era)
        })
    }

    /// A permit or, where none is free, a place in the queue.
    pub fn enter(&self, signal: Arc<Signal>) -> Entry {
        let mut state = self.state();
        if state.active < self.config.max_concurrency {
            state.active += 1;
            return Entry::In(Permit(state.era));
        }
        if state.queue.len() >= self.config.max_queue {
            return Entry::Full;
        }
        let place = Place(state.next);
        state.next += 1;
        state.queue.push_back((place, signal));
        Entry::Queued(place)
    }

    /// The permit of one that waits, if it has its turn.
    pub fn look(&self, place: Place) -> Option<Permit> {
        self.state().take_called(place)
    }

    /// It waits no longer; the permit, if it had its turn just then.
    pub fn withdraw(&self, place: Place) -> Option<Permit> {
        let mut state = self.state();
        // Places are in order.
        if let Ok(at) = state.queue.binary_search_by_key(&place.0, |(place, _)| place.0) {
            state.queue.remove(at);
            return None;
        }
        state.take_called(place)
    }

    /// A call is over, or never was.
    pub fn leave(&self, permit: Permit) {
        let next = {
            let mut state = self.state();
            if state.era != permit.0 {
                return;
            }
            state.pass_on()
        };
        if let Some(signal) = next {
            signal.give();
        }
    }

    /// Forgets who is inside and who waits: what they say later counts for nothing. For a forked process, where they are not.
    pub fn clear(&self) {
        let mut state = self.state();
        let (era, next) = (state.era + 1, state.next);
        *state = State { era, next, ..State::default() };
    }

    /// How many are inside, and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.active, state.queue.len())
    }
}

/// A bulkhead in a plan.
pub struct Bounded(pub Arc<Bulkhead>);

impl Policy for Bounded {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Passage { bulkhead: self.0.clone(), at: At::Outside })
    }

    fn lane(&self) -> Lane {
        Lane::Watched
    }

    fn admit(&self, _now: Instant) -> Option<u64> {
        self.0.try_enter().map(|permit| permit.0)
    }

    fn settle(&self, permit: u64, _begun: Instant, _now: &dyn Fn() -> Instant) -> bool {
        self.0.leave(Permit(permit));
        true
    }

    fn release(&self, permit: u64) {
        self.0.leave(Permit(permit));
    }
}

#[derive(Clone, Copy)]
enum At {
    Outside,
    Queued(Place, Instant),
    Inside(Permit),
}

struct Passage {
    bulkhead: Arc<Bulkhead>,
    at: At,
}

impl Passage {
    fn go(&mut self, permit: Permit) -> Flow {
        self.at = At::Inside(permit);
        Flow::Inward(0)
    }

    fn refuse(&mut self, why: &'static str, cx: &mut Cx<'_>) -> Flow {
        self.at = At::Outside;
        cx.emit(events::BULKHEAD_REJECTED, 0, cx.now().since(cx.begun()), None, why);
        // Nobody knows when somebody will leave.
        Flow::Resolve(Outcome::Rejected(Rejection::new(Refusal::BulkheadFull, cx.stage(), None)))
    }

    fn arrive(&mut self, cx: &mut Cx<'_>) -> Flow {
        if let Some(permit) = self.bulkhead.try_enter() {
            return self.go(permit);
        }
        let config = self.bulkhead.config;
        let until = cx.deadline().min(config.max_wait.map_or(Instant::NEVER, |wait| cx.now().after(wait)));
        if config.max_queue == 0 || until <= cx.now() {
            return self.refuse("full", cx);
        }
        match self.bulkhead.enter(cx.listen()) {
            Entry::In(permit) => self.go(permit),
            Entry::Full => self.refuse("queue full", cx),
            Entry::Queued(place) => {
                self.at = At::Queued(place, until);
                cx.limit_at(until);
                Flow::Hold
            }
        }
    }

    fn wake(&mut self, place: Place, until: Instant, cx: &mut Cx<'_>) -> Flow {
        let late = cx.now() >= until;
        let permit = if late { self.bulkhead.withdraw(place) } else { self.bulkhead.look(place) };
        match permit {
            Some(permit) => {
                let waited = cx.now().since(cx.begun());
                cx.no_wake();
                cx.has_queued(waited);
                cx.emit(events::BULKHEAD_WAITED, 0, waited, None, "");
                self.go(permit)
            }
            None if late => self.refuse("waited long enough", cx),
            None => {
                cx.limit_at(until);
                Flow::Hold
            }
        }
    }

    fn leave(&mut self) {
        let permit = match std::mem::replace(&mut self.at, At::Outside) {
            At::Outside => None,
            At::Queued(place, _) => self.bulkhead.withdraw(place),
            At::Inside(permit) => Some(permit),
        };
        if let Some(permit) = permit {
            self.bulkhead.leave(permit);
        }
    }
}

impl Layer for Passage {
    fn let_in(&mut self, permit: u64, _begun: Instant) {
        self.at = At::Inside(Permit(permit));
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match (input, self.at) {
            (Input::Begin, At::Inside(_)) => Flow::Inward(0),
            (Input::Begin, _) => self.arrive(cx),
            (Input::Wake, At::Queued(place, until)) => self.wake(place, until, cx),
            (Input::Wake, _) => Flow::Hold,
            // The place is held until the stream ends.
            (Input::Child(stream @ Outcome::Stream(_), _), _) => Flow::PassOn(stream),
            (Input::Child(outcome, _) | Input::Ended(outcome, _), _) => {
                self.leave();
                Flow::Resolve(outcome)
            }
            (Input::Abandoned, _) => {
                self.leave();
                Flow::Hold
            }
        }
    }
}
