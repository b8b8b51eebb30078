//! What all calls of a cache share: the answers, and who waits for whom.

use super::store::{ByKey, Store};
use super::{Config, Key, Offer, OnceKept, Request, Value};
use crate::engine::sync::{Mutex, MutexGuard};
use crate::engine::{Instant, Signal};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// The right to ask: for all that wait, where it says a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    key: Key,
    asked: Key,
    /// 0: for nobody else.
    number: u64,
    /// What was forgotten since is not to come back.
    era: u64,
}

impl Lead {
    pub(super) fn number(self) -> u64 {
        self.number
    }
}

/// A place among those that wait for an equal call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    key: Key,
    number: u64,
}

/// What becomes of a call that asks.
pub enum Arrival {
    /// There is an answer, kept since then.
    Hit(Value, Instant),
    /// It has to ask. What may stand in for a failure, and since when it is kept.
    Ask(Lead, Option<(Value, Instant)>),
    /// An equal call is under way: the signal that it left is given when there is something for it.
    Joined(Place),
}

/// What there is for one that waited.
pub enum Turn {
    /// The answer of the call that it waited for.
    Given(Value),
    /// That call failed, and was given an older answer, kept since then.
    Stale(Value, Instant),
    /// That call came to nothing: it has to ask itself.
    Ask(Lead, Option<(Value, Instant)>),
}

/// What has come of all calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered from the cache.
    pub hits: u64,
    /// Calls that were made.
    pub misses: u64,
    /// Failures in whose place an older answer stood in.
    pub stale: u64,
    /// Answered by an equal call that was under way.
    pub joined: u64,
    /// Answers kept.
    pub items: usize,
    /// What they take up.
    pub bytes: usize,
}

/// A call under way, and those that wait for it.
struct Flight {
    lead: u64,
    who: u64,
    /// Number, who it is, and what wakes it.
    line: VecDeque<(u64, u64, Arc<Signal>)>,
}

enum Called {
    Given(Value),
    Stale(Value, Instant),
    /// It leads now.
    Lead(Lead),
}

#[derive(Default)]
struct State {
    store: Store,
    flights: ByKey<Flight>,
    /// What is there for those that were called and have not looked yet.
    called: HashMap<u64, Called>,
    next: u64,
    era: u64,
    counts: Counts,
}

/// Shared by all pipelines in which it stands.
pub struct Cache {
    config: Config,
    state: Mutex<State>,
}

/// What is done once the lock is given back: values may be anybody's, and those that wait may be anywhere.
#[derive(Default)]
struct After {
    signals: Vec<Arc<Signal>>,
    gone: Vec<Value>,
    kept: Option<(OnceKept, Instant)>,
}

impl After {
    fn carry_out(self) {
        self.signals.iter().for_each(|signal| signal.give());
        if let Some((kept, since)) = self.kept {
            kept(since);
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The next of those that wait leads, if there is one.
    fn pass_on(&mut self, lead: Lead, after: &mut After) {
        let era = self.era;
        let Some(flight) = self.flights.get_mut(&lead.key).filter(|flight| flight.lead == lead.number) else { return };
        match flight.line.pop_front() {
            Some((number, who, signal)) => {
                (flight.lead, flight.who) = (number, who);
                self.called.insert(number, Called::Lead(Lead { number, era, ..lead }));
                after.signals.push(signal);
            }
            None => drop(self.flights.remove(&lead.key)),
        }
    }

    /// Those that wait for that call have what it came to.
    fn call(&mut self, lead: Lead, what: impl Fn() -> Called, after: &mut After) -> u64 {
        let is_leading = self.flights.get(&lead.key).is_some_and(|flight| flight.lead == lead.number);
        let Some(flight) = is_leading.then(|| self.flights.remove(&lead.key)).flatten() else { return 0 };
        let count = flight.line.len() as u64;
        for (number, _, signal) in flight.line {
            self.called.insert(number, what());
            after.signals.push(signal);
        }
        count
    }

    fn fresh(&mut self, config: &Config, key: &Key, now: Instant) -> Option<(Value, Instant)> {
        let stored = self.store.stored(key)?;
        if config.ttl.is_some_and(|ttl| now.since(stored) >= ttl) {
            return None;
        }
        self.store.used(key).map(|(value, stored)| (value.clone(), stored))
    }

    /// What may stand in for a failure. What is too old even for that goes.
    fn stale(&mut self, config: &Config, key: &Key, now: Instant, after: &mut After) -> Option<(Value, Instant)> {
        let stored = self.store.stored(key)?;
        let most = config.ttl?.saturating_add(config.stale_if_error);
        if now.since(stored) >= most {
            after.gone.extend(self.store.remove(key));
            return None;
        }
        self.store.used(key).map(|(value, stored)| (value.clone(), stored))
    }
}

impl Cache {
    /// An empty one.
    pub fn new(config: Config) -> Cache {
        Cache { config, state: Mutex::new(State::default()) }
    }

    /// How long answers serve, and how many.
    pub fn config(&self) -> Config {
        self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State, &mut After) -> T) -> T {
        let mut after = After::default();
        let given = work(&mut self.state(), &mut after);
        after.carry_out();
        given
    }

    /// An answer that serves now, and since when it is kept. Where there is none nothing is counted.
    pub fn hit(&self, key: &Key, now: Instant) -> Option<(Value, Instant)> {
        let mut state = self.state();
        let found = state.fresh(&self.config, key, now)?;
        state.counts.hits += 1;
        Some(found)
    }

    /// Whether an answer would serve now.
    pub fn has(&self, key: &Key, now: Instant) -> bool {
        self.state().fresh(&self.config, key, now).is_some()
    }

    /// A call asks. It takes a signal only if it has to wait.
    pub fn arrive(&self, request: &Request, signal: impl FnOnce() -> Arc<Signal>, now: Instant) -> Arrival {
        self.locked(|state, after| {
            if !request.asks_anew
                && let Some((value, stored)) = state.fresh(&self.config, &request.key, now)
            {
                state.counts.hits += 1;
                return Arrival::Hit(value, stored);
            }
            let mut lead = Lead { key: request.key, asked: request.asked, number: 0, era: state.era };
            if !request.alone {
                let number = state.number();
                match state.flights.get_mut(&request.key) {
                    // Nobody waits for himself.
                    Some(flight) if flight.who != 0 && (flight.who == request.who || request.within.contains(&flight.who)) => {}
                    Some(flight) => {
                        flight.line.push_back((number, request.who, signal()));
                        return Arrival::Joined(Place { key: request.key, number });
                    }
                    None => {
                        let flight = Flight { lead: number, who: request.who, line: VecDeque::new() };
                        state.flights.insert(request.key, flight);
                        lead.number = number;
                    }
                }
            }
            state.counts.misses += 1;
            let stale = state.stale(&self.config, &request.key, now, after);
            Arrival::Ask(lead, stale)
        })
    }

    /// What there is for one that waits.
    pub fn look(&self, place: Place, now: Instant) -> Option<Turn> {
        self.locked(|state, after| {
            Some(match state.called.remove(&place.number)? {
                Called::Given(value) => Turn::Given(value),
                Called::Stale(value, stored) => Turn::Stale(value, stored),
                Called::Lead(lead) => {
                    state.counts.misses += 1;
                    Turn::Ask(lead, state.stale(&self.config, &place.key, now, after))
                }
            })
        })
    }

    /// It waits no longer.
    pub fn withdraw(&self, place: Place) {
        self.locked(|state, after| match state.called.remove(&place.number) {
            Some(Called::Lead(lead)) => state.pass_on(lead, after),
            Some(Called::Given(value) | Called::Stale(value, _)) => after.gone.push(value),
            None => {
                if let Some(flight) = state.flights.get_mut(&place.key)
                    && let Ok(at) = flight.line.binary_search_by_key(&place.number, |(number, ..)| *number)
                {
                    flight.line.remove(at);
                }
            }
        });
    }

    /// The call that asked has an answer: for all that wait, and if it is to be kept for those that come later.
    pub fn land(&self, lead: Lead, offer: Offer, now: Instant) {
        self.locked(|state, after| {
            let Offer { value, bytes, keep, kept } = offer;
            let joined = state.call(lead, || Called::Given(value.clone()), after);
            state.counts.joined += joined;
            let Config { max_items, max_bytes, .. } = self.config;
            if !keep || lead.era != state.era || bytes > max_bytes {
                after.gone.push(value);
                return;
            }
            state.store.put((lead.key, lead.asked), value, bytes, now, &mut after.gone);
            while state.store.len() > max_items || state.store.bytes() > max_bytes {
                after.gone.extend(state.store.remove_oldest());
            }
            after.kept = kept.map(|kept| (kept, now));
        });
    }

    /// Counts a call that is made because there was no answer, by somebody who asks without a plan.
    pub fn missed(&self) {
        self.state().counts.misses += 1;
    }

    /// What was forgotten since this number is not to come back.
    pub fn era(&self) -> u64 {
        self.state().era
    }

    /// Takes in an answer that was kept elsewhere since then, unless there is one or all was forgotten since that `era`.
    pub fn take_in(&self, (key, asked): (Key, Key), value: Value, bytes: usize, stored: Instant, era: u64) {
        self.locked(|state, after| {
            let Config { max_items, max_bytes, .. } = self.config;
            if era != state.era || bytes > max_bytes || state.store.stored(&key).is_some_and(|known| known >= stored) {
                after.gone.push(value);
                return;
            }
            state.store.put((key, asked), value, bytes, stored, &mut after.gone);
            while state.store.len() > max_items || state.store.bytes() > max_bytes {
                after.gone.extend(state.store.remove_oldest());
            }
        });
    }

    /// The call that asked has failed, and was given an older answer: so are those that wait for it.
    pub fn land_stale(&self, lead: Lead, value: &Value, stored: Instant) {
        self.locked(|state, after| {
            let joined = state.call(lead, || Called::Stale(value.clone(), stored), after);
            state.counts.stale += 1 + joined;
        });
    }

    /// The call that asked came to nothing: another asks for those that wait.
    pub fn give_up(&self, lead: Lead) {
        self.locked(|state, after| state.pass_on(lead, after));
    }

    /// The driver's: what that call has given has still to be run, by somebody who may never do it. Nobody waits for that.
    pub fn release(&self, request: &Request) {
        let number = request.leads.swap(0, Ordering::Relaxed);
        if number != 0 {
            let lead = Lead { key: request.key, asked: request.asked, number, era: 0 };
            self.locked(|state, after| state.pass_on(lead, after));
        }
    }

    /// It asks for itself alone from here on.
    pub fn alone(&self, lead: Lead) -> Lead {
        self.give_up(lead);
        Lead { number: 0, ..lead }
    }

    /// Forgets all answers; those of calls under way are not kept.
    pub fn clear(&self) {
        let gone = {
            let mut state = self.state();
            state.era += 1;
            std::mem::take(&mut state.store)
        };
        drop(gone);
    }

    /// Forgets the answers to what was asked so; how many there were. Those of calls under way are not kept.
    pub fn forget(&self, asked: &Key) -> usize {
        self.locked(|state, after| {
            // Rarely enough that the answers of other calls under way may go with it.
            state.era += 1;
            state.store.remove_asked(asked, &mut after.gone);
            after.gone.len()
        })
    }

    /// For a forked process, where those that ask and wait are not.
    pub fn forget_waiters(&self) {
        let (flights, called) = {
            let mut state = self.state();
            state.era += 1;
            (std::mem::take(&mut state.flights), std::mem::take(&mut state.called))
        };
        drop((flights, called));
    }

    /// What has come of all calls.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts { items: state.store.len(), bytes: state.store.bytes(), ..state.counts }
    }

    /// Calls under way that others may wait for, and those that wait.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state();
        (state.flights.len(), state.flights.values().map(|flight| flight.line.len()).sum::<usize>() + state.called.len())
    }

    /// Looks at all answers, for a garbage collector that stops everything else; `None` if somebody is in the middle of it.
    pub fn each(&self, mut look: impl FnMut(&Value)) -> Option<()> {
        let state = self.state.try_lock().ok()?;
        state.store.values().for_each(&mut look);
        Some(())
    }
}
